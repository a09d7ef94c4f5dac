"""A leader's side of replication: what goes to whom, and what has come of it.

Owns: the progress of every other member, and which snapshots are asked for.
Never: decides what is committed; changes a role or a term.
Follows: Raft section 5.3 and figure 2 (nextIndex, matchIndex); section 7 for snapshots; thesis
    10.2.1 and 10.2.2 for sending ahead while the own disk writes.
Keeps: what is sent ahead is bounded for each peer.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from kvsecure.core.raft.codec import ENTRIES_MAX
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.membership import Membership
from kvsecure.core.raft.messages import Append, AppendReply, Heartbeat
from kvsecure.core.raft.outbox import Outbox
from kvsecure.core.raft.progress import Progress, Sending
from kvsecure.core.raft.settings import Settings
from kvsecure.core.raft.status import PeerStatus
from kvsecure.model.errors import invariant
from kvsecure.model.ids import Index, MemberId, Term

__all__ = ["Replication", "SnapshotOrder"]


@final
@dataclass(frozen=True, slots=True)
class SnapshotOrder:
    """Send a member what was applied through an index; then `Node.report_snapshot`."""

    to: MemberId
    index: Index
    # Of the entry at the index.
    term: Term
    configuration: Configuration


@final
class Replication:
    """What one leader knows of the others."""

    def __init__(
        self, member: MemberId, log: RaftLog, membership: Membership, settings: Settings
    ) -> None:
        self.peers: dict[MemberId, Progress] = {}
        # Through where everybody is known to store what this member stores, itself included.
        self.match: dict[MemberId, Index] = {}
        self._member = member
        self._log = log
        self._membership = membership
        self._settings = settings
        self._orders: list[SnapshotOrder] = []

    def begin(self, members: Collection[MemberId]) -> None:
        """Know nothing of anybody, as a new leader."""
        self.peers.clear()
        self.match = {self._member: self._log.durable}
        self._orders.clear()
        self.reach(members)

    def end(self) -> None:
        """Forget everybody: somebody else leads."""
        self.peers.clear()
        self._orders.clear()

    def reach(self, members: Collection[MemberId]) -> None:
        """Send to these members from now on, and to nobody else."""
        for member in members:
            if member != self._member and member not in self.peers:
                self.peers[member] = Progress(self._settings, Index(self._log.last + 1))
        for member in [member for member in self.peers if member not in members]:
            del self.peers[member]
            self.match.pop(member, None)

    def feed(self, term: Term, outbox: Outbox) -> None:
        """Send everybody what it does not have, as far as it may be sent."""
        log = self._log
        last, committed = log.last, log.committed
        for member, progress in self.peers.items():
            if (
                progress.sending is Sending.PROBE
                or progress.next <= last
                or progress.committed_sent < committed
            ):
                self._feed(member, progress, term, outbox)

    def heartbeat(
        self, members: Iterable[MemberId], term: Term, context: int, outbox: Outbox
    ) -> None:
        """Tell members who leads."""
        committed = self._log.committed
        committed_term = self._log.term_of(committed)
        assert committed_term is not None  # noqa: S101 - what a snapshot holds is committed
        for member in members:
            outbox.send(Heartbeat(self._member, member, term, committed, committed_term, context))

    def take_reply(self, progress: Progress, reply: AppendReply) -> bool:
        """Take the answer to entries; tell whether it may have committed something.

        An answer that was accepted is about entries that the log has.
        """
        progress.is_active = True
        if reply.is_rejected:
            if not progress.is_stale(reply.through):
                agreeing = self._log.last_not_after(reply.hint_index, reply.hint_term)
                progress.reject(Index(min(reply.through, agreeing + 1)))
            return False
        is_news = progress.stored(reply.through)
        self.match[reply.sender] = progress.match
        if progress.sending is Sending.PROBE:
            # A late answer that tells nothing is not that to the probe; taken for it, it would have
            # a whole window sent again, whose answers are late in their turn.
            can_replicate = reply.through >= progress.match
        else:
            is_installed = progress.match >= self._log.offset
            can_replicate = progress.sending is Sending.SNAPSHOT and is_installed
        if can_replicate:
            progress.replicate()
        return is_news

    def take_heartbeat_reply(
        self, member: MemberId, progress: Progress, term: Term, outbox: Outbox
    ) -> None:
        """Take note that a member is there; what it was sent may be lost."""
        progress.is_active = True
        progress.is_paused = False
        if progress.window:
            # Its answer tells what of the window has come; a rejection, that something has not.
            prev = Index(progress.next - 1)
            prev_term = self._log.term_of(prev)
            if prev_term is None:
                # Nothing can be asked about what is compacted: begin with what is known.
                progress.probe(Index(progress.match + 1))
            else:
                committed = self._log.committed
                outbox.send(
                    Append(self._member, member, term, prev, prev_term, term, committed, [])
                )

    def report_snapshot(self, member: MemberId, *, is_installed: bool) -> None:
        """Take note of what became of a snapshot that a member was sent."""
        progress = self.peers.get(member)
        if progress is None or progress.sending is not Sending.SNAPSHOT:
            return
        if is_installed:
            progress.probe(Index(progress.snapshot + 1))
        else:
            progress.probe(Index(progress.match + 1))
            # It is tried again when the member answers a heartbeat, not at once.
            progress.is_paused = True

    def take_orders(self) -> list[SnapshotOrder]:
        """Return which snapshots are to be sent, once."""
        if not self._orders:
            return []
        orders, self._orders = self._orders, []
        return orders

    def active(self) -> list[MemberId]:
        """Return who was heard of since the last call, this member included."""
        heard = [self._member]
        for member, progress in self.peers.items():
            if progress.is_active:
                heard.append(member)
            progress.is_active = False
        return heard

    def status(self) -> Mapping[MemberId, PeerStatus]:
        """Return what is known of everybody."""
        return {
            member: PeerStatus(
                match=progress.match,
                next=progress.next,
                sending=progress.sending,
                is_active=progress.is_active,
                snapshot=progress.snapshot,
                in_flight=len(progress.window),
                in_flight_bytes=progress.in_flight_bytes,
            )
            for member, progress in self.peers.items()
        }

    def _feed(self, member: MemberId, progress: Progress, term: Term, outbox: Outbox) -> None:
        log = self._log
        committed = log.committed
        while progress.is_open:
            prev = Index(progress.next - 1)
            prev_term = log.term_of(prev)
            if prev_term is None:
                if progress.is_active:
                    self._order_snapshot(member, progress)
                return
            entry_term, size = term, 0
            entries: list[bytes] = []
            if prev < log.last:
                entry_term, entries, size = log.bounded_run_after(
                    prev, ENTRIES_MAX, self._settings.append_bytes_max
                )
            elif progress.sending is Sending.REPLICATE and progress.committed_sent >= committed:
                return
            outbox.send(
                Append(self._member, member, term, prev, prev_term, entry_term, committed, entries)
            )
            progress.committed_sent = committed
            progress.sent(Index(prev + len(entries)), size)

    def _order_snapshot(self, member: MemberId, progress: Progress) -> None:
        index = self._log.applied
        term = self._log.term_of(index)
        invariant(term is not None, "the log knows the term of what was applied last")
        assert term is not None  # noqa: S101 - narrows the type; the invariant has checked it
        progress.await_snapshot(index)
        self._orders.append(SnapshotOrder(member, index, term, self._membership.at(index)))
