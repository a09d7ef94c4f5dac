"""The care of membership: what follows when the state declares other members than before.

Owns: when links and consensus are brought to the members that are declared, and who waits for it.
Never: declares anything.
Follows: Raft section 6.
Keeps: a member that was removed goes on until the others can do without it, and stops then.
"""

from collections.abc import Callable
from typing import final

from kvsecure.core.members import Members
from kvsecure.core.reconfiguration import Reconfiguration
from kvsecure.core.replica import Replica
from kvsecure.model.ids import MemberId

__all__ = ["MembershipCare"]


@final
class MembershipCare:
    """Looks after who the members are."""

    __slots__ = (
        "_drive_soon",
        "_follow",
        "_members",
        "_node",
        "_on_gone",
        "_reconfiguration",
        "_seen",
        "_waiting",
    )

    def __init__(
        self,
        replica: Replica,
        follow: Callable[[Members, frozenset[MemberId]], None],
        drive_soon: Callable[[], None],
        on_gone: Callable[[str], None],
    ) -> None:
        """Take the members as they are.

        Args:
            replica: Has the state that declares them, and the node.
            follow: Told of the members, and of who has a part in consensus, which is more while
                somebody goes, whenever they are others.
            drive_soon: Called when consensus has something to write and send.
            on_gone: Told that this member has been removed.
        """
        self._node = replica.node
        self._members = replica.state.members
        self._reconfiguration = Reconfiguration(replica.node, self._members)
        self._follow = follow
        self._drive_soon = drive_soon
        self._on_gone = on_gone
        self._seen = (self._members.revision, self._node.partners)
        self._waiting: list[Callable[[], None]] = []

    def when_settled(self, resume: Callable[[], None]) -> None:
        """Call back once consensus goes by the members that are declared by then."""
        self._waiting.append(resume)
        self.look()

    def look(self) -> None:
        """Do what is called for; whenever something was applied, and from time to time."""
        members, partners = self._members, self._node.partners
        if (members.revision, partners) != self._seen:
            self._seen = (members.revision, partners)
            self._follow(members, partners)
        if self._reconfiguration.step():
            self._drive_soon()
        if self._waiting and self._reconfiguration.is_settled:
            waiting, self._waiting = self._waiting, []
            for resume in waiting:
                resume()
        if self._reconfiguration.is_gone:
            self._on_gone("this member has been removed from the cluster")
