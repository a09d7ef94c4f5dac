"""Leading: who leads, as far as this member knows, and what it has to do when that changes.

Owns: noticing a change once, handing over, and whether this member may act as leader does.
Never: sends or writes anything itself.
Follows: thesis 3.10 for handing over; etcd's lessor, whose deadlines begin anew with a new leader.
Keeps: a member acts as leader only when it has applied everything that was before it led.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, final

from kvsecure.core.peering import Peering
from kvsecure.core.raft.node import Node
from kvsecure.core.raft.refusals import NotLeader, Refusal, TransferRefused
from kvsecure.core.raft.status import Role
from kvsecure.core.reading import Reading
from kvsecure.core.replica import Replica
from kvsecure.core.statistics import EngineStatistics
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import MemberId, Term
from kvsecure.model.limits import REQUEST_TIMEOUT_S

__all__ = ["Leading"]

# How often a member with others makes sure that a majority hears it, and how old that may be.
_TOUCH_EVERY_NS: Final = 500_000_000
_TOUCH_NS_MAX: Final = 3_000_000_000


@final
class Leading:
    """Who leads."""

    __slots__ = (
        "_changes",
        "_led_term",
        "_now_ns",
        "_peering",
        "_reading",
        "_replica",
        "_seen",
        "_statistics",
        "_touched_ns",
        "_touches",
    )

    def __init__(
        self,
        replica: Replica,
        peering: Peering,
        reading: Reading,
        statistics: EngineStatistics,
        now_ns: Callable[[], int],
    ) -> None:
        self._replica = replica
        self._peering = peering
        self._reading = reading
        self._statistics = statistics
        self._now_ns = now_ns
        # In which term who led when that was last looked at.
        self._seen = (Term(0), MemberId(0))
        # In which term this member has applied everything that was before it led.
        self._led_term = Term(0)
        self._changes: list[asyncio.Event] = []
        self._touched_ns = 0
        self._touches = False

    @property
    def is_own(self) -> bool:
        """Whether this member leads, and has applied everything that was before it did."""
        node = self._replica.node
        return node.role is Role.LEADER and self._led_term == node.term

    @property
    def is_in_touch(self) -> bool:
        """Whether a majority has been heard from lately; only of a member that has others."""
        return self._now_ns() - self._touched_ns < _TOUCH_NS_MAX

    def tick(self) -> None:
        """Make sure from time to time that a majority is there."""
        now_ns = self._now_ns()
        if not self._touches and now_ns - self._touched_ns > _TOUCH_EVERY_NS:
            self._touches = True
            self._reading.add(now_ns, self._touched, None)

    def look(self) -> None:
        """Do what a change asks for, once."""
        node = self._replica.node
        seen = (node.term, node.leader)
        if seen != self._seen:
            if node.leader and node.leader != self._seen[1]:
                self._statistics.leader_changes += 1
            self._seen = seen
            self._peering.forsake(node.leader)
            self._peering.hand_on()
            for changed in self._changes:
                changed.set()
        if self._led_term != node.term and self._is_caught_up(node):
            self._led_term = node.term
            # Deadlines are this member's own from now on: another's clock had them before, or a
            # start has read them back.
            now_ns = self._now_ns()
            for space in self._replica.state.store.spaces():
                space.leases.restart(now_ns)

    def heir(self) -> MemberId | None:
        """Return who would best take over, if this member leads and anybody could."""
        status = self._replica.node.status()
        heirs = [
            (peer.match, member)
            for member, peer in status.peers.items()
            if peer.is_active and status.configuration.can_vote(member)
        ]
        return max(heirs)[1] if heirs else None

    def resign(self) -> None:
        """Begin to hand over, if this member leads and anybody could take over."""
        heir = self.heir()
        if heir is not None:
            with contextlib.suppress(Refusal):
                self._replica.node.transfer(heir)

    async def move(self, to: MemberId) -> None:
        """Hand over to another voter, and return once it leads.

        Raises:
            Refused: This member does not lead, that one cannot, or it took too long.
        """
        node = self._replica.node
        try:
            node.transfer(to)
        except NotLeader:
            raise Refused(Failure.NOT_LEADER) from None
        except TransferRefused:
            raise Refused(Failure.BAD_LEADER_TRANSFEREE) from None
        changed = asyncio.Event()
        self._changes.append(changed)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                while node.leader != to:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise Refused(Failure.TRANSFER_TIMEOUT) from None
        finally:
            self._changes.remove(changed)

    def _is_caught_up(self, node: Node) -> bool:
        return node.role is Role.LEADER and self._replica.state.term == node.term

    def _touched(self) -> None:
        self._touches = False
        self._touched_ns = self._now_ns()
