"""The gate's way for bursts: what it does for one request, done once for all of a burst.

A transaction of nothing but plain puts goes the same way: as one command, in one revision.

Owns: the order of things for a burst: identify, decide, record, pass on or answer.
Never: refuses a burst: what is not plainly allowed is asked again request by request, at the gate,
    which decides, records and refuses each by itself.
Follows: docs/adr/0011-bursts.md.
Keeps: nothing has happened, and nothing was recorded, of a burst that was not taken.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, final

from kvsecure.access.decide import Decision, decide
from kvsecure.core.engine import Engine
from kvsecure.core.entry import encode, encode_puts
from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.query import answer_gets
from kvsecure.core.replica import Proposal
from kvsecure.model.answer import Answer
from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.model.errors import Refused
from kvsecure.proto import kv_pb2
from kvsecure.security.authn import Authenticator
from kvsecure.security.recorder import Recorder
from kvsecure.security.session import Peer, Session

__all__ = ["Bursts", "Getting", "Putting"]


class Getting(Protocol):
    """Who asks for a burst of gets."""

    peer: Peer
    token: bytes

    def succeed(self, revision: int, bodies: Sequence[bytes]) -> None:
        """Answer the first of the requests, as many as there are bodies."""
        ...

    def go_alone(self, count: int) -> None:
        """Have the requests behind the first so many, which were answered, asked one by one."""
        ...


class Putting(Protocol):
    """Who asks for a burst of puts."""

    peer: Peer
    token: bytes

    def succeed(self, answer: Answer) -> None:
        """Answer all of them: the last one made the answer's revision, the others those before."""
        ...

    def fail(self, refused: Refused) -> None:
        """Refuse all of them, or ask again one by one if it was for want of a right."""
        ...


@final
class Bursts:
    """Takes bursts in."""

    __slots__ = ("_authenticator", "_check_room", "_engine", "_now_ns", "_records")

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        records: Recorder,
        engine: Engine,
        check_room: Callable[[PutBurst | PutTxn, int], None],
        now_ns: Callable[[], int],
    ) -> None:
        """Put together what the gate has.

        Args:
            authenticator: Resolves credentials.
            records: Adds to the trail.
            engine: Behind the gate.
            check_room: Refuses what the store has no room for, given its size in bytes.
            now_ns: Monotonic time in nanoseconds.
        """
        self._authenticator = authenticator
        self._records = records
        self._engine = engine
        self._check_room = check_room
        self._now_ns = now_ns

    def get(self, asking: Getting, burst: GetBurst, bytes_max: int) -> int:
        """Answer a burst of linearizable gets, until it is much.

        Returns:
            How many of the requests were taken, from the first on: fewer than all where the
            answers have more than `bytes_max` bytes, none where it has to go request by request.
        """
        engine = self._engine
        if not engine.can_read_keys():
            if engine.is_alone:
                return 0
            # Others are asked first, once for all who come in this turn.
            engine.when_readable(
                lambda: asking.go_alone(self.get(asking, burst, bytes_max)),
                # Each waits again, and is refused by itself.
                lambda _: asking.go_alone(0),
            )
            return len(burst.keys)
        session = self._allowed(asking, burst)
        if session is None:
            return 0
        state = engine.state
        try:
            bodies = answer_gets(state, session.space, burst, bytes_max)
        except DamagedRecord:
            return 0
        count = len(bodies)
        if count < len(burst.keys):
            burst = GetBurst(burst.keys[:count])
        revision = state.store.revision
        self._records.read_burst(session, burst, list(map(len, bodies)), revision)
        asking.succeed(revision, bodies)
        return count

    def put(self, asking: Putting, burst: PutBurst, requests: Sequence[bytes]) -> bool:
        """Take a burst of puts through the log, as one command.

        Args:
            asking: Who asks, and where the answers go.
            burst: The requests.
            requests: Their bytes, which become the log's.

        Returns:
            Whether it was taken; if not, it has to go request by request.
        """
        session = self._allowed(asking, burst)
        if session is None:
            return False
        entry = encode_puts(session.envelope, requests)
        try:
            self._check_room(burst, len(entry))
            self._engine.check_taking()
        except Refused:
            return False
        intent = self._records.intent(session, burst)
        context = (asking, session.stage_outcome, intent)
        self._engine.take(Proposal(entry, session.caller, burst, self._now_ns(), context))
        return True

    def transact(self, asking: Putting, txn: PutTxn, request: bytes) -> bool:
        """Take a transaction of plain puts through the log.

        Args:
            asking: Who asks, and where the answer goes.
            txn: What it puts.
            request: Its bytes, which become the log's.

        Returns:
            Whether it was taken; if not, the gate has to take or refuse it as it takes any.
        """
        session = self._allowed(asking, txn)
        if session is None:
            return False
        try:
            self._check_room(txn, len(request))
            self._engine.check_taking()
        except Refused:
            return False
        intent = self._records.intent(session, txn)
        context = (asking, session.stage_outcome, intent)
        entry = encode(kv_pb2.TxnRequest, session.envelope, request)
        self._engine.take(Proposal(entry, session.caller, txn, self._now_ns(), context))
        return True

    def _allowed(
        self, asking: Getting | Putting, burst: GetBurst | PutBurst | PutTxn
    ) -> Session | None:
        """Return the session, if everything in the burst is allowed to it."""
        try:
            session = self._authenticator.session(asking.peer, asking.token)
        except Refused:
            return None
        if decide(session.grants, burst, session.facts) is not Decision.ALLOW:
            return None
        return session
