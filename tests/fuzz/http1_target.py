"""A session of HTTP/1.1: any bytes are requests, an answer that says what is wrong, or the end.

Owns: what is tried with a session above the real gateway, and a gate that answers by rote.
Never: replaces a part of the session or of the gateway.
"""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, final

from fuzz.target import Broken, Target, agree, places
from support.turns import HeldTurn
from wire.dialogue import cut

from kvsecure.api.methods import METHODS
from kvsecure.core.members import Members
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.security.session import Peer
from kvsecure.server.calls import CallCounts
from kvsecure.server.gateway import Gateway
from kvsecure.server.http1 import Http1Session, Line
from kvsecure.server.observatory import Page

__all__ = ["HTTP1"]

_MESSAGE_BYTES_MAX: Final = 600
# So many requests of one read are answered, which is where cutting makes a difference.
_REQUESTS_PER_READ_MAX: Final = 16
_REFUSED: Final = (b"4", b"5")
_PEER: Final = Peer(ip="127.0.0.1", port=1, tls="", user=None, fingerprint=b"")


@final
class _Rote:
    """A gate, and the feeds behind it, that reads answer with nothing and refuse all else."""

    revision: Final = 1
    # Its members name nobody a learner.
    engine: Final = SimpleNamespace(state=SimpleNamespace(members=Members()))
    facts: Final = SimpleNamespace(member=1)

    @staticmethod
    def read(asking: Any, _: Any, *, stale: bool = False) -> None:
        """Answer."""
        asking.succeed(Answer(1, b""))

    keep_alive = staticmethod(lambda asking, _: asking.succeed(Answer(1, b"")))

    @staticmethod
    def refuse(asking: Any, *_: Any, **__: Any) -> None:
        """Refuse."""
        asking.fail(Refused(Failure.PERMISSION_DENIED))

    submit = transact = operate = submit_with_password = refuse

    async def log_in(self, asking: Any, _: Any) -> None:
        """Refuse."""
        self.refuse(asking)

    @staticmethod
    def reject(asking: Any, _: Any, refused: Refused) -> None:
        """Pass on what is wrong with a request."""
        asking.fail(refused)

    @staticmethod
    def known_verifier(verifier: str) -> str:
        """Take any."""
        return verifier

    @staticmethod
    def admit_stream(asking: Any, _: Any) -> None:
        """Refuse."""
        asking.fail(Refused(Failure.PERMISSION_DENIED))

    @staticmethod
    def open(*_: Any) -> Any:
        """Refuse to watch."""
        raise Refused(Failure.PERMISSION_DENIED)


@final
class _Services:
    """What the methods need of the member."""

    def __init__(self, turn: HeldTurn) -> None:
        self.gate = self.feeds = _Rote()
        self.txn_ops_max = 8
        self.request_bytes_max = _MESSAGE_BYTES_MAX
        self.progress_interval_s = 600.0
        self.at_turn_end = turn.at_end
        self.random_bytes = bytes

    @staticmethod
    def header(_: int) -> bytes:
        """Say nothing of the cluster."""
        return b""

    @staticmethod
    def later(_: float, __: Callable[[], None]) -> Callable[[], None]:
        """Let no time pass."""
        return lambda: None

    @staticmethod
    def spawn(work: Any) -> None:
        """Run something that waits for nothing."""
        with contextlib.suppress(StopIteration):
            work.send(None)


@final
class _Visit:
    """A session, and what comes of it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False
        self.turn = HeldTurn()
        self.gateway = Gateway(
            services=_Services(self.turn),  # type: ignore[arg-type]  # as much of them as is used
            turn=self.turn,  # type: ignore[arg-type]  # the same
            counts={path: CallCounts() for path in METHODS},
            now_ns=lambda: 0,
            message_bytes_max=_MESSAGE_BYTES_MAX,
        )
        line = Line(write=self.written.extend, set_reading=lambda _: None, close=self._close)
        self.session = Http1Session(_page, line, _PEER, self.gateway)

    def _close(self) -> None:
        self.closed = True

    @property
    def is_over(self) -> bool:
        """Whether the connection is."""
        return self.closed or self.session.is_over

    def hear(self, pieces: list[bytes]) -> None:
        """Take in bytes until the connection is over, and then let go of it."""
        for piece in pieces:
            self.session.receive(piece)
            if not self.session.is_over:
                self.turn.end()
            if self.is_over:
                break

    def leave(self) -> None:
        """End it, and check the books."""
        self.session.lost()
        self.turn.end()
        for path, counts in self.gateway.counts.items():
            if counts.open_count:
                raise Broken(f"{counts.open_count} calls of {path} are never over")
        if self.gateway._held_bytes:
            raise Broken(f"{self.gateway._held_bytes} bytes are held for nobody")

    @property
    def answers(self) -> list[bytes]:
        """What was answered: the status of each refusal, status and body of everything else.

        Of two mistakes the refusal may name the one or the other.
        """
        return [
            part[:3] if part.startswith(_REFUSED) else part[:3] + part.partition(b"\r\n\r\n")[2]
            for part in self._parts
        ]

    @property
    def is_streamed(self) -> bool:
        """Whether any answer has no length, as those of conversations."""
        return any(b"content-length" not in part.lower() for part in self._parts)

    @property
    def _parts(self) -> list[bytes]:
        parts = bytes(self.written).split(b"HTTP/1.1 ")[1:]
        return [part for part in parts if not part.startswith(b"100")]


def _page(target: str) -> Page:
    return Page(200, "text/plain", target.encode())


def _attempt(content: bytes) -> None:
    """Try bytes whole and cut; the first says where."""
    if not content:
        return
    stream = content[1:]
    whole, pieces = _Visit(), _Visit()
    whole.hear([stream])
    pieces.hear(cut(stream, places(content[0], len(stream))))
    _compare(whole, pieces)
    whole.leave()
    pieces.leave()


def _compare(whole: _Visit, pieces: _Visit) -> None:
    """Check that two visits went the same way, as far as it is not a matter of time."""
    first, second = whole.answers, pieces.answers
    if len(first) >= _REQUESTS_PER_READ_MAX or whole.is_streamed or pieces.is_streamed:
        # How many are answered at once, and what leaves of a conversation before its end, are.
        return
    if not whole.is_over and not pieces.is_over:
        agree("answers", first, second)
        return
    over = first if whole.is_over else second
    if over and not over[-1].startswith(_REFUSED):
        # Who is refused before the request is whole is cut, and otherwise is not.
        agree("ends", whole.is_over, pieces.is_over)
    # The last may be a refusal that was overtaken by a mistake that came behind it.
    sure = max(min(len(first), len(second)) - 1, 0)
    agree("answers", first[:sure], second[:sure])


HTTP1: Final = Target(
    name="http1",
    attempt=_attempt,
    size_bytes_max=2_048,
)
