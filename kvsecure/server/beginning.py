"""The beginning: who the members are for one whose tables do not say so yet.

Owns: what a founder takes from its flags or from what it has discovered, and a newcomer from what
    the others have told it.
Never: counts once there is a state: then that says who the members are.
Keeps: all founders begin with the same; a newcomer begins with nothing and is sent a snapshot.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, final

from kvsecure.core.raft.configuration import Configuration
from kvsecure.model.ids import MemberId
from kvsecure.proto import state_pb2
from kvsecure.server.config.identity import member_id_of
from kvsecure.server.config.model import ServerConfig
from kvsecure.server.datadir import MemberIdentity
from kvsecure.server.joining import KnownMember, decode_members
from kvsecure.server.peers import PeerAddress
from kvsecure.storage.files import StorageError

__all__ = ["Beginning", "beginning_of"]


@final
class Beginning(NamedTuple):
    """What a member begins with."""

    # Of the state; none if others have it.
    founders: Sequence[state_pb2.Member]
    # Of consensus.
    voters: Configuration
    peers: Mapping[int, PeerAddress]


def beginning_of(config: ServerConfig, identity: MemberIdentity) -> Beginning:
    """Return what a member begins with.

    Raises:
        StorageError: What others have told cannot be read any more.
    """
    if identity.joined:
        return _of_newcomer(identity)
    if identity.founders:
        founders = [
            state_pb2.Member(id=each.member, name=each.name, peer_urls=each.peer_urls)
            for each in _told(identity.founders)
        ]
    else:
        founders = list(_founders_of_flags(config, identity))
    founders.sort(key=lambda founder: founder.id)
    return Beginning(
        founders,
        Configuration(tuple(MemberId(founder.id) for founder in founders)),
        {founder.id: PeerAddress(founder.name, tuple(founder.peer_urls)) for founder in founders},
    )


def _founders_of_flags(
    config: ServerConfig, identity: MemberIdentity
) -> Iterator[state_pb2.Member]:
    for name, urls in config.cluster.members:
        # A directory that was restored from a backup has an id that nobody could compute.
        is_own = name == config.member.name
        member = identity.member if is_own else member_id_of(urls, config.cluster.token)
        yield state_pb2.Member(id=member, name=name, peer_urls=sorted(set(urls)))


def _told(content: bytes) -> tuple[KnownMember, ...]:
    try:
        return decode_members(content)
    except ValueError as error:
        raise StorageError(f"member.json is damaged: {error}") from None


def _of_newcomer(identity: MemberIdentity) -> Beginning:
    others = [each for each in _told(identity.joined) if each.member != identity.member]
    voters = tuple(each.member for each in others if not each.is_learner)
    if not voters:
        raise StorageError("member.json is damaged: it names no other member that votes")
    return Beginning(
        (),
        Configuration(voters),
        {each.member: PeerAddress(each.name, each.peer_urls) for each in others},
    )
