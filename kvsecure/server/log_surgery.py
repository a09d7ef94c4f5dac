"""Log surgery: writing to the log of a member that does not run yet.

Owns: a frame behind all that was read back, made durable, and the end of what it cuts off.
Never: decides what is written; runs beside the log process, which begins where this ends.
"""

from kvsecure.core.raft.node import Ready
from kvsecure.core.replica import encode_frame
from kvsecure.model.ids import Index
from kvsecure.model.limits import WAL_SEGMENT_BYTES_MAX
from kvsecure.server.datadir import DataDirectory
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentWriter, Tail

__all__ = ["append"]


def append(
    directory: DataDirectory, tail: Tail, ready: Ready, *, purged_before: Index | None = None
) -> Tail:
    """Write a frame; return where the log goes on.

    Args:
        directory: The member's, open and locked.
        tail: Where the log ends.
        ready: What is written.
        purged_before: Segments that hold nothing from this index on are removed afterwards.

    Raises:
        StorageError: It cannot be written.
    """
    keyring, place = directory.keyring, directory.place(Kind.WAL)
    term = keyring.current_term
    root = place.root_key(keyring, term)
    writer = SegmentWriter(place, tail, root, term=term, bytes_max=WAL_SEGMENT_BYTES_MAX)
    try:
        writer.append(len(ready.entries), encode_frame(ready), ready.first)
        writer.sync()
        if purged_before is not None:
            writer.purge(purged_before)
        writer.close()
    except OSError as error:
        raise StorageError(f"{directory.wal}: it cannot be written: {error}") from None
    return writer.tail._replace(cut_bytes=tail.cut_bytes)
