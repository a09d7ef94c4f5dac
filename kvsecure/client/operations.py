"""The operations of the store as values: read, write, delete, compare, and transactions of them.

    Operation     Range | Put | Delete | Txn
    Result        Found | Stored | Deleted | TxnResult, in the same order

Owns: what an operation can ask for, and its two-way translation to messages.
Never: a connection.
Keeps: a request made here and the same operation inside a transaction are one encoding.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self, TypeAlias, assert_never, final

from kvsecure.client.keys import Keys
from kvsecure.client.values import Header, KeyValue
from kvsecure.proto import kv_pb2

__all__ = [
    "KEEP",
    "Compare",
    "Comparison",
    "Delete",
    "Deleted",
    "Fetch",
    "Found",
    "Keep",
    "Operation",
    "Order",
    "Put",
    "Range",
    "Reading",
    "Result",
    "SortBy",
    "Stored",
    "Target",
    "Txn",
    "TxnResult",
]


class Order(Enum):
    """The order of the answer."""

    NONE = "NONE"
    """By key, as the store keeps them."""
    ASCEND = "ASCEND"
    DESCEND = "DESCEND"


class SortBy(Enum):
    """What the order is about."""

    KEY = "KEY"
    VERSION = "VERSION"
    CREATE = "CREATE"
    MOD = "MOD"
    VALUE = "VALUE"


class Fetch(Enum):
    """How much of each key is answered."""

    VALUES = "values"
    KEYS = "keys"
    COUNT = "count"


class Reading(Enum):
    """How fresh a read is."""

    LINEARIZABLE = "linearizable"
    """Every write that was acknowledged before is seen."""
    SERIALIZABLE = "serializable"
    """What the answering member has; it may be behind, and needs no quorum."""


class Keep(Enum):
    """Stands where a put must not change what is there."""

    AS_IT_IS = "as it is"


KEEP: Final = Keep.AS_IT_IS


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Read keys.

    Attributes:
        keys: Which.
        limit: At most so many keys are answered; 0 for all.
        revision: The point of history to read at; 0 for now.
        order: In which order.
        sort_by: What the order is about.
        fetch: Values, keys or just their count.
        reading: How fresh.
    """

    keys: Keys
    limit: int = 0
    revision: int = 0
    order: Order = Order.NONE
    sort_by: SortBy = SortBy.KEY
    fetch: Fetch = Fetch.VALUES
    reading: Reading = Reading.LINEARIZABLE

    def message(self) -> kv_pb2.RangeRequest:
        """Return the request."""
        return kv_pb2.RangeRequest(
            key=self.keys.key,
            range_end=self.keys.range_end,
            limit=self.limit,
            revision=self.revision,
            sort_order=self.order.value,
            sort_target=self.sort_by.value,
            serializable=self.reading is Reading.SERIALIZABLE,
            keys_only=self.fetch is Fetch.KEYS,
            count_only=self.fetch is Fetch.COUNT,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write one key.

    Attributes:
        key: The key.
        value: The value, or `KEEP` for the one that is there.
        lease: The lease the key dies with, 0 for none, or `KEEP` for the one it has.
        previous: Whether to answer what was there before; that needs the right to read it.
    """

    key: bytes
    # Whatever prints this must not print a secret.
    value: bytes | Keep = field(repr=False)
    lease: int | Keep = 0
    previous: bool = False

    def message(self) -> kv_pb2.PutRequest:
        """Return the request."""
        return kv_pb2.PutRequest(
            key=self.key,
            value=self.value if isinstance(self.value, bytes) else b"",
            lease=self.lease if isinstance(self.lease, int) else 0,
            prev_kv=self.previous,
            ignore_value=self.value is KEEP,
            ignore_lease=self.lease is KEEP,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete keys.

    Attributes:
        keys: Which.
        previous: Whether to answer what was deleted; that needs the right to read it.
    """

    keys: Keys
    previous: bool = False

    def message(self) -> kv_pb2.DeleteRangeRequest:
        """Return the request."""
        return kv_pb2.DeleteRangeRequest(
            key=self.keys.key, range_end=self.keys.range_end, prev_kv=self.previous
        )


class Target(Enum):
    """What of a key is compared; a missing key has 0 everywhere, and no value at all."""

    VERSION = "version"
    CREATE = "create_revision"
    MOD = "mod_revision"
    VALUE = "value"
    LEASE = "lease"


class Comparison(Enum):
    """How it is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """A condition; with several keys it must hold for each of them.

    Attributes:
        keys: Which keys.
        target: What of them.
        comparison: How.
        operand: Compared with; bytes for the value, a number otherwise.
    """

    keys: Keys
    target: Target
    comparison: Comparison
    operand: int | bytes = field(repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.operand, bytes) != (self.target is Target.VALUE):
            raise TypeError("a value is compared with bytes, everything else with a number")

    @classmethod
    def missing(cls, key: bytes) -> Self:
        """Return the condition that the key does not exist."""
        return cls(keys=Keys.one(key), target=Target.CREATE, comparison=Comparison.EQUAL, operand=0)

    @classmethod
    def unchanged(cls, kv: KeyValue) -> Self:
        """Return the condition that the key was not written since it was read."""
        return cls(
            keys=Keys.one(kv.key),
            target=Target.MOD,
            comparison=Comparison.EQUAL,
            operand=kv.mod_revision,
        )

    def message(self) -> kv_pb2.Compare:
        """Return the message."""
        message = kv_pb2.Compare(
            key=self.keys.key,
            range_end=self.keys.range_end,
            result=self.comparison.name,
            target=self.target.name,
        )
        # Which member of the oneof it is depends on the target.
        setattr(message, self.target.value, self.operand)
        return message


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """Do one thing or the other, all of it at one revision or nothing.

    Attributes:
        when: The conditions; without any they hold.
        then: What to do when all of them hold.
        otherwise: What to do when one does not.
    """

    when: tuple[Compare, ...] = ()
    then: tuple["Operation", ...] = ()
    otherwise: tuple["Operation", ...] = ()

    def message(self) -> kv_pb2.TxnRequest:
        """Return the request."""
        return kv_pb2.TxnRequest(
            compare=[condition.message() for condition in self.when],
            success=[_request_op(operation) for operation in self.then],
            failure=[_request_op(operation) for operation in self.otherwise],
        )


Operation: TypeAlias = Range | Put | Delete | Txn


def _request_op(operation: Operation) -> kv_pb2.RequestOp:
    match operation:
        case Range():
            return kv_pb2.RequestOp(request_range=operation.message())
        case Put():
            return kv_pb2.RequestOp(request_put=operation.message())
        case Delete():
            return kv_pb2.RequestOp(request_delete_range=operation.message())
        case Txn():
            return kv_pb2.RequestOp(request_txn=operation.message())
        case _:
            assert_never(operation)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a `Range` read.

    Attributes:
        header: Who answered when.
        kvs: The keys; empty when only the count was asked for.
        count: How many keys there are in the range, whatever the limit.
        more: Whether the limit cut some off.
    """

    header: Header
    kvs: tuple[KeyValue, ...]
    count: int
    more: bool

    @classmethod
    def of(cls, message: kv_pb2.RangeResponse) -> Self:
        """Return the value of a message."""
        return cls(
            header=Header.of(message.header),
            kvs=tuple(KeyValue.of(kv) for kv in message.kvs),
            count=message.count,
            more=message.more,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a `Put` did.

    Attributes:
        header: Who answered; its revision is the one of the write.
        previous: What was there before, if that was asked for and there was something.
    """

    header: Header
    previous: KeyValue | None

    @classmethod
    def of(cls, message: kv_pb2.PutResponse) -> Self:
        """Return the value of a message."""
        previous = KeyValue.of(message.prev_kv) if message.HasField("prev_kv") else None
        return cls(header=Header.of(message.header), previous=previous)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What a `Delete` did.

    Attributes:
        header: Who answered when.
        count: How many keys were deleted.
        previous: What they were, if that was asked for.
    """

    header: Header
    count: int
    previous: tuple[KeyValue, ...]

    @classmethod
    def of(cls, message: kv_pb2.DeleteRangeResponse) -> Self:
        """Return the value of a message."""
        return cls(
            header=Header.of(message.header),
            count=message.deleted,
            previous=tuple(KeyValue.of(kv) for kv in message.prev_kvs),
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TxnResult:
    """What a `Txn` did.

    Attributes:
        header: Who answered when.
        succeeded: Whether the conditions held.
        results: One for each operation of the branch that was taken.
    """

    header: Header
    succeeded: bool
    results: tuple["Result", ...]

    @classmethod
    def of(cls, message: kv_pb2.TxnResponse) -> Self:
        """Return the value of a message."""
        return cls(
            header=Header.of(message.header),
            succeeded=message.succeeded,
            results=tuple(_result(response) for response in message.responses),
        )


Result: TypeAlias = Found | Stored | Deleted | TxnResult


def _result(message: kv_pb2.ResponseOp) -> Result:
    if message.HasField("response_range"):
        return Found.of(message.response_range)
    if message.HasField("response_put"):
        return Stored.of(message.response_put)
    if message.HasField("response_delete_range"):
        return Deleted.of(message.response_delete_range)
    return TxnResult.of(message.response_txn)
