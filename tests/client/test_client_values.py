"""Values of answers and operations: none of them prints what is stored."""

from typing import Final

import pytest

from kvsecure.client.keys import Keys
from kvsecure.client.operations import Compare, Comparison, Found, Put, Stored, Target, Txn
from kvsecure.client.values import KeyValue
from kvsecure.client.versions import Version
from kvsecure.proto import kv_pb2, mvcc_pb2, version_pb2

_SECRET: Final = b"correct-horse-battery"
_STORED: Final = mvcc_pb2.KeyValue(key=b"k", value=_SECRET)
_PUT: Final = Put(key=b"k", value=_SECRET)
_COMPARE: Final = Compare(
    keys=Keys.one(b"k"), target=Target.VALUE, comparison=Comparison.EQUAL, operand=_SECRET
)


@pytest.mark.parametrize(
    "value",
    [
        KeyValue.of(_STORED),
        Found.of(kv_pb2.RangeResponse(kvs=[_STORED])),
        Stored.of(kv_pb2.PutResponse(prev_kv=_STORED)),
        Version.of(b"k", version_pb2.Version(value=_SECRET)),
        _PUT,
        _COMPARE,
        Txn(when=(_COMPARE,), then=(_PUT,), otherwise=()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_stored_is_not_printed(value: object) -> None:
    """A value in a traceback, a log or a debugger's line is a secret that got out."""
    assert _SECRET.decode() not in repr(value)
