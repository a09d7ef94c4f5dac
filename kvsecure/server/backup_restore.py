"""`kvsecure snapshot status` and `restore`: a backup checked, and made a data directory again.

Owns: what is checked before a byte is written, and what a restored cluster does not take along.
Never: touches a data directory that is there; a member is started on a new one.
Follows: docs/adr/0016-backups.md.
Keeps: the data directory is not there or whole, whenever this is interrupted: it is made aside and
    renamed. The new cluster has ids and keys of its own, and revisions that the old one never had.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from kvsecure.core.backup import BackupEnd, Row, StoredVersion, unpack
from kvsecure.core.filling import Filling, state_of
from kvsecure.core.mvcc.store import COMPACTION_KEY, compaction_row
from kvsecure.core.raft.node import HardState, Ready
from kvsecure.core.replica import encode_frame
from kvsecure.core.scan import Damage
from kvsecure.core.state import MEMBERSHIP_KINDS, UnreadableState
from kvsecure.crypto.keyring import KeyEncryptionKey, KeyringError
from kvsecure.crypto.signing import VerifyingKey
from kvsecure.model.ids import ClusterId, Index, MemberId, TenantId, Term
from kvsecure.proto.state_pb2 import Applied
from kvsecure.security.audit import GENESIS, AuditTrail, Head
from kvsecure.security.recorder import Recorder
from kvsecure.server.backup_keys import BackupHeader
from kvsecure.server.config.model import KekSettings
from kvsecure.server.datadir import DataDirectory, MemberIdentity
from kvsecure.server.kek import kek_source
from kvsecure.storage import rows as tables
from kvsecure.storage.backup import (
    DamagedBackup,
    Outline,
    check_outline,
    check_signature,
    open_chunks,
)
from kvsecure.storage.files import DirectoryLock, StorageError, sync_directory
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentWriter, recover
from kvsecure.storage.tables import TableWriter

__all__ = [
    "BackupReport",
    "RestoreWish",
    "StorageError",
    "inspect",
    "restore",
]

_APPLIED_KEY: Final = b"A"
_ALARM_KEY: Final = b"M"
# Alarms are of the old members, and were raised for their disks; the members are the old cluster's,
# and so are the keys of its tokens; compactions are done, and another one takes their place.
_LEFT_BEHIND: Final = frozenset({_ALARM_KEY, COMPACTION_KEY}) | MEMBERSHIP_KINDS
_SEGMENT_BYTES: Final = 1024 * 1024
# An overhead of more than all rows need.
_TABLES_BYTES_MIN: Final = 16 * 1024**3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What a backup is; what is in it is None where it was not opened."""

    header: BackupHeader
    size_bytes: int
    sha256: str
    key_count: int | None = None
    version_count: int | None = None
    tenant_count: int | None = None
    versions_hash: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreWish:
    """What the new data directory is to be.

    Attributes:
        token: As the server will be told with --initial-cluster-token.
        cluster_name: As it will be told with --cluster-name; None for the backup's.
        revision_bump: By how much revisions go up, so that none comes twice.
    """

    data_dir: Path
    token: str
    cluster_name: str | None
    revision_bump: int


def inspect(path: Path, kek: KekSettings | None, signing_key: bytes | None) -> BackupReport:
    """Check a backup: its form, digest and signature, and with the key everything in it.

    Args:
        path: The backup's file.
        kek: Where the key-encryption key comes from; None does not open it.
        signing_key: Who must have signed it; None trusts what it says, or what the key says.

    Raises:
        StorageError: It is not whole, not the one that was made, or cannot be read.
    """
    outline, header = _outline(path, signing_key)
    report = BackupReport(header=header, size_bytes=outline.size_bytes, sha256=outline.digest.hex())
    return report if kek is None else _look_into(outline, header, _kek(header, kek))


