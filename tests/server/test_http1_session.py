"""A session of HTTP/1.1 by itself: what it lets in, how long it waits, and what it holds back."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h11
import pytest
from support.gateway import Gateway as Client
from support.servers import KvsecureServer
from support.turns import HeldTurn
from wire.socket_peer import SocketPeer

from kvsecure.api.methods import METHODS
from kvsecure.core.members import Members
from kvsecure.model.answer import Answer
from kvsecure.security.session import Peer
from kvsecure.server.calls import CallCounts
from kvsecure.server.gateway import Gateway
from kvsecure.server.http1 import Http1Session, Line
from kvsecure.server.observatory import NOT_FOUND

_IDLE_S_MAX = 60
_AHEAD_BYTES_MAX = 64 * 1024


@dataclass
class _Gate:
    """A gate that answers when it is told to."""

    asked: list[Any] = field(default_factory=list)
    # A state whose members name nobody a learner.
    engine: Any = field(
        default_factory=lambda: SimpleNamespace(state=SimpleNamespace(members=Members()))
    )
    facts: Any = field(default_factory=lambda: SimpleNamespace(member=1))

    def read(self, asking: Any, request: Any, *, stale: bool = False) -> None:
        self.asked.append(asking)

    def reject(self, asking: Any, request: Any, refused: Any) -> None:
        asking.fail(refused)


@dataclass
class _Services:
    """What little a read needs."""

    gate: _Gate
    txn_ops_max: int = 128
    request_bytes_max: int = 1_000_000

    @staticmethod
    def header(revision: int) -> bytes:
        return b""


class _Lab:
    """A session, and everything that it does."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.reading = True
        self.closed = False
        self.turn = HeldTurn()
        self.gate = _Gate()
        self.gateway = Gateway(
            services=_Services(self.gate),  # type: ignore[arg-type]  # as much of them as is used
            turn=self.turn,  # type: ignore[arg-type]  # the same
            counts={path: CallCounts() for path in METHODS},
            now_ns=lambda: 0,
            message_bytes_max=1_000_000,
        )
        line = Line(write=self.written.extend, set_reading=self._set_reading, close=self._close)
        peer = Peer(ip="127.0.0.1", port=1, tls="", user=None, fingerprint=b"")
        self.session = Http1Session(lambda _: NOT_FOUND, line, peer, self.gateway)

    def _set_reading(self, reading: bool) -> None:  # noqa: FBT001 - as the session calls it
        self.reading = reading

    def _close(self) -> None:
        self.closed = True

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.session.second(was_read=False)

    def answer(self) -> None:
        self.gate.asked.pop(0).succeed(Answer(1, b""))
        self.turn.end()


def _post(body: bytes, length: int | None = None) -> bytes:
    head = f"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


_BODY = b'{"key":"Zm9v"}'


@pytest.fixture
def lab() -> _Lab:
    """A session on which nothing has happened."""
    return _Lab()


def test_silent_connection_ends(lab: _Lab) -> None:
    """Who asks nothing for a minute is not waited for."""
    lab.seconds(_IDLE_S_MAX - 1)
    assert not lab.session.is_over

    lab.seconds(1)
    assert lab.session.is_over


def test_body_that_drips_ends(lab: _Lab) -> None:
    """A body has a minute from its head on, however often a byte of it comes."""
    lab.seconds(_IDLE_S_MAX - 1)
    lab.session.receive(_post(b"{", 1_000))
    for _ in range(_IDLE_S_MAX - 1):
        lab.session.receive(b" ")
        lab.seconds(1)
    assert not lab.session.is_over

    lab.seconds(1)
    assert lab.session.is_over


def test_call_that_is_served_is_waited_for(lab: _Lab) -> None:
    """A minute that is ours does not count against the peer, and begins anew with the answer."""
    lab.session.receive(_post(_BODY))
    lab.seconds(10 * _IDLE_S_MAX)
    lab.answer()
    lab.seconds(_IDLE_S_MAX - 1)

    assert b"200" in lab.written
    assert not lab.session.is_over


def test_answer_that_is_not_read_ends(lab: _Lab) -> None:
    """Who reads nothing for a minute is cut, and not waited for in closing."""
    lab.session.receive(_post(_BODY))
    lab.answer()
    lab.session.set_writable(writable=False)
    lab.seconds(_IDLE_S_MAX)

    assert lab.session.is_over
    assert lab.session.is_stalled


