"""RangeStream on a whole server: the same keys as Range, whatever happens meanwhile."""

import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from e2e.world import Fortress
from support.rpc import Client, refusal_of

from kvsecure.proto import kv_pb2

_ALL: Final[dict[str, Any]] = {"key": b"\0", "range_end": b"\0"}
_COUNT: Final = 3_000


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server with keys of two tenants, written, overwritten and deleted."""
    with Fortress(tmp_path_factory.mktemp("streams")) as fortress:
        for client, value in ((fortress.root(), b"ours" * 60), (fortress.tenant("acme"), b"acme")):
            _write(client, 0, _COUNT, value)
            _write(client, 100, 200, value + b"2")
            client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"000300", range_end=b"000400"))
        yield fortress


def _write(client: Client, start: int, end: int, value: bytes) -> None:
    for first in range(start, end, 100):
        puts = [
            kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"%06d" % number, value=value))
            for number in range(first, first + 100)
        ]
        client.kv.Txn(kv_pb2.TxnRequest(success=puts))


def _whole(parts: Any) -> kv_pb2.RangeResponse:
    """Put the parts together: messages that follow each other are one message."""
    contents = [part.range_response.SerializeToString() for part in parts]
    return kv_pb2.RangeResponse.FromString(b"".join(contents))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"limit": 777},
        {"limit": _COUNT},
        {"key": b"000350", "range_end": b"000450"},
        {"key": b"000001", "range_end": b""},
        {"key": b"none", "range_end": b""},
        {"keys_only": True},
        {"count_only": True},
        {"revision": 20},
        {"revision": 20, "limit": 55, "keys_only": True},
        {"serializable": True},
    ],
)
def test_stream_equals_range(fortress: Fortress, fields: dict[str, Any]) -> None:
    """All messages together are what Range answers, header and count included."""
    request = kv_pb2.RangeRequest(**{**_ALL, **fields})
    for client in (fortress.root(), fortress.certified("root", "acme")):
        assert _whole(client.kv.RangeStream(request)) == client.kv.Range(request)


def test_stream_holds_one_revision_while_others_write(fortress: Fortress) -> None:
    """A slow reader gets the range as it was when it asked, whatever is written meanwhile."""
    reader, writer = fortress.root(), fortress.root()
    parts = reader.kv.RangeStream(kv_pb2.RangeRequest(**_ALL))
    first = next(parts)
    stopped = threading.Event()

    def write() -> None:
        number = 0
        while not stopped.is_set():
            fortress.put(writer, b"%06d" % (7 * number % (2 * _COUNT)), b"new" * 100)
            number += 1

    writing = threading.Thread(target=write)
    writing.start()
    try:
        streamed = _whole([first, *parts])
    finally:
        stopped.set()
        writing.join()

    began = streamed.header.revision
    expected = reader.kv.Range(kv_pb2.RangeRequest(**_ALL, revision=began))
    expected.header.revision = began
    assert streamed == expected


def test_stream_of_a_stranger_is_refused(fortress: Fortress) -> None:
    """Without an identity nothing is streamed."""
    with pytest.raises(grpc.RpcError) as refused:
        list(fortress.stranger().kv.RangeStream(kv_pb2.RangeRequest(**_ALL)))

    assert refusal_of(refused.value).code == "INVALID_ARGUMENT"
