"""How far an audit trail is on the disk, for the core that carries it there with the log.

Owns: the protocol alone.
Never: knows what a record says; the trail itself is `security.audit`.
Follows: docs/adr/0008-audit-before-the-core.md.
"""

from typing import Protocol

__all__ = ["AuditMark"]


class AuditMark(Protocol):
    """What the engine needs of the audit trail, to make it durable and to have a cut found out."""

    @property
    def written_head(self) -> tuple[int, bytes]:
        """Number and hash of the newest record that was written."""
        ...

    def note_durable(self, head: tuple[int, bytes]) -> None:
        """Take note that everything through a record is on the disk."""
        ...

    def take_unsynced(self) -> bytes | None:
        """Return what was written and is not durable yet, or None if it is too much to carry."""
        ...

    @property
    def durable_head(self) -> tuple[int, bytes]:
        """Number and hash of the newest record known to be on the disk."""
        ...
