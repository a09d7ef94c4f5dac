"""The law's table: every row with what it allows and what it refuses."""

from typing import Any, Final, NamedTuple

import pytest
from access.oracle import LeaseBook

from kvsecure.access.decide import RULES, Decision, decide, is_open
from kvsecure.access.grants import EVERYTHING, NOTHING, Grants, Intervals
from kvsecure.access.queues import asked_of_keys, entering, leaving
from kvsecure.model.keys import Span
from kvsecure.model.limits import TXN_DEPTH_MAX
from kvsecure.proto import (
    auth_pb2,
    cluster_pb2,
    crypto_pb2,
    election_pb2,
    health_pb2,
    joining_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    reflection_pb2,
    state_pb2,
    tenant_pb2,
    version_pb2,
    watch_pb2,
)

_MINE, _THEIRS = b"/app/a", b"/ops/a"
# What hangs on a lease: keys that `web` may write, and keys that it may not.
_BOOK: Final = LeaseBook({1: frozenset({_MINE}), 2: frozenset({_THEIRS})})
_EMPTY_BOOK: Final = LeaseBook({1: frozenset({_MINE})})


def _grants(
    *, read: bool = True, write: bool = True, admin: bool = False, cluster: bool = False
) -> Grants:
    app = Intervals((Span(b"/app/", b"/app0"),))
    return Grants(
        user="web",
        roles=frozenset({"app"}),
        read=EVERYTHING if admin else app if read else NOTHING,
        write=EVERYTHING if admin else app if write else NOTHING,
        admin=admin,
        cluster_admin=cluster,
    )


WEB: Final = _grants()
READER: Final = _grants(write=False)
WRITER: Final = _grants(read=False)
# May do anything with one place of a queue, and nothing with the others.
_PLACE: Final = Intervals((Span(b"/app/l/1", b"/app/l/1\0"),))
POINT: Final = Grants(
    user="web",
    roles=frozenset({"app"}),
    read=_PLACE,
    write=_PLACE,
    admin=False,
    cluster_admin=False,
)
TENANT_ROOT: Final = _grants(admin=True)
CLUSTER_ROOT: Final = _grants(admin=True, cluster=True)
_NOT_ADMIN: Final = Decision.DENY_NOT_ADMIN
_NOT_CLUSTER: Final = Decision.DENY_NOT_CLUSTER_ADMIN
_KEYS: Final = Decision.DENY_KEYS


class Row(NamedTuple):
    """One decision that must come out."""

    grants: Grants
    request: Any
    decision: Decision
    book: LeaseBook = _BOOK


def _ok(grants: Grants, request: Any, book: LeaseBook = _BOOK) -> Row:
    return Row(grants, request, Decision.ALLOW, book)


def _no(grants: Grants, request: Any, why: Decision = _KEYS, book: LeaseBook = _BOOK) -> Row:
    return Row(grants, request, why, book)


def _op(**fields: Any) -> kv_pb2.RequestOp:
    return kv_pb2.RequestOp(**fields)


def _nested(depth: int, leaf: kv_pb2.RequestOp) -> kv_pb2.TxnRequest:
    whole = txn = kv_pb2.TxnRequest()
    for _ in range(depth - 1):
        # Built in place: a parser gives up at a depth of 50.
        txn = txn.failure.add().request_txn
    txn.success.append(leaf)
    return whole


_GET_MINE: Final = _op(request_range=kv_pb2.RangeRequest(key=_MINE))
_GET_THEIRS: Final = _op(request_range=kv_pb2.RangeRequest(key=_THEIRS))
_PUT_THEIRS: Final = _op(request_put=kv_pb2.PutRequest(key=_THEIRS))
_PEEK: Final = _op(request_put=kv_pb2.PutRequest(key=_MINE, prev_kv=True))
_BIND: Final = _op(request_put=kv_pb2.PutRequest(key=_MINE, lease=2))

