"""Plain requests: what is read without a message is what the message would have been."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvsecure.proto.kv_pb2 import PutRequest, RangeRequest
from kvsecure.proto.plain import plain_get, plain_put

_SIZES = (1, 2, 126, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151)


@pytest.mark.parametrize("size", _SIZES)
def test_plain_requests_are_recognised_at_every_size(size: int) -> None:
    """One key, or one key and its value, is read as it was written, up to 127 and 2 MiB - 1."""
    key, value = b"k" * min(size, 127), b"v" * size

    get = plain_get(RangeRequest(key=b"k" * size).SerializeToString())
    put = plain_put(PutRequest(key=key, value=value).SerializeToString())

    assert get == (b"k" * size if size < 128 else None)
    assert put == (key, value)


@pytest.mark.parametrize(
    "request_",
    [
        RangeRequest(),
        RangeRequest(range_end=b"z"),
        RangeRequest(key=b"a", range_end=b"b"),
        RangeRequest(key=b"a", limit=1),
        RangeRequest(key=b"a", revision=3),
        RangeRequest(key=b"a", serializable=True),
        RangeRequest(key=b"a", keys_only=True),
    ],
    ids=str,
)
def test_get_that_asks_for_more_is_not_plain(request_: RangeRequest) -> None:
    """Whatever else is said of a get makes it one that is read whole."""
    assert plain_get(request_.SerializeToString()) is None


@pytest.mark.parametrize(
    "request_",
    [
        PutRequest(),
        PutRequest(key=b"a"),
        PutRequest(value=b"v"),
        PutRequest(key=b"k" * 128, value=b"v"),
        PutRequest(key=b"a", value=b"v", lease=1),
        PutRequest(key=b"a", value=b"v", prev_kv=True),
        PutRequest(key=b"a", ignore_value=True),
        PutRequest(key=b"a", value=b"v" * 200, ignore_lease=True),
    ],
    ids=str,
)
def test_put_that_says_more_is_not_plain(request_: PutRequest) -> None:
    """Whatever else is said of a put makes it one that is read whole."""
    assert plain_put(request_.SerializeToString()) is None


# Bytes that begin like what is read here, so that its lengths are met.
_NEARLY = st.builds(
    lambda key, mark, length, rest: bytes((0x0A, len(key))) + key + mark + length + rest,
    st.binary(max_size=4),
    st.sampled_from((b"\x12", b"\x0a", b"\x18", b"")),
    st.one_of(
        st.binary(max_size=4), st.integers(0, 300).map(lambda n: bytes((n & 127 | 128, n >> 7)))
    ),
    st.binary(max_size=300),
)


@given(content=st.one_of(st.binary(max_size=20), _NEARLY))
@example(content=b"\x0a\x01k\x12\x81\x00v")
@example(content=b"\x0a\x01k\x12\x81\x80\x00v")
@example(content=b"\x0a\x01k\x12\x80\x80\x80\x00")
@example(content=b"\x0a\x81\x00k")
@example(content=b"\x0a\x01k\x0a\x01l")
def test_any_bytes_are_read_as_the_message_reads_them(content: bytes) -> None:
    """What is taken for plain is what the generated message makes of the same bytes."""
    key, put = plain_get(content), plain_put(content)

    if key is not None:
        assert RangeRequest.FromString(content) == RangeRequest(key=key)
    if put is not None:
        assert PutRequest.FromString(content) == PutRequest(key=put[0], value=put[1])
