"""A mark: what a member's state came to at one index of the log.

Owns: the shape of it.
Never: outlives the process; a start makes those of the entries that it applies again.
"""

from dataclasses import dataclass
from typing import final

from kvsecure.model.ids import Index

__all__ = ["Mark"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The state at one index.

    Attributes:
        index: Of the entry that asked for the mark.
        digest: Of all that members have alike, but for the versions of keys.
        revision: The newest one there was.
        compacted: Through which revision there had been a compaction.
        erasures: How often this member had given up versions in another way since it started.
    """

    index: Index
    digest: bytes
    revision: int
    compacted: int
    erasures: int
