"""The state of the members: status, alarms, health.

Owns: what an operator asks a member, one endpoint at a time.
Never: changes data.
Follows: etcdctl's idea of health: a linearizable read was decided, and no alarm is raised.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.errors import ClientError
from kvsecure.client.settings import Endpoint
from kvsecure.client.values import Header
from kvsecure.model.errors import Code
from kvsecure.proto import kv_pb2, maintenance_pb2

__all__ = ["Alarm", "Health", "Maintenance", "Status", "VersionsHash"]

_SERVICE: Final = "/etcdserverpb.Maintenance"
# The key that etcdctl reads; it need not exist, and need not be readable for the caller.
_HEALTH_KEY: Final = b"health"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of one member.

    Attributes:
        endpoint: Where it was asked.
        header: Who answered when.
        version: The version of etcd's API that it speaks.
        size_bytes: Space its store takes.
        size_in_use_bytes: Space that is in use of it.
        leader: The member that leads; 0 for none.
        raft_index: The newest entry of the log that is committed.
        raft_applied_index: The newest entry that is applied.
        errors: What is wrong, in words.
        is_learner: Whether it only follows.
    """

    endpoint: Endpoint
    header: Header
    version: str
    size_bytes: int
    size_in_use_bytes: int
    leader: int
    raft_index: int
    raft_applied_index: int
    errors: tuple[str, ...]
    is_learner: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VersionsHash:
    """The hash of every version of every key that one member holds.

    Attributes:
        endpoint: Where it was asked.
        header: Who answered when.
        hash: Members that hold the same have the same.
        hash_revision: Through which revision versions count.
        compact_revision: What is forgotten; -1 for nothing.
    """

    endpoint: Endpoint
    header: Header
    hash: int
    hash_revision: int
    compact_revision: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether one endpoint works.

    Attributes:
        endpoint: Where it was asked.
        healthy: Whether it does.
        took_s: Seconds until that was known.
        error: Why it does not, or empty.
    """

    endpoint: Endpoint
    healthy: bool
    took_s: float
    error: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An alarm of a member, like `NOSPACE`."""

    member_id: int
    alarm: str


@final
class Maintenance:
    """The state of members. Methods raise `ClientError` when refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def status(self, endpoint: Endpoint) -> Status:
        """Return the state of the member at one endpoint."""
        with self._connection.only(endpoint) as one:
            answer = one.call(
                f"{_SERVICE}/Status",
                maintenance_pb2.StatusRequest(),
                maintenance_pb2.StatusResponse,
            )
        return Status(
            endpoint=endpoint,
            header=Header.of(answer.header),
            version=answer.version,
            size_bytes=answer.dbSize,
            size_in_use_bytes=answer.dbSizeInUse,
            leader=answer.leader,
            raft_index=answer.raftIndex,
            raft_applied_index=answer.raftAppliedIndex,
            errors=tuple(answer.errors),
            is_learner=answer.isLearner,
        )

    def health(self, endpoint: Endpoint) -> Health:
        """Return whether the member at one endpoint works; a failure is an answer, not an error."""
        start = time.monotonic()
        with self._connection.only(endpoint) as one:
            error = _unhealthy_because(one)
        took_s = time.monotonic() - start
        return Health(endpoint=endpoint, healthy=not error, took_s=took_s, error=error)

    def every_health(self) -> Iterator[Health]:
        """Yield the health of each endpoint of the settings."""
        for endpoint in self._connection.settings.endpoints:
            yield self.health(endpoint)

    def every_status(self) -> Iterator[Status]:
        """Yield the status of each endpoint of the settings; the first failure is raised."""
        for endpoint in self._connection.settings.endpoints:
            yield self.status(endpoint)

    def versions_hash(self, endpoint: Endpoint, revision: int = 0) -> VersionsHash:
        """Return the hash of what the member at one endpoint holds.

        Args:
            endpoint: Whom to ask.
            revision: Through which revision versions count; 0 for all.
        """
        with self._connection.only(endpoint) as one:
            answer = one.call(
                f"{_SERVICE}/HashKV",
                maintenance_pb2.HashKVRequest(revision=revision),
                maintenance_pb2.HashKVResponse,
            )
        return VersionsHash(
            endpoint=endpoint,
            header=Header.of(answer.header),
            hash=answer.hash,
            hash_revision=answer.hash_revision,
            compact_revision=answer.compact_revision,
        )

    def every_versions_hash(self, revision: int = 0) -> Iterator[VersionsHash]:
        """Yield the hash of each endpoint of the settings; the first failure is raised."""
        for endpoint in self._connection.settings.endpoints:
            yield self.versions_hash(endpoint, revision)

    def defragment(self, endpoint: Endpoint) -> float:
        """Let one member give free space back to its file system.

        Returns:
            How many seconds it took.
        """
        start = time.monotonic()
        with self._connection.only(endpoint) as one:
            one.call(
                f"{_SERVICE}/Defragment",
                maintenance_pb2.DefragmentRequest(),
                maintenance_pb2.DefragmentResponse,
            )
        return time.monotonic() - start

    def every_defragment(self) -> Iterator[tuple[Endpoint, float]]:
        """Defragment each endpoint of the settings, one after the other; yield how long it took."""
        for endpoint in self._connection.settings.endpoints:
            yield endpoint, self.defragment(endpoint)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of all members."""
        return _alarms(self._connection)

    def disarm(self, alarm: Alarm) -> tuple[Alarm, ...]:
        """Take an alarm back, and return what was taken back."""
        request = maintenance_pb2.AlarmRequest(
            action="DEACTIVATE", memberID=alarm.member_id, alarm=alarm.alarm
        )
        return _alarms(self._connection, request)


def _alarms(
    connection: Connection, request: maintenance_pb2.AlarmRequest | None = None
) -> tuple[Alarm, ...]:
    answer = connection.call(
        f"{_SERVICE}/Alarm",
        request or maintenance_pb2.AlarmRequest(action="GET"),
        maintenance_pb2.AlarmResponse,
    )
    return tuple(
        Alarm(member_id=found.memberID, alarm=maintenance_pb2.AlarmType.Name(found.alarm))
        for found in answer.alarms
    )


def _unhealthy_because(connection: Connection) -> str:
    try:
        connection.call(
            "/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=_HEALTH_KEY), kv_pb2.RangeResponse
        )
    except ClientError as error:
        # A refusal for want of rights went through the same consensus as an answer would have.
        if error.code is not Code.PERMISSION_DENIED:
            return error.text
    try:
        raised = _alarms(connection)
    except ClientError as error:
        return error.text
    return ", ".join(f"alarm {alarm.alarm} on member {alarm.member_id:x}" for alarm in raised)
