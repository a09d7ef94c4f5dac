"""Keys and values through the client, on a real server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.client import (
    KEEP,
    Client,
    ClientError,
    Compare,
    Comparison,
    Delete,
    Deleted,
    Fetch,
    Found,
    Keys,
    Order,
    Put,
    Range,
    Reading,
    SortBy,
    Stored,
    Target,
    Txn,
    TxnResult,
)
from kvsecure.model.errors import Failure

__all__: list[str] = []


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> bytes:
    """A part of the key space for each test of its own."""
    return f"/{request.node.name}/".encode()


def test_get_returns_what_was_put(root: Client, prefix: bytes) -> None:
    """A value comes back byte by byte, with the revisions of its history."""
    key, value = prefix + b"k\x00\xff", bytes(range(256))
    first = root.kv.put(key, b"old")

    second = root.kv.put(key, value)
    found = root.kv.get(key)

    assert found is not None
    assert (found.key, found.value, found.version, found.lease) == (key, value, 2, 0)
    assert found.create_revision == first.header.revision
    assert found.mod_revision == second.header.revision


def test_get_of_a_missing_key_is_none(root: Client, prefix: bytes) -> None:
    """A key that is not there is no error."""
    assert root.kv.get(prefix) is None


def test_get_reads_the_past(root: Client, prefix: bytes) -> None:
    """A revision gives the value of that time."""
    past = root.kv.put(prefix, b"old").header.revision
    root.kv.put(prefix, b"new")

    found = root.kv.get(prefix, revision=past)

    assert found is not None
    assert found.value == b"old"


def test_range_obeys_limit_order_and_fetch(root: Client, prefix: bytes) -> None:
    """A range is cut by its limit, sorted as asked, and holds as much as asked."""
    for name, value in ((b"a", b"2"), (b"b", b"3"), (b"c", b"1")):
        root.kv.put(prefix + name, value)
    keys = Keys.prefix(prefix)

    cut = root.kv.range(keys, limit=2)
    by_value = root.kv.range(keys, sort_by=SortBy.VALUE, order=Order.DESCEND)
    only_keys = root.kv.range(keys, fetch=Fetch.KEYS, reading=Reading.SERIALIZABLE)
    counted = root.kv.range(keys, fetch=Fetch.COUNT)

    assert ([kv.key[-1:] for kv in cut.kvs], cut.more, cut.count) == ([b"a", b"b"], True, 3)
    assert [kv.value for kv in by_value.kvs] == [b"3", b"2", b"1"]
    assert [(kv.key[-1:], kv.value) for kv in only_keys.kvs] == [
        (b"a", b""),
        (b"b", b""),
        (b"c", b""),
    ]
    assert (counted.kvs, counted.count) == ((), 3)


def test_put_tells_what_was_there(root: Client, prefix: bytes) -> None:
    """The previous value is answered when it is asked for and there is one."""
    missing = root.kv.put(prefix, b"old", previous=True)

    there = root.kv.put(prefix, b"new", previous=True)

    assert missing.previous is None
    assert there.previous is not None
    assert there.previous.value == b"old"


def test_put_keeps_value_or_lease(root: Client, prefix: bytes) -> None:
    """A put with KEEP leaves the value, or the lease, as it is."""
    lease = root.lease.grant(60).lease
    root.kv.put(prefix, b"v")

    root.kv.put(prefix, KEEP, lease=lease)
    leased = root.kv.get(prefix)
    root.kv.put(prefix, b"w", lease=KEEP)
    kept = root.kv.get(prefix)
    root.kv.put(prefix, b"x")
    freed = root.kv.get(prefix)

    assert leased is not None
    assert kept is not None
    assert freed is not None
    assert (leased.value, leased.lease) == (b"v", lease)
    assert (kept.value, kept.lease) == (b"w", lease)
    assert freed.lease == 0


def test_delete_counts_and_tells(root: Client, prefix: bytes) -> None:
    """A delete answers how many keys went, and which, if asked."""
    root.kv.put(prefix + b"a", b"1")
    root.kv.put(prefix + b"b", b"2")

    deleted = root.kv.delete(Keys.prefix(prefix), previous=True)
    again = root.kv.delete(Keys.prefix(prefix))

    assert (deleted.count, [kv.value for kv in deleted.previous]) == (2, [b"1", b"2"])
    assert (again.count, again.previous) == (0, ())


def test_txn_takes_one_branch_at_one_revision(root: Client, prefix: bytes) -> None:
    """A transaction does what its conditions choose, all of it at one revision."""
    key, other, third = prefix + b"a", prefix + b"b", prefix + b"c"
    root.kv.put(third, b"3")

    made = root.kv.txn(
        when=(Compare.missing(key),),
        then=(
            Put(key=key, value=b"1"),
            Put(key=other, value=b"2", previous=True),
            Range(keys=Keys.prefix(prefix)),
            Txn(then=(Delete(keys=Keys.one(third)),)),
        ),
    )
    refused = root.kv.txn(when=(Compare.missing(key),), otherwise=(Range(keys=Keys.one(key)),))

    stored, second, found, inner = made.results
    assert made.succeeded
    assert isinstance(stored, Stored)
    assert isinstance(second, Stored)
    assert second.previous is None
    assert isinstance(found, Found)
    assert [kv.mod_revision for kv in found.kvs][:2] == [made.header.revision] * 2
    assert isinstance(inner, TxnResult)
    (deleted,) = inner.results
    assert isinstance(deleted, Deleted)
    assert deleted.count == 1
    assert not refused.succeeded
    assert isinstance(refused.results[0], Found)


@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("comparison", list(Comparison))
def test_every_condition_is_evaluated(
    root: Client, prefix: bytes, target: Target, comparison: Comparison
) -> None:
    """Each target and comparison means on the server what it says."""
    lease = root.lease.grant(60).lease
    root.kv.put(prefix, b"m", lease=lease)
    kv = root.kv.get(prefix)
    assert kv is not None
    actual: dict[Target, int | bytes] = {
        Target.VERSION: kv.version,
        Target.CREATE: kv.create_revision,
        Target.MOD: kv.mod_revision,
        Target.VALUE: kv.value,
        Target.LEASE: kv.lease,
    }
    operand = actual[target]

    condition = Compare(
        keys=Keys.one(prefix), target=target, comparison=comparison, operand=operand
    )
    holds = root.kv.txn(when=(condition,)).succeeded

    assert holds is (comparison is Comparison.EQUAL)


@pytest.mark.parametrize(
    ("comparison", "operand", "holds"),
    [
        (Comparison.GREATER, b"l", True),
        (Comparison.GREATER, b"n", False),
        (Comparison.LESS, b"n", True),
        (Comparison.LESS, b"l", False),
        (Comparison.NOT_EQUAL, b"l", True),
    ],
)
def test_conditions_know_their_direction(
    root: Client, prefix: bytes, *, comparison: Comparison, operand: bytes, holds: bool
) -> None:
    """Greater is greater, seen from the stored value."""
    root.kv.put(prefix, b"m")
    condition = Compare(
        keys=Keys.one(prefix), target=Target.VALUE, comparison=comparison, operand=operand
    )

    assert root.kv.txn(when=(condition,)).succeeded is holds


def test_unchanged_guards_a_read(root: Client, prefix: bytes) -> None:
    """A write guarded by what was read fails once somebody else has written."""
    root.kv.put(prefix, b"1")
    read = root.kv.get(prefix)
    assert read is not None
    write = (Put(key=prefix, value=b"2"),)

    first = root.kv.txn(when=(Compare.unchanged(read),), then=write)
    second = root.kv.txn(when=(Compare.unchanged(read),), then=write)

    assert (first.succeeded, second.succeeded) == (True, False)


@given(operand=st.one_of(st.integers(), st.binary()), target=st.sampled_from(list(Target)))
def test_condition_takes_the_right_kind_of_operand(operand: int | bytes, target: Target) -> None:
    """A value is compared with bytes and everything else with a number, or not at all."""
    fits = isinstance(operand, bytes) == (target is Target.VALUE)
    try:
        Compare(keys=Keys.one(b"k"), target=target, comparison=Comparison.EQUAL, operand=operand)
    except TypeError:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize(
    ("ask", "failure"),
    [
        (lambda kv: kv.get(b""), Failure.EMPTY_KEY),
        (lambda kv: kv.get(b"k", revision=1_000_000), Failure.FUTURE_REVISION),
        (lambda kv: kv.put(b"k", b"v", lease=99), Failure.LEASE_NOT_FOUND),
        (lambda kv: kv.put(b"/nobody/wrote/this", KEEP), Failure.KEY_NOT_FOUND),
        (
            lambda kv: kv.txn(then=(Put(key=b"k", value=b""), Put(key=b"k", value=b""))),
            Failure.DUPLICATE_KEY,
        ),
        (lambda kv: kv.compact(1_000_000), Failure.FUTURE_REVISION),
    ],
)
def test_refusals_carry_the_catalogue(root: Client, ask: object, failure: Failure) -> None:
    """Each refusal arrives as the entry of the catalogue with its code."""
    assert callable(ask)

    with pytest.raises(ClientError) as refused:
        ask(root.kv)

    assert (refused.value.failure, refused.value.code) == (failure, failure.code)


def test_too_large_request_is_refused(root: Client) -> None:
    """A request beyond the bound is refused before or by the server, never cut."""
    with pytest.raises(ClientError) as refused:
        root.kv.put(b"k", bytes(2_000_000))

    assert refused.value.failure is Failure.REQUEST_TOO_LARGE


def test_compaction_ends_history(root: Client, prefix: bytes) -> None:
    """What is older than the compaction can no longer be read."""
    past = root.kv.put(prefix, b"old").header.revision
    now = root.kv.put(prefix, b"new").header.revision

    assert root.kv.compact(now, wait=True) == now

    with pytest.raises(ClientError) as refused:
        root.kv.get(prefix, revision=past)
    assert refused.value.failure is Failure.COMPACTED


@pytest.mark.parametrize("limit", [0, 25, 40, 41])
def test_parts_together_are_the_whole(root: Client, prefix: bytes, limit: int) -> None:
    """A range that is read in parts is the same range, also where a server knows no parts."""
    for start in (0, 20):
        puts = tuple(
            Put(key=prefix + b"%02d" % number, value=b"v") for number in range(start, start + 20)
        )
        root.kv.txn(then=puts)
    operation = Range(keys=Keys.prefix(prefix), limit=limit)

    parts = list(root.kv.read_parts(operation))
    whole = root.kv.read(operation)

    assert tuple(kv for part in parts for kv in part.kvs) == whole.kvs
    assert (parts[-1].count, parts[-1].more) == (whole.count, whole.more)
    assert parts[-1].header == whole.header


def test_refused_parts_carry_the_catalogue(root: Client) -> None:
    """A range in parts is refused as the whole one is."""
    with pytest.raises(ClientError) as refused:
        list(root.kv.read_parts(Range(keys=Keys.one(b"k"), revision=1_000_000)))

    assert refused.value.failure is Failure.FUTURE_REVISION
