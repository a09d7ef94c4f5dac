"""Apply: the second decision, alarms, and commands that are refused without a trace."""

from collections.abc import Callable

import pytest
from core import requests
from core.snapshots import everything
from core.stored_tables import MemoryTables, reload
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvsecure.api import shape
from kvsecure.core.accounts import ROOT
from kvsecure.core.apply import apply
from kvsecure.core.entry import COMMANDS
from kvsecure.core.state import State
from kvsecure.model.answer import Answer
from kvsecure.model.burst import PutBurst
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT, LeaseId, TenantId
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    state_pb2,
    tenant_pb2,
    version_pb2,
)

_READWRITE = authstore_pb2.Permission.READWRITE
_SYSTEM = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)


def _do(state: State, command: Message | PutBurst, *, caller: Caller = _SYSTEM) -> Answer | Failure:
    try:
        return apply(state, caller, command, 0)
    except Refused as refused:
        return refused.failure


def _law(state: State) -> int:
    tenant = state.accounts.tenant(DEFAULT_TENANT)
    assert tenant is not None
    return tenant.law_revision


def _caller(state: State, user: str) -> Caller:
    """Return a caller that the gate has let pass just now."""
    return Caller(DEFAULT_TENANT, Origin.USER, user, _law(state))


@pytest.fixture
def state() -> State:
    """A cluster with root, and u whose role r may read and write keys beginning with a."""
    state = reload(MemoryTables())
    for command in (
        auth_pb2.AuthUserAddRequest(name=ROOT, hashedPassword="h"),
        auth_pb2.AuthUserGrantRoleRequest(user=ROOT, role=ROOT),
        auth_pb2.AuthUserAddRequest(name="u", hashedPassword="h"),
        auth_pb2.AuthRoleAddRequest(name="r"),
        auth_pb2.AuthRoleGrantPermissionRequest(
            name="r",
            perm=authstore_pb2.Permission(permType=_READWRITE, key=b"a", range_end=b"b"),
        ),
        auth_pb2.AuthUserGrantRoleRequest(user="u", role="r"),
        auth_pb2.AuthEnableRequest(),
    ):
        assert isinstance(_do(state, command), Answer)
    return state


# --- the second decision ------------------------------------------------------------------------

_MOVES: tuple[tuple[str, Message], ...] = (
    ("role-revoked", auth_pb2.AuthUserRevokeRoleRequest(name="u", role="r")),
    ("role-deleted", auth_pb2.AuthRoleDeleteRequest(role="r")),
    (
        "permission-revoked",
        auth_pb2.AuthRoleRevokePermissionRequest(role="r", key=b"a", range_end=b"b"),
    ),
    ("user-deleted", auth_pb2.AuthUserDeleteRequest(name="u")),
)
_WRITES: tuple[tuple[str, Message], ...] = (
    ("put", kv_pb2.PutRequest(key=b"a1", value=b"v")),
    ("delete", kv_pb2.DeleteRangeRequest(key=b"a", range_end=b"b")),
    (
        "txn",
        kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"a1"))]),
    ),
)


@pytest.mark.parametrize("move", [m[1] for m in _MOVES], ids=[m[0] for m in _MOVES])
@pytest.mark.parametrize("write", [w[1] for w in _WRITES], ids=[w[0] for w in _WRITES])
def test_write_is_decided_again_when_accounts_moved(
    state: State, move: Message, write: Message
) -> None:
    """A write that was allowed before a right was taken is refused when it is applied after."""
    caller = _caller(state, "u")
    before = _do(state, write, caller=caller)
    _do(state, move)
    store = everything(state)

    after = _do(state, write, caller=caller)

    assert isinstance(before, Answer)
    assert after is Failure.PERMISSION_DENIED
    assert everything(state) == store


def test_write_passes_when_accounts_moved_elsewhere(state: State) -> None:
    """A change of accounts that leaves the right alone does not refuse what was allowed."""
    caller = _caller(state, "u")
    _do(state, auth_pb2.AuthUserAddRequest(name="v", hashedPassword="h"))

    assert isinstance(_do(state, kv_pb2.PutRequest(key=b"a"), caller=caller), Answer)


