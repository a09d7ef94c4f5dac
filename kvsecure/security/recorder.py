"""The recorder: what the gate decides and does, in the form of the trail's records.

Owns: the fields of every record of a request, and which outcomes share one.
Never: decides; writes: `end_turn` hands the turn to the trail.
Follows: docs/audit.md for the form. The records of the hot path are put together from the pieces
    that a session keeps ready; their fields stand in canonical order.
"""

import json
from collections.abc import Callable
from typing import final

from google.protobuf.message import Message

from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.model.errors import Code, Refused
from kvsecure.security.audit import AuditTrail
from kvsecure.security.canonical import canonical
from kvsecure.security.describe import describe, describe_refused
from kvsecure.security.session import Peer, Session

__all__ = ["Recorder"]


@final
class Recorder:
    """Adds records to the turn that is going on."""

    __slots__ = ("_audit", "_now_ns", "_succeeded", "system_outcome")

    def __init__(self, audit: AuditTrail, now_ns: Callable[[], int]) -> None:
        self._audit = audit
        self._now_ns = now_ns
        # How the outcome's record of a command of the member itself ends.
        self.system_outcome = b',"stage":"outcome","stream":"%b","ts":"' % audit.stream.encode()
        # What has succeeded in this turn: by how its record ends, when each command began, the
        # number of its intent, and the revision.
        self._succeeded: dict[bytes, list[tuple[int, int, int]]] = {}

    def end_turn(self) -> None:
        """Record what has succeeded in this turn, and write the turn's records.

        Raises:
            Refused: They could not be written; nothing of this turn may be answered or begun.
        """
        if self._succeeded:
            self._add_successes()
        self._audit.end_turn()

    # --- commands -------------------------------------------------------------------------------

    def intent(self, session: Session, command: Message | PutBurst | PutTxn) -> int:
        """Record that a command is allowed and about to be proposed; return the record's number."""
        audit = self._audit
        intent = audit.next_seq
        audit.add(
            b'%b%b,"seq":%d%b%b","v":1}'
            % (
                session.allowed,
                describe(command),
                intent,
                session.stage_intent,
                audit.time_bytes(),
            )
        )
        return intent

    def success(self, stage: bytes, since_ns: int, intent: int, revision: int) -> None:
        """Take note of a command that succeeded; the turn records all of them together.

        Args:
            stage: How its record ends, as its session has it.
            since_ns: When it was submitted, in monotonic nanoseconds.
            intent: The number of its intent.
            revision: The revision that it made or found.
        """
        succeeded = self._succeeded.get(stage)
        if succeeded is None:
            succeeded = self._succeeded[stage] = []
        succeeded.append((since_ns, intent, revision))

    def failure(self, stage: bytes, since_ns: int, intent: int, refused: Refused) -> None:
        """Record that a command was refused after its intent was recorded; see `success`."""
        audit = self._audit
        audit.add(
            b'{"dur_us":%d,"intent":%d,"result":{"code":"%b"},"seq":%d%b%b","v":1}'
            % (
                (self._now_ns() - since_ns) // 1000,
                intent,
                refused.code.name.encode(),
                audit.next_seq,
                stage,
                audit.time_bytes(),
            )
        )

    def _add_successes(self) -> None:
        audit, now_ns = self._audit, self._now_ns()
        for stage, commands in self._succeeded.items():
            done = [
                b'{"dur_us":%d,"intent":%d,"rev":%d}' % ((now_ns - since_ns) // 1000, intent, rev)
                for since_ns, intent, rev in commands
            ]
            audit.add(
                b'{"done":[%b],"result":{"code":"OK"},"seq":%d%b%b","v":1}'
                % (b",".join(done), audit.next_seq, stage, audit.time_bytes())
            )
        self._succeeded.clear()

    # --- everything else ------------------------------------------------------------------------

    def read(self, session: Session, request: Message | GetBurst, result: bytes) -> None:
        """Record what was answered from the state, or what came of an allowed request.

        Args:
            session: Who asked.
            request: What was asked.
            result: The members of the `result` object.
        """
        audit = self._audit
        audit.add(
            b'%b%b,"result":{%b},"seq":%d%b%b","v":1}'
            % (
                session.allowed,
                describe(request),
                result,
                audit.next_seq,
                session.stage_read,
                audit.time_bytes(),
            )
        )

    def read_burst(
        self, session: Session, burst: GetBurst, sizes_bytes: list[int], revision: int
    ) -> None:
        """Record the answers to a burst of gets; with more than one, by a list of their sizes."""
        sizes = b"%d" % sizes_bytes[0] if len(sizes_bytes) == 1 else canonical(sizes_bytes)
        self.read(session, burst, b'"bytes":%b,"code":"OK","rev":%d' % (sizes, revision))

    def denial(self, session: Session, request: Message, reason: str) -> None:
        """Record that the law says no."""
        audit = self._audit
        audit.add(
            b'%b%b"},"op":%b,"result":{"code":"PERMISSION_DENIED"},"seq":%d%b%b","v":1}'
            % (
                session.denied,
                reason.encode(),
                canonical(describe_refused(request)),
                audit.next_seq,
                session.stage_denied,
                audit.time_bytes(),
            )
        )

    def event(
        self,
        *,
        stage: str,
        actor: dict[str, object],
        op: dict[str, object] | None = None,
        peer: Peer | None = None,
        result: Code | None = None,
        tenant: str | None = None,
        note: dict[str, object] | None = None,
    ) -> int:
        """Add a record that is not of the hot path; return its number."""
        audit = self._audit
        seq = audit.next_seq
        fields: dict[str, object] = {
            "actor": actor,
            "seq": seq,
            "stage": stage,
            "stream": audit.stream,
            "ts": audit.time_text(),
            "v": 1,
        }
        if op is not None:
            fields["op"] = op
        if note is not None:
            fields["note"] = note
        if result is not None:
            fields["result"] = {"code": result.name}
        if peer is not None:
            fields["source"] = json.loads(peer.source)
        if tenant is not None:
            fields["tenant"] = tenant
        audit.add(canonical(fields))
        return seq
