"""The order in which LMDB writes, which the model of a disk takes for granted."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

_PROGRAM: Final = """
import sys
from pathlib import Path
from storage.segments_lab import CLUSTER, KEYS
from kvsecure.storage.rows import Row, Table
from kvsecure.storage.tables import TableWriter
key = KEYS.data_key(1, purpose="table")
writer = TableWriter(Path(sys.argv[1]), CLUSTER, key, term=1, size_bytes_max=1 << 26)
for number in range(5):
    rows = [Row(Table.RECORDS, b"%04d" % at, 1, b"x" * 3000) for at in range(number * 20, 200)]
    writer.write(rows)
"""
_META: Final = frozenset({32, 4_096 + 32})


def test_lmdb_syncs_pages_before_the_page_that_counts(tmp_path: Path) -> None:
    """A commit is pages, a sync, and less than a sector of a first page that is synced itself."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not there")
    notes = tmp_path / "notes"
    calls = "write,writev,pwrite64,pwritev,fdatasync,fsync,openat"
    line = ["strace", "-y", "-s0", "-e", f"trace={calls}", "-o", str(notes)]
    done = subprocess.run(
        [*line, sys.executable, "-c", _PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr}")
    assert not done.returncode, done.stderr

    commits, pending, is_synced = 0, False, True
    data = str(tmp_path / "data.mdb")
    for call in notes.read_text().splitlines():
        if f"<{data}>" not in call or call.startswith("openat"):
            continue
        if call.startswith(("fdatasync", "fsync")):
            is_synced, pending = True, False
            continue
        found = re.search(r", (\d+), (\d+)\) = (\d+)$", call)
        if call.startswith("pwrite64") and found and int(found[2]) in _META:
            assert is_synced
            assert not pending
            assert int(found[2]) % 4_096 + int(found[1]) <= 512
            commits += 1
        else:
            pending, is_synced = True, False

    assert commits == 5
    assert any("O_DSYNC" in call and data in call for call in notes.read_text().splitlines())
