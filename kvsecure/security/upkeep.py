"""Upkeep: hashes, damage, defragmentation, backups: what looks at all of the store.

Owns: its answers, those of a cluster of one member to what is about several, and raising the
    CORRUPT alarm where damage is found.
Never: blocks the loop; the scanning process and the table process do the work.
Follows: etcd-surface sections 1.7 and 10.6: while the alarm is raised, nothing is written until an
    administrator has mended what is damaged and taken the alarm back.
"""

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, final

from google.protobuf.message import Message

from kvsecure.core.scan import Damage
from kvsecure.core.scans import Backup, Scans
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.ids import MemberId
from kvsecure.proto import maintenance_pb2
from kvsecure.security.alarming import raise_corrupt
from kvsecure.security.asking import Asking
from kvsecure.security.gate import Gate
from kvsecure.telemetry.log import log

__all__ = ["Upkeep"]

_log: Final = log("upkeep")
# A version as etcd reads it, whose last part may be left out.
_VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)(\.(0|[1-9]\d*))?([-+][0-9A-Za-z.+-]+)?")
_DOWNGRADES: Final = frozenset(
    {maintenance_pb2.DowngradeRequest.VALIDATE, maintenance_pb2.DowngradeRequest.ENABLE}
)


@final
class Upkeep:
    """The long work of one member."""

    def __init__(
        self,
        gate: Gate,
        scans: Scans,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        schedule: Callable[[], None],
    ) -> None:
        """Put together what there is.

        Args:
            gate: Decides and records.
            scans: Do the work.
            spawn: Runs a coroutine within the server's own task group.
            schedule: Makes a turn end.
        """
        self._gate = gate
        self._scans = scans
        self._spawn = spawn
        self._schedule = schedule
        self._checking = False

    def hash_versions(self, asking: Asking, request: maintenance_pb2.HashKVRequest) -> None:
        """Hash every version of every key through a revision."""
        store = self._gate.engine.state.store

        async def work() -> bytes:
            revision = request.revision
            if 0 < revision <= store.compacted:
                raise Refused(Failure.COMPACTED)
            if revision > store.revision:
                raise Refused(Failure.FUTURE_REVISION)
            found = await self._scans.survey(revision or None)
            return maintenance_pb2.HashKVResponse(
                hash=int.from_bytes(found.versions_hash[:4], "big"),
                compact_revision=found.compacted,
                hash_revision=found.through,
            ).SerializeToString()

        self._begin(asking, request, work)

    def hash_all(self, asking: Asking, request: maintenance_pb2.HashRequest) -> None:
        """Hash everything that the tables hold."""

        async def work() -> bytes:
            found = await self._scans.survey()
            digest = int.from_bytes(found.hash[:4], "big")
            return maintenance_pb2.HashResponse(hash=digest).SerializeToString()

        self._begin(asking, request, work)

    def defragment(self, asking: Asking, request: maintenance_pb2.DefragmentRequest) -> None:
        """Give the tables' free pages back to the file system."""

        async def work() -> bytes:
            statistics = self._gate.engine.statistics
            before_bytes = statistics.table_bytes
            await self._scans.defragment()
            _log.info(
                "finished defragmenting",
                size_bytes_before=before_bytes,
                size_bytes=statistics.table_bytes,
            )
            return b""

        self._begin(asking, request, work)

    def move_leader(self, asking: Asking, request: maintenance_pb2.MoveLeaderRequest) -> None:
        """Have this member, which leads, hand over to another voter."""

        async def work() -> bytes:
            engine, own = self._gate.engine, self._gate.facts.member
            if engine.replica.node.leader != own:
                raise Refused(Failure.NOT_LEADER)
            record = engine.state.members.get(request.targetID)
            if record is None or record.is_learner:
                raise Refused(Failure.BAD_LEADER_TRANSFEREE)
            if request.targetID != own:
                await engine.leading.move(MemberId(request.targetID))
            return b""

        self._begin(asking, request, work)

    def downgrade(self, asking: Asking, request: maintenance_pb2.DowngradeRequest) -> None:
        """Prepare for an older version: there is none that could read what is stored."""

        async def work() -> bytes:
            if request.action == maintenance_pb2.DowngradeRequest.CANCEL:
                raise Refused(Failure.NO_DOWNGRADE)
            if request.action not in _DOWNGRADES:
                raise Refused(Failure.UNKNOWN_ACTION)
            if _VERSION.fullmatch(request.version) is None:
                raise Refused(Failure.WRONG_DOWNGRADE_FORMAT)
            raise Refused(Failure.INVALID_DOWNGRADE_TARGET)

        self._begin(asking, request, work)

    async def back_up(self) -> AsyncGenerator[tuple[bytes, int], None]:
        """Make a backup for whoever was admitted: its pieces, and how many bytes follow each.

        Raises:
            Refused: It cannot be made or read.
        """
        try:
            async with contextlib.aclosing(self._scans.back_up()) as pieces:
                remaining = 0
                async for piece in pieces:
                    if isinstance(piece, Backup):
                        remaining = piece.size_bytes
                        self._gate.events.note(
                            "backup-made",
                            revision=piece.revision,
                            size_bytes=piece.size_bytes,
                            sha256=piece.sha256,
                        )
                        self._schedule()
                    else:
                        remaining -= len(piece)
                        yield piece, remaining
        except (Damage, TimeoutError, OSError) as error:
            raise self._refusal(error) from None

    async def check(self) -> None:
        """Read and check everything that is stored; damage raises the CORRUPT alarm."""
        if self._checking:
            return
        self._checking = True
        try:
            found = await self._scans.survey()
        except Damage as damage:
            self._raise_alarm(damage)
        except (Refused, OSError, TimeoutError) as error:
            _log.warning("what is stored could not be checked", error=str(error))
        else:
            _log.info("what is stored is whole", versions=found.version_count)
        finally:
            self._checking = False

    async def hash_through(self, revision: int) -> bytes:
        """Hash every version through a revision, for other members to compare; nothing if not.

        Damage raises the alarm here, and says nothing about others.
        """
        try:
            return (await self._scans.survey(revision)).versions_hash
        except Damage as damage:
            self._raise_alarm(damage)
        except (Refused, OSError, TimeoutError) as error:
            _log.warning("what is stored could not be hashed", error=str(error))
        return b""

    def check_soon(self) -> None:
        """Check without being waited for."""
        self._spawn(self.check())

    # --- within ---------------------------------------------------------------------------------

    def _begin(
        self, asking: Asking, request: Message, work: Callable[[], Coroutine[Any, Any, bytes]]
    ) -> None:
        gate = self._gate
        if not gate.engine.can_read():
            gate.when_readable(asking, request, lambda: self._begin(asking, request, work))
            return
        ended = self._gate.admit_work(asking, request)
        if ended is not None:
            self._spawn(self._do(asking, ended, work()))

    async def _do(
        self, asking: Asking, ended: Callable[[Code], None], work: Coroutine[Any, Any, bytes]
    ) -> None:
        try:
            body = await work
        except Refused as error:
            refused = error
        except (Damage, TimeoutError, OSError) as error:
            refused = self._refusal(error)
        else:
            ended(Code.OK)
            asking.succeed(Answer(self._gate.engine.state.store.revision, body))
            return
        ended(refused.code)
        asking.fail(refused)

    def _refusal(self, error: Damage | OSError) -> Refused:
        """Return what whoever asked is told; damage is seen to."""
        if isinstance(error, Damage):
            self._raise_alarm(error)
            return Refused(Failure.CORRUPT)
        if isinstance(error, TimeoutError):
            return Refused(Failure.TIMEOUT)
        _log.error("maintenance failed", error=str(error))
        return Refused(Failure.MAINTENANCE_FAILED, error.strerror or str(error))

    def _raise_alarm(self, damage: Damage) -> None:
        gate = self._gate
        gate.corrupt(damage)
        gate.events.note("damage-found", what=str(damage))
        raise_corrupt(gate, gate.facts.member)
        self._schedule()
