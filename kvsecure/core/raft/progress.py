"""What a leader knows of one other member, and how fast it may send to it.

Owns: `match` and `next`, the three states of sending, and the window of what is not answered.
Never: knows the log, or makes messages.
Follows: Raft figure 2 (nextIndex, matchIndex); section 5.3 for probing; thesis 10.2.1 and 10.2.2
    for sending ahead of the answers.
Keeps: match < next; what was sent and not answered is bounded, but for one message at least.

    PROBE       one message, then wait for the answer or the next heartbeat's: `next` is a guess
    REPLICATE   messages are sent ahead, as far as the window is open
    SNAPSHOT    nothing is sent until the snapshot is installed, or is given up
"""

from collections import deque
from enum import Enum
from typing import final

from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import Index

__all__ = ["Progress", "Sending"]


class Sending(Enum):
    """How entries go to a member."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@final
class Progress:
    """Of one member, for as long as one term's leader leads."""

    __slots__ = (
        "allowed",
        "committed_sent",
        "in_flight_bytes",
        "is_active",
        "is_paused",
        "match",
        "next",
        "sending",
        "settings",
        "snapshot",
        "window",
    )

    def __init__(self, settings: Settings, following: Index) -> None:
        self.settings = settings
        self.sending = Sending.PROBE
        # Through where it is known to store what the leader stores.
        self.match = Index(0)
        self.next = following
        # Whether it was heard of since the leader last asked itself who follows.
        self.is_active = True
        # A probe is out.
        self.is_paused = False
        # The newest commit index that was sent to it.
        self.committed_sent = Index(0)
        # Of the snapshot that it is being sent.
        self.snapshot = Index(0)
        # How many messages may be out: after a rejection few, and more with everything that comes.
        self.allowed = settings.in_flight_max
        # The last index and the bytes of each message that is not answered.
        self.window: deque[tuple[Index, int]] = deque()
        self.in_flight_bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether entries may be sent now."""
        if self.sending is Sending.REPLICATE:
            return (
                len(self.window) < self.allowed
                and self.in_flight_bytes < self.settings.in_flight_bytes_max
            )
        return self.sending is Sending.PROBE and not self.is_paused

    def sent(self, through: Index, size_bytes: int) -> None:
        """Take note that entries from `next` on were sent; `through` is before it if none were."""
        if self.sending is Sending.PROBE:
            self.is_paused = True
        elif through >= self.next:
            self.next = Index(through + 1)
            self.window.append((through, size_bytes))
            self.in_flight_bytes += size_bytes

    def stored(self, index: Index) -> bool:
        """Take note that it stores everything through an index; tell whether that is news."""
        is_news = index > self.match
        if is_news:
            self.match = index
            self.next = Index(max(self.next, index + 1))
            self.allowed = min(2 * self.allowed, self.settings.in_flight_max)
        window = self.window
        while window and window[0][0] <= index:
            self.in_flight_bytes -= window.popleft()[1]
        return is_news

    def probe(self, following: Index) -> None:
        """Find out anew what it stores, beginning with a guess; never before what is known."""
        self._enter(Sending.PROBE)
        self.next = Index(max(following, self.match + 1))

    def reject(self, following: Index) -> None:
        """Find out anew what it stores, because it lacks something that was sent.

        On links that lose and overtake, what is sent ahead is rejected again and again; sent ahead
        in full each time, it would be ever more.
        """
        self.probe(following)
        self.allowed = 1

    def replicate(self) -> None:
        """Send ahead: it is known where the logs agree."""
        self._enter(Sending.REPLICATE)
        self.next = Index(self.match + 1)

    def await_snapshot(self, index: Index) -> None:
        """Send nothing while it is sent a snapshot."""
        self._enter(Sending.SNAPSHOT)
        self.snapshot = index

    def is_stale(self, rejected: Index) -> bool:
        """Tell whether a rejection speaks of what has been settled since."""
        if self.sending is Sending.REPLICATE:
            return rejected <= self.match
        return self.sending is Sending.SNAPSHOT or rejected != self.next - 1

    def _enter(self, sending: Sending) -> None:
        self.sending = sending
        self.is_paused = False
        self.snapshot = Index(0)
        self.window.clear()
        self.in_flight_bytes = 0