_KEY_ROWS: Final = (
    _ok(READER, kv_pb2.RangeRequest(key=_MINE)),
    _ok(READER, kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app0")),
    _ok(TENANT_ROOT, kv_pb2.RangeRequest(key=b"\0", range_end=b"\0")),
    _no(WRITER, kv_pb2.RangeRequest(key=_MINE)),
    _no(READER, kv_pb2.RangeRequest(key=_THEIRS)),
    _no(READER, kv_pb2.RangeRequest(key=_THEIRS, count_only=True)),
    _no(READER, kv_pb2.RangeRequest(key=_THEIRS, serializable=True)),
    _no(READER, kv_pb2.RangeRequest(key=b"/app/", range_end=b"/app1")),
    _no(READER, kv_pb2.RangeRequest(key=b"/app/", range_end=b"\0")),
    _no(READER, kv_pb2.RangeRequest(key=b"/z", range_end=b"/a")),
    _ok(WRITER, kv_pb2.PutRequest(key=_MINE)),
    _ok(WEB, kv_pb2.PutRequest(key=_MINE, prev_kv=True)),
    _ok(WRITER, kv_pb2.PutRequest(key=_MINE, lease=1)),
    _ok(WRITER, kv_pb2.PutRequest(key=_MINE, lease=99)),
    _no(READER, kv_pb2.PutRequest(key=_MINE)),
    _no(WRITER, kv_pb2.PutRequest(key=_THEIRS)),
    _no(WRITER, kv_pb2.PutRequest(key=_MINE, prev_kv=True)),
    _no(WRITER, kv_pb2.PutRequest(key=_MINE, lease=2)),
    _ok(WRITER, kv_pb2.DeleteRangeRequest(key=b"/app/", range_end=b"/app0")),
    _ok(WEB, kv_pb2.DeleteRangeRequest(key=_MINE, prev_kv=True)),
    _no(WRITER, kv_pb2.DeleteRangeRequest(key=b"/app/", range_end=b"\0")),
    _no(WRITER, kv_pb2.DeleteRangeRequest(key=_MINE, prev_kv=True)),
    _no(READER, kv_pb2.DeleteRangeRequest(key=_MINE)),
    _ok(READER, kv_pb2.Compare(key=_MINE)),
    _ok(READER, kv_pb2.Compare(key=b"/app/", range_end=b"/app0")),
    _no(WRITER, kv_pb2.Compare(key=_MINE)),
    _no(READER, kv_pb2.Compare(key=_MINE, range_end=b"\0")),
    _ok(READER, _GET_MINE),
    _no(READER, _GET_THEIRS),
    _ok(TENANT_ROOT, kv_pb2.TxnRequest(success=[_PUT_THEIRS])),
    _ok(READER, kv_pb2.TxnRequest(compare=[kv_pb2.Compare(key=_MINE)], success=[_GET_MINE])),
    _ok(READER, _nested(40, _GET_MINE)),
    _no(READER, kv_pb2.TxnRequest(compare=[kv_pb2.Compare(key=_THEIRS)])),
    _no(READER, kv_pb2.TxnRequest(success=[_GET_MINE, _GET_THEIRS])),
    _no(READER, kv_pb2.TxnRequest(failure=[_GET_THEIRS])),
    _no(WRITER, kv_pb2.TxnRequest(success=[_PEEK])),
    _no(WEB, kv_pb2.TxnRequest(failure=[_BIND])),
    *(_no(WEB, _nested(depth, leaf)) for depth in (1, 2, 9, 40) for leaf in (_PUT_THEIRS, _BIND)),
    _no(WRITER, _nested(7, _PEEK)),
    _no(CLUSTER_ROOT, _nested(TXN_DEPTH_MAX + 1, _GET_MINE), Decision.DENY_UNKNOWN),
    _ok(CLUSTER_ROOT, kv_pb2.CompactionRequest(revision=1)),
    _no(TENANT_ROOT, kv_pb2.CompactionRequest(revision=1), _NOT_CLUSTER),
    _no(WEB, kv_pb2.CompactionRequest(revision=1), _NOT_CLUSTER),
)

_VERSION_ROWS: Final = (
    _ok(READER, version_pb2.HistoryRequest(key=_MINE)),
    _ok(TENANT_ROOT, version_pb2.HistoryRequest(key=_THEIRS)),
    _no(WRITER, version_pb2.HistoryRequest(key=_MINE)),
    _no(WRITER, version_pb2.HistoryRequest(key=_MINE, keys_only=True)),
    _no(READER, version_pb2.HistoryRequest(key=_THEIRS)),
    _ok(READER, version_pb2.RevisionAtRequest(time_s=1)),
)

_WATCH_ROWS: Final = (
    # The union that carries them is not a request of its own.
    _no(CLUSTER_ROOT, watch_pb2.WatchRequest(), Decision.DENY_UNKNOWN),
    _ok(READER, watch_pb2.WatchCreateRequest(key=b"/app/", range_end=b"/app0")),
    _ok(TENANT_ROOT, watch_pb2.WatchCreateRequest(range_end=b"\0")),
    _no(READER, watch_pb2.WatchCreateRequest(key=_MINE, range_end=b"\0")),
    _no(READER, watch_pb2.WatchCreateRequest()),
    _no(READER, watch_pb2.WatchCreateRequest(range_end=b"\0")),
    _no(WRITER, watch_pb2.WatchCreateRequest(key=_MINE)),
    _ok(READER, watch_pb2.WatchCancelRequest(watch_id=1)),
    _ok(READER, watch_pb2.WatchProgressRequest()),
)

_LEASE_ROWS: Final = (
    _ok(READER, lease_pb2.LeaseGrantRequest(TTL=5)),
    _ok(WRITER, lease_pb2.LeaseRevokeRequest(ID=1)),
    _ok(WRITER, lease_pb2.LeaseRevokeRequest(ID=99)),
    _no(WRITER, lease_pb2.LeaseRevokeRequest(ID=2)),
    _no(READER, lease_pb2.LeaseRevokeRequest(ID=1)),
    _ok(WRITER, lease_pb2.LeaseKeepAliveRequest(ID=1)),
    _no(READER, lease_pb2.LeaseKeepAliveRequest(ID=1)),
    _no(WRITER, lease_pb2.LeaseKeepAliveRequest(ID=2)),
    _ok(READER, lease_pb2.LeaseTimeToLiveRequest(ID=1, keys=True)),
    _ok(READER, lease_pb2.LeaseTimeToLiveRequest(ID=2)),
    _no(READER, lease_pb2.LeaseTimeToLiveRequest(ID=2, keys=True)),
    _no(WRITER, lease_pb2.LeaseTimeToLiveRequest(ID=1, keys=True)),
    _ok(READER, lease_pb2.LeaseLeasesRequest(), _EMPTY_BOOK),
    _ok(TENANT_ROOT, lease_pb2.LeaseLeasesRequest()),
    _no(READER, lease_pb2.LeaseLeasesRequest()),
)

_LEADS: Final = election_pb2.LeaderKey(name=b"/app/e", key=b"/app/e/1", rev=5, lease=1)
_LEADS_THEM: Final = election_pb2.LeaderKey(name=b"/app/e", key=b"/ops/e/1", rev=5, lease=1)
_LEADS_FOREIGN: Final = election_pb2.LeaderKey(name=b"/app/e", key=b"/app/e/1", rev=5, lease=2)
# A place in a queue is written, and the whole queue is read.
_QUEUE_ROWS: Final = (
    _ok(WEB, lock_pb2.LockRequest(name=b"/app/l", lease=1)),
    _ok(WEB, lock_pb2.LockRequest(name=b"/app/l", lease=99)),
    _no(READER, lock_pb2.LockRequest(name=b"/app/l", lease=1)),
    _no(WRITER, lock_pb2.LockRequest(name=b"/app/l", lease=1)),
    _no(WEB, lock_pb2.LockRequest(name=b"/app/l", lease=2)),
    _no(WEB, lock_pb2.LockRequest(name=b"/ops/l", lease=1)),
    _ok(WEB, lock_pb2.LockRequest(name=b"/app", lease=1)),
    _no(WEB, lock_pb2.LockRequest(lease=1)),
    _no(POINT, lock_pb2.LockRequest(name=b"/app/l", lease=1), book=LeaseBook({})),
    _no(POINT, election_pb2.CampaignRequest(name=b"/app/l", lease=1), book=LeaseBook({})),
    _ok(WRITER, lock_pb2.UnlockRequest(key=b"/app/l/1")),
    _no(READER, lock_pb2.UnlockRequest(key=b"/app/l/1")),
    _no(WRITER, lock_pb2.UnlockRequest(key=b"/ops/l/1")),
    _ok(WEB, election_pb2.CampaignRequest(name=b"/app/e", lease=1, value=b"v")),
    _no(READER, election_pb2.CampaignRequest(name=b"/app/e", lease=1)),
    _no(WRITER, election_pb2.CampaignRequest(name=b"/app/e", lease=1)),
    _no(WEB, election_pb2.CampaignRequest(name=b"/app/e", lease=2)),
    _no(WEB, election_pb2.CampaignRequest(name=b"/ops/e", lease=1)),
    _ok(WEB, election_pb2.ProclaimRequest(leader=_LEADS, value=b"v")),
    _no(READER, election_pb2.ProclaimRequest(leader=_LEADS)),
    _no(WRITER, election_pb2.ProclaimRequest(leader=_LEADS)),
    # What counts is the key, not the name beside it.
    _no(WEB, election_pb2.ProclaimRequest(leader=_LEADS_THEM)),
    _no(WEB, election_pb2.ProclaimRequest(leader=_LEADS_FOREIGN)),
    _ok(WEB, election_pb2.ResignRequest(leader=_LEADS)),
    _no(READER, election_pb2.ResignRequest(leader=_LEADS)),
    _no(WRITER, election_pb2.ResignRequest(leader=_LEADS)),
    _no(WEB, election_pb2.ResignRequest(leader=_LEADS_THEM)),
    _ok(READER, election_pb2.LeaderRequest(name=b"/app/e")),
    _no(WRITER, election_pb2.LeaderRequest(name=b"/app/e")),
    _no(READER, election_pb2.LeaderRequest(name=b"/ops/e")),
)

_ADMIN_ONLY: Final = (
    auth_pb2.AuthEnableRequest(),
    auth_pb2.AuthDisableRequest(),
    auth_pb2.AuthUserAddRequest(name="web"),
    auth_pb2.AuthUserListRequest(),
    auth_pb2.AuthUserDeleteRequest(name="web"),
    auth_pb2.AuthUserChangePasswordRequest(name="web"),
    auth_pb2.AuthUserGrantRoleRequest(user="web", role="app"),
    auth_pb2.AuthUserRevokeRoleRequest(name="web", role="app"),
    auth_pb2.AuthRoleAddRequest(name="app"),
    auth_pb2.AuthRoleListRequest(),
    auth_pb2.AuthRoleDeleteRequest(role="app"),
    auth_pb2.AuthRoleGrantPermissionRequest(name="app"),
    auth_pb2.AuthRoleRevokePermissionRequest(role="app"),
    version_pb2.RetentionSetRequest(prefix=_MINE, keep_versions=1),
    version_pb2.RetentionListRequest(),
    version_pb2.DestroyRequest(key=_MINE),
    version_pb2.DestroyStatusRequest(),
    version_pb2.RetentionDeleteRequest(prefix=_MINE),
)
_CLUSTER_ONLY: Final = (
    tenant_pb2.TenantAddRequest(name="acme"),
    tenant_pb2.TenantListRequest(),
    cluster_pb2.MemberAddRequest(peerURLs=["https://a:2380"]),
    cluster_pb2.MemberRemoveRequest(ID=1),
    cluster_pb2.MemberUpdateRequest(ID=1, peerURLs=["https://a:2380"]),
    cluster_pb2.MemberPromoteRequest(ID=1),
    # As they are in the log.
    state_pb2.MemberAdd(member=state_pb2.Member(id=1)),
    state_pb2.MemberRemove(id=1),
    state_pb2.MemberUpdate(id=1),
    state_pb2.MemberPromote(id=1),
    maintenance_pb2.HashRequest(),
    maintenance_pb2.HashKVRequest(revision=2),
    maintenance_pb2.DefragmentRequest(),
    maintenance_pb2.SnapshotRequest(),
    maintenance_pb2.MoveLeaderRequest(targetID=1),
    maintenance_pb2.DowngradeRequest(version="3.4"),
    tenant_pb2.TenantGetRequest(name="acme"),
    tenant_pb2.TenantDeleteRequest(name="acme"),
    tenant_pb2.AuditHeadRequest(),
    tenant_pb2.AuditHeadsRequest(),
    tenant_pb2.AuditTailRequest(count=1),
    crypto_pb2.CryptoStatusRequest(count=True),
    crypto_pb2.CryptoRotateRequest(kek=True),
    crypto_pb2.CryptoReencryptRequest(rows_per_second=1),
    crypto_pb2.CryptoRetireRequest(term=1),
    joining_pb2.JoinTokenAddRequest(ttl_s=60),
)
_ACCOUNT_ROWS: Final = (
    *(_ok(TENANT_ROOT, request) for request in _ADMIN_ONLY),
    *(_no(WEB, request, _NOT_ADMIN) for request in _ADMIN_ONLY),
    *(_ok(CLUSTER_ROOT, request) for request in _CLUSTER_ONLY),
    *(_no(TENANT_ROOT, request, _NOT_CLUSTER) for request in _CLUSTER_ONLY),
    *(_no(WEB, request, _NOT_CLUSTER) for request in _CLUSTER_ONLY),
    _ok(WEB, auth_pb2.AuthUserGetRequest(name="web")),
    _no(WEB, auth_pb2.AuthUserGetRequest(name="root"), _NOT_ADMIN),
    _no(WEB, auth_pb2.AuthUserGetRequest(), _NOT_ADMIN),
    _ok(WEB, auth_pb2.AuthRoleGetRequest(role="app")),
    _no(WEB, auth_pb2.AuthRoleGetRequest(role="root"), _NOT_ADMIN),
    _ok(WEB, auth_pb2.AuthStatusRequest()),
    _ok(WEB, auth_pb2.AuthenticateRequest(name="web")),
    _ok(WEB, cluster_pb2.MemberListRequest()),
    _ok(WEB, maintenance_pb2.StatusRequest()),
    _ok(WEB, health_pb2.HealthCheckRequest()),
    _ok(WEB, reflection_pb2.ServerReflectionRequest()),
    _ok(WEB, joining_pb2.JoinAuthorityRequest()),
    # Its token decides.
    _ok(WEB, joining_pb2.JoinRedeemRequest(name="m2")),
    _ok(WEB, maintenance_pb2.AlarmRequest()),
    *(
        row
        for action in ("ACTIVATE", "DEACTIVATE")
        for row in (
            _ok(CLUSTER_ROOT, maintenance_pb2.AlarmRequest(action=action)),
            _no(TENANT_ROOT, maintenance_pb2.AlarmRequest(action=action), _NOT_CLUSTER),
        )
    ),
    # The member makes it by itself.
    _no(CLUSTER_ROOT, state_pb2.VerifierUpgrade(user="root"), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.PutBurst(), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, lease_pb2.LeaseCheckpointRequest(), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.Clock(time_s=1), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.Compare(form=1), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.MemberPublish(id=1), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.SigningKeyAdd(member_id=1), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.AuditHeadTell(member_id=1), Decision.DENY_UNKNOWN),
    _no(CLUSTER_ROOT, state_pb2.AuditHeadMiss(member_id=1), Decision.DENY_UNKNOWN),
    # An action of no name is not reading.
    _no(TENANT_ROOT, maintenance_pb2.AlarmRequest(action=7), _NOT_CLUSTER),
)

_ROWS: Final = (
    *_KEY_ROWS,
    *_VERSION_ROWS,
    *_WATCH_ROWS,
    *_LEASE_ROWS,
    *_QUEUE_ROWS,
    *_ACCOUNT_ROWS,
)
# Rows that say yes to every user, and the one that says no to everybody.
_NEVER_DENIED: Final = frozenset(
    {
        watch_pb2.WatchCancelRequest,
        watch_pb2.WatchProgressRequest,
        lease_pb2.LeaseGrantRequest,
        auth_pb2.AuthStatusRequest,
        auth_pb2.AuthenticateRequest,
        cluster_pb2.MemberListRequest,
        maintenance_pb2.StatusRequest,
        health_pb2.HealthCheckRequest,
        reflection_pb2.ServerReflectionRequest,
        joining_pb2.JoinAuthorityRequest,
        joining_pb2.JoinRedeemRequest,
        version_pb2.RevisionAtRequest,
    }
)
_NEVER_ALLOWED: Final = frozenset(
    {
        watch_pb2.WatchRequest,
        lease_pb2.LeaseCheckpointRequest,
        state_pb2.AuditHeadMiss,
        state_pb2.AuditHeadTell,
        state_pb2.Clock,
        state_pb2.Compare,
        state_pb2.MemberPublish,
        state_pb2.PutBurst,
        state_pb2.SigningKeyAdd,
        state_pb2.VerifierUpgrade,
    }
)


def _name(row: object) -> str:
    if isinstance(row, Row):
        return f"{type(row.request).__name__}-{row.decision.value}"
    return ""


@pytest.mark.parametrize("row", _ROWS, ids=_name)
def test_rule_decides(row: Row) -> None:
    """Every row of the law decides as etcd-surface section 3.5 says, or stricter."""
    decided = decide(row.grants, row.request, row.book)

    assert decided is row.decision, row.request


@pytest.mark.parametrize(
    "request_",
    [
        lock_pb2.LockRequest(name=b"/app/l", lease=0x1F),
        election_pb2.CampaignRequest(name=b"/app/l", lease=0x1F, value=b"v"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_a_place_is_asked_for_with_what_leaves_it(
    request_: lock_pb2.LockRequest | election_pb2.CampaignRequest,
) -> None:
    """The law decides taking a place and giving it up before anybody has it."""
    asked = asked_of_keys(request_)

    assert entering(request_) in asked
    assert leaving(b"/app/l/1f", 0) in asked


def test_every_rule_is_proved_both_ways() -> None:
    """No row of the law is without a case that it allows and a case that it refuses."""
    allowed = {type(row.request) for row in _ROWS if row.decision is Decision.ALLOW}
    denied = {type(row.request) for row in _ROWS if row.decision is not Decision.ALLOW}

    assert allowed == RULES.keys() - _NEVER_ALLOWED
    assert denied == RULES.keys() - _NEVER_DENIED


def test_a_message_without_a_rule_is_denied_to_everybody() -> None:
    """What the law does not know does not pass, not even for the root of the cluster."""
    for request in (state_pb2.User(name="root"), kv_pb2.RangeResponse()):
        assert decide(CLUSTER_ROOT, request, _BOOK) is Decision.DENY_UNKNOWN


def test_strangers_may_make_six_requests() -> None:
    """Only what says nothing about anybody is open, and the doors by which one comes in."""
    opened = {request for request in RULES if is_open(request())}

    assert opened == {
        auth_pb2.AuthStatusRequest,
        auth_pb2.AuthenticateRequest,
        health_pb2.HealthCheckRequest,
        joining_pb2.JoinAuthorityRequest,
        joining_pb2.JoinRedeemRequest,
        reflection_pb2.ServerReflectionRequest,
    }
    assert not is_open(state_pb2.VerifierUpgrade())


def test_admin_of_a_tenant_has_no_right_over_the_cluster() -> None:
    """No request whose effect leaves the tenant is allowed to the tenant's root."""
    for row in _ROWS:
        if row.decision is Decision.DENY_NOT_CLUSTER_ADMIN:
            assert decide(TENANT_ROOT, row.request, _BOOK) is not Decision.ALLOW


def test_nobody_with_nothing_reaches_a_key() -> None:
    """Grants of nothing allow no range, put, deletion, comparison or watch, whatever its keys."""
    nobody = Grants(
        user="",
        roles=frozenset(),
        read=NOTHING,
        write=NOTHING,
        admin=False,
        cluster_admin=False,
    )
    kinds = (
        kv_pb2.RangeRequest,
        kv_pb2.PutRequest,
        kv_pb2.DeleteRangeRequest,
        kv_pb2.Compare,
        watch_pb2.WatchCreateRequest,
        version_pb2.HistoryRequest,
    )

    for kind in kinds:
        for key in (b"", b"\0", b"a", b"\xff" * 9):
            assert decide(nobody, kind(key=key), _BOOK) is _KEYS
            if "range_end" in kind.DESCRIPTOR.fields_by_name:
                for end in (b"\0", b"a", b"\xff"):
                    request = kind(key=key, range_end=end)
                    assert decide(nobody, request, _BOOK) is _KEYS
