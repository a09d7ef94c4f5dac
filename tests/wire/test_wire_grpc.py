"""gRPC over HTTP/2: heads of calls, framing of messages, and the headers of answers."""

import gzip
import urllib.parse
import zlib
from itertools import pairwise
from typing import Final

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st
from wire.rawframes import fields_of, message

from kvsecure.wire.grpc import (
    OK_HEADERS,
    OK_TRAILERS,
    Call,
    FramingError,
    MessageReader,
    NotGrpc,
    encode_http,
    encode_refusal,
    encode_trailers,
    packing_for,
    prefix_of,
    read_call,
)
from kvsecure.wire.h2.head import Head

_MAX: Final = 1_000


def _head(*fields: tuple[bytes, bytes], method: bytes = b"POST", path: bytes = b"/a.B/C") -> Head:
    return Head(
        method=method,
        scheme=b"https",
        path=path,
        authority=b"",
        fields=list(fields),
        content_length=None,
    )


def _call(*fields: tuple[bytes, bytes]) -> Call:
    return read_call(_head((b"content-type", b"application/grpc"), *fields))


# --- heads of calls ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"],
)
def test_call_has_a_content_type_of_grpc(content_type: bytes) -> None:
    """The content type of gRPC, with a subtype or parameters, makes a call."""
    call = read_call(_head((b"content-type", content_type)))

    assert call == Call("/a.B/C", None, b"identity", b"", {b"content-type": content_type})


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"application/grpc-web",
        b"application/grpcx",
        b"Application/grpc",
        b" application/grpc",
        b"text/html; application/grpc",
    ],
)
def test_foreign_content_type_is_no_call(content_type: bytes) -> None:
    """Any other content type is answered with 415."""
    with pytest.raises(NotGrpc) as caught:
        read_call(_head((b"content-type", content_type)))

    assert caught.value.status == 415


def test_no_content_type_is_no_call() -> None:
    """A request without a content type is none."""
    with pytest.raises(NotGrpc):
        read_call(_head())


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"post"])
def test_call_is_a_post(method: bytes) -> None:
    """Another method than POST is answered with 405."""
    with pytest.raises(NotGrpc) as caught:
        read_call(_head((b"content-type", b"application/grpc"), method=method))

    assert caught.value.status == 405


_SECOND_NS: Final = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1H", 3_600 * _SECOND_NS),
        (b"1M", 60 * _SECOND_NS),
        (b"1S", _SECOND_NS),
        (b"1m", 1_000_000),
        (b"1u", 1_000),
        (b"1n", 1),
        (b"0n", 0),
        (b"00000007S", 7 * _SECOND_NS),
        (b"99999999H", 99_999_999 * 3_600 * _SECOND_NS),
    ],
)
def test_timeout_has_a_unit(text: bytes, nanoseconds: int) -> None:
    """A timeout is up to eight digits and a unit."""
    assert _call((b"grpc-timeout", text)).timeout_ns == nanoseconds


@pytest.mark.parametrize(
    "text",
    [b"", b"1", b"S", b"123456789S", b"-1S", b"+1S", b"1.5S", b"1s", b"1 S", b"1S,1S", b"1S "],
)
def test_wrong_timeout_is_no_call(text: bytes) -> None:
    """A timeout that is none is answered with 400, not with waiting for ever."""
    with pytest.raises(NotGrpc) as caught:
        _call((b"grpc-timeout", text))

    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ([], b""),
        ([(b"token", b"a")], b"a"),
        ([(b"authorization", b"a")], b"a"),
        ([(b"authorization", b"Bearer a")], b"a"),
        ([(b"token", b"a"), (b"authorization", b"b")], b"a"),
        ([(b"token", b""), (b"authorization", b"b")], b"b"),
        ([(b"token", b"Bearer a")], b"Bearer a"),
        # Python's etcd3 sends it twice; who sends two has none that is good.
        ([(b"token", b"a"), (b"token", b"a")], b"a"),
        ([(b"token", b"a"), (b"token", b"b")], b"a,b"),
    ],
)
def test_token_comes_in_either_field(fields: list[tuple[bytes, bytes]], token: bytes) -> None:
    """A token is in `token`, or else in `authorization` (etcd-surface section 1.1)."""
    assert _call(*fields).token == token


def test_repeated_metadata_is_joined() -> None:
    """A field that comes more than once has all its values, in order."""
    call = _call((b"x", b"1"), (b"y", b"2"), (b"x", b"3"))

    assert call.metadata[b"x"] == b"1,3"


@pytest.mark.parametrize(("path", "name"), [(b"/s/\xc3\xb6", "/s/ö"), (b"/s/\xff", "/s/\ufffd")])
def test_path_is_text(path: bytes, name: str) -> None:
    """A path is UTF-8, and shown as well as it can be where it is not."""
    head = _head((b"content-type", b"application/grpc"))
    head.path = path

    assert read_call(head).path == name


