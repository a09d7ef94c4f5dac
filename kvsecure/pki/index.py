"""The index of issued certificates: one line of JSON for each, added before it is handed out.

Owns: the format of `issued.jsonl`, and adding to it so that a crash costs at most the last line.
Never: changes or removes a line; revocation lists and usage reports are built on it.
Keeps: a certificate that somebody holds is in the index.
"""

import errno
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from kvsecure.pki.profiles import ProfileName

__all__ = ["Index", "IssuedRecord", "append", "read"]

_FORMAT: Final = 1
_SERIAL_HEX_MAX: Final = 40


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRecord:
    """One certificate that was issued; `subject` is its URI, or its name where it has none."""

    serial: int
    profile: ProfileName
    name: str
    subject: str
    not_after: datetime


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What an index holds: records in the order of issue, and which lines (from 1) are broken."""

    records: tuple[IssuedRecord, ...]
    damaged_lines: tuple[int, ...]


def append(path: Path, record: IssuedRecord) -> None:
    """Add a record durably.

    Raises:
        OSError: It could not be written.
    """
    line = json.dumps(
        {
            "format": _FORMAT,
            "serial": f"{record.serial:x}",
            "profile": record.profile.value,
            "name": record.name,
            "subject": record.subject,
            "not_after": record.not_after.isoformat(),
        }
    ).encode()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        # A line that a crash cut off must not swallow this one.
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        whole = (b"\n" if torn else b"") + line + b"\n"
        if os.write(descriptor, whole) != len(whole):
            raise OSError(errno.ENOSPC, "only a part of the record was written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Index:
    """Return what the index holds; one that is not there is empty.

    Raises:
        OSError: It cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    records: list[IssuedRecord] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        record = _parse(line)
        if record is None:
            damaged.append(number)
        else:
            records.append(record)
    return Index(records=tuple(records), damaged_lines=tuple(damaged))


def _parse(line: bytes) -> IssuedRecord | None:
    try:
        fields = json.loads(line)
        serial, name, subject = fields["serial"], fields["name"], fields["subject"]
        if fields["format"] != _FORMAT or len(serial) > _SERIAL_HEX_MAX:
            return None
        record = IssuedRecord(
            serial=int(serial, 16),
            profile=ProfileName(fields["profile"]),
            name=str(name),
            subject=str(subject),
            not_after=datetime.fromisoformat(fields["not_after"]).astimezone(UTC),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return record
