"""Events: what goes into the audit trail though nobody asked for it.

Owns: the records of a member's start and stop, of connections that were refused or cut, and of
    certificates.
Never: records a request; the gate does.
"""

from collections.abc import Callable
from typing import final

from kvsecure.security.recorder import Recorder
from kvsecure.security.session import Peer

__all__ = ["Events"]


@final
class Events:
    """Records what happens to one member."""

    __slots__ = ("_records", "_schedule")

    def __init__(self, records: Recorder, schedule: Callable[[], None]) -> None:
        """Record nothing yet.

        Args:
            records: Adds to the trail.
            schedule: Makes a turn end.
        """
        self._records = records
        self._schedule = schedule

    def note(self, stage: str, **facts: object) -> None:
        """Record something that nobody asked for: a start, a stop, a setting."""
        self._records.event(stage=stage, actor={"via": "system"}, note=facts)

    def note_handshake_failure(self, ip: str, port: int, reason: str) -> None:
        """Record a connection that never became one."""
        self._records.event(
            stage="handshake-failed",
            actor={"via": "nobody"},
            note={"ip": ip, "port": port, "reason": reason},
        )
        self._schedule()

    def note_cut(self, peer: Peer, reason: str) -> None:
        """Record that a connection was ended for what has become of its certificate."""
        actor: dict[str, object] = {"via": "nobody"}
        if peer.user is not None:
            actor = {"user": peer.user.user, "via": "certificate"}
        self._records.event(
            stage="connection-cut",
            actor=actor,
            peer=peer,
            tenant=peer.user.tenant if peer.user is not None else None,
            note={"reason": reason},
        )
        self._schedule()

    def note_credentials(self, stage: str, facts: dict[str, object]) -> None:
        """Record what became of new certificates, authorities or revocation lists."""
        self.note(stage, **facts)
        self._schedule()
