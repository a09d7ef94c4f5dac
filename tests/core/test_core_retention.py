"""What a policy keeps of one key, against going over its versions one by one; and whose it is."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from kvsecure.core.mvcc.index import KeyIndex
from kvsecure.core.mvcc.retention import Compaction, Keep, Keeps
from kvsecure.model.ids import TenantId

_NEVER = (1 << 63) - 1


# A key that was deleted and created anew.
_LIVES = [(2, False), (3, True), (4, False), (5, False)]


@st.composite
def _chains(draw: st.DrawFn) -> list[tuple[int, bool]]:
    """Revisions of a key that rise, and whether each is a deletion; no two deletions in a row."""
    chain: list[tuple[int, bool]] = []
    revision = 1
    for step, wants_deletion in draw(
        st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=14)
    ):
        revision += step
        chain.append((revision, wants_deletion and bool(chain) and not chain[-1][1]))
    return chain


def _kept(chain: list[tuple[int, bool]], revision: int, keep: Keep) -> list[tuple[int, bool]]:
    """Return what stays, by the words of the rule."""
    old = [each for each in chain if each[0] <= revision]
    stays = {main for main, _ in chain if main > revision}
    if old and (not old[-1][1] or old[-1][0] == revision):
        stays.add(old[-1][0])
    versions = [main for main, deleted in chain if not deleted and main <= keep.through]
    stays |= set(versions[-keep.versions :]) if keep.versions else set()
    for (main, deleted), (superseded, _) in pairwise(chain):
        if not deleted and superseded > keep.superseded_after:
            stays.add(main)
    oldest = min((main for main, deleted in chain if main in stays and not deleted), default=_NEVER)
    return [(main, d) for main, d in chain if main in stays or (d and main > oldest)]


@given(
    chain=_chains(),
    back=st.integers(0, 20),
    later=st.integers(0, 6),
    versions=st.integers(0, 6),
    age=st.one_of(st.none(), st.integers(0, 30)),
)
@example(chain=_LIVES, back=0, later=0, versions=0, age=2)
@example(chain=_LIVES, back=0, later=0, versions=2, age=None)
@example(chain=_LIVES, back=0, later=0, versions=3, age=None)
def test_compaction_keeps_what_the_policy_says(
    chain: list[tuple[int, bool]], back: int, later: int, versions: int, age: int | None
) -> None:
    """The newest N, and what was superseded late enough, with the deletions behind them."""
    revision = max(chain[-1][0] - back, 1)
    keep = Keep(versions, _NEVER if age is None else max(revision - age, 0), revision + later)
    index = KeyIndex()
    for main, deleted in chain:
        if deleted:
            index.delete(b"k", main, 0)
        else:
            index.put(b"k", main, 0, 0)

    freed = index.compact(b"k", revision, keep)

    expected = _kept(chain, revision, keep)
    left = [(int.from_bytes(p[:8], "big"), bool(p[8] & 0x80)) for p in index.positions(b"k")]
    assert left == expected
    assert len(freed) == len(chain) - len(expected)
    assert (b"k" in index.heads) == bool(expected)
    assert index.compact(b"k", revision, keep) == []


@given(
    prefixes=st.dictionaries(st.binary(max_size=3), st.integers(0, 9), max_size=5),
    key=st.binary(min_size=1, max_size=4),
)
def test_longest_prefix_counts(prefixes: dict[bytes, int], key: bytes) -> None:
    """Of all prefixes of a key the longest one says what is kept."""
    keeps = Keeps({prefix: Keep(count, 1, 1) for prefix, count in prefixes.items()})

    found = keeps.find(key)

    meant = [prefix for prefix in prefixes if key.startswith(prefix)]
    assert found == (Keep(prefixes[max(meant, key=len)], 1, 1) if meant else None)


def test_stored_compaction_is_read_back() -> None:
    """What a compaction keeps is the same after a start."""
    table = {b"": Keep(3, _NEVER, 9), b"/a": Keep(0, 5, 9)}
    compaction = Compaction.under(7, [(TenantId(1), table), (TenantId(16), {})])

    again = Compaction.decode(compaction.encode())

    assert again.revision == 7
    assert {tenant: keeps.table for tenant, keeps in again.keeps.items()} == {1: table}
