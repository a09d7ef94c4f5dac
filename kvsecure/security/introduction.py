"""The introduction: what a member tells the cluster of itself, until the state has it.

Owns: its name, its client URLs, and the public key that its tokens are verified with.
Never: says anything of another member; asks again while an answer is due.
Follows: etcd, where a member publishes its attributes once it has started; section 10.1 of
    etcd-surface.
"""

import contextlib
from collections.abc import Callable
from typing import final

from google.protobuf.message import Message

from kvsecure.core.member import MemberFacts
from kvsecure.core.members import Members
from kvsecure.crypto.signing import VerifyingKey
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import state_pb2
from kvsecure.security.gate import Gate
from kvsecure.security.session import Peer

__all__ = ["Introduction"]


@final
class Introduction:
    """Of this member."""

    __slots__ = ("_gate", "_key", "_schedule", "_waiting")

    def __init__(self, gate: Gate, key: VerifyingKey, schedule: Callable[[], None]) -> None:
        """Be ready to `look`.

        Args:
            gate: Takes what is said to the log.
            key: Verifies this member's tokens.
            schedule: Makes a turn end.
        """
        self._gate = gate
        self._key = key
        self._schedule = schedule
        # How many answers are due.
        self._waiting = 0

    @property
    def is_over(self) -> bool:
        """Whether the state has all that there is to say, or nobody wants to hear it."""
        return not self._missing()

    def look(self) -> None:
        """Say what the state has not; call this about once a second."""
        engine = self._gate.engine
        if self._waiting or not engine.has_leader:
            return
        commands = self._missing()
        # What is not taken is said again at the next look, and the trail is spared the refusal.
        with contextlib.suppress(Refused):
            for command in commands:
                engine.check_taking()
                self._waiting += 1
                self._gate.submit_system(SYSTEM_TENANT, command, _Saying(self._answered))
        if commands:
            self._schedule()

    def _missing(self) -> list[Message]:
        members: Members = self._gate.engine.state.members
        facts: MemberFacts = self._gate.facts
        record = members.get(facts.member)
        if record is None:
            return []
        missing: list[Message] = []
        if members.key_of(facts.member) != self._key.raw:
            missing.append(
                state_pb2.SigningKeyAdd(member_id=facts.member, public_key=self._key.raw)
            )
        if (record.name, tuple(record.client_urls)) != (facts.name, facts.client_urls):
            missing.append(
                state_pb2.MemberPublish(
                    id=facts.member, name=facts.name, client_urls=facts.client_urls
                )
            )
        return missing

    def _answered(self) -> None:
        self._waiting -= 1


@final
class _Saying:
    """Waits for what became of one thing that was said."""

    __slots__ = ("_answered", "peer", "token")

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered
        # The member itself.
        self.peer = Peer(ip="", port=0, tls="", user=None, fingerprint=b"")
        self.token = b""

    def succeed(self, _: Answer) -> None:
        """Take note that it was heard."""
        self._answered()

    def fail(self, _: Refused) -> None:
        """Take note that it was not."""
        self._answered()