def test_administration_is_decided_again(state: State) -> None:
    """Who lost the role root between gate and apply cannot give it back to itself."""
    _do(state, auth_pb2.AuthUserGrantRoleRequest(user="u", role=ROOT))
    caller = _caller(state, "u")
    _do(state, auth_pb2.AuthUserRevokeRoleRequest(name="u", role=ROOT))

    again = _do(state, auth_pb2.AuthUserGrantRoleRequest(user="u", role=ROOT), caller=caller)

    assert again is Failure.PERMISSION_DENIED


def test_caller_without_identity_is_refused_once_authentication_is_on(state: State) -> None:
    """What anybody might do while authentication was off is refused when it came on first."""
    _do(state, auth_pb2.AuthDisableRequest())
    anybody = Caller(DEFAULT_TENANT, Origin.ANYBODY, "", _law(state))
    before = _do(state, kv_pb2.PutRequest(key=b"z"), caller=anybody)
    _do(state, auth_pb2.AuthEnableRequest())

    assert isinstance(before, Answer)
    assert _do(state, kv_pb2.PutRequest(key=b"z"), caller=anybody) is Failure.PERMISSION_DENIED


@pytest.mark.parametrize(
    "write",
    [
        kv_pb2.PutRequest(key=b"a", lease=5),
        kv_pb2.TxnRequest(
            success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"a", lease=5))]
        ),
        kv_pb2.TxnRequest(
            failure=[
                kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"a")),
                kv_pb2.RequestOp(
                    request_txn=kv_pb2.TxnRequest(
                        success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"a", lease=5))]
                    )
                ),
            ]
        ),
        lease_pb2.LeaseRevokeRequest(ID=5),
    ],
    ids=["put", "txn", "nested txn", "revoke"],
)
def test_lease_is_decided_on_the_keys_it_has_now(state: State, write: Message) -> None:
    """A key that somebody tied to the lease after the gate looked counts, as it must."""
    _do(state, lease_pb2.LeaseGrantRequest(ID=5, TTL=60))
    caller = _caller(state, "u")
    _do(state, kv_pb2.PutRequest(key=b"other", lease=5))

    assert _do(state, write, caller=caller) is Failure.PERMISSION_DENIED
    assert LeaseId(5) in state.store.space(DEFAULT_TENANT).leases


@pytest.mark.parametrize("origin", [Origin.USER, Origin.ANYBODY, Origin.SYSTEM])
@pytest.mark.parametrize(
    "command",
    [
        kv_pb2.PutRequest(key=b"a"),
        lease_pb2.LeaseRevokeRequest(ID=5),
        state_pb2.VerifierUpgrade(user="root", old_hash="h", new_hash="g"),
        kv_pb2.CompactionRequest(revision=1),
    ],
    ids=["put", "revoke", "verifier", "compact"],
)
def test_command_of_a_deleted_tenant_is_refused(
    state: State, origin: Origin, command: Message
) -> None:
    """Whatever was on its way when its tenant was deleted is refused, the member's own too."""
    _do(state, tenant_pb2.TenantAddRequest(name="x", root_hashed_password="h"))
    tenant = state.accounts.tenant_named("x")
    caller = Caller(TenantId(tenant.id), origin, ROOT, tenant.law_revision)
    _do(state, tenant_pb2.TenantDeleteRequest(name="x"))

    assert isinstance(_do(state, command, caller=caller), Failure)


def test_verifier_upgrade_is_for_the_member_alone(state: State) -> None:
    """No user can bring a verifier upgrade, not even root: the law lets nobody."""
    caller = _caller(state, ROOT)._replace(law_revision=0)
    upgrade = state_pb2.VerifierUpgrade(user="u", old_hash="h", new_hash="g")

    assert _do(state, upgrade, caller=caller) is Failure.PERMISSION_DENIED


# --- alarms -------------------------------------------------------------------------------------

_PUT = kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"a"))
_DELETE = kv_pb2.RequestOp(request_delete_range=kv_pb2.DeleteRangeRequest(key=b"a"))
_READ = kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"a"))
_NESTED = kv_pb2.RequestOp(request_txn=kv_pb2.TxnRequest(failure=[_PUT]))


