"""A power cut that takes what the system had not written yet of the audit trail.

Owns: a server that is killed, and its trail cut to what was synced.
Never: cuts the log: it is synced before an answer leaves.
"""

import os
from pathlib import Path

from e2e.world import Fortress

from kvsecure.proto import kv_pb2


def _newest(fortress: Fortress) -> Path:
    return max((fortress.data / "audit").glob("*.audit"))


def test_log_process_has_the_trail_from_the_start(tmp_path: Path) -> None:
    """The process that makes the trail durable was told of it before anybody could ask."""
    with Fortress(tmp_path / "member") as fortress:
        opened = fortress.server.process.files_of_children()

        assert str(_newest(fortress)) in opened


def test_no_record_of_a_write_is_lost(tmp_path: Path) -> None:
    """What was decided before an acknowledged write is in the trail, though it was cut there."""
    with Fortress(tmp_path / "member") as fortress:
        root = fortress.root()
        root.kv.Put(kv_pb2.PutRequest(key=b"/app/first", value=b"x"))
        synced = _newest(fortress).stat().st_size
        acknowledged = [fortress.put(root, b"/app/%d" % number, b"v") for number in range(20)]
        fortress.server.kill9()
        os.truncate(_newest(fortress), synced)
        fortress.server.restart()

        intents = [each for each in fortress.requests("Put") if each["stage"] == "intent"]
        start = [each for each in fortress.records() if each["stage"] == "start"][-1]
        fortress.server.stop()
        verified = fortress.verify()

    assert [each["op"]["key"] for each in intents[-20:]] == [f"/app/{n}" for n in range(20)]
    assert len(acknowledged) == 20
    assert start["note"]["redone_bytes"] > 20 * 100
    assert verified.returncode == 0, verified.stderr
