"""Restoring a member from its data directory: tables first, then the log behind them.

Owns: the order of recovery, and the checks between tables, log and audit trail.
Never: repairs anything but the torn end of a write that was never acknowledged.
Follows: design D3: the log is the truth, the tables are an applied prefix of it.
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
from kvsecure.core.raft.node import HardState, Node
from kvsecure.core.raft.settings import Settings
from kvsecure.core.replica import DamagedFrame, Replica, decode_frame
from kvsecure.core.state import State, UnreadableState
from kvsecure.model.ids import Index, MemberId, Term
from kvsecure.model.limits import (
    AUDIT_SEGMENT_BYTES_MAX,
    UNFLUSHED_BYTES_MAX,
    WAL_SEGMENT_BYTES_MAX,
)
from kvsecure.model.secret import Secret
from kvsecure.proto import state_pb2
from kvsecure.security.audit import GENESIS, Head
from kvsecure.server.datadir import DataDirectory
from kvsecure.storage.carried import Carried
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.files import DirectoryLock, StorageError
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.segment import Frame, Kind
from kvsecure.storage.segments import Tail, list_segments, recover
from kvsecure.storage.tables import TableReader

__all__ = ["RAFT", "Restored", "restore"]

# The engine says no before the leader does: it counts what is not in the tables as well.
RAFT: Final = Settings(
    election_ticks=10, heartbeat_ticks=1, uncommitted_bytes_max=2 * UNFLUSHED_BYTES_MAX
)


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


def restore(
    directory: DataDirectory,
    *,
    tables_bytes_max: int,
    now_ns: int,
    founders: Sequence[state_pb2.Member] = (),
    beginning: Configuration | None = None,
    patience: Settings = RAFT,
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
    audit_head, is_new, stored = _load_state(state, reader, now_ns, founders)
    carried = Carried()
    raft_log, hard_state, tail = _load_log(directory, state, carried, is_new=is_new)
    audit_redone_bytes = carried.write_missing(directory.place(Kind.AUDIT))
    configuration = stored or beginning or Configuration((directory.identity.member,))
    node = _restore_node(directory, raft_log, hard_state, configuration, patience)
    log = start(
        {
            **settings,
            "role": "log",
            "directory": str(directory.wal),
            "key": _text(directory.place(Kind.WAL).root_key(keyring, term)),
            "number": tail.number,
            "link": base64.b64encode(tail.link).decode(),
            "following": tail.following,
            "segment_bytes_max": WAL_SEGMENT_BYTES_MAX,
            "audit_segment_bytes_max": AUDIT_SEGMENT_BYTES_MAX,
        },
        directory.lock,
    )
    log.wait_ready()
    return Restored(
        replica=Replica(node, state),
        reader=reader,
        log=log,
        tables=tables,
        audit_head=audit_head,
        is_new=is_new,
        cut_bytes=tail.cut_bytes,
        audit_redone_bytes=audit_redone_bytes,
    )


def _load_state(
    state: State, reader: TableReader, now_ns: int, founders: Sequence[state_pb2.Member]
) -> tuple[Head, bool, Configuration | None]:
    """Read the tables back.

    Returns:
        The audit head that they know, whether they are empty, and the members if they say so.
    """
    try:
        rows = list(reader.scan(Table.STATE, NO_SCOPE))
        if not rows:
            state.found(founders)
            return Head(0, GENESIS), True, None
        blocks = (block for _, block in reader.scan(Table.INDEX, NO_SCOPE))
        applied = state.load(rows, blocks, now_ns)
        stored = Configuration.decode(applied.configuration) if applied.configuration else None
    except (DamagedRow, UnreadableState, DamagedConfiguration) as error:
        raise StorageError(
            f"the tables are damaged: {error}. Restore the data directory from a backup"
        ) from None
    if not state.members:
        # It was stored before the state named them, or is of a backup.
        state.found_members(founders)
    return Head(applied.audit_seq, applied.audit_hash), False, stored


def _load_log(
    directory: DataDirectory, state: State, carried: Carried, *, is_new: bool
) -> tuple[RaftLog, HardState, Tail]:
    """Read the log back, from where the tables end, and what it carries of the audit trail."""
    place = directory.place(Kind.WAL)
    raft_log = RaftLog(state.index, state.term)
    hard_state = HardState(state.term, MemberId(0), state.index)
    if not is_new and not list_segments(place):
        raise StorageError(
            f"{directory.wal}: the write-ahead log is missing, and with it perhaps what was "
            "acknowledged last. Restore the data directory from a backup"
        )

    def use(frame: Frame) -> None:
        nonlocal hard_state
        hard_state, term, entries, content = decode_frame(frame.text, frame.count)
        carried.add(content)
        behind = state.index + 1 - frame.first
        if frame.first > raft_log.last + 1:
            raise StorageError(
                f"{directory.wal}: entries {raft_log.last + 1} to {frame.first - 1} are missing. "
                "Restore the data directory from a backup"
            )
        if behind < len(entries):
            if frame.first <= raft_log.last:
                # A leader had others there (Raft section 5.3).
                raft_log.truncate(Index(max(frame.first - 1, state.index)))
            raft_log.append(Term(term), entries[max(behind, 0) :])

    try:
        tail = recover(place, directory.keyring, use, first_known=state.index + 1)
    except DamagedFrame as error:
        raise StorageError(f"{directory.wal}: {error}. Restore it from a backup") from None
    if tail.following > raft_log.last + 1:
        # Its newest segment is still empty, and what came before is in tables that are gone.
        raise StorageError(
            f"{directory.wal}: entries {raft_log.last + 1} to {tail.following - 1} are missing. "
            "Restore the data directory from a backup"
        )
    raft_log.durable = raft_log.last
    raft_log.committed = Index(max(raft_log.offset, min(hard_state.committed, raft_log.last)))
    return raft_log, hard_state, tail


def _restore_node(
    directory: DataDirectory,
    raft_log: RaftLog,
    hard_state: HardState,
    configuration: Configuration,
    patience: Settings,
) -> Node:
    member = directory.identity.member
    # What it draws differs from one start to the next: it tells the answers to what was asked
    # before a restart apart.
    rng = random.Random(secrets.randbits(64))
    try:
        return Node(member, raft_log, hard_state, configuration, patience, rng)
    except DamagedConfiguration as error:
        raise StorageError(f"{directory.wal}: {error}. Restore it from a backup") from None


def _text(key: Secret) -> str:
    return base64.b64encode(key.reveal()).decode()