@pytest.mark.parametrize(
    ("command", "full", "corrupt"),
    [
        (kv_pb2.PutRequest(key=b"a"), Failure.NO_SPACE, Failure.CORRUPT),
        (kv_pb2.TxnRequest(success=[_PUT]), Failure.NO_SPACE, Failure.CORRUPT),
        (kv_pb2.TxnRequest(failure=[_PUT]), Failure.NO_SPACE, Failure.CORRUPT),
        (kv_pb2.TxnRequest(success=[_NESTED]), Failure.NO_SPACE, Failure.CORRUPT),
        (kv_pb2.TxnRequest(success=[_DELETE, _READ]), None, Failure.CORRUPT),
        (kv_pb2.DeleteRangeRequest(key=b"a"), None, Failure.CORRUPT),
        (kv_pb2.CompactionRequest(revision=1), None, Failure.CORRUPT),
        (lease_pb2.LeaseGrantRequest(ID=9, TTL=5), Failure.NO_SPACE, Failure.CORRUPT),
        (lease_pb2.LeaseRevokeRequest(ID=5), None, Failure.CORRUPT),
        (auth_pb2.AuthUserAddRequest(name="v"), None, None),
        (maintenance_pb2.AlarmRequest(action=1, memberID=4, alarm=1), None, None),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Message) else None,
)
def test_alarms_refuse_what_they_must(
    state: State, command: Message, full: Failure | None, corrupt: Failure | None
) -> None:
    """A full store refuses what grows it, a corrupt one every change of keys and leases."""
    _do(state, lease_pb2.LeaseGrantRequest(ID=5, TTL=5))
    came = {}
    for alarm in (maintenance_pb2.CORRUPT, maintenance_pb2.NOSPACE):
        request = maintenance_pb2.AlarmRequest(memberID=3, alarm=alarm)
        request.action = maintenance_pb2.AlarmRequest.ACTIVATE
        _do(state, request)
        came[alarm] = _do(state, command)
        request.action = maintenance_pb2.AlarmRequest.DEACTIVATE
        _do(state, request)

    for alarm, expected in ((maintenance_pb2.NOSPACE, full), (maintenance_pb2.CORRUPT, corrupt)):
        if expected is not None or alarm == maintenance_pb2.CORRUPT:
            found = came[alarm]
            assert (found if isinstance(found, Failure) else None) is expected
        else:
            assert came[alarm] is not Failure.NO_SPACE


def _raised(answer: Answer | Failure) -> list[tuple[int, int]]:
    assert isinstance(answer, Answer)
    response = maintenance_pb2.AlarmResponse.FromString(answer.body)
    return [(alarm.memberID, alarm.alarm) for alarm in response.alarms]


def test_alarm_answers_with_what_it_changed(state: State) -> None:
    """Raising tells the alarm each time, clearing tells it once, and of that member alone."""

    def ask(action: int, member: int) -> list[tuple[int, int]]:
        request = maintenance_pb2.AlarmRequest(memberID=member, alarm=maintenance_pb2.NOSPACE)
        request.action = action  # type: ignore[assignment]  # an enum
        return _raised(_do(state, request))

    assert ask(1, 3) == ask(1, 3) == [(3, 1)]
    assert ask(1, 0) == [(0, 1)]
    assert ask(2, 3) == [(3, 1)]
    assert ask(2, 3) == []
    assert state.alarms == {(0, 1)}


@pytest.mark.parametrize(("action", "alarm"), [(1, -1), (1, 99), (1, 0), (7, 1), (-1, 1)])
def test_unknown_alarm_changes_nothing(state: State, action: int, alarm: int) -> None:
    """An alarm or an action that there is not is answered with nothing, and does nothing."""
    _do(state, maintenance_pb2.AlarmRequest(action=1, memberID=3, alarm=1))
    before = everything(state)
    request = maintenance_pb2.AlarmRequest(memberID=3)
    request.action = action  # type: ignore[assignment]  # proto3 keeps unknown numbers
    request.alarm = alarm  # type: ignore[assignment]  # proto3 keeps unknown numbers

    assert _raised(_do(state, request)) == []
    assert everything(state) == before


# --- refusals, and anything at all --------------------------------------------------------------

_NAMES = st.sampled_from(("", ROOT, "u", "r", "v", "x"))
_MEMBERS = st.sampled_from((0, 3, 4, 5, 2**64 - 1))
_URLS = st.lists(st.sampled_from(("https://a:1", "https://b:1", "https://c:1")), max_size=2)
_INT64 = st.one_of(st.integers(-3, 20), st.sampled_from((-(2**63), 2**63 - 1)))
_SPAN_ENDS = st.sampled_from((b"", b"\0", b"b", b"z"))


