"""Observing an election: who leads now, each proclamation, and who comes next."""

from collections.abc import Sequence
from typing import Any, final

import pytest
from api.waiting import Queue
from api.watching import Bench

from kvsecure.api.methods import METHODS
from kvsecure.api.services import Receiver
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.proto import auth_pb2, election_pb2, kv_pb2
from kvsecure.security.session import Peer


@final
class Observer:
    """A client's end of one observation."""

    def __init__(self, queue: Queue, peer: Peer) -> None:
        self.peer = peer
        self.token = b""
        self.is_full = False
        # Whether it stops reading with the next message.
        self.stops = False
        self.seen: list[election_pb2.LeaderResponse] = []
        self.refused: Refused | None = None
        self._queue = queue
        open_stream = METHODS["/v3electionpb.Election/Observe"].stream
        assert open_stream is not None
        self.receiver: Receiver = open_stream(queue.bench.services, self)
        self.receiver.received(election_pb2.LeaderRequest(name=b"e"))
        queue.settle()

    def send(self, message: bytes) -> None:
        """Take a message."""
        self.seen.append(election_pb2.LeaderResponse.FromString(message))
        self.is_full, self.stops = self.stops, False

    def send_each(self, header: bytes, marks: Sequence[bytes], tail: bytes) -> None:
        """Fail: nothing is sent to several at once."""
        raise AssertionError(header, marks, tail)

    def finish(self, refused: Refused | None = None) -> None:
        """Take the end."""
        self.refused = refused
        self.receiver.closed()

    def succeed(self, answer: Answer) -> None:
        """Fail: a stream has no single answer."""
        raise AssertionError(answer)

    def fail(self, refused: Refused) -> None:
        """Take a refusal as the end."""
        self.finish(refused)

    @property
    def values(self) -> list[bytes]:
        """The values that were seen."""
        return [one.kv.value for one in self.seen]

    def read_on(self) -> None:
        """Read on after having stopped."""
        self.is_full = False
        self.receiver.drained()
        self._queue.settle()


@pytest.fixture
def queue(bench: Bench) -> Queue:
    """A bench with four leases."""
    queue = Queue(bench)
    queue.grant(1, 2, 3, 4)
    return queue


def _observe(queue: Queue, user: str = "root") -> Observer:
    return Observer(queue, queue.world.peer(user))


def _put(queue: Queue, key: bytes, value: bytes) -> None:
    queue.bench.put(key, value)
    queue.settle()


def test_leader_that_there_is_comes_first(queue: Queue) -> None:
    """An observer is told at once who leads, at the present revision."""
    queue.campaign(1, b"one")
    queue.campaign(2, b"two")

    observer = _observe(queue)

    assert observer.values == [b"one"]
    assert observer.seen[0].header.revision == queue.bench.revision


def test_first_candidate_of_an_empty_election_is_seen(queue: Queue) -> None:
    """Where nobody leads, whoever comes first is told of, and nothing before."""
    observer = _observe(queue)
    assert observer.seen == []

    queue.campaign(1, b"one")
    queue.campaign(2, b"two")

    assert observer.values == [b"one"]
    assert observer.seen[0].header.revision == observer.seen[0].kv.mod_revision


def test_every_proclamation_of_the_leader_is_seen_in_order(queue: Queue) -> None:
    """Each value of the leader's key is one message; other candidates' are none."""
    queue.campaign(1, b"0")
    queue.campaign(2, b"other")
    observer = _observe(queue)

    for number in range(1, 6):
        _put(queue, b"e/1", b"%d" % number)
        _put(queue, b"e/2", b"other %d" % number)

    assert observer.values == [b"%d" % number for number in range(6)]


def test_next_leader_is_seen_when_one_goes(queue: Queue) -> None:
    """The one that came next leads, then the one behind it, then again whoever comes."""
    for lease in (3, 1, 2):
        queue.campaign(lease, b"%d" % lease)
    observer = _observe(queue)

    queue.delete(b"e/3")
    queue.delete(b"e/1")
    queue.delete(b"e/2")
    queue.campaign(4, b"4")

    assert observer.values == [b"3", b"1", b"2", b"4"]