# --- messages ---------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200), max_size=10), st.lists(st.integers(0, 2_000), max_size=9))
def test_messages_are_put_together(contents: list[bytes], cuts: list[int]) -> None:
    """Messages come out whole, once and in order, however the data is cut."""
    stream = b"".join(message(content) for content in contents)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = MessageReader(b"identity", _MAX)

    read = [one for start, end in pairwise(places) for one in reader.feed(stream[start:end])]

    assert read == contents
    assert all(type(one) is bytes for one in read)
    assert reader.is_empty


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_messages_come_as_soon_as_they_are_whole(contents: list[bytes]) -> None:
    """The last byte of a message brings it, and not one byte before."""
    reader = MessageReader(b"identity", _MAX)
    for content in contents:
        framed = message(content)

        assert all(not reader.feed(framed[at : at + 1]) for at in range(len(framed) - 1))
        assert not reader.is_empty
        assert reader.feed(framed[-1:]) == [content]
        assert reader.is_empty


@pytest.mark.parametrize("room", [0, 1])
def test_message_is_bounded(room: int) -> None:
    """A message longer than the limit is refused by its prefix alone."""
    reader = MessageReader(b"identity", _MAX)
    framed = message(bytes(_MAX + room))

    if room:
        with pytest.raises(FramingError) as caught:
            reader.feed(framed[:5])
        assert caught.value.kind == "large"
    else:
        assert reader.feed(framed) == [bytes(_MAX)]


@pytest.mark.parametrize("flag", [2, 3, 128, 255])
def test_unknown_flag_is_malformed(flag: int) -> None:
    """Of the first byte only the lowest bit means anything."""
    with pytest.raises(FramingError) as caught:
        MessageReader(b"gzip", _MAX).feed(message(b"x", flag))

    assert caught.value.kind == "malformed"


@given(st.binary(max_size=_MAX))
def test_compressed_message_is_read(content: bytes) -> None:
    """A message that is marked as compressed is inflated, and one that is not is not."""
    reader = MessageReader(b"gzip", _MAX)

    read = reader.feed(message(gzip.compress(content), 1) + message(content))

    assert read == [content, content]


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(bytes(size)) + packer.flush()


_BAD_GZIP: Final[dict[str, tuple[bytes, str]]] = {
    "a bomb": (_bomb(800_000), "large"),
    "one byte too many": (_bomb(_MAX + 1), "large"),
    "no gzip": (b"plain", "malformed"),
    "nothing": (b"", "malformed"),
    "cut": (gzip.compress(b"hello")[:-1], "malformed"),
    "a wrong checksum": (gzip.compress(b"hello")[:-8] + bytes(8), "malformed"),
    "something behind": (gzip.compress(b"hello") + b"x", "malformed"),
    "two in one": (gzip.compress(b"a") + gzip.compress(b"b"), "malformed"),
    "zlib": (zlib.compress(b"hello"), "malformed"),
}


@pytest.mark.parametrize(("content", "kind"), _BAD_GZIP.values(), ids=_BAD_GZIP.keys())
def test_compressed_message_is_checked(content: bytes, kind: str) -> None:
    """A message never grows beyond the limit, and is one whole gzip member."""
    with pytest.raises(FramingError) as caught:
        MessageReader(b"gzip", _MAX).feed(message(content, 1))

    assert caught.value.kind == kind


def test_largest_message_may_be_compressed() -> None:
    """The limit itself is allowed, inflated."""
    assert MessageReader(b"gzip", _MAX).feed(message(_bomb(_MAX), 1)) == [bytes(_MAX)]


@pytest.mark.parametrize(
    ("encoding", "kind"), [(b"identity", "malformed"), (b"snappy", "encoding"), (b"", "encoding")]
)
def test_unknown_compression_is_refused(encoding: bytes, kind: str) -> None:
    """A compressed message needs an encoding that is known."""
    with pytest.raises(FramingError) as caught:
        MessageReader(encoding, _MAX).feed(message(b"x", 1))

    assert caught.value.kind == kind


@given(st.lists(st.binary(max_size=60), max_size=20), st.sampled_from([b"identity", b"gzip", b"x"]))
def test_any_data_is_messages_or_an_error(parts: list[bytes], encoding: bytes) -> None:
    """Any bytes are messages or one error of this layer, and memory stays within the limit."""
    reader = MessageReader(encoding, _MAX)
    kinds: list[str] = []
    for part in parts:
        try:
            read = reader.feed(part)
        except FramingError as error:
            kinds.append(error.kind)
            break
        assert all(len(one) <= _MAX for one in read)

    assert set(kinds) <= {"large", "encoding", "malformed"}


