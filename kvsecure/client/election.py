"""The election service of the client: one leader at a time, and everybody may know who.

Owns: standing for an election, proclaiming and resigning, and following who leads.
Never: says that somebody leads when the lease of that may have ended.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self, final

from kvsecure.client.connection import Backoff, Connection
from kvsecure.client.errors import ClientError
from kvsecure.client.session import Relogin
from kvsecure.client.tenure import Tenure
from kvsecure.client.values import Header, KeyValue
from kvsecure.model.errors import Code, Failure
from kvsecure.proto import election_pb2

__all__ = ["Election", "Leading"]

_SERVICE: Final = "/v3electionpb.Election"


@final
class Leading:
    """A term that has begun; leaving its `with` resigns.

    Attributes:
        header: Who answered when.
        key: The key that is the term: it is there exactly as long as this leader leads.
        fence: A number that is higher for each leader than for those before it.
    """

    def __init__(
        self, connection: Connection, tenure: Tenure, answer: election_pb2.CampaignResponse
    ) -> None:
        self._connection = connection
        self._tenure = tenure
        self._leader = answer.leader
        self.header = Header.of(answer.header)
        self.key: bytes = answer.leader.key
        self.fence: int = answer.leader.rev

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may lead by now."""
        return self._tenure.lost.is_set()

    def when_lost(self, act: Callable[[], None]) -> None:
        """Have this called, by another thread, if the term is lost."""
        self._tenure.when_lost(act)

    def proclaim(self, value: bytes) -> Header:
        """Tell everybody another value.

        Raises:
            ClientError: Somebody else leads (`NOT_ELECTED`), or the call failed.
        """
        request = election_pb2.ProclaimRequest(leader=self._leader, value=value)
        path, answer = f"{_SERVICE}/Proclaim", election_pb2.ProclaimResponse
        return Header.of(self._connection.call(path, request, answer).header)

    def resign(self) -> None:
        """End the term; that it has ended is as good.

        Raises:
            ClientError: The server refused or did not answer; it ends with its lease.
        """
        self._tenure.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What went wrong within is what matters.
        with contextlib.suppress(*(() if kind is None else (ClientError,))):
            self.resign()


@final
class Election:
    """An election by its name.

    Example:
        >>> with client.election(b"/elections/primary").campaign(b"host-1") as leading:
        ...     serve(fence=leading.fence)
    """

    def __init__(self, connection: Connection, name: bytes, *, ttl_s: int = 60) -> None:
        """Prepare; nothing is asked for yet.

        Args:
            connection: Where.
            name: Whoever stands for this name stands in one queue.
            ttl_s: After how many seconds without a sign of life somebody else leads.
        """
        self._connection = connection
        self._name = name
        self._ttl_s = ttl_s

    def campaign(self, value: bytes) -> Leading:
        """Stand for the election, and wait until it is won, however long that takes.

        Args:
            value: What everybody is told of the leader.

        Raises:
            ClientError: It was refused, or the lease ended meanwhile.
        """
        tenure = Tenure(self._connection, self._ttl_s)
        request = election_pb2.CampaignRequest(name=self._name, lease=tenure.lease, value=value)
        try:
            answer = tenure.wait(f"{_SERVICE}/Campaign", request, election_pb2.CampaignResponse)
        except BaseException:
            # Also an interrupt: nobody would resign from what nobody knows of.
            with contextlib.suppress(ClientError):
                tenure.end()
            raise
        return Leading(self._connection, tenure, answer)

    def leader(self) -> KeyValue | None:
        """Return who leads, as key and value, or None when nobody does.

        Raises:
            ClientError: The call was refused or not answered.
        """
        request = election_pb2.LeaderRequest(name=self._name)
        path, answer = f"{_SERVICE}/Leader", election_pb2.LeaderResponse
        try:
            return KeyValue.of(self._connection.call(path, request, answer).kv)
        except ClientError as error:
            if error.failure is Failure.NO_ELECTED_LEADER:
                return None
            raise

    def observe(self, *, resume_s: float = 300.0) -> Iterator[KeyValue]:
        """Yield who leads, and each change of that, across broken connections.

        The leader of after a break comes again, and what was between may be missing.

        Args:
            resume_s: How long after a break to try to go on, in seconds.

        Raises:
            ClientError: It was refused, or no member could be reached in time.
        """
        backoff, until = Backoff(), time.monotonic() + self._connection.settings.reach_s
        relogin = Relogin(self._connection.renew)
        while True:
            path, answer = f"{_SERVICE}/Observe", election_pb2.LeaderResponse
            with self._connection.open_stream(path, answer) as stream:
                try:
                    stream.send(election_pb2.LeaderRequest(name=self._name))
                    stream.half_close()
                    while True:
                        yield KeyValue.of(stream.receive().kv)
                        backoff, until = Backoff(), time.monotonic() + resume_s
                        relogin.came()
                except ClientError as error:
                    is_final = error.code is not Code.UNAVAILABLE or time.monotonic() > until
                    if not relogin.helps(error, stream.token) and is_final:
                        raise
            # A second at most. Whoever iterates is here, and nobody else could end the iteration.
            time.sleep(backoff.next_s())
