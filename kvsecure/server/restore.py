"""Restoring a member from its data directory: tables first, then the log behind them.

Owns: the order of recovery, and the checks between tables, log and audit trail.
Never: repairs anything but the torn end of a write that was never acknowledged.
Follows: design D3: the log is the truth, the tables are an applied prefix of it; Raft section 7
    where the tables came from another member.
"""

import base64
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from kvsecure.core.link import DiskLink
from kvsecure.core.raft.configuration import Configuration, DamagedConfiguration
from kvsecure.core.raft.log import RaftLog
from kvsecure.core.raft.node import HardState, Node, Ready
from kvsecure.core.raft.settings import Settings
from kvsecure.core.replica import DamagedFrame, Replica, decode_frame
from kvsecure.core.state import State, UnreadableState
from kvsecure.model.ids import Index, MemberId
from kvsecure.model.limits import AUDIT_SEGMENT_BYTES_MAX, WAL_SEGMENT_BYTES_MAX
from kvsecure.model.secret import Secret
from kvsecure.proto import state_pb2
from kvsecure.proto.state_pb2 import Applied
from kvsecure.security.audit import GENESIS, Head
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.log_reading import LogReading, MissingEntries
from kvsecure.server.log_surgery import append
from kvsecure.server.standing_alone import stand_alone
from kvsecure.storage.carried import Carried
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.files import DirectoryLock, StorageError
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.segment import Frame, Kind
from kvsecure.storage.segments import Tail, list_segments, recover
from kvsecure.storage.tables import TableReader

__all__ = ["Restored", "restore"]

