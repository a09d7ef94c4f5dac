"""The scanning process: reads all tables at one moment, while the member goes on.

Owns: what is said over the socket between a member and the process, and the process's life.
Never: writes a table. It ends with its job, or with its member.
Follows: docs/adr/0015-defragmentation.md: what walks over everything has no place on the loop.
Keeps: keys come over the socket and nowhere else; it gives way to the member's own processes.
"""

import base64
import ctypes
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, final

from kvsecure.core.scan import Damage, survey
from kvsecure.crypto.keyring import KeyringError
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret
from kvsecure.storage.files import StorageError
from kvsecure.storage.tables import TableReader

__all__ = ["HEAD", "Tell", "main"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_NICENESS: Final = 10

# Every message: its length without this head, and what it is.
HEAD: Final = struct.Struct(">IB")


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


@final
class _Voice:
    """The way to the member."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def hear(self) -> dict[str, Any]:
        """Return what is to be done."""
        (length,) = struct.unpack(">I", self._receive(4))
        job: dict[str, Any] = json.loads(self._receive(length))
        return job

    def tell(self, kind: Tell, body: bytes = b"") -> None:
        """Say something."""
        self._connection.sendall(HEAD.pack(len(body), kind) + body)

    def _receive(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            piece = self._connection.recv(length - len(content))
            if not piece:
                raise StorageError("the member is gone")
            content += piece
        return bytes(content)


def _run(voice: _Voice) -> None:
    job = voice.hear()
    reader = TableReader(
        Path(job["directory"]),
        ClusterId(job["cluster"]),
        _GivenKeys(job["keys"]),
        size_bytes_max=int(job["size_bytes_max"]),
    )
    voice.tell(Tell.OPENED)
    found = survey(reader, job["through"])
    answer = {
        "revision": found.applied.revision,
        "versions_hash": found.versions_hash.hex(),
        "hash": found.hash.hex(),
        "version_count": found.version_count,
        "record_bytes": found.record_bytes,
    }
    voice.tell(Tell.DONE, json.dumps(answer).encode())


def main() -> int:
    """Do one job for the member that started this process."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[2]):
        return 1
    # The member decides when to stop; a terminal's interrupt reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    voice = _Voice(connection)
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
