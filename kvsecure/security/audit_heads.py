"""Audit heads: each member tells the cluster how far its trail is, and is held to it.

    told through the log -> stored by all -> looked up in one's own trail -> reported if it is gone

Owns: when a head is told; looking up what the cluster was told of one's own trail; reporting
    trails that were cut off or rewritten, on every member.
Never: tells anything before what was told earlier has been found in the trail, or after it was not;
    looks into another member's trail; mends anything, or stops the service.
Follows: docs/adr/0029-audit-heads.md.
Keeps: what is told is on this member's disk, so that no crash takes it away; what an idle member
    does for this moves its trail no further.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast, final

from google.protobuf.message import DecodeError, Message

from kvsecure.core.relay import type_answered
from kvsecure.crypto.keyring import Keyring
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.model.ids import SYSTEM_TENANT, TenantId
from kvsecure.proto import state_pb2
from kvsecure.security.audit import Head
from kvsecure.security.audit_lookup import Finding, Standing, holds
from kvsecure.security.gate import Gate
from kvsecure.storage.segments import SegmentPlace
from kvsecure.telemetry.log import log

__all__ = ["AuditHeads"]

_NS: Final = 1_000_000_000
# So often at most. It costs an entry, and what is rolled back behind it is not noticed.
_TELL_EVERY_NS: Final = 5 * _NS
# What telling adds to the trail by itself: an intent and an outcome.
_OWN_RECORDS: Final = 2
_LAST_WORDS_S_MAX: Final = 0.5
_POLL_S: Final = 0.005

_log: Final = log("audit")


@final
class AuditHeads:
    """Of one member's life."""

    def __init__(
        self,
        gate: Gate,
        place: SegmentPlace,
        keyring: Callable[[], Keyring],
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now_ns: Callable[[], int],
        wall_ns: Callable[[], int],
    ) -> None:
        """Be ready to `look`.

        Args:
            gate: Whose trail it is, and what takes a head to the log.
            place: Where the trail is.
            keyring: Returns the keys as they are now.
            spawn: Runs a coroutine within the server's own task group.
            now_ns: Monotonic time in nanoseconds.
            wall_ns: Time of day in nanoseconds since 1970.
        """
        self._gate = gate
        self._place = place
        self._keyring = keyring
        self._spawn = spawn
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        # What this life has told last; the newest that was found in the trail, and that was not.
        self._told: Head | None = None
        self._held: Head | None = None
        self._missing: Head | None = None
        self._is_looking_up = False
        # Whether the state has everything that was told before this life.
        self._is_in_step = False
        self._awaits_step = False
        # What the leader has said that was told, while the log has not come.
        self._heard: state_pb2.ToldHead | None = None
        # No answer is due.
        self._answered = asyncio.Event()
        self._answered.set()
        # Not before these times is anything told, asked, or looked up again.
        self._tell_at_ns = self._ask_at_ns = self._look_up_at_ns = 0
        # Which members' trails were reported in this life.
        self._reported: set[int] = set()

    @property
    def _own(self) -> int:
        return self._gate.facts.member

    def look(self) -> None:
        """Compare, report and tell what there is; call this about once a second."""
        self._report_others()
        if not self._is_in_step:
            self._seek_step()
        told = self._known()
        if told is not None:
            self._compare(told)
        if told is not None and self._missing is not None:
            self._tell_missing(told, self._missing)
        elif self._is_in_step and self._is_settled(told):
            self._tell_more(told)

    def answer_member(self, _: TenantId, request: Message, answered: type_answered) -> None:
        """Answer another member what it has told, as far as this one knows."""
        asked = cast("state_pb2.ToldHeadRequest", request)
        state = self._gate.engine.state
        told = state.heads.of(asked.member_id) or state_pb2.ToldHead()
        answered(state.store.revision, told.SerializeToString())

    async def tell_last(self) -> None:
        """Tell how far the trail is before the member ends, if it is heard within half a second."""
        engine, audit = self._gate.engine, self._gate.audit
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S_MAX):
                last = audit.written_head
                while audit.durable_head.seq < last.seq:
                    engine.sync_audit()
                    # Whoever makes it durable tells the engine, and nobody else.
                    await asyncio.sleep(_POLL_S)
                await self._answered.wait()
                self._tell_at_ns = 0
                self.look()
                await self._answered.wait()

    # --- comparing ------------------------------------------------------------------------------

    def _known(self) -> state_pb2.ToldHead | None:
        """Return the newest of what the cluster is known to have been told, or None."""
        known = [
            each for each in (self._gate.engine.state.heads.of(self._own), self._heard) if each
        ]
        return max(known, key=lambda told: (told.seq, told.is_missing), default=None)

    def _compare(self, told: state_pb2.ToldHead) -> None:
        """See to it that the trail is searched for what was told, once."""
        head = Head(told.seq, told.hash)
        if head == self._told:
            self._held = head
        if self._is_looking_up or self._is_settled(told):
            return
        if self._missing is not None and head.seq <= self._missing.seq:
            return
        if self._now_ns() < self._look_up_at_ns:
            return
        self._is_looking_up = True
        self._spawn(self._look_up(head))

    def _is_settled(self, told: state_pb2.ToldHead | None) -> bool:
        """Tell whether the trail is known to hold what was told."""
        return told is None or (self._held is not None and told.seq <= self._held.seq)

    async def _look_up(self, head: Head) -> None:
        newest = self._gate.audit.written_head
        try:
            found = await asyncio.to_thread(holds, self._place, self._keyring(), head, newest)
        finally:
            self._is_looking_up = False
        self._take(head, found)

    def _take(self, head: Head, found: Finding) -> None:
        match found.standing:
            case Standing.HELD:
                self._held = head
            case Standing.ARCHIVED:
                # Whole files may be moved away; what follows on them was read at the start.
                _log.warning("what was told of the audit trail is archived", record=head.seq)
                self._held = head
            case Standing.UNKNOWN:
                self._look_up_at_ns = self._now_ns() + _TELL_EVERY_NS
                _log.warning(
                    "what was told of the audit trail cannot be looked up",
                    record=head.seq,
                    error=found.why,
                )
            case Standing.MISSING:
                self._missing = head
                self._tell_at_ns = 0
                self._report(self._own, head.seq, found.why)

    # --- reporting ------------------------------------------------------------------------------

    def _report_others(self) -> None:
        for head in self._gate.engine.state.heads:
            if head.is_missing:
                self._report(head.member_id, head.seq, "it says so itself")

    def _report(self, member: int, seq: int, why: str) -> None:
        """Say once what everybody has to hear."""
        if member in self._reported:
            return
        self._reported.add(member)
        _log.error(
            "a member's audit trail was cut off or rewritten: keep its disk for inquiry, remove "
            "the member and add it anew",
            member=f"{member:x}",
            record=seq,
            why=why,
        )
        self._gate.events.note("trail-behind", member=f"{member:x}", record=seq, why=why)
        self._gate.schedule()

    def _tell_missing(self, told: state_pb2.ToldHead, missing: Head) -> None:
        """Have every member hear that this one's trail lacks what it told."""
        if told.seq == missing.seq and not told.is_missing:
            self._say(state_pb2.AuditHeadMiss(member_id=self._own, seq=missing.seq))

    # --- telling --------------------------------------------------------------------------------

    def _seek_step(self) -> None:
        """Find out what was told before this life: from the log, and meanwhile from the leader.

        A member that has lost what it had acknowledged may never catch up with the log.
        """
        engine = self._gate.engine
        if engine.can_read():
            self._is_in_step = True
            return
        if not self._awaits_step:
            self._awaits_step = True
            engine.when_readable(self._come_into_step)
        is_time = self._now_ns() >= self._ask_at_ns
        if self._is_in_step or not is_time or not engine.has_leader or engine.leading.is_own:
            return
        self._ask_at_ns = self._now_ns() + _TELL_EVERY_NS
        question = state_pb2.ToldHeadRequest(member_id=self._own)
        engine.peering.ask(SYSTEM_TENANT, question, self._hear)

    def _come_into_step(self) -> None:
        self._is_in_step = True

    def _hear(self, _: int, said: bytes | Refused) -> None:
        if isinstance(said, Refused):
            self._ask_at_ns = 0
            return
        with contextlib.suppress(DecodeError):
            told = state_pb2.ToldHead.FromString(said)
            if told.seq:
                self._heard = told

    def _tell_more(self, told: state_pb2.ToldHead | None) -> None:
        """Tell how far the trail is, if it has moved and there is somebody to hear it."""
        gate = self._gate
        head, members = gate.audit.durable_head, gate.engine.state.members
        if self._own not in members or len(members) == 1:
            return
        if head.seq <= (told.seq if told is not None else 0) + _OWN_RECORDS:
            return
        if not self._may_speak():
            return
        self._told = head
        self._say(
            state_pb2.AuditHeadTell(
                member_id=self._own,
                seq=head.seq,
                hash=head.hash,
                signature=gate.audit.sign(head),
                time_s=self._wall_ns() // _NS,
            )
        )

    def _say(self, command: Message) -> None:
        if not self._may_speak():
            return
        # What is not taken is said again later, and the trail is spared the refusal.
        with contextlib.suppress(Refused):
            self._gate.engine.check_taking()
            self._tell_at_ns = self._now_ns() + _TELL_EVERY_NS
            self._answered.clear()
            self._gate.submit_system(SYSTEM_TENANT, command, _Saying(self._answered.set))
            self._gate.schedule()

    def _may_speak(self) -> bool:
        is_time = self._now_ns() >= self._tell_at_ns
        return is_time and self._answered.is_set() and self._gate.engine.has_leader


@final
class _Saying:
    """Waits for what became of one thing that was said."""

    __slots__ = ("_answered",)

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered

    def succeed(self, _: Answer) -> None:
        """Take note that it was heard."""
        self._answered()

    def fail(self, _: Refused) -> None:
        """Take note that it was not."""
        self._answered()
