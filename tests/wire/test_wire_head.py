"""Request heads: what is well-formed, and when a header block may be known by its bytes."""

from collections.abc import Sequence

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st
from wire.rawframes import REQUEST_FIELDS, request_block

from kvsecure.wire.h2.head import CompressionFailed, Head, HeadReader, MalformedHead

_PSEUDO = (
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":path", b"/a"),
    (b":authority", b"localhost"),
)
Fields = Sequence[tuple[bytes, bytes]]


def _read(fields: Fields, list_bytes_max: int = 16_384) -> Head:
    return HeadReader(list_bytes_max).read(request_block(fields))


# --- what a request's head is -----------------------------------------------------------------


def test_head_tells_what_came() -> None:
    """Pseudo-header fields are told by name, the others in the order they came (section 8.3.1)."""
    head = _read((*REQUEST_FIELDS, (b"x", b"1"), (b"x", b"2"), (b"content-length", b"7")))

    assert (head.method, head.scheme) == (b"POST", b"https")
    assert (head.path, head.authority) == (b"/etcdserverpb.KV/Range", b"localhost")
    assert head.content_length == 7
    assert head.fields == [
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"x", b"1"),
        (b"x", b"2"),
        (b"content-length", b"7"),
    ]


_WELL_FORMED: dict[str, Fields] = {
    "no authority": _PSEUDO[:3],
    "pseudo-header fields in another order": tuple(reversed(_PSEUDO)),
    "trailers announced": (*_PSEUDO, (b"te", b"trailers")),
    "an empty value": (*_PSEUDO, (b"x", b"")),
    "inner white space": (*_PSEUDO, (b"x", b"a \t b")),
    "bytes above ASCII": (*_PSEUDO, (b"x", b"\x80\xff")),
    "every character of a token": (*_PSEUDO, (b"a!#$%&'*+-.^_`|~09z", b"v")),
    "the same length twice": (*_PSEUDO, (b"content-length", b"3"), (b"content-length", b"3")),
    "no content": (*_PSEUDO, (b"content-length", b"0")),
    "several cookies": (*_PSEUDO, (b"cookie", b"a=1"), (b"cookie", b"b=2")),
}

_MALFORMED: dict[str, Fields] = {
    "nothing": (),
    "no method": _PSEUDO[1:],
    "no scheme": (_PSEUDO[0], *_PSEUDO[2:]),
    "no path": (*_PSEUDO[:2], _PSEUDO[3]),
    "an empty path": (*_PSEUDO[:2], (b":path", b""), _PSEUDO[3]),
    "an empty method": ((b":method", b""), *_PSEUDO[1:]),
    "an empty scheme": (_PSEUDO[0], (b":scheme", b""), *_PSEUDO[2:]),
    "a tunnel": ((b":method", b"CONNECT"), _PSEUDO[3]),
    **{f"{name.decode()} twice": (*_PSEUDO, (name, value)) for name, value in _PSEUDO},
    "a pseudo-header field of answers": (*_PSEUDO, (b":status", b"200")),
    "an unknown pseudo-header field": (*_PSEUDO, (b":protocol", b"websocket")),
    "a pseudo-header field without a name": (*_PSEUDO, (b":", b"x")),
    "a late pseudo-header field": (*_PSEUDO[:3], (b"x", b"1"), _PSEUDO[3]),
    "a capital in a name": (*_PSEUDO, (b"X-a", b"1")),
    "an empty name": (*_PSEUDO, (b"", b"1")),
    "a space in a name": (*_PSEUDO, (b"a b", b"1")),
    "a colon in a name": (*_PSEUDO, (b"a:b", b"1")),
    "a line end in a name": (*_PSEUDO, (b"a\n", b"1")),
    "a byte above ASCII in a name": (*_PSEUDO, (b"\xe4", b"1")),
    "a zero byte in a value": (*_PSEUDO, (b"x", b"a\0b")),
    "a line feed in a value": (*_PSEUDO, (b"x", b"a\nb")),
    "a line feed at the end": (*_PSEUDO, (b"x", b"a\n")),
    "a carriage return in a value": (*_PSEUDO, (b"x", b"a\rb")),
    "a space at the start": (*_PSEUDO, (b"x", b" a")),
    "a tab at the end": (*_PSEUDO, (b"x", b"a\t")),
    "a zero byte in the path": (*_PSEUDO[:2], (b":path", b"/a\0"), _PSEUDO[3]),
    "a line feed in the path": (*_PSEUDO[:2], (b":path", b"/a\nb"), _PSEUDO[3]),
    "a line feed in the authority": (*_PSEUDO[:3], (b":authority", b"a\r\nb")),
    "a length that is no number": (*_PSEUDO, (b"content-length", b"-1")),
    "a length with a sign": (*_PSEUDO, (b"content-length", b"+1")),
    "an empty length": (*_PSEUDO, (b"content-length", b"")),
    "an endless length": (*_PSEUDO, (b"content-length", b"1" * 19)),
    "two lengths": (*_PSEUDO, (b"content-length", b"1"), (b"content-length", b"2")),
    "other transfer codings": (*_PSEUDO, (b"te", b"trailers, gzip")),
    "gzip as transfer coding": (*_PSEUDO, (b"te", b"gzip")),
    **{
        f"the connection's {name.decode()}": (*_PSEUDO, (name, b"x"))
        for name in (
            b"connection",
            b"keep-alive",
            b"proxy-connection",
            b"transfer-encoding",
            b"upgrade",
        )
    },
}


