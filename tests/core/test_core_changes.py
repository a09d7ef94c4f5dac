"""What a watcher has missed, against the list of all that was written, while more is written."""

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.core.changes import MissedChanges, pack_change
from kvsecure.core.mvcc.index import TOMBSTONE, KeyIndex, position
from kvsecure.model.keys import Span

_KEYS: Final = [bytes((97 + number,)) for number in range(12)]
# A revision writes these keys; one that exists and is named twice is deleted.
_REVISIONS: Final = st.lists(
    st.lists(st.sampled_from(_KEYS), min_size=1, max_size=4), min_size=1, max_size=30
)
# What a change of such a key counts as.
_CHANGE_BYTES: Final = 74
_SPANS: Final = st.sampled_from(
    [Span(b"a", None), Span(b"c", b"h"), Span(b"d", b"d\0"), Span(b"a", b"z"), Span(b"e", b"b")]
)


class _Written:
    """An index, and everything that was ever written to it."""

    def __init__(self) -> None:
        self.index = KeyIndex()
        self.revision = 1
        self.changes: list[tuple[bytes, bytes, bytes | None]] = []

    def write(self, keys: list[bytes]) -> list[tuple[bytes, bytes, bytes | None]]:
        """Write one revision; return its changes: place, key, what was replaced."""
        self.revision += 1
        made = []
        for sub, key in enumerate(dict.fromkeys(keys)):
            before = self.index.heads.get(key)
            previous = None if before is None or before[8] & 0x80 else before[:12]
            if keys.count(key) > 1 and previous is not None:
                self.index.delete(key, self.revision, sub)
                place = position(self.revision, sub | TOMBSTONE)
            else:
                self.index.put(key, self.revision, sub, 0)
                place = position(self.revision, sub)
            made.append((place, key, previous))
        self.changes += made
        return made


def _drain(missed: MissedChanges, count: int) -> list[tuple[bytes, bytes, bytes | None]]:
    """Take out some of what a watcher has missed."""
    taken = []
    while len(taken) < count and (change := missed.first()) is not None:
        missed.drop_first()
        taken.append((change.place, change.key, change.previous))
    return taken


@settings(max_examples=300, deadline=None)
@given(
    before=_REVISIONS,
    meanwhile=_REVISIONS,
    back=st.integers(0, 30),
    span=_SPANS,
    keys_per_slice=st.integers(1, 5),
    changes_max=st.sampled_from([2, 5, 100]),
)
def test_missed_changes_are_what_was_written(
    before: list[list[bytes]],
    meanwhile: list[list[bytes]],
    back: int,
    span: Span,
    keys_per_slice: int,
    changes_max: int,
) -> None:
    """Every change from the start through where it reaches comes once, in order, as it was made."""
    written = _Written()
    for keys in before:
        written.write(keys)
    start, first = max(2, written.revision - back), written.revision
    missed = MissedChanges(
        written.index,
        span,
        start,
        written.revision,
        keys_per_slice=keys_per_slice,
        bytes_max=changes_max * _CHANGE_BYTES,
    )
    got = []
    is_walked = False

    for keys in meanwhile:
        is_walked = is_walked or missed.walk()
        if is_walked:
            got += _drain(missed, 2)
        wanted = [change for change in written.write(keys) if span.holds(change[1])]
        if wanted:
            missed.follow(written.revision, (pack_change(*change) for change in wanted))
    while not is_walked:
        is_walked = missed.walk()
    got += _drain(missed, 1_000)

    expected = [
        change
        for change in written.changes
        if start <= int.from_bytes(change[0][:8], "big") <= missed.through and span.holds(change[1])
    ]
    assert got == expected
    assert missed.through >= first or not missed.is_following
    if missed.is_following:
        assert len(got) == len(
            [
                c
                for c in written.changes
                if c[0][:8] >= start.to_bytes(8, "big") and span.holds(c[1])
            ]
        )


def test_a_bounded_number_of_missed_changes_is_held() -> None:
    """What is too much to hold is left for another walk, and no revision is cut in two."""
    written = _Written()
    for number in range(10_000):
        written.write([_KEYS[number % 3], _KEYS[3 + number % 3]])

    missed = MissedChanges(
        written.index, Span(b"a", None), 2, written.revision, bytes_max=6_000 * _CHANGE_BYTES
    )
    while not missed.walk():
        pass
    got = _drain(missed, 100_000)

    assert 4_000 <= len(got) <= 6_000
    assert not missed.is_following
    assert got == written.changes[: len(got)]
    assert got[-1][0][:8] <= missed.through.to_bytes(8, "big")
    assert written.changes[len(got)][0][:8] > missed.through.to_bytes(8, "big")


def test_a_bounded_number_of_newer_changes_is_noted() -> None:
    """What is written while a watcher reads history is noted up to a bound, and told through it."""
    written = _Written()
    written.write([_KEYS[0]])
    bytes_max = 20 * _CHANGE_BYTES
    missed = MissedChanges(written.index, Span(b"a", None), 2, 2, bytes_max=bytes_max)
    while not missed.walk():
        pass

    for number in range(100):
        made = written.write([_KEYS[number % 3]])
        missed.follow(written.revision, (pack_change(*change) for change in made))
    got = _drain(missed, 1_000)

    assert not missed.is_following
    assert got == written.changes[:21]
    assert missed.through == 22
