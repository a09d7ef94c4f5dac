"""The lock service of the client: one holder at a time, by a lease that is renewed meanwhile.

Owns: taking a lock, knowing that it is lost, and letting it go.
Never: says that a lock is held when its lease may have ended.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.errors import ClientError
from kvsecure.client.tenure import Tenure
from kvsecure.client.values import Header
from kvsecure.proto import lock_pb2

__all__ = ["Held", "Lock"]

_PATH: Final = "/v3lockpb.Lock/Lock"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lock that was taken.

    Attributes:
        header: Who answered when.
        key: The key that is the lock: it is there exactly as long as this holder has it.
        lease: The lease that the key ends with.
        fence: A number that is higher for each holder than for those before it.
    """

    header: Header
    key: bytes
    lease: int
    fence: int


@final
class Lock:
    """A lock by its name. One thread takes and releases it; any thread may cancel a wait.

    Example:
        >>> with client.lock(b"/locks/report") as held:
        ...     write_report(fence=held.fence)
    """

    def __init__(self, connection: Connection, name: bytes, *, ttl_s: int = 60) -> None:
        """Prepare; nothing is asked for yet.

        Args:
            connection: Where.
            name: Whatever has this name stands in one queue.
            ttl_s: After how many seconds without a sign of life the lock is somebody else's.
        """
        self._connection = connection
        self._name = name
        self._ttl_s = ttl_s
        self._tenure: Tenure | None = None
        self._is_cancelled = threading.Event()

    @property
    def is_lost(self) -> bool:
        """Whether it was taken, and may be somebody else's by now."""
        return self._tenure is not None and self._tenure.lost.is_set()

    def acquire(self) -> Held:
        """Wait until the lock is ours, however long it takes.

        Raises:
            ClientError: It was refused or cancelled, or the lease ended meanwhile.
        """
        tenure = self._tenure = Tenure(self._connection, self._ttl_s)
        if self._is_cancelled.is_set():
            tenure.cancel()
        request = lock_pb2.LockRequest(name=self._name, lease=tenure.lease)
        try:
            answer = tenure.wait(_PATH, request, lock_pb2.LockResponse)
        except BaseException:
            # Also an interrupt: nobody would release what nobody knows of.
            self._release_quietly()
            raise
        header = Header.of(answer.header)
        return Held(header=header, key=answer.key, lease=tenure.lease, fence=header.revision)

    def when_lost(self, act: Callable[[], None]) -> None:
        """Have this called, by another thread, if the lock that is held is lost."""
        if self._tenure is not None:
            self._tenure.when_lost(act)

    def cancel(self) -> None:
        """End the wait, also one that is about to begin: `acquire` raises `CANCELLED`."""
        self._is_cancelled.set()
        if self._tenure is not None:
            self._tenure.cancel()

    def release(self) -> None:
        """Let the lock go; that it is lost already is as good.

        Raises:
            ClientError: The server refused or did not answer; it goes when its lease ends.
        """
        tenure, self._tenure = self._tenure, None
        if tenure is not None:
            tenure.end()

    def __enter__(self) -> Held:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.release()
        else:
            # What went wrong within is what matters.
            self._release_quietly()

    def _release_quietly(self) -> None:
        with contextlib.suppress(ClientError):
            self.release()
