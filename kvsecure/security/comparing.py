"""Comparing: whether all members have come to the same state, and who has not.

    Compare through the log -> each member notes its mark -> the leader asks for them
    -> and for hashes of the versions of keys -> whoever differs from a majority: CORRUPT

Owns: asking the others, answering them, and raising the alarm for whoever differs.
Never: mends anything, or says what differs: nobody is told a name, key or value.
Follows: docs/adr/0026-comparing-members.md; etcd's corruption checks (server/etcdserver/corrupt.go)
    for whom the alarm is raised.
Keeps: only what is of the same index is compared, and hashes only while nothing of the history they
    are of was given up; what cannot be compared says nothing about anybody.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, cast, final

from google.protobuf.message import DecodeError, Message

from kvsecure.core.comparison import COMPARISON_FORM, is_history_of
from kvsecure.core.mark import Mark
from kvsecure.core.relay import type_answered
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.model.ids import SYSTEM_TENANT, MemberId, TenantId
from kvsecure.proto import state_pb2
from kvsecure.security.alarming import raise_corrupt
from kvsecure.security.gate import Gate
from kvsecure.security.upkeep import Upkeep
from kvsecure.telemetry.log import log

__all__ = ["Comparing", "suspects"]

# How much longer than a command the hashes of a large store may take.
_GRACE_NS: Final = 1_800_000_000_000
# Who is named where there is no telling who is wrong (etcd).
_NOBODY_KNOWN: Final = 0

_log: Final = log("comparing")


def suspects(told: Mapping[int, bytes], voters: Iterable[int]) -> frozenset[int]:
    """Return who differs from what most voters say; 0 where too few of them agree to tell.

    Args:
        told: What each member says; whoever cannot say is not in it.
        voters: Who is counted, of all members there are.
    """
    if len(set(told.values())) < 2:
        return frozenset()
    counted = frozenset(voters)
    counts = Counter(digest for member, digest in told.items() if member in counted)
    for digest, count in counts.most_common(1):
        if count > len(counted) // 2:
            return frozenset(member for member, said in told.items() if said != digest)
    return frozenset({_NOBODY_KNOWN})


@final
class Comparing:
    """Compares members, on the one that leads, and answers on the others."""

    def __init__(
        self,
        gate: Gate,
        upkeep: Upkeep,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """Compare nothing yet.

        Args:
            gate: Takes commands of the member itself to the log.
            upkeep: Hashes what is stored.
            spawn: Runs a coroutine within the server's own task group.
        """
        self._gate = gate
        self._upkeep = upkeep
        self._spawn = spawn
        self._is_comparing = False
        self._is_hashing = False

    def begin(self) -> None:
        """Compare all members, if this one leads others, or check what is stored here."""
        engine = self._gate.engine
        if engine.leading.is_own and len(engine.state.members) > 1:
            self._spawn(self.compare())
        else:
            self._upkeep.check_soon()

    async def compare(self) -> None:
        """Have every member note its mark, and compare the marks, then the versions of keys."""
        if self._is_comparing:
            return
        self._is_comparing = True
        try:
            mark = await self._new_mark()
            if mark is not None and await self._agree(mark, versions=False):
                await self._agree(mark, versions=True)
        except Refused as refused:
            _log.warning("members could not be compared", error=str(refused))
        finally:
            self._is_comparing = False

    def answer_member(self, _: TenantId, request: Message, answered: type_answered) -> None:
        """Answer the leader what this member's state came to at a mark."""
        asked = cast("state_pb2.MarkRequest", request)
        engine = self._gate.engine

        async def answer() -> None:
            digest = await self._own(asked.index, versions=asked.versions)
            response = state_pb2.MarkResponse(digest=digest)
            answered(engine.state.store.revision, response.SerializeToString())

        # The mark is of an entry that was committed before it was asked for.
        engine.when_readable(lambda: self._spawn(answer()), lambda refused: answered(0, refused))

    # --- within ---------------------------------------------------------------------------------

    async def _new_mark(self) -> Mark | None:
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        command = state_pb2.Compare(form=COMPARISON_FORM)
        with contextlib.suppress(Refused):
            # A refusal has reached who waits too.
            self._gate.submit_system(SYSTEM_TENANT, command, _Applied(applied))
        self._gate.schedule()
        await applied
        return self._gate.engine.state.mark

    async def _agree(self, mark: Mark, *, versions: bool) -> bool:
        """Ask all members; return whether nobody differs, after seeing to it if somebody does."""
        engine, own = self._gate.engine, self._gate.facts.member
        members = [MemberId(each.id) for each in engine.state.members]
        digests = await asyncio.gather(
            *(
                self._own(mark.index, versions=versions)
                if member == own
                else self._ask(member, mark, versions=versions)
                for member in members
            )
        )
        told = {
            int(member): digest for member, digest in zip(members, digests, strict=True) if digest
        }
        found = suspects(told, engine.state.members.voters)
        what = "versions of keys" if versions else "accounts, leases and members"
        if found:
            self._raise_alarms(found, what, mark)
        elif len(told) < 2:
            _log.warning("members could not be compared", what=what, revision=mark.revision)
        else:
            _log.info("members agree", what=what, revision=mark.revision, members=len(told))
        return not found

    async def _ask(self, member: MemberId, mark: Mark, *, versions: bool) -> bytes:
        """Return what a member says; nothing if it cannot say."""
        came: asyncio.Future[bytes | Refused] = asyncio.get_running_loop().create_future()

        def answered(_: int, said: bytes | Refused) -> None:
            if not came.done():
                came.set_result(said)

        self._gate.engine.peering.ask_member(
            member,
            state_pb2.MarkRequest(index=mark.index, versions=versions),
            answered,
            _GRACE_NS if versions else 0,
        )
        said = await came
        if isinstance(said, Refused):
            return b""
        with contextlib.suppress(DecodeError):
            return state_pb2.MarkResponse.FromString(said).digest
        return b""

    async def _own(self, index: int, *, versions: bool) -> bytes:
        """Return what this member's state came to; nothing if that cannot be said."""
        state = self._gate.engine.state
        mark = state.mark
        if mark is None or mark.index != index:
            return b""
        if not versions:
            return mark.digest
        if self._is_hashing:
            return b""
        self._is_hashing = True
        try:
            digest = await self._upkeep.hash_through(mark.revision)
        finally:
            self._is_hashing = False
        # A compaction, or a key that was destroyed meanwhile, is not in the hashes of all.
        return digest if is_history_of(state, mark) else b""

    def _raise_alarms(self, found: frozenset[int], what: str, mark: Mark) -> None:
        gate = self._gate
        names = [f"{member:x}" for member in sorted(found)]
        _log.error("members differ: restore those that are named", what=what, members=names)
        gate.events.note("members-differ", what=what, revision=mark.revision, members=names)
        for member in sorted(found):
            raise_corrupt(gate, member)
        gate.schedule()


@final
class _Applied:
    """Waits for a command of the member itself."""

    __slots__ = ("_applied",)

    def __init__(self, applied: "asyncio.Future[None]") -> None:
        self._applied = applied

    def succeed(self, _: Answer) -> None:
        """Go on."""
        if not self._applied.done():
            self._applied.set_result(None)

    def fail(self, refused: Refused) -> None:
        """Give up."""
        if not self._applied.done():
            self._applied.set_exception(refused)
