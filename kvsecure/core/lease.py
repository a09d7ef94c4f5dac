"""Leases of one tenant: which keys die together, and when.

Owns: the lease table, its deadlines, the order in which leases fall due, and which of them are due
    for a checkpoint: a note in the log of how long they still have to live.
Never: reads a clock, deletes a key, or talks to raft. It reports; apply acts.
Follows: etcd's lessor (server/lease); differs: no clock or task of its own, lease ids belong to a
    tenant, and a lease that is renewed often enough needs no checkpoint.
Keeps: a key is attached to at most one lease, the one its newest version names; deadlines are each
    member's own, TTLs and checkpoints are the same on all.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple, final

from kvsecure.model.ids import LeaseId
from kvsecure.model.keys import Span
from kvsecure.model.limits import LEASE_CHECKPOINT_EVERY_S, LEASE_EXPIRY_RETRY_S

__all__ = ["LeaseTable", "LeaseView"]

_NS: int = 1_000_000_000
_RETRY_NS: int = LEASE_EXPIRY_RETRY_S * _NS
_CHECKPOINT_EVERY_NS: int = LEASE_CHECKPOINT_EVERY_S * _NS


class LeaseView(NamedTuple):
    """What can be told about a lease."""

    ttl_s: int
    remaining_s: int
    keys: tuple[bytes, ...]


@final
class _Lease:
    __slots__ = (
        "checkpoint_ns",
        "deadline_ns",
        "due_ns",
        "first",
        "is_reported",
        "keys",
        "last",
        "remaining_s",
        "ttl_s",
    )

    def __init__(self, ttl_s: int, deadline_ns: int, remaining_s: int = 0) -> None:
        self.ttl_s = ttl_s
        self.deadline_ns = deadline_ns
        # When `expired` names it: at its deadline, or when it is to be tried again.
        self.due_ns = deadline_ns
        # What its last checkpoint says; 0 if there is none, and it has its whole time.
        self.remaining_s = remaining_s
        # When it is looked at next for a checkpoint; 0 if it needs none.
        self.checkpoint_ns = 0
        self.keys: set[bytes] = set()
        # Between these lie all keys that it ever had.
        self.first = b""
        self.last = b""
        # Whether `expired` has named it; it does so once.
        self.is_reported = False

    @property
    def known_s(self) -> int:
        """How long it would live if the member started again now, in seconds."""
        return self.remaining_s or self.ttl_s


@final
class LeaseTable:
    """The leases of one tenant."""

    __slots__ = ("_checkpoints", "_due", "_leases")

    def __init__(self) -> None:
        self._leases: dict[LeaseId, _Lease] = {}
        # (due, id); entries of renewed and revoked leases are skipped when they surface.
        self._due: list[tuple[int, LeaseId]] = []
        # (when it is looked at, id), likewise.
        self._checkpoints: list[tuple[int, LeaseId]] = []

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def __len__(self) -> int:
        return len(self._leases)

    def grant(self, lease: LeaseId, ttl_s: int, now_ns: int) -> None:
        """Add a lease that is not there yet.

        Args:
            lease: Its id.
            ttl_s: How long it lives without renewal, in seconds.
            now_ns: Monotonic time in nanoseconds.
        """
        self.load(lease, ttl_s, 0, now_ns)

    def load(self, lease: LeaseId, ttl_s: int, remaining_s: int, now_ns: int) -> None:
        """Take in a lease as it was stored.

        Args:
            lease: Its id.
            ttl_s: How long it lives without renewal, in seconds.
            remaining_s: What its last checkpoint says, 0 if there is none.
            now_ns: From when it lives on.
        """
        found = self._leases[lease] = _Lease(ttl_s, 0, remaining_s)
        found.deadline_ns = now_ns + found.known_s * _NS
        self._await(found.deadline_ns, lease, found)
        self._watch_over(lease, found, now_ns)

    def stored(self) -> Iterator[tuple[LeaseId, int, int]]:
        """Yield of each lease its id, its TTL, and what its last checkpoint says, 0 if nothing."""
        for lease, each in self._leases.items():
            yield lease, each.ttl_s, each.remaining_s

    def remaining_s(self, lease: LeaseId) -> int:
        """Return what a lease's last checkpoint says, in seconds; 0 if there is none."""
        found = self._leases.get(lease)
        return found.remaining_s if found is not None else 0

    def renew(self, lease: LeaseId, now_ns: int) -> int:
        """Let a lease live its whole time from now; return its TTL in seconds, or 0 if unknown.

        What a checkpoint said of it must have been taken back before anybody is told.
        """
        found = self._leases.get(lease)
        if found is None or found.deadline_ns <= now_ns:
            return 0
        found.deadline_ns = now_ns + found.ttl_s * _NS
        self._await(found.deadline_ns, lease, found)
        self._watch_over(lease, found, now_ns)
        return found.ttl_s

    def restart(self, now_ns: int) -> None:
        """Let every lease live from now on as its checkpoint says, as a new leader owes them."""
        self._checkpoints.clear()
        for lease, each in self._leases.items():
            each.deadline_ns = each.due_ns = now_ns + each.known_s * _NS
            each.is_reported = False
            each.checkpoint_ns = 0
            self._watch_over(lease, each, now_ns)
        self._forget_stale()

    def checkpoint(self, lease: LeaseId, remaining_s: int) -> int:
        """Take note of how long a lease has to live after a start; 0 means its whole time.

        Its deadline stays: that is known better.

        Returns:
            Its TTL in seconds, or 0 if it is unknown.
        """
        found = self._leases.get(lease)
        if found is None:
            return 0
        found.remaining_s = min(max(remaining_s, 0), found.ttl_s)
        return found.ttl_s

    def due_checkpoints(self, now_ns: int, count_max: int) -> list[tuple[LeaseId, int]]:
        """Return leases whose time has gone on unnoticed, with how long they have to live.

        Each is looked at every five minutes, if it lives longer than that. If what is returned does
        not become a checkpoint, it is returned again the next time.

        Args:
            now_ns: Monotonic time in nanoseconds.
            count_max: How many at most.

        Returns:
            Ids and seconds, rounded up.
        """
        found: list[tuple[LeaseId, int]] = []
        waiting = self._checkpoints
        while waiting and waiting[0][0] <= now_ns and len(found) < count_max:
            when_ns, lease = heapq.heappop(waiting)
            each = self._leases.get(lease)
            if each is None or each.checkpoint_ns != when_ns:
                continue
            each.checkpoint_ns = 0
            if each.deadline_ns <= now_ns:
                continue
            # When a start would last have given it the time that it had: when it was renewed, or
            # when its last checkpoint was made.
            known_ns = each.deadline_ns - each.known_s * _NS
            if known_ns + _CHECKPOINT_EVERY_NS > now_ns:
                self._look_at(known_ns + _CHECKPOINT_EVERY_NS, lease, each)
                continue
            remaining_s = -(-(each.deadline_ns - now_ns) // _NS)
            found.append((lease, remaining_s))
            if remaining_s > LEASE_CHECKPOINT_EVERY_S:
                self._look_at(now_ns + _CHECKPOINT_EVERY_NS, lease, each)
        return found

    def revoke(self, lease: LeaseId) -> list[bytes]:
        """Remove a lease; return the keys that were attached to it, in key order."""
        return sorted(self._leases.pop(lease).keys)

    def attach(self, lease: int, key: bytes) -> None:
        """Tie a key to a lease; a lease that is gone is left alone."""
        found = self._leases.get(LeaseId(lease))
        if found is None:
            return
        if not found.keys:
            found.first = found.last = key
        elif key < found.first:
            found.first = key
        elif key > found.last:
            found.last = key
        found.keys.add(key)

    def reach_of(self, lease: int) -> Span | None:
        """Return a span in which all keys of a lease lie, or None if it has none."""
        found = self._leases.get(LeaseId(lease))
        if found is None or not found.keys:
            return None
        return Span(found.first, found.last + b"\0")

    def detach(self, lease: int, key: bytes) -> None:
        """Untie a key from a lease."""
        found = self._leases.get(LeaseId(lease))
        if found is not None:
            found.keys.discard(key)

    def keys_of(self, lease: int) -> frozenset[bytes]:
        """Return the keys attached to a lease; none if it is unknown."""
        found = self._leases.get(LeaseId(lease))
        return frozenset(found.keys) if found else frozenset()

    def view(self, lease: LeaseId, now_ns: int) -> LeaseView | None:
        """Describe a lease, or None if it is unknown or has expired."""
        found = self._leases.get(lease)
        if found is None or found.deadline_ns <= now_ns:
            return None
        remaining_s = (found.deadline_ns - now_ns) // _NS
        return LeaseView(found.ttl_s, remaining_s, tuple(sorted(found.keys)))

    def by_expiry(self) -> list[LeaseId]:
        """Return all leases, the one that falls due first at the front."""
        return sorted(self._leases, key=lambda lease: self._leases[lease].deadline_ns)

    def has_expired(self, now_ns: int) -> bool:
        """Tell whether there may be something for `expired` to return."""
        return bool(self._due) and self._due[0][0] <= now_ns

    def expired(self, now_ns: int, count_max: int) -> list[LeaseId]:
        """Take out leases whose time is over, oldest first; each is reported once.

        Args:
            now_ns: Monotonic time in nanoseconds; must not go backwards.
            count_max: How many at most.
        """
        found: list[LeaseId] = []
        while self._due and self._due[0][0] <= now_ns and len(found) < count_max:
            due_ns, lease = heapq.heappop(self._due)
            current = self._leases.get(lease)
            if current is None or current.is_reported or current.due_ns != due_ns:
                continue
            current.is_reported = True
            found.append(lease)
        return found

    def remind(self, lease: LeaseId, now_ns: int) -> None:
        """Report an expired lease again in a while, because revoking it did not succeed."""
        found = self._leases.get(lease)
        if found is not None and found.is_reported:
            found.is_reported = False
            self._await(now_ns + _RETRY_NS, lease, found)

    def _await(self, due_ns: int, lease: LeaseId, found: _Lease) -> None:
        found.due_ns = due_ns
        heapq.heappush(self._due, (due_ns, lease))
        if len(self._due) > 4 * len(self._leases) + 64:
            self._forget_stale()

    def _forget_stale(self) -> None:
        """Drop what renewals and revocations left behind."""
        self._due = [
            (each.due_ns, lease) for lease, each in self._leases.items() if not each.is_reported
        ]
        heapq.heapify(self._due)

    def _watch_over(self, lease: LeaseId, found: _Lease, now_ns: int) -> None:
        """Have a lease looked at for a checkpoint, if it lives long enough for one."""
        if not found.checkpoint_ns and found.known_s > LEASE_CHECKPOINT_EVERY_S:
            self._look_at(now_ns + _CHECKPOINT_EVERY_NS, lease, found)

    def _look_at(self, when_ns: int, lease: LeaseId, found: _Lease) -> None:
        found.checkpoint_ns = when_ns
        heapq.heappush(self._checkpoints, (when_ns, lease))
        if len(self._checkpoints) > 4 * len(self._leases) + 64:
            # Of leases that were revoked.
            self._checkpoints = [
                (each.checkpoint_ns, known)
                for known, each in self._leases.items()
                if each.checkpoint_ns
            ]
            heapq.heapify(self._checkpoints)