@pytest.mark.parametrize("fields", _WELL_FORMED.values(), ids=_WELL_FORMED.keys())
def test_well_formed_head_is_read(fields: Fields) -> None:
    """What sections 8.2 and 8.3 allow is a request."""
    head = _read(fields)

    assert head.path == b"/a"


@pytest.mark.parametrize("fields", _MALFORMED.values(), ids=_MALFORMED.keys())
def test_malformed_head_is_refused(fields: Fields) -> None:
    """What sections 8.2 and 8.3 forbid is no request, and costs its stream only."""
    with pytest.raises(MalformedHead):
        _read(fields)


_BAD_TRAILERS = {
    "a pseudo-header field": (b":path", b"/a"),
    "a capital": (b"X", b"1"),
    "the connection's own": (b"connection", b"close"),
    "a line feed": (b"x", b"a\nb"),
}


@pytest.mark.parametrize("field", _BAD_TRAILERS.values(), ids=_BAD_TRAILERS.keys())
def test_malformed_trailers_are_refused(field: tuple[bytes, bytes]) -> None:
    """Trailers are fields like others, and never pseudo-header fields (section 8.1)."""
    with pytest.raises(MalformedHead):
        HeadReader(16_384).read_trailers(request_block([field]))


def test_trailers_are_read() -> None:
    """Trailers of regular fields are accepted."""
    HeadReader(16_384).read_trailers(request_block([(b"grpc-status", b"0")]))


# --- compression ------------------------------------------------------------------------------

_UNDECODABLE = {
    "an index beyond the tables": b"\xff\x80\x01",
    "index zero": b"\x80",
    "a cut string": b"\x00\x05ab",
    "a cut integer": b"\xff\xff",
    "an endless integer": b"\xff" * 20,
    "a name of no entry": b"\x7e\x01a",
    "a table larger than allowed": b"\x3f\xe2\x1f",
    "a table that changes over and over": b"\x20\x3f\xe1\x1f\x20\x82",
    "a change of the table behind a field": b"\x82\x20",
    "a code of Huffman's that is too long": b"\x00\x01a\x84\xff\xff\xff\xff",
    "padding of Huffman's that is zero": b"\x00\x01a\x81\x00",
}


@pytest.mark.parametrize("block", _UNDECODABLE.values(), ids=_UNDECODABLE.keys())
def test_undecodable_block_ends_the_connection(block: bytes) -> None:
    """What cannot be decoded leaves the tables in doubt (section 4.3)."""
    with pytest.raises(CompressionFailed):
        HeadReader(16_384).read(block)