def restore(
    path: Path, kek: KekSettings, signing_key: bytes | None, wish: RestoreWish
) -> tuple[BackupReport, MemberIdentity]:
    """Make a data directory of a backup, after all of it was checked.

    Raises:
        StorageError: It is not whole, or the directory cannot be made; then there is none.
    """
    data_dir = wish.data_dir.absolute()
    if data_dir.is_dir() and any(data_dir.iterdir()):
        raise StorageError(f"{data_dir} is not empty: a backup is restored into a new directory")
    outline, header = _outline(path, signing_key)
    key = _kek(header, kek)
    report = _look_into(outline, header, key)
    os.umask(0o077)
    aside = data_dir.with_name(f".{data_dir.name}.restoring")
    try:
        if aside.exists():
            # Of a run that was interrupted; one that is still at work holds the lock.
            DirectoryLock(aside).close()
            shutil.rmtree(aside)
        identity = _build(aside, outline, header, key, wish)
        aside.rename(data_dir)
        sync_directory(data_dir.parent)
    except (Damage, DamagedBackup, KeyringError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(str(error)) from None
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(f"{data_dir} cannot be made: {error.strerror or error}") from None
    return report, identity


# --- checking -----------------------------------------------------------------------------------


def _kek(header: BackupHeader, settings: KekSettings) -> KeyEncryptionKey:
    """Return the key that wrapped the cluster's, which wraps the new one's as well."""
    try:
        return kek_source(settings).key_for(header.root.kek)
    except KeyringError as error:
        raise StorageError(str(error)) from None


def _outline(path: Path, signing_key: bytes | None) -> tuple[Outline, BackupHeader]:
    try:
        outline = check_outline(path)
        header = BackupHeader.decode(outline.header)
        signer = header.signing_key if signing_key is None else signing_key
        check_signature(outline, VerifyingKey(signer))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None
    except DamagedBackup as error:
        raise StorageError(str(error)) from None
    except ValueError:
        raise StorageError(f"{path} is damaged: it names no key that signs") from None
    return outline, header


def _contents(
    outline: Outline, header: BackupHeader, kek: KeyEncryptionKey
) -> Iterator[Applied | Row | StoredVersion | BackupEnd]:
    return unpack(open_chunks(outline, header.content_key(kek)))


def _look_into(outline: Outline, header: BackupHeader, kek: KeyEncryptionKey) -> BackupReport:
    """Open all of a backup, and use none of it."""
    state_rows: list[tuple[bytes, bytes]] = []
    live: set[tuple[TenantId, bytes]] = set()
    end: BackupEnd | None = None
    try:
        header.check_signer(kek)
        for part in _contents(outline, header, kek):
            match part:
                case Applied():
                    _check_revision(part, header)
                    state_rows.append((_APPLIED_KEY, part.SerializeToString()))
                case Row(key=key, value=value):
                    state_rows.append((key, value))
                case StoredVersion(tenant=tenant, key=key, record=record):
                    (live.discard if record is None else live.add)((tenant, key))
                case BackupEnd():
                    end = part
        state = state_of(state_rows)
    except (Damage, DamagedBackup, KeyringError, UnreadableState) as error:
        raise StorageError(f"{outline.path}: {error}") from None
    except OSError as error:
        raise StorageError(f"{outline.path}: {error.strerror}") from None
    if end is None:
        raise StorageError(f"{outline.path}: the backup has no end")
    return BackupReport(
        header=header,
        size_bytes=outline.size_bytes,
        sha256=outline.digest.hex(),
        key_count=len(live),
        version_count=end.version_count,
        tenant_count=sum(1 for _ in state.accounts.tenants()),
        versions_hash=end.versions_hash.hex(),
    )


def _check_revision(applied: Applied, header: BackupHeader) -> None:
    if (applied.revision, applied.compact_revision) != (header.revision, header.compact_revision):
        raise Damage("the backup is not of the revision that its header says")


# --- building -----------------------------------------------------------------------------------


def _build(
    aside: Path,
    outline: Outline,
    header: BackupHeader,
    kek: KeyEncryptionKey,
    wish: RestoreWish,
) -> MemberIdentity:
    """Make a data directory of a new cluster with what is in a backup."""
    wanted = MemberIdentity(
        cluster=ClusterId(secrets.randbits(63) | 1),
        member=MemberId(secrets.randbits(63) | 1),
        token=wish.token,
        trust_domain=wish.cluster_name or header.trust_domain,
    )
    directory = DataDirectory(aside, wanted, kek)
    try:
        trail_head = _begin_trail(directory, outline, header)
        _begin_log(directory)
        _fill_tables(directory, _contents(outline, header, kek), wish.revision_bump, trail_head)
        for each in (directory.tables, directory.wal, directory.audit, aside):
            sync_directory(each)
    finally:
        directory.lock.close()
    return wanted


def _begin_trail(directory: DataDirectory, outline: Outline, header: BackupHeader) -> Head:
    """Begin an audit trail with what was restored from where."""
    trail = AuditTrail(
        directory.place(Kind.AUDIT),
        directory.keyring,
        known=Head(0, GENESIS),
        on_segment=lambda _: None,
        wall_ns=time.time_ns,
    )
    recorder = Recorder(trail, time.monotonic_ns)
    recorder.event(
        stage="restored",
        actor={"via": "system"},
        note={
            "sha256": outline.digest.hex(),
            "cluster_id": header.cluster_id,
            "member_id": header.member_id,
            "created": header.created,
            "revision": header.revision,
        },
    )
    recorder.end_turn()
    head = trail.written_head
    trail.close()
    return head


def _begin_log(directory: DataDirectory) -> None:
    """Begin a log whose first entry is empty, and applied."""
    keyring, place = directory.keyring, directory.place(Kind.WAL)
    term = keyring.current_term
    tail = recover(place, keyring, lambda _: None, first_known=1)
    writer = SegmentWriter(
        place, tail, place.root_key(keyring, term), term=term, bytes_max=_SEGMENT_BYTES
    )
    hard_state = HardState(Term(1), place.member, Index(1))
    writer.append(1, encode_frame(Ready(hard_state, Index(1), Term(1), [b""])))
    writer.sync()
    writer.close()


def _fill_tables(
    directory: DataDirectory,
    contents: Iterator[Applied | Row | StoredVersion | BackupEnd],
    revision_bump: int,
    trail_head: Head,
) -> None:
    keyring = directory.keyring
    term = keyring.current_term
    writer = TableWriter(
        directory.tables,
        directory.identity.cluster,
        keyring.data_key(term, purpose="table"),
        term=term,
        size_bytes_max=_TABLES_BYTES_MIN,
    )
    applied = Applied()
    state_rows: list[tuple[bytes, bytes]] = []
    filling = Filling(writer)
    try:
        for part in contents:
            match part:
                case Applied():
                    applied = part
                case Row(key=key, value=value):
                    if key[:1] not in _LEFT_BEHIND:
                        state_rows.append((key, value))
                        filling.add_state(key, value)
                case StoredVersion():
                    filling.add_version(part)
        applied.index = applied.term = 1
        applied.revision += revision_bump
        # Whoever watches on from a revision of the old cluster is told to look again.
        applied.compact_revision = applied.revision
        applied.audit_seq, applied.audit_hash = trail_head
        # The members of the old cluster are none of the new one.
        applied.configuration, applied.is_received = b"", False
        stored = applied.SerializeToString()
        state_rows.append((_APPLIED_KEY, stored))
        last = tables.Row(Table.STATE, _APPLIED_KEY, NO_SCOPE, stored)
        filling.finish([last, _compaction(state_rows, applied.revision)])
    finally:
        writer.close()


def _compaction(state_rows: list[tuple[bytes, bytes]], revision: int) -> tables.Row:
    """Return the row of the compaction that a restore is: retention policies count for it too."""
    return compaction_row(state_of(state_rows).store.compaction(revision))
