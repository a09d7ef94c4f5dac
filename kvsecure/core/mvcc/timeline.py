"""The timeline: in which second every revision was written.

    sample    (first revision, second): from this revision on, until the next sample's
    chunk     128 samples, which are stored as one row

Owns: samples, looking up a revision's time and a time's revision, and their stored form.
Never: reads a clock; the second comes with the log.
Follows: docs/adr/0012-versions.md.
Keeps: seconds and revisions rise from sample to sample; what has more than `CHUNKS_MAX` chunks
    loses every other sample of its older half, so that memory is bounded and only what is old
    becomes coarse.
"""

from array import array
from bisect import bisect_right
from itertools import pairwise
from typing import Final, NamedTuple, final

__all__ = ["CHUNKS_MAX", "SAMPLES_PER_CHUNK", "Timeline", "UnreadableChunk"]

SAMPLES_PER_CHUNK: Final = 128
# 262,144 seconds in which something was written: 4 MiB.
CHUNKS_MAX: Final = 2_048
_NUMBER_BYTES: Final = 8


@final
class UnreadableChunk(Exception):
    """A row of the timeline is not of a form known here."""


class _Chunk(NamedTuple):
    firsts: "array[int]"
    seconds: "array[int]"

    def pack(self) -> bytes:
        return b"".join(number.to_bytes(_NUMBER_BYTES, "big") for pair in self for number in pair)


@final
class Timeline:
    """Samples, oldest first."""

    __slots__ = ("_changed", "_chunks", "_chunks_max", "_seconds", "_starts")

    def __init__(self, chunks_max: int = CHUNKS_MAX) -> None:
        """Make an empty timeline.

        Args:
            chunks_max: How many chunks there may be before the older half is thinned.
        """
        self._chunks_max = chunks_max
        self._chunks: list[_Chunk] = []
        # Of the first sample of each chunk.
        self._starts: list[int] = []
        self._seconds: list[int] = []
        # Which chunks the tables do not have as they are, by their first revision.
        self._changed: set[int] = set()

    @property
    def now_s(self) -> int:
        """The newest second that is known, since 1970; 0 before the first."""
        return self._chunks[-1].seconds[-1] if self._chunks else 0

    # --- writing --------------------------------------------------------------------------------

    def stamp(self, time_s: int, following: int) -> None:
        """Take note of the second in which revisions are written from now on.

        Args:
            time_s: Since 1970; one that is not after the newest changes nothing.
            following: The next revision.
        """
        if time_s <= self.now_s:
            return
        if not self._chunks:
            self._begin(time_s, following)
            return
        last = self._chunks[-1]
        if last.firsts[-1] == following:
            # Nothing was written in the second before.
            last.seconds[-1] = time_s
            self._seconds[-1] = last.seconds[0]
        elif len(last.firsts) < SAMPLES_PER_CHUNK:
            last.firsts.append(following)
            last.seconds.append(time_s)
        else:
            self._begin(time_s, following)
        self._changed.add(self._starts[-1])

    def forget(self, revision: int) -> None:
        """Let go of what is only about revisions before this one, as far as it is whole chunks."""
        count = max(bisect_right(self._starts, revision) - 1, 0)
        self._changed.update(self._starts[:count])
        del self._chunks[:count], self._starts[:count], self._seconds[:count]

    # --- looking up -----------------------------------------------------------------------------

    def time_of(self, revision: int) -> int:
        """Return the second in which a revision was written, 0 if that is not known."""
        at = bisect_right(self._starts, revision) - 1
        if at < 0:
            return 0
        firsts, seconds = self._chunks[at]
        return seconds[bisect_right(firsts, revision) - 1]

    def revision_at(self, time_s: int, current: int) -> int | None:
        """Return the newest revision that was written in a second or before.

        Args:
            time_s: Since 1970.
            current: The newest revision there is.

        Returns:
            It, or None if nothing is known of a time so early.
        """
        found = self._last_through(time_s)
        if found is None:
            return None
        at, inner = found
        firsts = self._chunks[at].firsts
        if inner + 1 < len(firsts):
            return firsts[inner + 1] - 1
        return self._starts[at + 1] - 1 if at + 1 < len(self._starts) else current

    def surely_before(self, time_s: int) -> int:
        """Return a revision that was, with all before it, surely written before a second.

        Where samples have been thinned out it may be older than need be; 0 if none is known.
        """
        found = self._last_through(time_s)
        if found is None:
            return 0
        at, inner = found
        return self._chunks[at].firsts[inner] - 1

    # --- the stored form ------------------------------------------------------------------------

    def take_rows(self) -> list[tuple[bytes, bytes | None]]:
        """Return the rows that have changed since the last call, and the keys of those gone."""
        if not self._changed:
            return []
        places = {start: at for at, start in enumerate(self._starts)}
        changed, self._changed = sorted(self._changed), set()
        rows: list[tuple[bytes, bytes | None]] = []
        for start in changed:
            at = places.get(start)
            value = None if at is None else self._chunks[at].pack()
            rows.append((start.to_bytes(_NUMBER_BYTES, "big"), value))
        return rows

    def load_row(self, value: bytes) -> None:
        """Take in the value of a stored row; rows come in the order of their keys.

        Raises:
            UnreadableChunk: It is not one, or does not follow what was taken in before.
        """
        numbers = [
            int.from_bytes(value[at : at + _NUMBER_BYTES], "big")
            for at in range(0, len(value), _NUMBER_BYTES)
        ]
        half = len(numbers) // 2
        chunk = _Chunk(array("Q", numbers[:half]), array("Q", numbers[half:]))
        firsts = [*(self._chunks[-1].firsts[-1:] if self._chunks else ()), *chunk.firsts]
        if (
            not 0 < half <= SAMPLES_PER_CHUNK
            or len(value) != 2 * half * _NUMBER_BYTES
            or any(a >= b for a, b in pairwise(firsts))
        ):
            raise UnreadableChunk("a row of the timeline cannot be read")
        self._append(chunk)

    # --- within ---------------------------------------------------------------------------------

    def _begin(self, time_s: int, first: int) -> None:
        if len(self._chunks) >= self._chunks_max:
            self._thin()
        self._append(_Chunk(array("Q", (first,)), array("Q", (time_s,))))
        self._changed.add(first)

    def _append(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        self._starts.append(chunk.firsts[0])
        self._seconds.append(chunk.seconds[0])

    def _thin(self) -> None:
        """Make of each two chunks of the older half one, of every other sample."""
        half = len(self._chunks) // 4 * 2
        merged = [
            _Chunk(a.firsts[::2] + b.firsts[::2], a.seconds[::2] + b.seconds[::2])
            for a, b in zip(self._chunks[:half:2], self._chunks[1:half:2], strict=True)
        ]
        self._changed.update(self._starts[:half])
        self._chunks[:half] = merged
        self._starts[:half] = [chunk.firsts[0] for chunk in merged]
        self._seconds[:half] = [chunk.seconds[0] for chunk in merged]

    def _last_through(self, time_s: int) -> tuple[int, int] | None:
        """Return chunk and place of the last sample whose second is at most this one."""
        at = bisect_right(self._seconds, time_s) - 1
        if at < 0:
            return None
        return at, bisect_right(self._chunks[at].seconds, time_s) - 1
