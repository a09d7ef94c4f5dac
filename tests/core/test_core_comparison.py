"""What the applied state comes to at one index, as members compare it."""

from collections.abc import Callable
from typing import Final

import pytest
from core.stored_tables import MemoryTables, reload
from google.protobuf.message import Message

from kvsecure.core.apply import apply
from kvsecure.core.comparison import COMPARISON_FORM, is_history_of
from kvsecure.core.mark import Mark
from kvsecure.core.state import State
from kvsecure.model.answer import Answer
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT, SYSTEM_TENANT, LeaseId, TenantId
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

_COMPARE: Final = state_pb2.Compare(form=COMPARISON_FORM)
_MEMBER: Final = state_pb2.Member(id=7, peer_urls=["https://m7:1"])
# A state of everything that members have alike.
_MADE: Final[tuple[tuple[Message, TenantId], ...]] = (
    (kv_pb2.PutRequest(key=b"k", value=b"v"), DEFAULT_TENANT),
    (lease_pb2.LeaseGrantRequest(ID=5, TTL=600), DEFAULT_TENANT),
    (auth_pb2.AuthUserAddRequest(name="u", hashedPassword="h"), DEFAULT_TENANT),
    (auth_pb2.AuthRoleAddRequest(name="r"), DEFAULT_TENANT),
    (state_pb2.MemberAdd(member=_MEMBER), SYSTEM_TENANT),
    (version_pb2.RetentionSetRequest(prefix=b"k", keep_versions=3), DEFAULT_TENANT),
)


def _do(state: State, command: Message, tenant: TenantId = DEFAULT_TENANT) -> int:
    """Carry out a command, in steps if it takes them; return how many."""
    came = apply(state, Caller(tenant, Origin.SYSTEM, "", 0), command, 0)
    count = 0
    while not isinstance(came, Answer):
        count += 1
        try:
            next(came)
        except StopIteration:
            break
    return count


def _made() -> State:
    state = reload(MemoryTables())
    for command, tenant in _MADE:
        _do(state, command, tenant)
    return state


def _mark(state: State) -> Mark:
    _do(state, _COMPARE, SYSTEM_TENANT)
    assert state.mark is not None
    return state.mark


def _raise_epoch(state: State) -> None:
    tenant = state.accounts.tenant(DEFAULT_TENANT)
    assert tenant is not None
    tenant.record.session_epoch += 1


_CHANGES: Final[dict[str, Callable[[State], object]]] = {
    "a user's verifier": lambda state: _do(
        state, auth_pb2.AuthUserChangePasswordRequest(name="u", hashedPassword="other")
    ),
    "a user's role": lambda state: _do(
        state, auth_pb2.AuthUserGrantRoleRequest(user="u", role="r")
    ),
    "a role's permission": lambda state: _do(
        state,
        auth_pb2.AuthRoleGrantPermissionRequest(
            name="r", perm=authstore_pb2.Permission(permType=2, key=b"k")
        ),
    ),
    "a tenant's record": _raise_epoch,
    "a tenant": lambda state: _do(
        state, tenant_pb2.TenantAddRequest(name="acme", root_no_password=True), SYSTEM_TENANT
    ),
    "a lease": lambda state: _do(state, lease_pb2.LeaseRevokeRequest(ID=5)),
    "a lease's checkpoint": lambda state: _do(
        state,
        lease_pb2.LeaseCheckpointRequest(
            checkpoints=[lease_pb2.LeaseCheckpoint(ID=5, remaining_TTL=300)]
        ),
    ),
    "an alarm": lambda state: _do(
        state, maintenance_pb2.AlarmRequest(action=1, memberID=7, alarm=1), SYSTEM_TENANT
    ),
    "a member": lambda state: _do(
        state, state_pb2.MemberPublish(id=7, name="m7", client_urls=["u"]), SYSTEM_TENANT
    ),
    "who was removed": lambda state: state.members.load_removed(state_pb2.Member(id=9)),
    "a key for tokens": lambda state: state.members.load_key(
        state_pb2.SigningKey(member_id=7, public_key=bytes(32))
    ),
    "how far a trail was told to be": lambda state: state.heads.load(
        state_pb2.ToldHead(member_id=7, seq=1, hash=bytes(32))
    ),
    "a policy": lambda state: _do(
        state, version_pb2.RetentionSetRequest(prefix=b"k", keep_versions=4)
    ),
    "a revision": lambda state: _do(state, kv_pb2.PutRequest(key=b"k", value=b"v")),
    "which keys live": lambda state: state.store.space(DEFAULT_TENANT).index.live.discard(b"k"),
    "a compaction": lambda state: _do(state, kv_pb2.CompactionRequest(revision=2), SYSTEM_TENANT),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES.keys())
def test_digest_is_of_all_that_members_have_alike(change: Callable[[State], object]) -> None:
    """Any one thing that another member has otherwise makes another digest."""
    one, other = _made(), _made()
    change(other)

    assert _mark(one).digest != _mark(other).digest


def test_digest_is_not_of_what_is_a_members_own() -> None:
    """When a lease falls due, and in which order things came or were read back, is no matter."""
    tables = MemoryTables()
    one, other = reload(tables), _made()
    for command, tenant in (*reversed(_MADE[1:5]), _MADE[0], *_MADE[5:]):
        _do(one, command, tenant)
    one.store.space(DEFAULT_TENANT).leases.renew(LeaseId(5), 1)

    assert _mark(one).digest == _mark(other).digest


def test_mark_is_of_the_entry_that_asked_for_it() -> None:
    """It has the index of that entry, and the revisions of that moment."""
    state = _made()
    state.index = type(state.index)(41)

    mark = _mark(state)

    assert (mark.index, mark.revision, mark.compacted) == (42, 2, -1)


def test_digest_of_much_is_made_in_steps() -> None:
    """A thousand parts are the work of one step, and in steps the digest is the same."""
    states = [_made(), _made()]
    for state, leases in zip(states, (range(1, 3_000), range(2_999, 0, -1)), strict=True):
        for lease in leases:
            state.store.space(DEFAULT_TENANT).leases.load(LeaseId(lease), 60, 0, lease)

    steps = [_do(state, _COMPARE, SYSTEM_TENANT) for state in states]

    assert steps == [4, 4]
    assert states[0].mark == states[1].mark is not None


def test_member_of_another_version_says_nothing() -> None:
    """A digest of a form that is not known here is not made, and an older one is forgotten."""
    state = _made()
    _mark(state)

    _do(state, state_pb2.Compare(form=COMPARISON_FORM + 1), SYSTEM_TENANT)

    assert state.mark is None


@pytest.mark.parametrize(
    ("command", "is_kept"),
    [
        (kv_pb2.PutRequest(key=b"k", value=b"w"), True),
        (kv_pb2.DeleteRangeRequest(key=b"k"), True),
        (kv_pb2.CompactionRequest(revision=2), False),
        (version_pb2.DestroyRequest(key=b"k"), False),
        (tenant_pb2.TenantDeleteRequest(name="acme"), False),
    ],
)
def test_history_is_that_of_the_mark_until_some_is_given_up(
    command: Message, *, is_kept: bool
) -> None:
    """New versions change nothing of it; a compaction, a destruction and a tenant's end do."""
    state = _made()
    _do(state, tenant_pb2.TenantAddRequest(name="acme", root_no_password=True), SYSTEM_TENANT)
    mark = _mark(state)

    _do(state, command)

    assert is_history_of(state, mark) is is_kept
