"""The member's end of a disk process."""

import asyncio
import os
from pathlib import Path

from storage.disk_process import log_settings
from storage.segments_lab import Bench

from kvsecure.core.link import DiskLink
from kvsecure.storage.files import DirectoryLock
from kvsecure.storage.worker import Order, Report


def _opened_by(pid: int) -> list[str]:
    return [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]


def test_orders_from_before_the_event_loop_are_carried_out(tmp_path: Path) -> None:
    """What is ordered before anybody listens comes first, in order, and is not lost."""
    bench = Bench(tmp_path / "wal")
    trail = tmp_path / "trail"
    trail.touch()
    lock = DirectoryLock(bench.place.directory)
    link = DiskLink(log_settings(bench), lock)
    link.wait_ready()
    told: list[Report] = []
    opened: list[str] = []

    async def scene() -> None:
        synced = asyncio.Event()

        def on_report(kind: Report, _: bytes) -> None:
            told.append(kind)
            synced.set()

        link.send(Order.AUDIT, os.fsencode(trail))
        link.send(Order.SYNC_AUDIT)
        await link.attach(on_report, lambda: None)
        await asyncio.wait_for(synced.wait(), 10)
        opened.extend(_opened_by(link.pid))
        link.close()

    asyncio.run(scene())
    link.wait_ended(10)
    lock.close()

    assert told == [Report.AUDIT_SYNCED]
    assert str(trail) in opened
