"""Damage done to copies of a data directory, and what a member makes of each.

    python -m faults.damaging PATH     lines of `PLACE FLIP` in, a word for each out

Owns: one copy, one damage, one start for each line. PLACE is from 0 to 1 through all files; FLIP is
    what the byte there is changed by, or 0 to cut the file off there.
Never: says what ought to come of it.
"""

import logging
import shutil
import sys
from pathlib import Path

from faults.exploring import scratch
from faults.faulty_member import FaultyMember, Seen
from faults.table_servant import TableServant
from faults.traced_disk import Trace

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.storage.files import StorageError

__all__ = ["main"]

_FREE = frozenset({"LOCK", "lock.mdb", "spare", "spare.new"})


def main() -> None:
    """Do what the lines say."""
    logging.disable()
    whole = Path(sys.argv[1])
    servant = TableServant()
    with scratch() as path:
        wanted = _seen(_copy(whole, Path(path) / "whole"), servant)
    for line in sys.stdin:
        place, flip = line.split()
        with scratch() as path:
            root = _copy(whole, Path(path) / "copy")
            _damage(root, float(place), int(flip))
            print(_word(root, servant, wanted), flush=True)
    servant.close()


def _copy(whole: Path, to: Path) -> Path:
    shutil.copytree(whole, to)
    return to


def _damage(root: Path, place: float, flip: int) -> None:
    """Damage one of the files, each as likely as any other."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in _FREE)
    at = place * len(files)
    path, part = files[int(at)], at % 1
    content = bytearray(path.read_bytes())
    offset = int(part * len(content))
    if flip:
        content[offset] ^= flip
    else:
        del content[offset:]
    path.write_bytes(content)


def _word(root: Path, servant: TableServant, wanted: tuple[Seen, str]) -> str:
    try:
        found, trail = _seen(root, servant)
    except (StorageError, DamagedRecord):
        return "refused"
    if trail != wanted[1]:
        # The check of the trail says so; a start reads only its end.
        return "refused" if trail else "made-up"
    if found == wanted[0]:
        return "same"
    return "shorter" if found.revision < wanted[0].revision else "made-up"


def _seen(root: Path, servant: TableServant) -> tuple[Seen, str]:
    """Return what is in a member, and what is wrong with its trail.

    Raises:
        StorageError: It does not start.
        DamagedRecord: It cannot be read.
    """
    trace = Trace(root)
    trace.know(root)
    member = FaultyMember(root / "data", trace, servant, {})
    try:
        return member.seen(), member.check_trail(member.said.head._replace(seq=0))
    finally:
        member.abandon()


if __name__ == "__main__":
    main()
