"""Bursts: what comes of requests that came together is what comes of each by itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

import pytest
from api.watching import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire.rawframes import (
    DATA,
    END_STREAM,
    HEADERS,
    begin,
    data,
    fields_of,
    headers,
    message,
    read_frames,
    request_block,
    window_update,
)

from kvsecure.api.methods import METHODS
from kvsecure.model.burst import BURST_MAX, PutBurst
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import auth_pb2, kv_pb2
from kvsecure.server.calls import CallCounts
from kvsecure.server.http2 import Http2Session, Shared

_RANGE: Final = b"/etcdserverpb.KV/Range"
_PUT: Final = b"/etcdserverpb.KV/Put"
_DENIED: Final = b"7"
_PASSWORD: Final = "lantern-Orbit-zebra-4271"

type_asked = kv_pb2.RangeRequest | kv_pb2.PutRequest


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Services on a real gate, with a user who may read and write below /app/."""
    built = _bench(tmp_path)
    yield built
    built.close()


def _bench(directory: Path) -> Bench:
    built = Bench(directory)
    built.world.role("app", b"/app/", b"/app0")
    built.world.user("web", "app")
    return built


@final
class _Client:
    """One connection of a user, and what was answered on each of its streams."""

    def __init__(self, bench: Bench, user: str = "web", *, unsent_bytes_max: int = 0) -> None:
        nothing: Any = None
        self._bench = bench
        self._written: list[bytes] = []
        self.counts = {path: CallCounts() for path in METHODS}
        shared = Shared(
            services=bench.services,
            turn=bench.world.turn,
            counts=self.counts,
            observatory=nothing,
            now_ns=bench.world.clock,
            streams_max=1_000,
            request_bytes_max=1_000_000,
            serves_calls=True,
            serves_pages=False,
        )
        if unsent_bytes_max:
            shared.unsent_bytes_max = unsent_bytes_max
        self.session = Http2Session(shared, bench.world.peer(user), self._written.append)
        self._stream = -1
        self.session.receive(begin(((4, 1 << 30),)) + window_update(0, 1 << 30))

    def frames_of(self, request: type_asked, timeout: bytes = b"", token: bytes = b"") -> bytes:
        """Return a request as frames, on the next stream."""
        self._stream += 2
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":path", _PUT if isinstance(request, kv_pb2.PutRequest) else _RANGE),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        if timeout:
            fields.append((b"grpc-timeout", timeout))
        if token:
            fields.append((b"token", token))
        content = message(request.SerializeToString())
        return headers(self._stream, request_block(fields)) + data(
            self._stream, content, END_STREAM
        )

    def ask(self, *requests: type_asked, timeout: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Send requests in one read, and return status and message of each."""
        first = self._stream + 2
        self.send(*requests, timeout=timeout)
        self._bench.end_turn()
        self._bench.end_turn()
        answers = self.answers()
        return [answers[stream] for stream in range(first, self._stream + 1, 2)]

    def send(self, *requests: type_asked, timeout: bytes = b"") -> None:
        """Send requests in one read; the turn is not over."""
        self.session.receive(b"".join(self.frames_of(each, timeout) for each in requests))

    def answers(self) -> dict[int, tuple[bytes, bytes]]:
        """Return status and message of each stream that is over, and forget them."""
        found: dict[int, tuple[bytes, bytes]] = {}
        messages: dict[int, bytes] = {}
        for frame in read_frames(b"".join(self._written)):
            if frame.type == DATA:
                messages[frame.stream] = messages.get(frame.stream, b"") + frame.payload
            elif frame.type == HEADERS and frame.flags & END_STREAM:
                status = fields_of(frame.payload)[b"grpc-status"]
                assert frame.stream not in found
                found[frame.stream] = (status, messages.get(frame.stream, b"")[5:])
        self._written.clear()
        return found


def _get(key: bytes) -> kv_pb2.RangeRequest:
    return kv_pb2.RangeRequest(key=key)


def _put(key: bytes, value: bytes = b"v") -> kv_pb2.PutRequest:
    return kv_pb2.PutRequest(key=key, value=value)


def _said(bench: Bench, stage: str) -> list[dict[str, Any]]:
    records = map(json.loads, bench.world.trail.recent(10_000))
    return [record for record in records if record["stage"] == stage]


def _asked_for(records: list[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    """Return method, key and size of each request that records speak of, in order."""
    found = []
    for record in records:
        op = record["op"]
        if "keys" in op:
            sizes = op.get("value_bytes") or record["result"]["bytes"]
            found += [(op["rpc"], *pair) for pair in zip(op["keys"], sizes, strict=True)]
        elif "key" in op:
            found.append(
                (op["rpc"], op["key"], op.get("value_bytes", record.get("result", {}).get("bytes")))
            )
    return found


_KEYS = st.sampled_from(
    (b"/app/a", b"/app/b", b"/app/" + b"k" * 130, b"/other", b"\xff", b'/app/"x')
)
_REQUESTS = st.one_of(
    st.builds(_get, _KEYS),
    st.builds(_put, _KEYS, st.binary(max_size=300)),
    st.builds(lambda key: kv_pb2.RangeRequest(key=key, count_only=True), _KEYS),
    st.builds(lambda key: kv_pb2.PutRequest(key=key, value=b"v", prev_kv=True), _KEYS),
    st.just(kv_pb2.RangeRequest()),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=st.lists(_REQUESTS, min_size=1, max_size=12))
def test_together_is_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, requests: list[type_asked]
) -> None:
    """Answers, keys and records are the same, whether requests came in one read or in many."""
    together, alone = _bench(tmp_path_factory.mktemp("a")), _bench(tmp_path_factory.mktemp("b"))
    try:
        # Writes first: what is read does not depend on when it is read then.
        requests.sort(key=lambda each: isinstance(each, kv_pb2.RangeRequest))
        writes = [each for each in requests if isinstance(each, kv_pb2.PutRequest)]
        reads = [each for each in requests if isinstance(each, kv_pb2.RangeRequest)]
        first, second = _Client(together), _Client(alone)

        got = first.ask(*writes) + first.ask(*reads)
        expected = [answer for each in writes + reads for answer in second.ask(each)]

        assert got == expected
        for stage in ("intent", "read", "denied", "rejected"):
            assert sorted(_asked_for(_said(together, stage)), key=str) == sorted(
                _asked_for(_said(alone, stage)), key=str
            )
        assert together.world.state.store.revision == alone.world.state.store.revision
    finally:
        together.close()
        alone.close()


def test_burst_is_one_command_and_one_record(bench: Bench) -> None:
    """Plain puts that come together are one command of the log, and gets one record."""
    client = _Client(bench)

    client.ask(*(_put(b"/app/%d" % n, b"v" * (n + 1)) for n in range(3)))
    client.ask(*(_get(b"/app/%d" % n) for n in range(3)))

    (command,) = [each for each in bench.world.engine.applied if isinstance(each, PutBurst)]
    assert [key for key, _ in command.puts] == [b"/app/0", b"/app/1", b"/app/2"]
    assert _said(bench, "intent")[-1]["op"] == {
        "keys": ["/app/0", "/app/1", "/app/2"],
        "rpc": "Put",
        "value_bytes": [1, 2, 3],
    }
    read = _said(bench, "read")[-1]
    assert read["op"] == {"keys": ["/app/0", "/app/1", "/app/2"], "rpc": "Range"}
    assert len(read["result"].pop("bytes")) == 3
    assert read["result"] == {"code": "OK", "rev": 4}


def test_every_put_of_a_burst_tells_its_own_revision(bench: Bench) -> None:
    """Puts that were one command are as many revisions, in the order they came."""
    client = _Client(bench)

    answers = client.ask(*(_put(b"/app/%d" % n) for n in range(5)))

    told = [kv_pb2.PutResponse.FromString(body).header.revision for _, body in answers]
    assert told == [2, 3, 4, 5, 6]


def test_forbidden_key_in_a_burst_stops_nobody_else(bench: Bench) -> None:
    """What one request of a burst may not do is refused to it alone."""
    client = _Client(bench)

    puts = client.ask(_put(b"/app/a"), _put(b"/other"), _put(b"/app/b"))
    gets = client.ask(_get(b"/app/a"), _get(b"/other"), _get(b"/app/b"))

    assert [status for status, _ in puts] == [b"0", _DENIED, b"0"]
    assert [status for status, _ in gets] == [b"0", _DENIED, b"0"]
    assert [record["op"]["key"] for record in _said(bench, "denied")] == ["/other", "/other"]


def test_burst_of_nobody_is_refused_one_by_one(bench: Bench) -> None:
    """Without an identity nothing of a burst is served, and each refusal is in the trail."""
    client = _Client(bench, user="")

    answers = client.ask(_get(b"/app/a"), _get(b"/app/b"))

    assert [status for status, _ in answers] == [b"3", b"3"]
    assert len(_said(bench, "denied")) == 2


def test_requests_of_two_users_are_no_burst(bench: Bench) -> None:
    """Whoever shares a connection, as behind a proxy, shares no rights."""
    world = bench.world
    world.role("db", b"/db/", b"/db0")
    world.user("one", "app", password=_PASSWORD)
    world.user("two", "db", password=_PASSWORD)
    one, two = world.token("one", _PASSWORD), world.token("two", _PASSWORD)
    client = _Client(bench, user="")

    client.session.receive(
        client.frames_of(_get(b"/app/a"), token=one) + client.frames_of(_get(b"/app/b"), token=two)
    )
    client.session.receive(
        client.frames_of(_put(b"/db/a"), token=two) + client.frames_of(_put(b"/db/b"), token=one)
    )
    for _ in range(2):
        bench.end_turn()

    answers = client.answers()
    assert [answers[stream][0] for stream in (1, 3, 5, 7)] == [b"0", _DENIED, b"0", _DENIED]


def test_deleted_key_is_not_there_for_a_burst_either(bench: Bench) -> None:
    """A key that was deleted is answered like one that never was."""
    client = _Client(bench)
    client.ask(_put(b"/app/a"), _put(b"/app/b"))
    bench.world.ask(kv_pb2.DeleteRangeRequest(key=b"/app/a"))

    answers = client.ask(_get(b"/app/a"), _get(b"/app/b"), _get(b"/app/c"))

    counts = [kv_pb2.RangeResponse.FromString(body).count for _, body in answers]
    assert counts == [0, 1, 0]


def test_right_that_is_lost_on_the_way_is_lost_by_those_who_needed_it(bench: Bench) -> None:
    """If accounts move between gate and log, each put of a burst is decided by itself again."""
    world = bench.world
    world.role("other", b"/other")
    world.system(auth_pb2.AuthUserGrantRoleRequest(user="web", role="other"))
    client = _Client(bench)
    client.send(_put(b"/app/a"), _put(b"/other"))

    world.system(auth_pb2.AuthUserRevokeRoleRequest(name="web", role="other"))
    for _ in range(3):
        bench.end_turn()

    answers = client.answers()
    assert [answers[stream][0] for stream in (1, 3)] == [b"0", _DENIED]
    assert world.state.store.space(DEFAULT_TENANT).index.head(b"/app/a") is not None
    assert world.state.store.space(DEFAULT_TENANT).index.head(b"/other") is None


def test_deadline_ends_one_put_of_a_burst(bench: Bench) -> None:
    """A put whose deadline passes is given up; those without one are answered."""
    client = _Client(bench)
    client.session.receive(
        client.frames_of(_put(b"/app/a"), timeout=b"1S") + client.frames_of(_put(b"/app/b"))
    )

    bench.world.clock.forward(2)
    client.session.tick(bench.world.clock())
    for _ in range(2):
        bench.end_turn()

    answers = client.answers()
    assert [answers[stream][0] for stream in (1, 3)] == [b"4", b"0"]
    counts = client.counts["/etcdserverpb.KV/Put"]
    assert (counts.started, counts.done, counts.refused, counts.open_count) == (2, 1, {4: 1}, 0)


def test_deadline_of_no_time_at_all_is_over(bench: Bench) -> None:
    """A request that must be answered in no time is refused, burst or not."""
    client = _Client(bench)

    answers = client.ask(_get(b"/app/a"), _get(b"/app/b"), timeout=b"0n")

    assert [status for status, _ in answers] == [b"4", b"4"]


def test_reset_put_of_a_burst_is_answered_to_nobody(bench: Bench) -> None:
    """Who cancels a put of a burst hears nothing more of it; the others are answered."""
    client = _Client(bench)
    client.send(_put(b"/app/a"), _put(b"/app/b"))

    client.session.receive(b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08")
    for _ in range(2):
        bench.end_turn()

    assert client.answers().keys() == {3}


def test_large_answers_wait_for_the_peer_to_read(bench: Bench) -> None:
    """Of a burst of gets only so much is made at once; the rest follows as room is made."""
    client = _Client(bench, unsent_bytes_max=30_000)
    for n in range(10):
        client.ask(_put(b"/app/%d" % n, b"v" * 16_000))
    client.send(*(_get(b"/app/%d" % n) for n in range(10)))
    owed_bytes = client.session.owed_bytes
    answers: dict[int, tuple[bytes, bytes]] = {}

    for _ in range(12):
        bench.end_turn()
        answers |= client.answers()

    assert 30_000 < owed_bytes < 50_000
    assert [status for status, _ in answers.values()] == [b"0"] * 10


def test_answers_of_one_turn_are_bounded(bench: Bench) -> None:
    """However much a peer may leave unread, so much is made for it before others have a turn."""
    client = _Client(bench)
    client.ask(_put(b"/app/a", b"v" * 16_000))
    client.send(*(_get(b"/app/a") for _ in range(100)))
    owed_bytes = client.session.owed_bytes
    answers: dict[int, tuple[bytes, bytes]] = {}

    for _ in range(8):
        bench.end_turn()
        answers |= client.answers()

    assert 512 * 1024 <= owed_bytes < 560 * 1024
    assert [status for status, _ in answers.values()] == [b"0"] * 100


def test_burst_is_bounded(bench: Bench) -> None:
    """More requests than a burst may hold are several of them."""
    client = _Client(bench)

    answers = client.ask(*(_get(b"/app/%d" % n) for n in range(BURST_MAX + 1)))

    assert [status for status, _ in answers] == [b"0"] * (BURST_MAX + 1)
    sizes = [len(record["op"].get("keys", [1])) for record in _said(bench, "read")]
    assert sizes == [BURST_MAX, 1]


def test_refused_burst_of_a_full_disk_is_refused_to_everybody(bench: Bench) -> None:
    """If the log takes nothing, each put of a burst is told so, with an outcome in the trail."""
    bench.world.engine.refusal = Refused(Failure.NO_SPACE)
    client = _Client(bench)

    answers = client.ask(_put(b"/app/a"), _put(b"/app/b"))

    assert [status for status, _ in answers] == [b"8", b"8"]
    assert len(_said(bench, "intent")) == len(_said(bench, "outcome")) == 2


def test_unwritable_trail_refuses_the_whole_burst(bench: Bench) -> None:
    """What cannot be recorded is neither answered nor done, also where it came together."""
    client = _Client(bench)
    client.ask(_put(b"/app/a"))
    bench.world.place.directory.rename(bench.world.place.directory.with_name("gone"))
    bench.world.trail.check_in_place()

    gets = client.ask(_get(b"/app/a"), _get(b"/app/b"))
    puts = client.ask(_put(b"/app/c"), _put(b"/app/d"))

    assert [status for status, _ in gets + puts] == [b"14"] * 4
    assert bench.world.state.store.revision == 2


def test_bursts_are_counted_like_single_calls(bench: Bench) -> None:
    """Every call of a burst is begun once and done once."""
    client = _Client(bench)

    client.ask(*(_put(b"/app/%d" % n) for n in range(4)))
    client.ask(*(_get(b"/app/%d" % n) for n in range(6)), _get(b"/other"))

    puts, gets = client.counts["/etcdserverpb.KV/Put"], client.counts["/etcdserverpb.KV/Range"]
    assert (puts.started, puts.done, puts.refused) == (4, 4, {})
    assert (gets.started, gets.done, gets.refused) == (7, 6, {7: 1})