def _shaped(check: Callable[[Message], object]) -> Callable[[Message], bool]:
    def holds(message: Message) -> bool:
        try:
            check(message)
        except Refused:
            return False
        return True

    return holds


_PERMISSIONS = st.builds(
    authstore_pb2.Permission,
    permType=st.integers(0, 2),
    key=requests.keys,
    range_end=_SPAN_ENDS,
).filter(_shaped(shape.check_permission))
# Anything that a request or the member itself can bring into the log, in the shape it then has.
_ANYTHING: dict[type[Message], st.SearchStrategy[Message | PutBurst]] = {
    kv_pb2.PutRequest: requests.puts(),
    state_pb2.PutBurst: st.builds(
        PutBurst, st.lists(st.tuples(requests.keys, st.binary(max_size=4)), min_size=1, max_size=4)
    ),
    kv_pb2.DeleteRangeRequest: requests.deletes(),
    kv_pb2.TxnRequest: requests.txns(),
    kv_pb2.CompactionRequest: st.builds(kv_pb2.CompactionRequest, revision=_INT64),
    state_pb2.Clock: st.builds(state_pb2.Clock, time_s=_INT64),
    state_pb2.Compare: st.builds(state_pb2.Compare, form=st.sampled_from((0, 1, 2))),
    version_pb2.RetentionSetRequest: st.builds(
        version_pb2.RetentionSetRequest,
        prefix=requests.keys,
        keep_versions=st.integers(0, 2**32 - 1),
        keep_for_s=st.integers(0, 2**64 - 1),
    ),
    version_pb2.DestroyRequest: st.builds(version_pb2.DestroyRequest, key=requests.keys),
    version_pb2.RetentionDeleteRequest: st.builds(
        version_pb2.RetentionDeleteRequest, prefix=requests.keys
    ),
    lease_pb2.LeaseGrantRequest: st.builds(
        lease_pb2.LeaseGrantRequest, ID=_INT64, TTL=st.integers(2, 9_000_000_000)
    ),
    lease_pb2.LeaseRevokeRequest: st.builds(lease_pb2.LeaseRevokeRequest, ID=_INT64),
    lease_pb2.LeaseCheckpointRequest: st.builds(
        lease_pb2.LeaseCheckpointRequest,
        checkpoints=st.lists(
            st.builds(lease_pb2.LeaseCheckpoint, ID=_INT64, remaining_TTL=_INT64), max_size=3
        ),
    ),
    auth_pb2.AuthEnableRequest: st.builds(auth_pb2.AuthEnableRequest),
    auth_pb2.AuthDisableRequest: st.builds(auth_pb2.AuthDisableRequest),
    auth_pb2.AuthUserAddRequest: st.builds(
        auth_pb2.AuthUserAddRequest, name=_NAMES, hashedPassword=st.just("h")
    ),
    auth_pb2.AuthUserDeleteRequest: st.builds(auth_pb2.AuthUserDeleteRequest, name=_NAMES),
    auth_pb2.AuthUserChangePasswordRequest: st.builds(
        auth_pb2.AuthUserChangePasswordRequest, name=_NAMES, hashedPassword=st.just("g")
    ),
    auth_pb2.AuthUserGrantRoleRequest: st.builds(
        auth_pb2.AuthUserGrantRoleRequest, user=_NAMES, role=_NAMES
    ),
    auth_pb2.AuthUserRevokeRoleRequest: st.builds(
        auth_pb2.AuthUserRevokeRoleRequest, name=_NAMES, role=_NAMES
    ),
    auth_pb2.AuthRoleAddRequest: st.builds(auth_pb2.AuthRoleAddRequest, name=_NAMES),
    auth_pb2.AuthRoleDeleteRequest: st.builds(auth_pb2.AuthRoleDeleteRequest, role=_NAMES),
    auth_pb2.AuthRoleGrantPermissionRequest: st.builds(
        auth_pb2.AuthRoleGrantPermissionRequest, name=_NAMES, perm=_PERMISSIONS
    ),
    auth_pb2.AuthRoleRevokePermissionRequest: st.builds(
        auth_pb2.AuthRoleRevokePermissionRequest,
        role=_NAMES,
        key=requests.keys,
        range_end=_SPAN_ENDS,
    ),
    state_pb2.VerifierUpgrade: st.builds(
        state_pb2.VerifierUpgrade, user=_NAMES, old_hash=st.just("h"), new_hash=st.just("g")
    ),
    maintenance_pb2.AlarmRequest: st.builds(
        maintenance_pb2.AlarmRequest,
        action=st.integers(-1, 3),
        memberID=st.sampled_from((0, 3, 2**64 - 1)),
        alarm=st.integers(-1, 4),
    ),
    tenant_pb2.TenantAddRequest: st.builds(
        tenant_pb2.TenantAddRequest,
        name=st.sampled_from(("x", "y")),
        root_no_password=st.booleans(),
    ),
    state_pb2.MemberAdd: st.builds(
        state_pb2.MemberAdd,
        member=st.builds(state_pb2.Member, id=_MEMBERS, peer_urls=_URLS, is_learner=st.booleans()),
        learners_max=st.integers(0, 2),
    ),
    state_pb2.MemberRemove: st.builds(state_pb2.MemberRemove, id=_MEMBERS),
    state_pb2.MemberUpdate: st.builds(state_pb2.MemberUpdate, id=_MEMBERS, peer_urls=_URLS),
    state_pb2.MemberPromote: st.builds(state_pb2.MemberPromote, id=_MEMBERS),
    state_pb2.MemberPublish: st.builds(
        state_pb2.MemberPublish, id=_MEMBERS, name=_NAMES, client_urls=_URLS
    ),
    state_pb2.SigningKeyAdd: st.builds(
        state_pb2.SigningKeyAdd,
        member_id=_MEMBERS,
        public_key=st.sampled_from((b"", b"k", b"k" * 32, b"l" * 32)),
    ),
    state_pb2.AuditHeadTell: st.builds(
        state_pb2.AuditHeadTell,
        member_id=_MEMBERS,
        seq=st.integers(0, 3),
        hash=st.sampled_from((b"", b"h" * 32, b"i" * 32)),
        signature=st.sampled_from((b"", b"s" * 64)),
    ),
    state_pb2.AuditHeadMiss: st.builds(
        state_pb2.AuditHeadMiss, member_id=_MEMBERS, seq=st.integers(0, 3)
    ),
    tenant_pb2.TenantDeleteRequest: st.builds(
        tenant_pb2.TenantDeleteRequest, name=st.sampled_from(("x", "y", "default", "system", ""))
    ),
}
_CALLERS = st.builds(
    Caller,
    st.sampled_from((TenantId(0), TenantId(1), TenantId(1), TenantId(16), TenantId(17))),
    st.sampled_from((Origin.SYSTEM, Origin.SYSTEM, *Origin)),
    st.sampled_from((ROOT, "u", "v", "")),
    st.integers(0, 30),
)


