"""The keys of tokens: every member's, for as long as it is one."""

from typing import Final

from core.stored_tables import MemoryTables, flush, reload
from security.lab import CLUSTER, MEMBER, World

from kvsecure.core.apply import apply
from kvsecure.core.members import Members
from kvsecure.crypto.sealing import fresh_key
from kvsecure.crypto.signing import SigningKey
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import kv_pb2, state_pb2
from kvsecure.security.authn import Authenticator
from kvsecure.security.gate import Gate
from kvsecure.security.session import Peer, Session
from kvsecure.security.token_keys import TokenKeys
from kvsecure.security.tokens import TokenMint

_PASSWORD: Final = "lantern-Orbit-zebra-4271"
_GET: Final = kv_pb2.RangeRequest(key=b"/app/k")
_NEIGHBOUR: Final = 0xFEED


def _declare(world: World, member: int, key: SigningKey | None = None) -> None:
    record = state_pb2.Member(id=member, peer_urls=[f"https://host-{member}:2380"])
    world.system(state_pb2.MemberAdd(member=record, learners_max=1), SYSTEM_TENANT)
    if key is not None:
        world.system(
            state_pb2.SigningKeyAdd(member_id=member, public_key=key.public.raw), SYSTEM_TENANT
        )


def _with_neighbour(world: World) -> SigningKey:
    """Return the key of another member; there is a user `web`, who may read /app/."""
    world.role("app", b"/app/", b"/app0")
    world.user("web", "app", password=_PASSWORD)
    key = SigningKey(fresh_key())
    _declare(world, MEMBER)
    _declare(world, _NEIGHBOUR, key)
    return key


def _token_of(world: World, key: SigningKey) -> bytes:
    """Log in at another member, which has the same state."""
    elsewhere = Authenticator(
        world.state,
        TokenMint(key, CLUSTER, 600, TokenKeys(key.public, world.state.members).find),
        stream="elsewhere",
        wall_ns=world.clock,
        token_beats_certificate=False,
    )
    here, world.gate.authenticator = world.gate.authenticator, elsewhere
    try:
        return world.token("web", _PASSWORD)
    finally:
        world.gate.authenticator = here
        elsewhere.close()


def test_a_token_of_another_member_lets_in(world: World) -> None:
    """Whoever logged in at one member is let in by every other one."""
    token = _token_of(world, _with_neighbour(world))

    assert world.ask(_GET, world.peer(), token).body is not None


def test_a_token_is_refused_until_its_key_is_known(world: World) -> None:
    """A member whose key is not in the state has no say, whatever it signs."""
    _with_neighbour(world)
    late = SigningKey(fresh_key())
    _declare(world, 0xABBA)
    token = _token_of(world, late)

    before = world.ask(_GET, world.peer(), token)
    world.system(
        state_pb2.SigningKeyAdd(member_id=0xABBA, public_key=late.public.raw), SYSTEM_TENANT
    )

    assert before.why == "INVALID_AUTH_TOKEN"
    assert world.ask(_GET, world.peer(), token).body is not None


def test_a_token_of_a_removed_member_is_refused_at_once(world: World) -> None:
    """With a member goes its key: on new connections and on those that it was shown on."""
    token = _token_of(world, _with_neighbour(world))
    own = world.token("web", _PASSWORD)
    peer = world.peer()
    before = world.ask(_GET, peer, token)

    world.system(state_pb2.MemberRemove(id=_NEIGHBOUR), SYSTEM_TENANT)

    assert before.body is not None
    assert world.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"
    assert world.ask(_GET, world.peer(), token).why == "INVALID_AUTH_TOKEN"
    assert world.ask(_GET, peer, own).body is not None


def _begun(gate: Gate, peer: Peer, token: bytes) -> Session:
    return gate.authenticator.session(peer, token)


def test_a_stream_of_a_removed_members_token_ends(world: World) -> None:
    """What is open by such a token is decided again, and not allowed to go on."""
    token = _token_of(world, _with_neighbour(world))
    own = world.token("web", _PASSWORD)
    peer = world.peer()
    theirs, ours = _begun(world.gate, peer, token), _begun(world.gate, peer, own)

    world.system(state_pb2.MemberRemove(id=_NEIGHBOUR), SYSTEM_TENANT)

    assert world.gate.still_allowed(peer, theirs, _GET) is None
    assert world.gate.still_allowed(peer, ours, _GET) is not None


def test_a_key_of_a_removed_member_does_not_come_back(world: World) -> None:
    """Neither what it still had on its way, nor a member under its id, brings its key back."""
    key = _with_neighbour(world)
    token = _token_of(world, key)
    add = state_pb2.SigningKeyAdd(member_id=_NEIGHBOUR, public_key=key.public.raw)
    world.system(state_pb2.MemberRemove(id=_NEIGHBOUR), SYSTEM_TENANT)

    asked = world.begin(add)
    world.turn.end()

    assert asked.why == "PERMISSION_DENIED"
    assert _fails(world, add) == "MEMBER_NOT_FOUND"
    assert world.ask(_GET, world.peer(), token).why == "INVALID_AUTH_TOKEN"


def _fails(world: World, command: state_pb2.SigningKeyAdd) -> str:
    try:
        world.system(command, SYSTEM_TENANT)
    except Refused as refused:
        return refused.failure.name
    return ""


def test_ones_own_key_is_good_without_the_state() -> None:
    """A member verifies what it signed before the state has its key, and nothing else."""
    own, other = SigningKey(fresh_key()).public, SigningKey(fresh_key()).public
    keys = TokenKeys(own, Members())

    assert keys.find(own.key_id) is own
    assert keys.find(other.key_id) is None
    assert keys.find("") is None


def test_keys_and_what_they_are_good_for_outlive_a_restart() -> None:
    """A state that is read back knows the same keys, and decides anew whatever was decided."""
    tables = MemoryTables()
    state = reload(tables)
    key = SigningKey(fresh_key()).public
    caller = Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0)
    for member in (1, 2):
        record = state_pb2.Member(id=member, peer_urls=[f"https://host-{member}:2380"])
        apply(state, caller, state_pb2.MemberAdd(member=record, learners_max=1), 0)
        said = state_pb2.SigningKeyAdd(member_id=member, public_key=key.raw)
        apply(state, caller, said, 0)
    apply(state, caller, state_pb2.MemberRemove(id=2), 0)

    flush(state, tables)
    again = reload(tables)

    assert again.members.keys == state.members.keys == {1: key.raw}
    assert [tenant.law_revision for tenant in again.accounts.tenants()] == [
        tenant.law_revision for tenant in state.accounts.tenants()
    ]
