"""How long nobody can write when the leader goes: killed without warning, or told to stop.

Owns: a client that tries without a pause at the other two members, and what its answers say.
Never: waits for one answer before it asks again: what was sent to who is gone is answered late or
    never, and says nothing about the cluster.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any, Final, final

from bench.load import LoadError
from bench.report import Figure
from bench.trio import Trio, TrioMember

from kvsecure.proto import kv_pb2

__all__ = ["measure_failover"]

# One put at each of the two members in so many seconds: what a figure is exact to.
_EVERY_S: Final = 0.005
_CALL_S_MAX: Final = 10.0
_DEADLINE_S: Final = 60.0
# Behind the end of the old leader.
_AFTER_S: Final = 0.5
_DRAIN_S: Final = 2.0
_POLL_S: Final = 0.005


def measure_failover(trio: Trio, *, runs: int) -> Iterator[Figure]:
    """Yield for each run how long nobody could write, and the longest of all runs.

    When the leader is killed, that is until the first acknowledged write that was begun after its
    end; when it is told to stop, the longest time between two acknowledgements.

    Args:
        trio: Running.
        runs: How many leaders are killed, and then how many are told to stop.

    Raises:
        LoadError: Nobody could write for a long time.
    """
    for name, lose in (("leader killed", _kill), ("leader told to stop", _stop)):
        times_s = []
        for _ in range(runs):
            leader = trio.leader()
            with _Trying(trio.others(leader)) as trying:
                times_s.append(lose(leader, trying))
            yield _figure(trio, f"{name}, no write for", times_s[-1])
            _restore(trio, leader)
        yield _figure(trio, f"{name}, longest of {runs}", max(times_s))


def _figure(trio: Trio, work: str, took_s: float) -> Figure:
    return Figure(work=work, contestant=trio.contestant, value=took_s * 1000, unit="ms")


def _kill(leader: TrioMember, trying: "_Trying") -> float:
    begun = time.monotonic()
    leader.process.kill9()
    # What is acknowledged while the leader dies may be its work.
    return trying.first_after(time.monotonic()) - begun


def _stop(leader: TrioMember, trying: "_Trying") -> float:
    begun = time.monotonic()
    leader.process.stop()
    trying.first_after(time.monotonic() + _AFTER_S)
    return trying.longest_after(begun)


def _restore(trio: Trio, member: TrioMember) -> None:
    """Start a member again, and wait until it has what the others have written."""
    others = trio.others(member)
    leader = trio.leader(others)
    with leader.client() as client:
        wanted = client.kv.Put(kv_pb2.PutRequest(key=b"/app/again", value=b"")).header.revision
    member.process.start()
    end = time.monotonic() + _DEADLINE_S
    with member.client() as client:
        request = kv_pb2.RangeRequest(key=b"/app/again", serializable=True)
        while client.kv.Range(request).header.revision < wanted:
            if time.monotonic() > end:
                raise LoadError(f"{member.name} does not catch up")
            time.sleep(_POLL_S)


@final
class _Trying:
    """Puts at some members, one after the other without end."""

    def __init__(self, members: list[TrioMember]) -> None:
        self._clients = [member.client() for member in members]
        self._calls = [
            client.prepared("/etcdserverpb.KV/Put", timeout_s=_CALL_S_MAX)
            for client in self._clients
        ]
        self._body = kv_pb2.PutRequest(key=b"/app/tried", value=bytes(16)).SerializeToString()
        self._sent = self._answered = 0
        # When which was sent and acknowledged.
        self._acknowledged: list[tuple[float, float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._try, daemon=True)

    def __enter__(self) -> "_Trying":
        self._thread.start()
        self.first_after(time.monotonic())
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        # Whoever waits still is not cut off in a crowd, which a server may take for an attack.
        end = time.monotonic() + _DRAIN_S
        while self._answered < self._sent and time.monotonic() < end:
            time.sleep(_POLL_S)
        for client in self._clients:
            client.close()

    def first_after(self, since: float) -> float:
        """Wait for a write that was sent after a time; return when it was acknowledged.

        Raises:
            LoadError: There is none for a long time.
        """
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end:
            if self._acknowledged and self._acknowledged[-1][0] >= since:
                return min(at for sent, at in list(self._acknowledged) if sent >= since)
            time.sleep(_POLL_S / 5)
        raise LoadError("nobody can write")

    def longest_after(self, since: float) -> float:
        """Return the longest time between two acknowledgements from a time on."""
        times = sorted(at for _, at in self._acknowledged if at >= since)
        pairs = zip([since, *times], times, strict=False)
        return max(later - earlier for earlier, later in pairs)

    def _try(self) -> None:
        while not self._is_over.is_set():
            for call in self._calls:
                sent = time.monotonic()
                self._sent += 1
                call(self._body).add_done_callback(lambda done, sent=sent: self._done(sent, done))
            self._is_over.wait(_EVERY_S)

    def _done(self, sent: float, done: Any) -> None:
        self._answered += 1
        if not done.cancelled() and done.exception() is None:
            self._acknowledged.append((sent, time.monotonic()))