def test_answer_that_is_read_slowly_is_waited_for(lab: _Lab) -> None:
    """Who goes on reading has its answer whole, also where the connection ends with it."""
    lab.session.receive(_post(_BODY).replace(b"Host: x", b"Host: x\r\nConnection: close"))
    lab.answer()
    lab.session.set_writable(writable=False)
    for _ in range(10 * _IDLE_S_MAX):
        lab.session.second(was_read=True)
        assert not lab.session.is_stalled

    assert lab.session.is_over
    lab.seconds(_IDLE_S_MAX)
    assert lab.session.is_stalled


def test_what_comes_ahead_is_held_back(lab: _Lab) -> None:
    """While a call is served, no more than a bound is read of what comes behind it."""
    lab.session.receive(_post(_BODY))
    lab.session.receive(_post(_BODY) * 2_000)
    assert (lab.reading, len(lab.gate.asked)) == (False, 1)

    for _ in range(2_001):
        lab.answer()
    assert (lab.reading, len(lab.gate.asked)) == (True, 0)


def test_other_calls_are_begun_one_by_one(lab: _Lab) -> None:
    """A connection has one call at a time; the next begins when the last has its answer."""
    lab.session.receive(_post(_BODY) * 5)
    for number in range(1, 6):
        assert len(lab.gate.asked) == 1
        lab.answer()
        assert lab.written.count(b"HTTP/1.1 200") == number

    assert not lab.gate.asked
    assert not lab.session.is_over


@pytest.mark.parametrize(
    "change",
    [(b"Host: x", b"Host: x\r\nConnection: close"), (b"HTTP/1.1", b"HTTP/1.0")],
    ids=["close", "1.0"],
)
def test_connection_ends_with_the_call_that_is_the_last(
    lab: _Lab, change: tuple[bytes, bytes]
) -> None:
    """A client that says so, or that knows no other way, is not kept waiting for the end."""
    lab.session.receive(_post(_BODY).replace(*change))
    assert not lab.session.is_over

    lab.answer()
    assert lab.closed


def test_lost_call_lets_go_of_what_it_held(lab: _Lab) -> None:
    """What a peer has sent of a request is not kept when the peer is gone."""
    lab.session.receive(_post(b"{" + b" " * 500_000, 1_000_000))
    held = lab.gateway._held_bytes
    lab.session.lost()

    assert held == 500_001
    assert lab.gateway._held_bytes == 0


def test_answer_of_a_lost_call_goes_nowhere(lab: _Lab) -> None:
    """A call goes on without its peer, and what it is answered is dropped."""
    lab.session.receive(_post(_BODY))
    lab.session.lost()
    lab.answer()

    assert not lab.written


def test_session_that_goes_away_answers_first(lab: _Lab) -> None:
    """A member that stops answers what it serves, says that it closes, and closes."""
    lab.session.receive(_post(_BODY))
    lab.session.go_away()
    assert not lab.session.is_over

    lab.answer()
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    client.receive_data(bytes(lab.written))
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert (b"connection", b"close") in list(head.headers)
    assert lab.closed


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_leave_a_session_in_order(lab: _Lab, seed: int) -> None:
    """Requests with bytes changed, cut, doubled or left out never break a session."""
    dice = random.Random(seed)
    for _ in range(25):
        lab = _Lab()
        content = bytearray(_post(_BODY) * 2 + b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" + _post(b"{"))
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(content))
            match dice.randrange(3):
                case 0:
                    content[at] = dice.randrange(256)
                case 1:
                    del content[at : at + dice.randrange(8)]
                case _:
                    content[at:at] = content[at : at + dice.randrange(40)]
        while content and not lab.session.is_over:
            size = dice.randrange(1, 80)
            lab.session.receive(bytes(content[:size]))
            del content[:size]
            if dice.randrange(2) and lab.gate.asked:
                lab.answer()
            lab.turn.end()
        lab.session.lost()
        for asking in lab.gate.asked:
            asking.succeed(Answer(1, b""))
        lab.turn.end()

        assert lab.gateway._held_bytes == 0
        counts = lab.gateway.counts["/etcdserverpb.KV/Range"]
        assert counts.open_count == 0


def test_plaintext_peer_reads_its_early_refusal(tmp_path: Path) -> None:
    """Without TLS too, who sends everything first gets to read why that was too much."""
    with KvsecureServer(tmp_path, tls=False) as member, SocketPeer(member.port) as peer:
        body = b'{"value":"' + b"A" * 5_000_000 + b'"}'
        peer.send(_post(body))
        content = peer.read_all()
        with Client(member) as other:
            assert other.ask("/health", b"", method="GET").status == 200

    head, _, said = content.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429")
    assert json.loads(said)["code"] == 8