@pytest.mark.timeout(10)
def test_message_in_small_pieces_takes_time_proportional_to_its_size() -> None:
    """A peer cannot make us copy what has come so far for every few bytes that it sends."""
    size_bytes = 16 * 1024 * 1024
    reader = MessageReader(b"identity", size_bytes)
    framed = memoryview(message(bytes(size_bytes)))
    piece = 64

    read = [
        one
        for start in range(0, len(framed), piece)
        for one in reader.feed(bytes(framed[start : start + piece]))
    ]

    assert read == [bytes(size_bytes)]


# --- answers ----------------------------------------------------------------------------------


def test_prefix_is_flag_and_length() -> None:
    """Five bytes stand in front of a message."""
    assert prefix_of(3) + b"abc" == message(b"abc")


def test_good_answer_has_the_headers_of_grpc() -> None:
    """An answer begins with 200 and the content type, and ends with status 0."""
    assert fields_of(OK_HEADERS) == {b":status": b"200", b"content-type": b"application/grpc"}
    assert fields_of(OK_TRAILERS) == {b"grpc-status": b"0"}


@pytest.mark.parametrize("length", [0, 1, 100, 262_144, 262_145, 2_000_000])
def test_packed_answer_is_the_message(length: int) -> None:
    """Who sends gzip is sent gzip, but for messages that take long to pack; all mean the same."""
    content = bytes(range(256)) * (length // 256) + bytes(length % 256)
    packing = packing_for(b"gzip")

    framed = b"".join(packing.pack(content))

    assert packing.is_packed
    assert fields_of(packing.headers)[b"grpc-encoding"] == b"gzip"
    assert MessageReader(b"gzip", length + 64).feed(framed) == [content]
    assert framed[0] == (length <= 262_144)


@pytest.mark.parametrize("encoding", [b"identity", b"", b"deflate"])
def test_who_sends_no_gzip_is_sent_none(encoding: bytes) -> None:
    """Nobody is sent a packed message who has not sent one."""
    packing = packing_for(encoding)

    assert (packing.headers, packing.is_packed) == (OK_HEADERS, False)
    assert b"".join(packing.pack(b"abc" * 1_000)) == message(b"abc" * 1_000)


@given(st.integers(1, 16), st.text())
def test_text_is_understood_by_others(code: int, text: str) -> None:
    """A status text of any characters survives as percent-encoding of printable ASCII."""
    fields = fields_of(encode_trailers(code, text))
    told = fields.get(b"grpc-message", b"")

    assert fields[b"grpc-status"] == b"%d" % code
    assert all(0x20 <= byte <= 0x7E for byte in told)
    assert urllib.parse.unquote_to_bytes(told) == text.encode()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("etcdserver: key not found", b"etcdserver: key not found"),
        ("100%", b"100%25"),
        ("a\r\nb: c", b"a%0D%0Ab: c"),
        ("\x7f\u20ac", b"%7F%E2%82%AC"),
    ],
)
def test_text_is_readable(text: str, told: bytes) -> None:
    """Only what would not be printable ASCII is escaped."""
    assert fields_of(encode_trailers(2, text))[b"grpc-message"] == told


def test_status_without_text_has_no_text() -> None:
    """An empty text is left out."""
    assert fields_of(encode_trailers(5, "")) == {b"grpc-status": b"5"}


def test_refusal_is_headers_and_trailers_in_one() -> None:
    """A refusal without messages is one block with everything."""
    assert fields_of(encode_refusal(5, "gone")) == {
        b":status": b"200",
        b"content-type": b"application/grpc",
        b"grpc-status": b"5",
        b"grpc-message": b"gone",
    }


def test_unimplemented_tells_the_encodings() -> None:
    """Who asked in an encoding that is not known learns which are."""
    assert fields_of(encode_refusal(12, ""))[b"grpc-accept-encoding"] == b"identity,gzip"


@pytest.mark.parametrize("status", [200, 400, 404, 415, 503])
@pytest.mark.parametrize("length", [0, 126, 127, 128, 10**9])
def test_plain_answer_tells_type_and_length(status: int, length: int) -> None:
    """A plain answer says what it is and how long."""
    assert fields_of(encode_http(status, "text/plain; charset=utf-8", length)) == {
        b":status": b"%d" % status,
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"%d" % length,
    }


def test_plain_refusal_is_a_status() -> None:
    """A plain answer without content is its status alone."""
    assert fields_of(encode_http(415)) == {b":status": b"415"}


@given(st.text(max_size=40_000), st.integers(100, 599))
def test_answers_leave_the_dynamic_table_alone(text: str, status: int) -> None:
    """No answer changes the peer's table: blocks made beforehand always mean the same."""
    decoder = Decoder(max_header_list_size=2**30)
    for block in (
        OK_HEADERS,
        OK_TRAILERS,
        encode_trailers(2, text),
        encode_refusal(12, text),
        encode_http(status, "text/plain", len(text)),
    ):
        decoder.decode(block, raw=True)

    assert not decoder.header_table.dynamic_entries
