"""Restoring a data directory in a process of its own, as a start of the server does.

    restored_from(path)     what was found, or the text of the refusal

Owns: one restore and what it comes to, as plain values; directories with a known past.
Never: runs an engine in that process: nothing is proposed, nothing is flushed.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from core.engine_lab import KEK, TABLES_BYTES_MAX, WANTED, put_away, running, value_of

from kvsecure.server.datadir import DataDirectory
from kvsecure.server.restore import restore
from kvsecure.storage.files import StorageError

__all__ = ["LATER", "SOONER", "main", "past_of", "restored_from"]

# Keys of a directory's past, in the order they were written.
SOONER = [b"sooner%d" % number for number in range(20)]
LATER = [b"later%d" % number for number in range(20)]


def past_of(path: Path) -> None:
    """Make a directory with a past: three runs of a member, each flushed at its end.

    Beside it are copies of its tables as they were after the first and the second run, and of its
    log after the second: `tables-1`, `tables-2`, `wal-2`. The log of the last run begins where
    `tables-2` ends.
    """

    async def act(keys: list[bytes]) -> None:
        async with running(path) as lab:
            told = [lab.submit_put(key, key) for key in keys]
            lab.engine.end_turn()
            await asyncio.gather(*told)
            await lab.flushed()
            # The order to purge has been given; the answer to this comes after it.
            await lab.put(b"last", b"last")
            await lab.flushed()

    asyncio.run(act(SOONER[:10]))
    shutil.copytree(path / "tables", path.with_name("tables-1"))
    asyncio.run(act(SOONER[10:]))
    shutil.copytree(path / "tables", path.with_name("tables-2"))
    shutil.copytree(path / "wal", path.with_name("wal-2"))
    asyncio.run(act(LATER))


def restored_from(path: Path) -> dict[str, Any]:
    """Restore a directory, and return what was found; a refusal is under "error"."""
    done = subprocess.run(
        [sys.executable, "-m", "server.restoring", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Restore the directory that the command line names, and print what was found."""
    path = Path(sys.argv[1])
    try:
        directory = DataDirectory(path, WANTED, KEK)
        restored = restore(directory, tables_bytes_max=TABLES_BYTES_MAX, now_ns=time.monotonic_ns())
    except StorageError as error:
        json.dump({"error": str(error)}, sys.stdout)
        return
    state, log = restored.replica.state, restored.replica.node.log
    found = {
        "is_new": restored.is_new,
        "index": state.index,
        "revision": state.store.revision,
        "last": log.last,
        "committed": log.committed,
        "cut_bytes": restored.cut_bytes,
        "sooner": all(value_of(state, key) == key for key in SOONER),
    }
    put_away(directory, restored)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
