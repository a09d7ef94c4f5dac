"""The peer port: to whom there are links."""

from core.stored_tables import MemoryTables, flush, reload

from kvsecure.core.declaring import DECLARATIONS
from kvsecure.model.ids import MemberId
from kvsecure.proto import state_pb2
from kvsecure.server.peer_port import addresses_of
from kvsecure.server.peers import PeerAddress


def _address(member: int) -> PeerAddress:
    return PeerAddress(f"m{member}", (f"https://m{member}:2380",))


def test_who_is_being_removed_is_reached_until_consensus_does_without_it() -> None:
    """Its voice may be the one that is missing, for a member that was restarted as well."""
    tables = MemoryTables()
    state = reload(tables)
    state.found(
        [
            state_pb2.Member(id=each, name=f"m{each}", peer_urls=[f"https://m{each}:2380"])
            for each in (1, 2, 3)
        ]
    )
    DECLARATIONS[state_pb2.MemberRemove](state, state_pb2.MemberRemove(id=3))
    flush(state, tables)
    members = reload(tables).members

    going = addresses_of(members, frozenset(map(MemberId, (1, 2, 3))))
    gone = addresses_of(members, frozenset(map(MemberId, (1, 2))))

    assert going == {each: _address(each) for each in (1, 2, 3)}
    assert gone == {each: _address(each) for each in (1, 2)}
