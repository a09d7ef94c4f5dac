"""Leases of one tenant: which keys die together, and when.

Owns: the lease table, its deadlines, and the order in which leases fall due.
Never: reads a clock, deletes a key, or talks to raft. It reports; apply acts.
Follows: etcd's lessor (server/lease); differs: no clock or task of its own, and lease ids belong to
    a tenant.
Keeps: a key is attached to at most one lease, the one its newest version names.
"""

import heapq
from typing import NamedTuple, final

from kvsecure.model.ids import LeaseId

__all__ = ["LeaseTable", "LeaseView"]

_NS: int = 1_000_000_000


class LeaseView(NamedTuple):
    """What can be told about a lease."""

    ttl_s: int
    remaining_s: int
    keys: tuple[bytes, ...]


@final
class _Lease:
    __slots__ = ("deadline_ns", "is_reported", "keys", "ttl_s")

    def __init__(self, ttl_s: int, deadline_ns: int) -> None:
        self.ttl_s = ttl_s
        self.deadline_ns = deadline_ns
        self.keys: set[bytes] = set()
        # Whether `expired` has named it; it does so once.
        self.is_reported = False


@final
class LeaseTable:
    """The leases of one tenant."""

    __slots__ = ("_due", "_leases")

    def __init__(self) -> None:
        self._leases: dict[LeaseId, _Lease] = {}
        # (deadline, id); entries of renewed and revoked leases are skipped when they surface.
        self._due: list[tuple[int, LeaseId]] = []

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
        deadline_ns = now_ns + ttl_s * _NS
        self._leases[lease] = _Lease(ttl_s, deadline_ns)
        self._await(deadline_ns, lease)

    def renew(self, lease: LeaseId, now_ns: int) -> int:
        """Let a lease live its whole time from now; return its TTL in seconds, or 0 if unknown."""
        found = self._leases.get(lease)
        if found is None or found.deadline_ns <= now_ns:
            return 0
        found.deadline_ns = now_ns + found.ttl_s * _NS
        self._await(found.deadline_ns, lease)
        return found.ttl_s

    def renew_all(self, now_ns: int) -> None:
        """Let every lease live its whole time from now, as a new leader owes them."""
        for each in self._leases.values():
            each.deadline_ns = now_ns + each.ttl_s * _NS
            each.is_reported = False
        self._forget_stale()

    def revoke(self, lease: LeaseId) -> list[bytes]:
        """Remove a lease; return the keys that were attached to it, in key order."""
        return sorted(self._leases.pop(lease).keys)

    def attach(self, lease: int, key: bytes) -> None:
        """Tie a key to a lease; a lease that is gone is left alone."""
        found = self._leases.get(LeaseId(lease))
        if found is not None:
            found.keys.add(key)

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

    def expired(self, now_ns: int, count_max: int) -> list[LeaseId]:
        """Take out leases whose time is over, oldest first; each is reported once.

        Args:
            now_ns: Monotonic time in nanoseconds; must not go backwards.
            count_max: How many at most.
        """
        found: list[LeaseId] = []
        while self._due and self._due[0][0] <= now_ns and len(found) < count_max:
            deadline_ns, lease = heapq.heappop(self._due)
            current = self._leases.get(lease)
            if current is None or current.is_reported or current.deadline_ns != deadline_ns:
                continue
            current.is_reported = True
            found.append(lease)
        return found

    def remind(self, lease: LeaseId, now_ns: int) -> None:
        """Report an expired lease again later, because revoking it did not succeed."""
        found = self._leases.get(lease)
        if found is not None and found.is_reported:
            found.is_reported = False
            found.deadline_ns = now_ns
            self._await(now_ns, lease)

    def _await(self, deadline_ns: int, lease: LeaseId) -> None:
        heapq.heappush(self._due, (deadline_ns, lease))
        if len(self._due) > 4 * len(self._leases) + 64:
            self._forget_stale()

    def _forget_stale(self) -> None:
        """Drop what renewals and revocations left behind."""
        self._due = [
            (each.deadline_ns, lease)
            for lease, each in self._leases.items()
            if not each.is_reported
        ]
        heapq.heapify(self._due)
