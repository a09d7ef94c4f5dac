"""The scanning process: reads all tables at one moment, while the member goes on.

Owns: what it is told to do, and what it says.
Never: writes a table. It ends with its job, or with its member.
Follows: docs/adr/0015-defragmentation.md: what walks over everything has no place on the loop.
Keeps: keys come over the socket and nowhere else; it gives way to the member's own processes.
"""

import base64
import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, final

from kvsecure.core.backup import pack
from kvsecure.core.scan import Damage, contents, survey
from kvsecure.core.side_process import Voice, begin
from kvsecure.core.snapshot_stream import pieces_of
from kvsecure.crypto.keyring import KeyringError
from kvsecure.crypto.signing import SigningKey
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret
from kvsecure.storage.backup import BackupWriter
from kvsecure.storage.files import StorageError
from kvsecure.storage.tables import TableReader

__all__ = ["Tell", "main"]

# What a backup leaves to the log and the trail, which cannot do without.
_RESERVE_BYTES: Final = 256 * 1024 * 1024
_DIGEST_BYTES: Final = 32
# etcd's.
_PIECE_BYTES: Final = 32 * 1024


class Tell(IntEnum):
    """What the process says."""

    # What it reads is fixed now.
    OPENED = 1
    # It is done: a JSON object.
    DONE = 2
    # The tables are damaged: a text.
    DAMAGED = 3
    # It could not be done: a text.
    FAILED = 4
    # The tables are not needed any more: a JSON object about what was made of them.
    READ = 5
    # A part of what was made.
    PIECE = 6
    # Of which state the pieces are that follow: a JSON object.
    STATE = 7


@final
class _GivenKeys:
    """The data keys that the member gave."""

    def __init__(self, seeds: Mapping[str, str]) -> None:
        self._seeds = {int(term): Secret(base64.b64decode(seed)) for term, seed in seeds.items()}

    def data_key(self, term: int, *, purpose: str) -> Secret:
        """Return the key of a term; there are none but the tables'.

        Raises:
            KeyringError: It was not given.
        """
        if term not in self._seeds or purpose != "table":
            raise KeyringError(f"data key term {term} is not in the keyring")
        return self._seeds[term]


def _run(voice: Voice) -> None:
    job = voice.hear_job()
    if "spool" in job:
        with TemporaryFile(dir=job["spool"]) as spool:
            size_bytes = _back_up(voice, job, spool.fileno())
            _send(voice, spool.fileno(), size_bytes)
    elif "through" in job:
        _survey(voice, job)
    else:
        _stream(voice, job)


def _open(voice: Voice, job: Mapping[str, Any]) -> TableReader:
    reader = TableReader(
        Path(job["directory"]),
        ClusterId(job["cluster"]),
        _GivenKeys(job["keys"]),
        size_bytes_max=int(job["size_bytes_max"]),
    )
    voice.tell(Tell.OPENED)
    return reader


def _survey(voice: Voice, job: Mapping[str, Any]) -> None:
    found = survey(_open(voice, job), job["through"])
    answer = {
        "revision": found.applied.revision,
        "versions_hash": found.versions_hash.hex(),
        "hash": found.hash.hex(),
        "version_count": found.version_count,
    }
    voice.tell(Tell.DONE, json.dumps(answer).encode())


def _back_up(voice: Voice, job: Mapping[str, Any], spool: int) -> int:
    """Write a backup into a file without a name, and let go of the tables; return its size."""
    reader = _open(voice, job)
    wanted = reader.sizes().in_use + _RESERVE_BYTES
    free = shutil.disk_usage(job["spool"]).free
    if free < wanted:
        raise OSError(
            errno.ENOSPC,
            f"a backup needs {wanted} bytes on the disk for a while, and {free} are free",
        )
    found = contents(reader)
    applied = found.applied
    header = {
        **job["header"],
        "revision": applied.revision,
        "compact_revision": applied.compact_revision,
    }
    writer = BackupWriter(
        spool,
        json.dumps(header).encode(),
        Secret(base64.b64decode(job["key"])),
        SigningKey(Secret(base64.b64decode(job["signing"]))),
    )
    for text, is_last in pack(found):
        writer.add(text, is_last=is_last)
    size_bytes = writer.finish()
    reader.close()
    digest = os.pread(spool, _DIGEST_BYTES, size_bytes - _DIGEST_BYTES)
    said = {"size_bytes": size_bytes, "revision": applied.revision, "sha256": digest.hex()}
    voice.tell(Tell.READ, json.dumps(said).encode())
    return size_bytes


def _stream(voice: Voice, job: Mapping[str, Any]) -> None:
    """Send the whole state as it is read; whoever takes it slowly slows this down."""
    found = contents(_open(voice, job))
    applied = found.applied
    said = {
        "index": applied.index,
        "term": applied.term,
        "configuration": applied.configuration.hex(),
    }
    voice.tell(Tell.STATE, json.dumps(said).encode())
    for piece in pieces_of(text for text, _ in pack(found)):
        voice.tell(Tell.PIECE, piece)
    voice.tell(Tell.DONE)


def _send(voice: Voice, spool: int, size_bytes: int) -> None:
    """Send it, the digest in a piece of its own, as fast as it is taken."""
    end = size_bytes - _DIGEST_BYTES
    for offset in range(0, end, _PIECE_BYTES):
        voice.tell(Tell.PIECE, os.pread(spool, min(_PIECE_BYTES, end - offset), offset))
    voice.tell(Tell.PIECE, os.pread(spool, _DIGEST_BYTES, end))
    voice.tell(Tell.DONE)


def main() -> int:
    """Do one job for the member that started this process."""
    voice = begin(sys.argv)
    if voice is None:
        return 1
    try:
        _run(voice)
    except Damage as damage:
        voice.tell(Tell.DAMAGED, str(damage).encode())
    except (OSError, StorageError, ValueError, KeyError) as error:
        voice.tell(Tell.FAILED, str(error).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