def test_proclamation_and_end_of_one_turn_are_seen_in_order(queue: Queue) -> None:
    """What happens before the observer's turn is told as far as it is of the leader."""
    queue.campaign(1, b"one")
    queue.campaign(2, b"two")
    observer = _observe(queue)

    queue.world.system(kv_pb2.PutRequest(key=b"e/1", value=b"last words"))
    queue.world.system(kv_pb2.DeleteRangeRequest(key=b"e/1"))
    queue.world.system(kv_pb2.PutRequest(key=b"e/2", value=b"first words"))
    queue.settle()

    assert observer.values == [b"one", b"last words", b"first words"]


def test_slow_observer_gets_all_of_it_later(queue: Queue) -> None:
    """One that does not read is sent nothing until it does, and then everything in order."""
    queue.campaign(1, b"one")
    observer = _observe(queue)
    observer.is_full = True

    for number in range(5):
        _put(queue, b"e/1", b"%d" % number)
    assert observer.values == [b"one"]
    observer.read_on()

    assert observer.values == [b"one", b"0", b"1", b"2", b"3", b"4"]


def test_observer_that_goes_leaves_nothing_behind(queue: Queue) -> None:
    """No watcher stays, whether somebody led or nobody."""
    nobody_leads = _observe(queue)
    queue.campaign(1, b"one")
    somebody_leads = _observe(queue)
    assert queue.watcher_count

    for observer in (nobody_leads, somebody_leads):
        observer.receiver.closed()
    queue.settle()

    assert queue.watcher_count == 0


def _reader(queue: Queue) -> None:
    queue.world.role("web", b"e/", b"e0", kind=0)
    queue.world.user("web", "web")


def test_observer_without_the_right_is_refused(queue: Queue) -> None:
    """Who may not read the queue observes nothing."""
    queue.campaign(1, b"one")
    queue.world.user("web")

    observer = _observe(queue, "web")

    assert observer.refused is not None
    assert (observer.seen, observer.refused.failure.name) == ([], "PERMISSION_DENIED")


@pytest.mark.parametrize("leads", [True, False])
def test_observer_that_loses_its_right_is_cut(queue: Queue, leads: Any) -> None:
    """Whether somebody leads or not, the observation ends, and the trail says why."""
    _reader(queue)
    if leads:
        queue.campaign(1, b"one")
    observer = _observe(queue, "web")

    queue.world.system(auth_pb2.AuthUserDeleteRequest(name="web"))
    queue.campaign(1, b"two")
    queue.campaign(2, b"three")
    queue.bench.services.feeds.wake_stale()
    queue.settle()

    assert observer.refused is not None
    assert observer.refused.failure.name == "PERMISSION_DENIED"
    assert b"two" not in observer.values
    assert "denied" in [
        one["stage"] for one in queue.world.records() if one.get("op", {}).get("rpc") == "Leader"
    ]


def test_what_was_taken_before_a_right_ended_is_not_handed_out_after_it(queue: Queue) -> None:
    """An observer that stops within a batch gets no more of it once its right is gone."""
    _reader(queue)
    queue.campaign(1, b"one")
    observer = _observe(queue, "web")
    for value in (b"two", b"three"):
        queue.world.system(kv_pb2.PutRequest(key=b"e/1", value=value))
    observer.stops = True
    queue.settle()
    assert observer.values == [b"one", b"two"]

    queue.world.system(auth_pb2.AuthUserDeleteRequest(name="web"))
    observer.read_on()

    assert observer.values == [b"one", b"two"]
    assert observer.refused is not None


def test_observation_is_recorded_when_it_begins(queue: Queue) -> None:
    """Its opening is a record that tells it from one look at who leads."""
    _observe(queue)

    (record,) = [one for one in queue.world.records() if one.get("op", {}).get("rpc") == "Leader"]

    assert record["op"]["name"] == "e"
    assert record["result"] == {"code": "OK", "part": "begin"}