@pytest.mark.parametrize("block", _UNDECODABLE.values(), ids=_UNDECODABLE.keys())
def test_undecodable_block_is_refused_in_words_of_our_own(block: bytes) -> None:
    """A peer is told why in GOAWAY, and never in a library's words: they had an address in them."""
    with pytest.raises(CompressionFailed) as caught:
        HeadReader(16_384).read(block)

    assert str(caught.value) in (
        "a header block that cannot be decoded",
        "too many changes of the table's size",
    )


def test_table_may_be_changed_twice() -> None:
    """A peer says to what its table shrank and to what it grew again (RFC 7541 section 4.2)."""
    reader = HeadReader(16_384)

    assert reader.read(b"\x20\x3f\xe1\x1f" + request_block()).method == b"POST"


@pytest.mark.parametrize("count", [100, 101])
def test_fields_of_a_head_are_counted(count: int) -> None:
    """A field may be one byte; whoever sends hundreds makes us work for nothing."""
    reader = HeadReader(16_384)
    block = request_block() + b"\x8f" * (count - len(REQUEST_FIELDS))
    trailers = b"\x8f" * count

    if count > 100:
        for read in (lambda: reader.read(block), lambda: reader.read_trailers(trailers)):
            with pytest.raises(CompressionFailed):
                read()
    else:
        assert len(reader.read(block).fields) == count - 4
        reader.read_trailers(trailers)


def test_head_beyond_the_limit_is_not_decoded() -> None:
    """A few bytes that stand for many are given up at the limit (section 10.5.1)."""
    reader = HeadReader(4_096)
    encoder = Encoder()
    reader.read(encoder.encode([*_PSEUDO, (b"x", b"v" * 3_000)]))

    with pytest.raises(CompressionFailed):
        reader.read(encoder.encode([*_PSEUDO, (b"x", b"v" * 3_000), (b"x", b"v" * 3_000)]))


@given(st.binary(max_size=200))
def test_any_block_is_read_or_refused(block: bytes) -> None:
    """Any bytes are a head, no request, or undecodable, and nothing else."""
    reader = HeadReader(16_384)
    for _ in range(2):
        try:
            reader.read(block)
        except (CompressionFailed, MalformedHead):
            return


# --- the memory of blocks ---------------------------------------------------------------------


def test_block_is_known_by_its_bytes() -> None:
    """A block that means the same fields again is not decoded again."""
    reader, encoder = HeadReader(16_384), Encoder()
    reader.read(encoder.encode(REQUEST_FIELDS))
    block = encoder.encode(REQUEST_FIELDS)
    first = reader.read(block)

    assert reader.read(block) is first


def test_huge_block_is_not_kept() -> None:
    """A block that is long is decoded each time: what is remembered is bounded."""
    reader = HeadReader(16_384)
    block = request_block((*_PSEUDO, (b"x", b"v" * 3_000)))

    assert reader.read(block) is not reader.read(block)


def test_memory_of_blocks_is_bounded() -> None:
    """However many blocks come, few are remembered."""
    reader = HeadReader(16_384)
    for number in range(1_000):
        reader.read(request_block((*_PSEUDO, (b"x", b"%d" % number))))

    assert len(reader._remembered) <= 32


def _entry_block(value: bytes) -> bytes:
    """A request that puts `x: value` into the dynamic table."""
    return request_block(_PSEUDO) + b"\x40\x01x" + bytes((len(value),)) + value


def _newest_block() -> bytes:
    """A request with the newest entry of the dynamic table, whatever that is."""
    return request_block(_PSEUDO) + b"\xbe"


def test_block_means_the_table_of_its_moment() -> None:
    """The same bytes mean other fields once the table has changed (RFC 7541 section 2.3.3)."""
    reader = HeadReader(16_384)
    reader.read(_entry_block(b"alice"))
    assert reader.read(_newest_block()).fields == [(b"x", b"alice")]
    assert reader.read(_newest_block()).fields == [(b"x", b"alice")]

    reader.read(_entry_block(b"bob"))

    assert reader.read(_newest_block()).fields == [(b"x", b"bob")]


