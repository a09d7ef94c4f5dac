"""Tenures: a lease that is renewed as long as somebody wants to hold something by it.

Owns: a lease of its own, the thread that renews it, and calls that wait under it.
Never: says that it still holds when its time is over by this machine's clock.
Follows: etcd's concurrency.Session; a call that waits is made again after a lost connection: the
    same lease has the same place.
Keeps: the time that is left is counted from before a renewal was asked for: the server's is longer.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

from google.protobuf.message import Message

from kvsecure.client.connection import Backoff, Connection
from kvsecure.client.errors import ClientError, Outcome
from kvsecure.client.lease import Lease
from kvsecure.client.session import Relogin
from kvsecure.client.stream import Stream
from kvsecure.model.errors import Code, Failure

__all__ = ["Tenure"]

Answer = TypeVar("Answer", bound=Message)

_RETRY_S: Final = 0.5


@final
class Tenure:
    """A lease that is kept alive until it is ended or lost.

    Attributes:
        lease: The lease.
        lost: Set once the lease has ended, or may have.
    """

    def __init__(self, connection: Connection, ttl_s: int) -> None:
        """Begin.

        Args:
            connection: Where.
            ttl_s: How long it lasts without renewal, in seconds; the server raises what is too
                short.

        Raises:
            ClientError: There is no lease to be had.
        """
        self._connection = connection
        self._leases = Lease(connection)
        begun = time.monotonic()
        granted = self._leases.grant(ttl_s)
        self.lease = granted.lease
        self.lost = threading.Event()
        self._until = begun + granted.ttl_s
        self._ttl_s = granted.ttl_s
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream[Any] | None = None
        self._when_lost: Callable[[], None] | None = None
        # A process that ends does not wait for it.
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def wait(self, path: str, request: Message, answer: type[Answer]) -> Answer:
        """Make a call that may wait as long as the tenure lasts; any thread may cancel it.

        Args:
            path: The method; making its call again is as good as having waited.
            request: Its request.
            answer: The class of its answer.

        Raises:
            ClientError: It was refused or cancelled, or the lease has ended (`SESSION_EXPIRED`).
        """
        backoff = Backoff()
        relogin = Relogin(self._connection.renew)
        while True:
            stream = self._connection.open_stream(path, answer)
            try:
                return self._receive(stream, request)
            except ClientError as error:
                if self.lost.is_set():
                    raise _expired(stream.endpoint) from None
                wait_s = backoff.next_s()
                is_final = error.code is not Code.UNAVAILABLE or self._over.is_set()
                if not relogin.helps(error, stream.token) and is_final:
                    raise
            finally:
                self._let_go(stream)
            self._over.wait(wait_s)

    def when_lost(self, act: Callable[[], None]) -> None:
        """Have this called, by another thread, if the lease is lost; at once if it is already."""
        with self._lock:
            self._when_lost = act
        if self.lost.is_set():
            act()

    def cancel(self) -> None:
        """End a call that waits; it raises `CANCELLED`."""
        self._over.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.cancel()

    def end(self) -> None:
        """End the lease, and with it whatever was held by it; that it has ended is as good.

        Raises:
            ClientError: The server refused or did not answer; it ends by itself when its time is
                over.
        """
        self.cancel()
        self._thread.join()
        try:
            self._leases.revoke(self.lease)
        except ClientError as error:
            if error.failure is not Failure.LEASE_NOT_FOUND:
                raise

    # --- within ---------------------------------------------------------------------------------

    def _receive(self, stream: Stream[Answer], request: Message) -> Answer:
        with self._lock:
            self._stream = stream
        if self._over.is_set() or self.lost.is_set():
            raise ClientError(Code.CANCELLED, "the wait is cancelled", outcome=Outcome.UNANSWERED)
        stream.send(request)
        stream.half_close()
        return stream.receive()

    def _let_go(self, stream: Stream[Answer]) -> None:
        with self._lock:
            self._stream = None
        stream.cancel()

    def _renew(self) -> None:
        pause_s = self._ttl_s / 3
        while not self._over.wait(pause_s):
            begun = time.monotonic()
            left_s = max(self._until - begun, 0.001)
            try:
                self._until = begun + self._leases.renew(self.lease, timeout_s=left_s)
            except ClientError as error:
                is_gone = error.failure is Failure.LEASE_NOT_FOUND
                if is_gone or time.monotonic() >= self._until:
                    self._lose()
                    return
                pause_s = min(_RETRY_S, self._until - time.monotonic())
            else:
                pause_s = self._ttl_s / 3

    def _lose(self) -> None:
        if self._over.is_set():
            return
        self.lost.set()
        with self._lock:
            stream, act = self._stream, self._when_lost
        if stream is not None:
            stream.cancel()
        if act is not None:
            act()


def _expired(endpoint: str) -> ClientError:
    failure = Failure.SESSION_EXPIRED
    return ClientError(failure.code, failure.text, endpoint=endpoint)