def test_every_command_is_tried() -> None:
    """There is a strategy for each command that a log may hold."""
    assert _ANYTHING.keys() == set(COMMANDS.values())


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(commands=st.lists(st.tuples(_CALLERS, st.one_of(*_ANYTHING.values())), max_size=30))
def test_command_is_answered_or_refused_without_a_trace(
    commands: list[tuple[Caller, Message | PutBurst]],
) -> None:
    """Whoever brings whatever: it is carried out, or refused and the state is as it was."""
    state = reload(MemoryTables())
    for caller, command in commands:
        before = everything(state)

        came = _do(state, command, caller=caller)

        if isinstance(came, Failure):
            assert everything(state) == before
        else:
            assert came.revision == state.store.revision


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(commands=st.lists(st.tuples(_CALLERS, st.one_of(*_ANYTHING.values())), max_size=30))
def test_replay_makes_the_same_state(commands: list[tuple[Caller, Message | PutBurst]]) -> None:
    """The same commands in the same order make the same state on every member."""
    first, second = reload(MemoryTables()), reload(MemoryTables())

    outcomes = [
        [_do(state, command, caller=caller) for caller, command in commands]
        for state in (first, second)
    ]

    assert outcomes[0] == outcomes[1]
    assert everything(first) == everything(second)
    assert first.mark == second.mark