def test_trailers_change_what_a_block_means() -> None:
    """Entries that trailers make count like those that a request makes."""
    reader = HeadReader(16_384)
    reader.read(_entry_block(b"alice"))
    reader.read(_newest_block())

    reader.read_trailers(b"\x40\x01x\x03bob")

    assert reader.read(_newest_block()).fields == [(b"x", b"bob")]


def test_malformed_head_changes_what_a_block_means() -> None:
    """A request that is refused has still changed the table."""
    reader = HeadReader(16_384)
    reader.read(_entry_block(b"alice"))
    reader.read(_newest_block())

    with pytest.raises(MalformedHead):
        reader.read(b"\x40\x01x\x03bob")

    assert reader.read(_newest_block()).fields == [(b"x", b"bob")]


def test_smaller_table_changes_what_a_block_means() -> None:
    """Entries that a smaller table has no room for are gone (RFC 7541 section 4.3)."""
    reader = HeadReader(16_384)
    reader.read(_entry_block(b"alice"))
    reader.read(_newest_block())

    reader.read(b"\x20" + request_block(_PSEUDO))

    with pytest.raises(CompressionFailed):
        reader.read(_newest_block())


def test_change_of_size_is_carried_out_each_time() -> None:
    """A block that begins with a change of the table's size is never taken from memory."""
    reader = HeadReader(16_384)
    emptied = b"\x20\x3f\xe1\x1f" + request_block(_PSEUDO)
    reader.read(emptied)
    reader.read(_entry_block(b"alice"))
    reader.read(_newest_block())

    reader.read(emptied)

    with pytest.raises(CompressionFailed):
        reader.read(_newest_block())


_NAMES = st.sampled_from([b"x", b"y", b"token", b"grpc-timeout"])
_VALUES = st.sampled_from([b"", b"1", b"alice", b"bob", b"v" * 200])


@st.composite
def _blocks(draw: st.DrawFn) -> list[tuple[bool, bytes]]:
    """Header blocks of one connection, some of them trailers, as an encoder may write them."""
    made: list[tuple[bool, bytes]] = []
    entries = 0
    for _ in range(draw(st.integers(1, 12))):
        trailers = draw(st.booleans())
        block = draw(st.sampled_from([b"", b"", b"\x20\x3f\xe1\x1f", b"\x3f\x31\x3f\xe1\x1f"]))
        if not trailers:
            block += request_block(_PSEUDO)
        for _ in range(draw(st.integers(0, 3))):
            name, value = draw(_NAMES), draw(_VALUES)
            kind = draw(st.sampled_from(["new", "plain", "old"]))
            if kind == "new":
                length = bytes((len(value),)) if len(value) < 127 else b"\x7f\x49"
                block += b"\x40" + bytes((len(name),)) + name + length + value
                entries += 1
            elif kind == "plain" or not entries:
                block += request_block([(name, value)])
            else:
                block += bytes((0x80 | 62 + draw(st.integers(0, min(entries, 8) - 1)),))
        made.append((trailers, block))
    return [made[draw(st.integers(0, len(made) - 1))] for _ in range(3 * len(made))]


@given(_blocks())
def test_memory_is_never_seen(blocks: list[tuple[bool, bytes]]) -> None:
    """Whatever comes in whatever order, each head is what a decoder without memory says it is."""
    reader, plain = HeadReader(16_384), Decoder(max_header_list_size=16_384)
    for trailers, block in blocks:
        try:
            expected = [(name, value) for name, value in plain.decode(block, raw=True)]
        except HPACKError:
            expected = None
        try:
            if trailers:
                reader.read_trailers(block)
                assert expected is not None
            else:
                head = reader.read(block)
                assert expected is not None
                assert head.fields == expected[len(_PSEUDO) :]
        except CompressionFailed:
            assert expected is None
            return
