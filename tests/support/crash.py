"""What must be true of a server after it was killed: nothing said is lost, nothing is half-done.

Owns: the writers, the record of what they were told, and the comparison with what is there.
Never: kills the server; the test chooses the moment.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Final, final

from support.processes import wait_until
from support.rpc import Client
from support.servers import ROOT_PASSWORD, Member
from support.streams import WatchScript
from support.writer import keys_of_pair

from kvsecure.proto import kv_pb2, mvcc_pb2

__all__ = ["Ledger", "Writers"]

_DEADLINE_S: Final = 30.0

_Changes = tuple[tuple[str, str | None], ...]


@final
@dataclass(slots=True)
class _Record:
    """What one writer said: its attempts, and the answers it got."""

    attempts: dict[int, list[tuple[str, str | None]]] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)
    pauses: int = 0


@final
class Writers:
    """Several writer processes that live through every crash of the server."""

    def __init__(self, member: Member, count: int) -> None:
        self.records = {f"w{index}": _Record() for index in range(count)}
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._pauses_expected = 1
        for name, record in self.records.items():
            process = subprocess.Popen(
                [sys.executable, "-m", "support.writer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            self._processes.append(process)
            reader = threading.Thread(target=_read, args=(process, record), daemon=True)
            self._readers.append(reader)
            reader.start()
            settings = {
                "name": name,
                "endpoint": member.endpoint,
                "authority": str(member.authority.certificate),
                "user": "root",
                "password": ROOT_PASSWORD,
            }
            self._tell(process, json.dumps(settings))

    @property
    def acknowledged(self) -> int:
        """How many writes have been acknowledged in all."""
        return sum(len(record.acknowledged) for record in self.records.values())

    def go(self) -> None:
        """Let them write."""
        self.wait_paused()
        for process in self._processes:
            self._tell(process, "go")
        self._pauses_expected += 1

    def pause(self) -> None:
        """Stop them between two calls, and return when all have stopped."""
        for process in self._processes:
            self._tell(process, "pause")
        self.wait_paused()

    def wait_paused(self) -> None:
        """Wait until nothing is under way.

        Raises:
            TimeoutError: A writer is stuck.
        """
        wait_until(
            lambda: all(record.pauses >= self._pauses_expected for record in self.records.values()),
            deadline_s=_DEADLINE_S,
            what="the writers to pause",
        )

    def wait_acknowledged(self, more: int) -> None:
        """Wait until that many more writes are acknowledged.

        Raises:
            TimeoutError: The server does not answer.
        """
        target = self.acknowledged + more
        wait_until(
            lambda: self.acknowledged >= target, deadline_s=_DEADLINE_S, what="acknowledged writes"
        )

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    @staticmethod
    def _tell(process: subprocess.Popen[str], line: str) -> None:
        if process.stdin is not None:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()


def _read(process: subprocess.Popen[str], record: _Record) -> None:
    for line in process.stdout or ():
        match json.loads(line):
            case ["try", number, changes]:
                record.attempts[number] = [(key, value) for key, value in changes]
            case ["ack", number, revision]:
                record.acknowledged[number] = revision
            case ["paused"]:
                record.pauses += 1


@final
class Ledger:
    """Everything the server has told, compared with everything the writers were told."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers
        self._events: list[mvcc_pb2.Event] = []
        self._revision = 1
        # What the store must hold: the events, folded.
        self._expected: dict[bytes, mvcc_pb2.KeyValue] = {}
        # At which revision an attempt was found, by writer and number.
        self._found: dict[tuple[str, int], int] = {}
        self._checked: set[tuple[str, int]] = set()

    @property
    def revision(self) -> int:
        """The newest revision that was verified."""
        return self._revision

    def verify(self, client: Client) -> None:
        """Compare what has happened since the last time.

        Args:
            client: Logged in as root, connected to the restarted server; the writers are paused.

        Raises:
            AssertionError: Something that was acknowledged is not there, something is half-done,
                a revision is missing, or something is there that nobody wrote.
            TimeoutError: The server has a revision whose events do not come.
        """
        fresh = self._fresh(client)
        by_revision: dict[int, list[mvcc_pb2.Event]] = {}
        for event in fresh:
            by_revision.setdefault(event.kv.mod_revision, []).append(event)
        attempts = self._attempts()
        for revision, events in by_revision.items():
            self._assert_whole(revision, events)
            self._find(attempts, revision, events)
        self._assert_acknowledged_is_found()
        self._assert_state_is_history(client, fresh)

    def verify_all(self, client: Client) -> None:
        """Read the whole history again and compare it with what was told piece by piece.

        Raises:
            AssertionError: The past has changed.
        """
        self.verify(client)
        again = Ledger(self._writers)
        assert again._fresh(client) == self._events

    def _fresh(self, client: Client) -> list[mvcc_pb2.Event]:
        before = self._revision
        now = int(client.kv.Range(kv_pb2.RangeRequest(key=b"-")).header.revision)
        assert now >= before, f"revision {before} was told and is not there"
        if now == before:
            return []
        script = WatchScript(client)
        try:
            script.create(b"\0", range_end=b"\0", start_revision=before + 1)
            script.wait_for_revision(now)
            fresh = script.observed().events[0]
        finally:
            script.close()
        revisions = [event.kv.mod_revision for event in fresh]
        assert revisions == sorted(revisions), "events out of order"
        assert set(revisions) == set(range(before + 1, now + 1)), "a revision without an event"
        self._events += fresh
        self._revision = now
        return fresh

    def _attempts(self) -> dict[_Changes, tuple[str, int]]:
        return {
            tuple(changes): (name, number)
            for name, record in self._writers.records.items()
            for number, changes in record.attempts.items()
            if (name, number) not in self._found
        }

    def _assert_whole(self, revision: int, events: list[mvcc_pb2.Event]) -> None:
        for name in self._writers.records:
            pair = set(keys_of_pair(name))
            halves = [_change(event) for event in events if event.kv.key.decode() in pair]
            assert len(halves) in {0, 2}, f"half a pair at {revision}: {halves}"
            assert len({value for _, value in halves}) <= 1, f"a torn pair at {revision}: {halves}"

    def _find(
        self,
        attempts: dict[_Changes, tuple[str, int]],
        revision: int,
        events: list[mvcc_pb2.Event],
    ) -> None:
        changes = tuple(_change(event) for event in events)
        name = changes[0][0].partition("/")[0]
        if name not in self._writers.records:
            return
        # A delete of a key that was not there leaves no event.
        attempt = attempts.pop(changes, None) or attempts.pop(
            ((_come_and_go(name), None), *changes), None
        )
        assert attempt is not None, f"nobody wrote {changes}, or somebody twice, at {revision}"
        self._found[attempt] = revision

    def _assert_acknowledged_is_found(self) -> None:
        for name, record in self._writers.records.items():
            for number, revision in record.acknowledged.items():
                if (name, number) not in self._checked:
                    found = self._found.get((name, number))
                    assert found == revision, (
                        f"{name} was told that write {number} is at {revision}; it is at {found}"
                    )
                    self._checked.add((name, number))

    def _assert_state_is_history(self, client: Client, fresh: list[mvcc_pb2.Event]) -> None:
        for event in fresh:
            if event.type == mvcc_pb2.Event.DELETE:
                del self._expected[event.kv.key]
            else:
                _assert_succeeds(self._expected.get(event.kv.key), event.kv)
                self._expected[event.kv.key] = event.kv
        answer = client.kv.Range(kv_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
        assert answer.header.revision == self._revision
        assert {kv.key: kv for kv in answer.kvs} == self._expected


def _come_and_go(name: str) -> str:
    return f"{name}/come-and-go"


def _change(event: mvcc_pb2.Event) -> tuple[str, str | None]:
    deleted = event.type == mvcc_pb2.Event.DELETE
    return event.kv.key.decode(), None if deleted else event.kv.value.decode()


def _assert_succeeds(before: mvcc_pb2.KeyValue | None, after: mvcc_pb2.KeyValue) -> None:
    if before is None:
        assert (after.version, after.create_revision) == (1, after.mod_revision)
    else:
        assert after.version == before.version + 1
        assert after.create_revision == before.create_revision