# The disk processes finish what they were told.
_END_S_MAX: Final = 10.0
_PATIENCE: Final = Settings()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A member as it was, with its disk processes running."""

    replica: Replica
    reader: TableReader
    log: DiskLink
    tables: DiskLink
    # The newest audit record that was known to be on the disk.
    audit_head: Head
    # Whether nothing was there: the cluster has yet to be founded.
    is_new: bool
    # What was cut off the log, and what was written to the audit trail again.
    cut_bytes: int
    audit_redone_bytes: int
    # Who were members until this one was told to stand alone.
    left_behind: tuple[MemberId, ...] = ()

    def close(self) -> None:
        """Wait until the disk processes have ended, and let go of the tables.

        The links must have been closed. Afterwards the directory can be opened again.
        """
        for link in (self.log, self.tables):
            link.wait_ended(_END_S_MAX)
        self.reader.close()


def restore(
    directory: DataDirectory,
    *,
    tables_bytes_max: int,
    now_ns: int,
    founders: Sequence[state_pb2.Member] = (),
    beginning: Configuration | None = None,
    patience: Settings = _PATIENCE,
    stands_alone: bool = False,
    start: Callable[[dict[str, Any], DirectoryLock], DiskLink] = DiskLink,
) -> Restored:
    """Read everything back and start the disk processes.

    Args:
        directory: Open and locked.
        tables_bytes_max: How large the tables may grow.
        now_ns: Monotonic time, from when leases live on.
        founders: Who the members are, where the state does not say.
        beginning: Who votes, where the tables do not say; None for this member alone.
        patience: How patient consensus is.
        stands_alone: Whether a member that has been one before goes on without the others.
        start: Starts a disk process.

    Raises:
        StorageError: Something is damaged, missing or foreign; nothing was changed.
    """
    identity, keyring = directory.identity, directory.keyring
    term = keyring.current_term
    settings: dict[str, Any] = {
        "cluster": identity.cluster,
        "member": identity.member,
        "term": term,
    }
    tables = start(
        {
            **settings,
            "role": "tables",
            "directory": str(directory.tables),
            "key": _text(keyring.data_key(term, purpose="table")),
            "size_bytes_max": tables_bytes_max,
        },
        directory.lock,
    )
    tables.wait_ready()
    reader = TableReader(
        directory.tables, identity.cluster, keyring, size_bytes_max=tables_bytes_max
    )
    state = State(reader)
    applied = _load_state(state, reader, now_ns, founders)
    carried = Carried()
    reading, hard_state, tail = _load_log(directory, state, carried, applied)
    audit_redone_bytes = carried.write_missing(directory.place(Kind.AUDIT))
    if reading.leads_to_tables():
        raft_log = reading.log()
        raft_log.committed = Index(max(state.index, min(hard_state.committed, raft_log.last)))
    else:
        tail = _begin_anew(directory, state, hard_state, tail)
        raft_log = RaftLog(state.index, state.term)
    stored = b"" if applied is None else applied.configuration
    first = beginning or Configuration((directory.identity.member,))

    def make_node(log: RaftLog, durable: HardState) -> Node:
        return _restore_node(directory, log, durable, stored, first, patience)

    replica = Replica(make_node(raft_log, hard_state), state)
    left_behind: tuple[MemberId, ...] = ()
    if stands_alone and (applied is not None or raft_log.last):
        replica, tail, left_behind = stand_alone(directory, replica, tail, make_node, now_ns)
    log = start({**settings, **_log_settings(directory, tail)}, directory.lock)
    log.wait_ready()
    return Restored(
        replica=replica,
        reader=reader,
        log=log,
        tables=tables,
        audit_head=Head(applied.audit_seq, applied.audit_hash) if applied else Head(0, GENESIS),
        is_new=applied is None,
        cut_bytes=tail.cut_bytes,
        audit_redone_bytes=audit_redone_bytes,
        left_behind=left_behind,
    )


def _log_settings(directory: DataDirectory, tail: Tail) -> dict[str, Any]:
    """Return what the log process begins with."""
    root = directory.place(Kind.WAL).root_key(directory.keyring, directory.keyring.current_term)
    return {
        "role": "log",
        "directory": str(directory.wal),
        "key": _text(root),
        "number": tail.number,
        "link": base64.b64encode(tail.link).decode(),
        "following": tail.following,
        "segment_bytes_max": WAL_SEGMENT_BYTES_MAX,
        "audit_segment_bytes_max": AUDIT_SEGMENT_BYTES_MAX,
    }


def _load_state(
    state: State, reader: TableReader, now_ns: int, founders: Sequence[state_pb2.Member]
) -> Applied | None:
    """Read the tables back; return what they say of themselves, or None if they are empty."""
    try:
        rows = list(reader.scan(Table.STATE, NO_SCOPE))
        if not rows:
            state.found(founders)
            return None
        blocks = (block for _, block in reader.scan(Table.INDEX, NO_SCOPE))
        applied = state.load(rows, blocks, now_ns)
    except (DamagedRow, UnreadableState) as error:
        raise StorageError(
            f"the tables are damaged: {error}. Restore the data directory from a backup"
        ) from None
    if not state.members:
        # It was stored before the state named them, or is of a backup.
        state.found_members(founders)
    return applied


def _load_log(
    directory: DataDirectory, state: State, carried: Carried, applied: Applied | None
) -> tuple[LogReading, HardState, Tail]:
    """Read the log back, from where the tables end, and what it carries of the audit trail."""
    place = directory.place(Kind.WAL)
    reading = LogReading(state.index, state.term)
    hard_state = HardState(state.term, MemberId(0), state.index)
    if applied is not None and not list_segments(place):
        raise StorageError(
            f"{directory.wal}: the write-ahead log is missing, and with it perhaps what was "
            "acknowledged last. Restore the data directory from a backup"
        )

    def use(frame: Frame) -> None:
        nonlocal hard_state
        hard_state, term, entries, content = decode_frame(frame.text, frame.count)
        carried.add(content)
        reading.take(frame.first, term, entries)

    is_received = applied is not None and applied.is_received
    try:
        tail = recover(
            place,
            directory.keyring,
            use,
            first_known=state.index + 1,
            is_reached=not is_received,
        )
        # Its newest segment may be empty, and what came before in tables that are gone.
        reading.check_whole(tail.following)
    except DamagedFrame as error:
        raise StorageError(f"{directory.wal}: {error}. Restore it from a backup") from None
    except MissingEntries as error:
        raise StorageError(
            f"{directory.wal}: {error}. Restore the data directory from a backup"
        ) from None
    if not reading.leads_to_tables() and not is_received:
        raise StorageError(
            f"{directory.wal}: entry {state.index} is another one than the tables hold. Restore "
            "the data directory from a backup"
        )
    return reading, hard_state, tail


def _begin_anew(directory: DataDirectory, state: State, hard_state: HardState, tail: Tail) -> Tail:
    """Let the log go on behind tables of another member, to which it does not lead.

    What it says of term and vote is written first; then the rest goes, or a later start would take
    it for what comes before the entries that follow. Until it is all gone, there are none.

    Returns:
        Where it goes on.
    """
    following = Index(state.index + 1)
    ready = Ready(hard_state, following, state.term, [])
    return append(directory, tail, ready, purged_before=following)


def _restore_node(
    directory: DataDirectory,
    raft_log: RaftLog,
    hard_state: HardState,
    stored: bytes,
    first: Configuration,
    patience: Settings,
) -> Node:
    """Make a node.

    Args:
        directory: Whose.
        raft_log: Read back.
        hard_state: The newest.
        stored: The members where the tables end, as an entry of the log; nothing if they do not
            say.
        first: Who the members are before anything is said.
        patience: How patient it is.
    """
    member = directory.identity.member
    # What it draws differs from one start to the next: it tells the answers to what was asked
    # before a restart apart.
    rng = random.Random(secrets.randbits(64))
    try:
        known = Configuration.decode(stored) if stored else first
        return Node(member, raft_log, hard_state, known, patience, rng)
    except DamagedConfiguration as error:
        raise StorageError(f"{directory.path}: {error}. Restore it from a backup") from None


def _text(key: Secret) -> str:
    return base64.b64encode(key.reveal()).decode()
