"""The lease service of the client: keys that die together unless somebody renews.

Owns: granting, renewing and looking at leases.
Never: a thread of its own; whoever holds a lease iterates over its renewals.
Follows: etcd's client: a lease is renewed every third of its life, and at least every 500 ms apart.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from kvsecure.client.connection import Backoff, Connection
from kvsecure.client.errors import ClientError
from kvsecure.client.session import Relogin
from kvsecure.client.values import Header
from kvsecure.model.errors import Code, Failure
from kvsecure.proto import lease_pb2

__all__ = ["Granted", "Lease", "LeaseState", "Revoked"]

_SERVICE: Final = "/etcdserverpb.Lease"
_RENEWAL_S_MIN: Final = 0.5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A new lease.

    Attributes:
        header: Who answered when.
        lease: Its id.
        ttl_s: Its life in seconds; the server raises lives that are too short.
    """

    header: Header
    lease: int
    ttl_s: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A lease that is gone, with all its keys."""

    header: Header


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """What is left of a lease.

    Attributes:
        header: Who answered when.
        lease: Its id.
        ttl_s: Seconds left.
        granted_ttl_s: Its whole life in seconds.
        keys: The keys that die with it, if they were asked for.
    """

    header: Header
    lease: int
    ttl_s: int
    granted_ttl_s: int
    keys: tuple[bytes, ...]


@final
class Lease:
    """Leases. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def grant(self, ttl_s: int, *, lease: int = 0) -> Granted:
        """Make a lease.

        Args:
            ttl_s: Its life in seconds.
            lease: Its id; 0 lets the server choose.
        """
        answer = self._connection.call(
            f"{_SERVICE}/LeaseGrant",
            lease_pb2.LeaseGrantRequest(TTL=ttl_s, ID=lease),
            lease_pb2.LeaseGrantResponse,
        )
        return Granted(header=Header.of(answer.header), lease=answer.ID, ttl_s=answer.TTL)

    def revoke(self, lease: int) -> Revoked:
        """End a lease and delete its keys."""
        answer = self._connection.call(
            f"{_SERVICE}/LeaseRevoke",
            lease_pb2.LeaseRevokeRequest(ID=lease),
            lease_pb2.LeaseRevokeResponse,
        )
        return Revoked(header=Header.of(answer.header))

    def ttl(self, lease: int, *, keys: bool = False) -> LeaseState | None:
        """Return what is left of a lease; None when it is unknown or has expired.

        Args:
            lease: Its id.
            keys: Whether to ask for its keys; that needs the right to read each of them.
        """
        answer = self._connection.call(
            f"{_SERVICE}/LeaseTimeToLive",
            lease_pb2.LeaseTimeToLiveRequest(ID=lease, keys=keys),
            lease_pb2.LeaseTimeToLiveResponse,
        )
        if answer.TTL < 0:
            return None
        return LeaseState(
            header=Header.of(answer.header),
            lease=answer.ID,
            ttl_s=answer.TTL,
            granted_ttl_s=answer.grantedTTL,
            keys=tuple(answer.keys),
        )

    def list(self) -> tuple[int, ...]:
        """Return the ids of all leases, the one that ends first at the front."""
        answer = self._connection.call(
            f"{_SERVICE}/LeaseLeases",
            lease_pb2.LeaseLeasesRequest(),
            lease_pb2.LeaseLeasesResponse,
        )
        return tuple(status.ID for status in answer.leases)

    def renew(self, lease: int, *, timeout_s: float | None = None) -> int:
        """Give a lease its whole life again, and return that life in seconds.

        Args:
            lease: Its id.
            timeout_s: Replaces the bound of the settings, in seconds.

        Raises:
            ClientError: It is unknown or has expired (`NOT_FOUND`), or the call failed.
        """
        deadline = time.monotonic() + (timeout_s or self._connection.settings.timeout_s)
        backoff = Backoff()
        relogin = Relogin(self._connection.renew)
        while True:
            stream = self._connection.open_stream(
                f"{_SERVICE}/LeaseKeepAlive",
                lease_pb2.LeaseKeepAliveResponse,
                timeout_s=max(deadline - time.monotonic(), 0.001),
            )
            with stream:
                stream.send(lease_pb2.LeaseKeepAliveRequest(ID=lease))
                try:
                    return _still_alive(stream.receive().TTL, stream.endpoint)
                except ClientError as error:
                    wait_s = backoff.next_s()
                    is_over = time.monotonic() + wait_s > deadline
                    is_final = error.code is not Code.UNAVAILABLE or is_over
                    if not relogin.helps(error, stream.token) and is_final:
                        raise
            # As in `Connection`: a second at most, in a call that cannot be called off.
            time.sleep(wait_s)

    def keep_alive(self, lease: int, *, stop: threading.Event | None = None) -> Iterator[int]:
        """Renew a lease again and again; yield its life in seconds after each renewal.

        The iteration waits between renewals for a third of that life.

        Args:
            lease: Its id.
            stop: Ends the iteration when it is set, also while waiting.

        Raises:
            ClientError: It is unknown or has expired (`NOT_FOUND`), or renewing failed.
        """
        stopped = stop or threading.Event()
        while not stopped.is_set():
            ttl_s = self.renew(lease)
            yield ttl_s
            stopped.wait(max(ttl_s / 3, _RENEWAL_S_MIN))


def _still_alive(ttl_s: int, endpoint: str) -> int:
    # The stream has no error for this: an unknown lease is answered with no time left.
    if ttl_s > 0:
        return ttl_s
    failure = Failure.LEASE_NOT_FOUND
    raise ClientError(failure.code, failure.text, endpoint=endpoint)
