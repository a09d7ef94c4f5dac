"""Who is where in a queue: its oldest key, or the newest one before another, found in steps.

Owns: walking the keys of a span by the revision that created them.
Never: reads a record, waits, or looks at more keys at once than it is told to.
Keeps: whatever is written meanwhile, every key that was there all the time is looked at; those that
    came later are younger than all of them.
"""

from itertools import islice
from typing import NamedTuple, final

from kvsecure.core.mvcc.index import KeyIndex
from kvsecure.model.keys import Span

__all__ = ["Found", "Search"]


class Found(NamedTuple):
    """A key, as it was when it was looked at."""

    key: bytes
    create_revision: int


@final
class Search:
    """One search of one span."""

    __slots__ = ("_before", "_from", "_includes_from", "_index", "_span", "_through", "found")

    def __init__(
        self, index: KeyIndex, span: Span, revision: int, *, before: int | None = None
    ) -> None:
        """Prepare; nothing is looked at yet.

        Args:
            index: Whose keys.
            span: Which of them.
            revision: The newest one that there is.
            before: The newest key that was created before this revision is wanted; without it, the
                oldest of all.
        """
        self._index = index
        self._span = span
        self._before = before
        self._through = revision
        self._from = span.start
        self._includes_from = True
        self.found: Found | None = None

    def step(self, keys_max: int) -> bool:
        """Look at a few more keys; return whether all have been looked at."""
        keys = self._index.live.irange(self._from, self._span.end, (self._includes_from, False))
        heads = self._index.heads
        looked_at = 0
        for key in islice(keys, keys_max):
            looked_at += 1
            # Where a head has the create revision.
            created = int.from_bytes(heads[key][12:20], "big")
            if self._is_better(created):
                self.found = Found(key, created)
            self._from = key
        self._includes_from = False
        return looked_at < keys_max

    @property
    def is_settled(self) -> bool:
        """Whether the answer is one of now; otherwise it is to be searched for anew."""
        found, index = self.found, self._index
        if found is None:
            # Nothing comes before a revision later on; but there may be an oldest one by now.
            return self._before is not None or not index.count_now(self._span)
        head = index.head(found.key)
        is_there = head is not None and head.create == found.create_revision
        # Of two that came while this searched, the younger may have been looked at alone.
        return is_there and found.create_revision <= self._through

    def _is_better(self, created: int) -> bool:
        found, before = self.found, self._before
        if before is None:
            return found is None or created < found.create_revision
        return created < before and (found is None or created > found.create_revision)
