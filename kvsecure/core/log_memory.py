"""How much of the log stays in memory behind the tables, for members that are behind.

Owns: when entries that the tables hold are forgotten.
Never: touches the log on the disk, which is for this member's own recovery.
Follows: etcd keeps the last 5,000 entries for slow followers; here it is bytes that are counted.
"""

from collections import deque
from typing import final

from kvsecure.core.raft.node import Node
from kvsecure.model.ids import Index
from kvsecure.model.limits import LOG_KEPT_BYTES_MAX, LOG_KEPT_ENTRIES_MAX

__all__ = ["LogMemory"]


@final
class LogMemory:
    """What of the log is kept in memory."""

    __slots__ = ("_node", "_runs", "_size_bytes", "_through")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._through = node.log.offset
        # Between one flush and the next: the last index, and the bytes of the entries.
        self._runs: deque[tuple[Index, int]] = deque()
        self._size_bytes = 0

    def flushed(self, through: Index) -> None:
        """Take note that the tables hold everything through an index; forget what is too much."""
        log = self._node.log
        if self._node.is_alone or not log.offset:
            # A log that begins with the first entry could be followed without the accounts and
            # members that a cluster begins with: these go with a snapshot.
            log.forget(through)
            self._runs.clear()
            self._size_bytes, self._through = 0, through
            return
        after = max(self._through, log.offset)
        size_bytes = sum(map(len, log.entries(after, through))) if through > after else 0
        self._runs.append((through, size_bytes))
        self._size_bytes += size_bytes
        self._through = through
        runs = self._runs
        while runs and (
            self._size_bytes > LOG_KEPT_BYTES_MAX or through - log.offset > LOG_KEPT_ENTRIES_MAX
        ):
            last, size_bytes = runs.popleft()
            self._size_bytes -= size_bytes
            log.forget(last)
