"""Leases against a plain dictionary: when they fall due, in which order, with which keys."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kvsecure.core.lease import LeaseTable
from kvsecure.model.ids import LeaseId

_NS = 1_000_000_000
_IDS = st.sampled_from((1, 2, 3, -4, 2**63 - 1))
_KEYS = st.sampled_from((b"a", b"b", b"c"))


@dataclass
class _Dumb:
    """One lease."""

    ttl_s: int
    deadline_ns: int
    due_ns: int
    keys: set[bytes] = field(default_factory=set)
    is_reported: bool = False
    remaining_s: int = 0


class _LeaseMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.dumb: dict[int, _Dumb] = {}
        self.now_ns = 5

    @rule(passed_ns=st.one_of(st.just(0), st.integers(0, 3 * _NS)))
    def wait(self, passed_ns: int) -> None:
        """Let time pass."""
        self.now_ns += passed_ns

    @rule(lease=_IDS, ttl_s=st.integers(1, 5))
    def grant(self, lease: int, ttl_s: int) -> None:
        """Grant a lease that is not there."""
        assert (lease in self.table) == (lease in self.dumb)
        if lease not in self.dumb:
            self.table.grant(LeaseId(lease), ttl_s, self.now_ns)
            self.dumb[lease] = _Dumb(ttl_s, self.now_ns + ttl_s * _NS, self.now_ns + ttl_s * _NS)

    @rule(lease=_IDS)
    def renew(self, lease: int) -> None:
        """Renew a lease; one that is gone, or whose time is over, cannot be."""
        found = self.dumb.get(lease)
        expected = 0
        if found is not None and found.deadline_ns > self.now_ns:
            found.deadline_ns = found.due_ns = self.now_ns + found.ttl_s * _NS
            expected = found.ttl_s

        assert self.table.renew(LeaseId(lease), self.now_ns) == expected

    @rule(lease=_IDS)
    def revoke(self, lease: int) -> None:
        """Revoke a lease; its keys come out in order."""
        if lease in self.dumb:
            assert self.table.revoke(LeaseId(lease)) == sorted(self.dumb.pop(lease).keys)

    @rule(lease=_IDS, key=_KEYS)
    def attach(self, lease: int, key: bytes) -> None:
        """Tie a key to a lease, if there is one."""
        self.table.attach(lease, key)
        if lease in self.dumb:
            self.dumb[lease].keys.add(key)

    @rule(lease=_IDS, key=_KEYS)
    def detach(self, lease: int, key: bytes) -> None:
        """Untie a key from a lease, tied or not."""
        self.table.detach(lease, key)
        if lease in self.dumb:
            self.dumb[lease].keys.discard(key)

    @rule(count_max=st.integers(0, 3))
    def expire(self, count_max: int) -> None:
        """Take out leases whose time is over: by deadline, each once, no more than asked for."""
        came = self.table.expired(self.now_ns, count_max)

        due = [
            lease
            for lease, each in self.dumb.items()
            if each.due_ns <= self.now_ns and not each.is_reported
        ]
        assert len(came) == min(count_max, len(due))
        assert set(came) <= set(due)
        dues = [self.dumb[lease].due_ns for lease in came]
        assert dues == sorted(self.dumb[lease].due_ns for lease in due)[: len(came)]
        for lease in came:
            self.dumb[lease].is_reported = True

    @rule(lease=_IDS)
    def remind(self, lease: int) -> None:
        """Ask to be told again, in 3 s, of a lease that was reported; others are left alone."""
        self.table.remind(LeaseId(lease), self.now_ns)
        found = self.dumb.get(lease)
        if found is not None and found.is_reported:
            found.is_reported = False
            found.due_ns = self.now_ns + 3 * _NS

    @rule(lease=_IDS, remaining_s=st.integers(-1, 7))
    def checkpoint(self, lease: int, remaining_s: int) -> None:
        """Note how long a lease has after a start; it goes on as it did."""
        found = self.dumb.get(lease)
        if found is not None:
            found.remaining_s = min(max(remaining_s, 0), found.ttl_s)

        ttl_s = self.table.checkpoint(LeaseId(lease), remaining_s)

        assert ttl_s == (found.ttl_s if found else 0)
        assert self.table.remaining_s(LeaseId(lease)) == (found.remaining_s if found else 0)

    @rule()
    def restart(self) -> None:
        """Let all live on as their checkpoints say, or else for their whole time."""
        self.table.restart(self.now_ns)
        for each in self.dumb.values():
            each.deadline_ns = self.now_ns + (each.remaining_s or each.ttl_s) * _NS
            each.due_ns = each.deadline_ns
            each.is_reported = False

    @invariant()
    def all_keys_lie_in_reach(self) -> None:
        """Whoever may write all of the reach may write all keys; a lease without any has none."""
        for lease, dumb in self.dumb.items():
            reach = self.table.reach_of(lease)
            assert (reach is None) == (not dumb.keys)
            assert reach is None or all(map(reach.holds, dumb.keys))

    @invariant()
    def views_are_equal(self) -> None:
        """Compare everything that can be told."""
        assert len(self.table) == len(self.dumb)
        deadlines = [self.dumb[lease].deadline_ns for lease in self.table.by_expiry()]
        assert deadlines == sorted(each.deadline_ns for each in self.dumb.values())
        for lease, each in self.dumb.items():
            assert self.table.keys_of(lease) == each.keys
            view = self.table.view(LeaseId(lease), self.now_ns)
            if each.deadline_ns <= self.now_ns:
                assert view is None
            else:
                remaining_s = (each.deadline_ns - self.now_ns) // _NS
                assert view == (each.ttl_s, remaining_s, tuple(sorted(each.keys)))


def test_leases_equal_a_dictionary() -> None:
    """Whatever is granted, renewed, revoked and expired: deadlines, order and keys are equal."""
    run_state_machine_as_test(
        _LeaseMachine, settings=settings(max_examples=80, stateful_step_count=60, deadline=None)
    )


def test_lease_is_reported_once_though_renewed_twice_at_once() -> None:
    """A lease that was renewed twice in the same moment is reported once."""
    table = LeaseTable()
    table.grant(LeaseId(1), 2, 0)
    table.renew(LeaseId(1), _NS)
    table.renew(LeaseId(1), _NS)

    assert table.expired(3 * _NS, 10) == [1]
    assert table.expired(3 * _NS, 10) == []


def test_lease_is_not_reported_again_by_renewals_of_others() -> None:
    """A lease that is being revoked is not reported again when many others are renewed."""
    table = LeaseTable()
    table.grant(LeaseId(1), 1, 0)
    table.grant(LeaseId(2), 900, 0)
    first = table.expired(_NS, 10)
    for moment in range(200):
        table.renew(LeaseId(2), _NS + moment)

    assert first == [1]
    assert table.expired(2 * _NS, 10) == []


def test_revoked_leases_leave_nothing_behind() -> None:
    """Granting and revoking long leases again and again does not grow the table."""
    table = LeaseTable()
    for lease in range(1, 5_000):
        table.grant(LeaseId(lease), 9_000_000_000, 0)
        table.revoke(LeaseId(lease))

    assert len(table._due) < 100


def test_reminder_spares_a_new_lease_of_the_same_id() -> None:
    """A late reminder for a lease that was revoked does not end a new one of the same id."""
    table = LeaseTable()
    table.grant(LeaseId(1), 1, 0)
    table.expired(_NS, 10)
    table.revoke(LeaseId(1))
    table.grant(LeaseId(1), 100, _NS)

    table.remind(LeaseId(1), 2 * _NS)

    assert table.expired(50 * _NS, 10) == []


def test_unknown_lease_is_nothing() -> None:
    """What is not there cannot be renewed, seen, tied to or reminded of."""
    table = LeaseTable()
    table.attach(1, b"a")
    table.detach(1, b"a")
    table.remind(LeaseId(1), 0)

    assert table.renew(LeaseId(1), 0) == 0
    assert table.view(LeaseId(1), 0) is None
    assert table.keys_of(1) == frozenset()
    assert len(table) == 0


def test_long_lease_is_due_for_a_checkpoint_every_five_minutes() -> None:
    """A lease that nobody renews is returned with what it has left, until that is short."""
    table = LeaseTable()
    table.grant(LeaseId(1), 1_000, 0)
    came = []
    for second in range(1_000):
        for lease, remaining_s in table.due_checkpoints(second * _NS, 10):
            table.checkpoint(lease, remaining_s)
            came.append((second, lease, remaining_s))

    assert came == [(300, 1, 700), (600, 1, 400), (900, 1, 100)]


def test_short_lease_needs_no_checkpoint() -> None:
    """A lease of five minutes is never due for one."""
    table = LeaseTable()
    table.grant(LeaseId(1), 300, 0)

    assert table.due_checkpoints(299 * _NS, 10) == []


def test_lease_that_is_kept_alive_needs_no_checkpoint() -> None:
    """A lease that was renewed within five minutes has hardly less than its whole time."""
    table = LeaseTable()
    table.grant(LeaseId(1), 600, 0)
    came = []
    for second in range(0, 6_000, 10):
        if second % 200 == 0:
            table.renew(LeaseId(1), second * _NS)
        came += table.due_checkpoints(second * _NS, 10)
    later = table.due_checkpoints((5_800 + 300) * _NS, 10)

    assert came == []
    assert later == [(1, 300)]


def test_checkpoint_that_was_not_made_is_due_again() -> None:
    """What was returned and did not reach the log is returned at the next look."""
    table = LeaseTable()
    table.grant(LeaseId(1), 10_000, 0)

    assert table.due_checkpoints(300 * _NS, 10) == [(1, 9_700)]
    assert table.due_checkpoints(301 * _NS, 10) == []
    assert table.due_checkpoints(600 * _NS, 10) == [(1, 9_400)]


def test_renewed_lease_is_looked_at_again_when_its_checkpoint_is_gone() -> None:
    """A lease whose last checkpoint said little is watched over again when it is renewed."""
    table = LeaseTable()
    table.grant(LeaseId(1), 400, 0)
    ((lease, remaining_s),) = table.due_checkpoints(300 * _NS, 10)
    table.checkpoint(lease, remaining_s)
    table.checkpoint(lease, 0)
    table.renew(lease, 350 * _NS)

    assert table.due_checkpoints(649 * _NS, 10) == []
    assert table.due_checkpoints(650 * _NS, 10) == [(1, 100)]


def test_revoked_leases_leave_no_looks_behind() -> None:
    """Granting and revoking long leases again and again keeps no list of looks."""
    table = LeaseTable()
    for lease in range(1, 5_000):
        table.grant(LeaseId(lease), 9_000_000_000, 0)
        table.revoke(LeaseId(lease))

    assert len(table._checkpoints) < 100


def test_expired_lease_gets_no_checkpoint() -> None:
    """A lease that is being revoked is not given time."""
    table = LeaseTable()
    table.grant(LeaseId(1), 301, 0)

    assert table.due_checkpoints(301 * _NS, 10) == []
