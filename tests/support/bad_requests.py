"""Requests that are wrong in themselves: the table that both servers answer.

Owns: the table, the content it refers to, and where kvsecure answers otherwise on purpose.
Never: states what etcd answers; etcd is asked, unless it would not survive the question.
Keeps: no case that is accepted changes what another case is told.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, final

from support.pair import Pair
from support.rpc import Refusal

from kvsecure.proto import auth_pb2 as auth
from kvsecure.proto import authstore_pb2 as store
from kvsecure.proto import kv_pb2 as kv
from kvsecure.proto import lease_pb2 as lease
from kvsecure.proto import maintenance_pb2 as maintenance

__all__ = ["BAD_REQUESTS", "LEASE", "Case", "EtcdAnswer", "prepare"]

# The lease that key `leased` hangs on.
LEASE: Final = 777
_PASSWORD: Final = "a-password-of-web-1234"
# Outside every enum; its type would refuse it.
_UNKNOWN: Final[Any] = 9
_BAD_SORT: Final = Refusal("INVALID_ARGUMENT", "etcdserver: invalid sort option")
_TWICE: Final = Refusal("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request")


@final
class EtcdAnswer(Enum):
    """What may be said of etcd 3.5.1's answer to a case."""

    SAME = "kvsecure answers the same"
    OTHER = "kvsecure answers otherwise, on purpose"
    FATAL = "etcd stops on it, so it is not asked"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call of one user."""

    name: str
    method: str
    request: Any
    user: str = "root"
    etcd: EtcdAnswer = EtcdAnswer.SAME
    # What kvsecure answers where etcd 3.5.1 does not; None is "accepted".
    ours: Refusal | None = None


def prepare(pair: Pair) -> None:
    """Give both members the content that the cases refer to.

    Revision 8 is current and 4 is compacted; `a`, `c` and `leased` exist, `b` is deleted; user
    `web` may read /app/ and write /app/w, user `certificate` has no password.
    """
    pair.do("lease.LeaseGrant", lease.LeaseGrantRequest(ID=LEASE, TTL=600))
    pair.do("kv.Put", kv.PutRequest(key=b"a", value=b"1"))
    pair.do("kv.Put", kv.PutRequest(key=b"a", value=b"2"))
    pair.do("kv.Put", kv.PutRequest(key=b"b", value=b"1"))
    pair.do("kv.DeleteRange", kv.DeleteRangeRequest(key=b"b"))
    pair.do("kv.Put", kv.PutRequest(key=b"c", value=b"1"))
    pair.do("kv.Put", kv.PutRequest(key=b"leased", value=b"1", lease=LEASE))
    pair.do("kv.Put", kv.PutRequest(key=b"/app/w", value=b"1"))
    pair.do("kv.Compact", kv.CompactionRequest(revision=4))
    pair.do("auth.RoleAdd", auth.AuthRoleAddRequest(name="app"))
    pair.do("auth.RoleAdd", auth.AuthRoleAddRequest(name="scratch"))
    for permission in (
        store.Permission(permType=store.Permission.READ, key=b"/app/", range_end=b"/app0"),
        store.Permission(permType=store.Permission.WRITE, key=b"/app/w"),
    ):
        pair.do(
            "auth.RoleGrantPermission",
            auth.AuthRoleGrantPermissionRequest(name="app", perm=permission),
        )
    pair.do("auth.UserAdd", auth.AuthUserAddRequest(name="web", password=_PASSWORD))
    pair.do("auth.UserGrantRole", auth.AuthUserGrantRoleRequest(user="web", role="app"))
    pair.do("auth.UserAdd", auth.AuthUserAddRequest(name="certificate", options=_NO_PASSWORD))
    pair.add_password("web", _PASSWORD)


_NO_PASSWORD: Final = store.UserAddOptions(no_password=True)


def _range(**fields: Any) -> kv.RequestOp:
    return kv.RequestOp(request_range=kv.RangeRequest(**fields))


def _put(**fields: Any) -> kv.RequestOp:
    return kv.RequestOp(request_put=kv.PutRequest(**fields))


def _delete(**fields: Any) -> kv.RequestOp:
    return kv.RequestOp(request_delete_range=kv.DeleteRangeRequest(**fields))


def _nested(**fields: Any) -> kv.RequestOp:
    return kv.RequestOp(request_txn=kv.TxnRequest(**fields))


def _deep(depth: int, leaf: kv.RequestOp) -> kv.TxnRequest:
    txn = kv.TxnRequest(success=[leaf])
    for _ in range(depth - 1):
        txn = kv.TxnRequest(success=[kv.RequestOp(request_txn=txn)])
    return txn


_GETS: Final = [_range(key=b"a")] * 129
_FALSE: Final = kv.Compare(key=b"a", target=kv.Compare.VERSION, version=99)


def _kv_cases() -> list[Case]:
    rows: dict[str, tuple[str, Any]] = {
        "range-empty-key": ("kv.Range", kv.RangeRequest()),
        "range-empty-key-with-end": ("kv.Range", kv.RangeRequest(range_end=b"z")),
        "range-both-unknown-and-empty": ("kv.Range", kv.RangeRequest(sort_target=_UNKNOWN)),
        "range-future": ("kv.Range", kv.RangeRequest(key=b"a", revision=100)),
        "range-next": ("kv.Range", kv.RangeRequest(key=b"a", revision=9)),
        "range-compacted": ("kv.Range", kv.RangeRequest(key=b"a", revision=3)),
        "range-at-compaction": ("kv.Range", kv.RangeRequest(key=b"a", revision=4)),
        "range-negative-revision": ("kv.Range", kv.RangeRequest(key=b"a", revision=-1)),
        "range-negative-limit": ("kv.Range", kv.RangeRequest(key=b"a", limit=-1)),
        "range-empty-interval": ("kv.Range", kv.RangeRequest(key=b"b", range_end=b"a")),
        "range-serializable-compacted": (
            "kv.Range",
            kv.RangeRequest(key=b"a", revision=2, serializable=True),
        ),
        "range-serializable-future": (
            "kv.Range",
            kv.RangeRequest(key=b"a", revision=99, serializable=True),
        ),
        "put-empty-key": ("kv.Put", kv.PutRequest(value=b"v")),
        "put-value-and-ignore-value": (
            "kv.Put",
            kv.PutRequest(key=b"a", value=b"v", ignore_value=True),
        ),
        "put-lease-and-ignore-lease": (
            "kv.Put",
            kv.PutRequest(key=b"a", value=b"v", lease=LEASE, ignore_lease=True),
        ),
        "put-ignore-value-missing-key": ("kv.Put", kv.PutRequest(key=b"n", ignore_value=True)),
        "put-ignore-lease-missing-key": ("kv.Put", kv.PutRequest(key=b"n", ignore_lease=True)),
        "put-ignore-both-missing-key": (
            "kv.Put",
            kv.PutRequest(key=b"n", ignore_lease=True, ignore_value=True),
        ),
        "put-ignore-value-deleted-key": ("kv.Put", kv.PutRequest(key=b"b", ignore_value=True)),
        "put-unknown-lease": ("kv.Put", kv.PutRequest(key=b"a", value=b"v", lease=4711)),
        "put-negative-lease": ("kv.Put", kv.PutRequest(key=b"a", value=b"v", lease=-4711)),
        "put-request-too-large": ("kv.Put", kv.PutRequest(key=b"a", value=bytes(1_572_865))),
        "delete-empty-key": ("kv.DeleteRange", kv.DeleteRangeRequest()),
        "delete-empty-key-with-end": ("kv.DeleteRange", kv.DeleteRangeRequest(range_end=b"z")),
        "delete-empty-interval": (
            "kv.DeleteRange",
            kv.DeleteRangeRequest(key=b"c", range_end=b"a"),
        ),
        "compact-future": ("kv.Compact", kv.CompactionRequest(revision=99)),
        "compact-zero": ("kv.Compact", kv.CompactionRequest()),
        "compact-negative": ("kv.Compact", kv.CompactionRequest(revision=-3)),
        "compact-again": ("kv.Compact", kv.CompactionRequest(revision=4)),
        "compact-earlier": ("kv.Compact", kv.CompactionRequest(revision=3)),
        "lease-existing": ("lease.LeaseGrant", lease.LeaseGrantRequest(ID=LEASE, TTL=60)),
        "lease-ttl-too-large": ("lease.LeaseGrant", lease.LeaseGrantRequest(TTL=9_000_000_001)),
        "lease-ttl-negative": ("lease.LeaseGrant", lease.LeaseGrantRequest(TTL=-9)),
        "lease-revoke-unknown": ("lease.LeaseRevoke", lease.LeaseRevokeRequest(ID=4711)),
        "lease-revoke-zero": ("lease.LeaseRevoke", lease.LeaseRevokeRequest()),
        "lease-revoke-negative": ("lease.LeaseRevoke", lease.LeaseRevokeRequest(ID=-1)),
        "lease-ttl-of-unknown": ("lease.LeaseTimeToLive", lease.LeaseTimeToLiveRequest(ID=4711)),
        "lease-ttl-of-zero": ("lease.LeaseTimeToLive", lease.LeaseTimeToLiveRequest()),
    }
    return [Case(name=name, method=row[0], request=row[1]) for name, row in rows.items()]


def _txn_cases() -> list[Case]:
    txn = kv.TxnRequest
    rows = {
        "empty": txn(),
        "op-without-request": txn(success=[kv.RequestOp()]),
        "failure-op-without-request": txn(failure=[kv.RequestOp()]),
        "compare-empty-key": txn(compare=[kv.Compare(target=kv.Compare.VERSION)]),
        "compare-without-operand": txn(compare=[kv.Compare(key=b"a", target=kv.Compare.MOD)]),
        "compare-empty-interval": txn(compare=[kv.Compare(key=b"b", range_end=b"a")]),
        "too-many-compares": txn(compare=[kv.Compare(key=b"a")] * 129),
        "too-many-successes": txn(success=_GETS),
        "too-many-failures": txn(failure=_GETS),
        "most-operations": txn(success=_GETS[:128], failure=_GETS[:128]),
        "nested-too-many": txn(success=[_nested(success=_GETS[:128])]),
        "nested-most": txn(success=[_nested(success=_GETS[:127])]),
        "nested-too-many-beside": txn(success=[*_GETS[:100], _nested(success=_GETS[:50])]),
        "nested-deep": _deep(40, _range(key=b"a")),
        "nested-deep-bad-leaf": _deep(40, _range()),
        "put-twice": txn(success=[_put(key=b"x"), _put(key=b"x")]),
        "put-twice-in-failure": txn(failure=[_put(key=b"x"), _put(key=b"x")]),
        "put-in-deleted-range": txn(success=[_put(key=b"x"), _delete(key=b"w", range_end=b"y")]),
        "put-twice-nested": txn(success=[_put(key=b"x"), _nested(success=[_put(key=b"x")])]),
        "put-twice-nested-siblings": txn(
            success=[_nested(success=[_put(key=b"x")]), _nested(failure=[_put(key=b"x")])]
        ),
        "put-nested-deleted": txn(success=[_delete(key=b"x"), _nested(failure=[_put(key=b"x")])]),
        "delete-twice": txn(success=[_delete(key=b"x"), _delete(key=b"x")]),
        "range-empty-key": txn(success=[_range()]),
        "range-future": txn(success=[_range(key=b"a", revision=99)]),
        "range-compacted": txn(success=[_range(key=b"a", revision=2)]),
        "range-negative-revision": txn(success=[_range(key=b"a", revision=-1)]),
        "range-future-not-chosen": txn(failure=[_range(key=b"a", revision=99)]),
        "range-future-then-put": txn(success=[_range(key=b"a", revision=99), _put(key=b"x")]),
        "put-empty-key": txn(success=[_put(value=b"v")]),
        "put-value-and-ignore-value": txn(success=[_put(key=b"a", value=b"v", ignore_value=True)]),
        "put-ignore-value-missing": txn(success=[_put(key=b"n", ignore_value=True)]),
        "put-ignore-lease-missing": txn(success=[_put(key=b"n", ignore_lease=True)]),
        "put-ignore-value-of-earlier-put": txn(
            success=[_nested(success=[_range(key=b"n")]), _put(key=b"n", ignore_value=True)]
        ),
        "put-unknown-lease": txn(success=[_put(key=b"x", lease=4711)]),
        "put-unknown-lease-not-chosen": txn(
            compare=[_FALSE], success=[_put(key=b"x", lease=4711)], failure=[_range(key=b"a")]
        ),
        "delete-empty-key": txn(success=[_delete()]),
        "nested-empty-key": txn(success=[_nested(failure=[_put(value=b"v")])]),
        "nested-compare-empty-key": txn(success=[_nested(compare=[kv.Compare()])]),
    }
    return [Case(name=f"txn-{name}", method="kv.Txn", request=row) for name, row in rows.items()]


def _strict_cases() -> list[Case]:
    from_key = _delete(key=b"w", range_end=b"\0")
    unknown = kv.Compare(key=b"a", target=_UNKNOWN)
    rows = (
        # etcd takes the open end of the delete for an end before the key, and sees no overlap.
        ("txn-put-in-deleted-from-key", kv.TxnRequest(failure=[from_key, _put(key=b"x")]), _TWICE),
        # etcd takes a comparison that it does not know for one that holds.
        ("txn-compare-unknown-target", kv.TxnRequest(compare=[unknown]), _BAD_SORT),
    )
    return [
        Case(name=name, method="kv.Txn", request=request, etcd=EtcdAnswer.OTHER, ours=ours)
        for name, request, ours in rows
    ]


def _later_cases() -> list[Case]:
    # Later etcd checks the sort options; 3.5.1 ignores a wrong order and dies of a wrong target.
    order, negative = (
        kv.RangeRequest(key=b"a", sort_order=_UNKNOWN),
        _range(key=b"a", sort_order=-1),
    )
    target = kv.RangeRequest(key=b"a", sort_target=_UNKNOWN)
    rows = (
        ("range-unknown-order", "kv.Range", order, EtcdAnswer.OTHER),
        ("range-unknown-target", "kv.Range", target, EtcdAnswer.FATAL),
        ("txn-range-negative-order", "kv.Txn", kv.TxnRequest(success=[negative]), EtcdAnswer.OTHER),
        (
            "txn-range-unknown-target",
            "kv.Txn",
            kv.TxnRequest(failure=[kv.RequestOp(request_range=target)]),
            EtcdAnswer.OTHER,
        ),
    )
    return [
        Case(name=name, method=method, request=request, etcd=etcd, ours=_BAD_SORT)
        for name, method, request, etcd in rows
    ]


def _maintenance_cases() -> list[Case]:
    hash_kv, downgrade = maintenance.HashKVRequest, maintenance.DowngradeRequest
    rows: dict[str, tuple[str, Any]] = {
        "hash-compacted": ("HashKV", hash_kv(revision=3)),
        "hash-at-compaction": ("HashKV", hash_kv(revision=4)),
        "hash-behind-compaction": ("HashKV", hash_kv(revision=5)),
        "hash-current": ("HashKV", hash_kv(revision=8)),
        "hash-future": ("HashKV", hash_kv(revision=99)),
        "hash-negative": ("HashKV", hash_kv(revision=-1)),
        "move-leader-to-nobody": ("MoveLeader", maintenance.MoveLeaderRequest()),
        "move-leader-to-stranger": ("MoveLeader", maintenance.MoveLeaderRequest(targetID=5)),
        "downgrade-to-nothing": ("Downgrade", downgrade()),
        "downgrade-to-nonsense": ("Downgrade", downgrade(version="x.y")),
        "downgrade-too-far": ("Downgrade", downgrade(version="3.3.0")),
        "downgrade-to-the-same": ("Downgrade", downgrade(action=_ENABLE, version="3.5.0")),
        "downgrade-upwards": ("Downgrade", downgrade(action=_ENABLE, version="3.6")),
        "downgrade-cancelled": ("Downgrade", downgrade(action=_CANCEL)),
        "downgrade-unknown": ("Downgrade", downgrade(action=_UNKNOWN, version="3.4.0")),
    }
    cases = [
        Case(name=name, method=f"maintenance.{row[0]}", request=row[1])
        for name, row in rows.items()
    ]
    # There is no older version of kvsecure.
    older = Refusal("INVALID_ARGUMENT", "etcdserver: invalid downgrade target version")
    return [
        *cases,
        Case(
            name="downgrade-by-one",
            method="maintenance.Downgrade",
            request=downgrade(version="3.4"),
            etcd=EtcdAnswer.OTHER,
            ours=older,
        ),
    ]


_ENABLE: Final = maintenance.DowngradeRequest.ENABLE
_CANCEL: Final = maintenance.DowngradeRequest.CANCEL

BAD_REQUESTS: Final = (
    *_kv_cases(),
    *_txn_cases(),
    *_strict_cases(),
    *_later_cases(),
    *_maintenance_cases(),
)
