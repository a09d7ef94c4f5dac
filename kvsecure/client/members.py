"""Who is a member of the cluster, and who leads; for administrators of the cluster.

Owns: `etcdserverpb.Cluster`, and handing over the leadership.
Never: starts or stops a member; what is declared here is for members to find out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self, final

from kvsecure.client.connection import Connection
from kvsecure.client.values import Header
from kvsecure.proto import cluster_pb2, maintenance_pb2

__all__ = ["Added", "Changed", "Member", "Members"]

_SERVICE: Final = "/etcdserverpb.Cluster"
_MAINTENANCE: Final = "/etcdserverpb.Maintenance"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of the cluster.

    Attributes:
        member_id: Its id.
        name: Its name; empty until it has started.
        peer_urls: Where other members reach it.
        client_urls: Where clients reach it.
        is_learner: Whether it only follows.
    """

    member_id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @classmethod
    def of(cls, message: cluster_pb2.Member) -> Self:
        """Return the member that a message describes."""
        return cls(
            member_id=message.ID,
            name=message.name,
            peer_urls=tuple(message.peerURLs),
            client_urls=tuple(message.clientURLs),
            is_learner=message.isLearner,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change of members that was made.

    Attributes:
        header: Who answered when.
        members: All members after it, in the order of their ids.
    """

    header: Header
    members: tuple[Member, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A member that was added.

    Attributes:
        header: Who answered when.
        member: The new one.
        members: All members with it, in the order of their ids.
    """

    header: Header
    member: Member
    members: tuple[Member, ...]


@final
class Members:
    """Members of the cluster. Methods raise `ClientError` when refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, *, serializable: bool = False) -> tuple[Member, ...]:
        """Return the members, in the order of their ids.

        Args:
            serializable: What the answering member has will do, even if it is old.
        """
        answer = self._connection.call(
            f"{_SERVICE}/MemberList",
            cluster_pb2.MemberListRequest(linearizable=not serializable),
            cluster_pb2.MemberListResponse,
        )
        return _members(answer.members)

    def add(self, peer_urls: Sequence[str], *, learner: bool = False) -> Added:
        """Make somebody a member, who can be started then.

        Args:
            peer_urls: Where other members will reach it.
            learner: Whether it only follows, until it is promoted.
        """
        answer = self._connection.call(
            f"{_SERVICE}/MemberAdd",
            cluster_pb2.MemberAddRequest(peerURLs=peer_urls, isLearner=learner),
            cluster_pb2.MemberAddResponse,
        )
        return Added(
            header=Header.of(answer.header),
            member=Member.of(answer.member),
            members=_members(answer.members),
        )

    def remove(self, member_id: int) -> Changed:
        """Make somebody a member no more; its process ends by itself."""
        answer = self._connection.call(
            f"{_SERVICE}/MemberRemove",
            cluster_pb2.MemberRemoveRequest(ID=member_id),
            cluster_pb2.MemberRemoveResponse,
        )
        return Changed(header=Header.of(answer.header), members=_members(answer.members))

    def update(self, member_id: int, peer_urls: Sequence[str]) -> Changed:
        """Say where other members reach a member from now on."""
        answer = self._connection.call(
            f"{_SERVICE}/MemberUpdate",
            cluster_pb2.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls),
            cluster_pb2.MemberUpdateResponse,
        )
        return Changed(header=Header.of(answer.header), members=_members(answer.members))

    def promote(self, member_id: int) -> Changed:
        """Let a learner vote that is in step with the leader."""
        answer = self._connection.call(
            f"{_SERVICE}/MemberPromote",
            cluster_pb2.MemberPromoteRequest(ID=member_id),
            cluster_pb2.MemberPromoteResponse,
        )
        return Changed(header=Header.of(answer.header), members=_members(answer.members))

    def move_leader(self, to: int) -> int | None:
        """Have the leader hand over to another voter.

        Returns:
            Who led before; None if no endpoint of the settings is the leader's, and nothing was
            done.
        """
        for endpoint in self._connection.settings.endpoints:
            with self._connection.only(endpoint) as one:
                status = one.call(
                    f"{_MAINTENANCE}/Status",
                    maintenance_pb2.StatusRequest(),
                    maintenance_pb2.StatusResponse,
                )
                if status.leader == status.header.member_id:
                    one.call(
                        f"{_MAINTENANCE}/MoveLeader",
                        maintenance_pb2.MoveLeaderRequest(targetID=to),
                        maintenance_pb2.MoveLeaderResponse,
                    )
                    return int(status.leader)
        return None


def _members(messages: Iterable[cluster_pb2.Member]) -> tuple[Member, ...]:
    return tuple(map(Member.of, messages))
