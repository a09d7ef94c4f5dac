"""Told heads: how far each member has told that its own audit trail is; replicated state.

Owns: one record for each member that has told anything, and which may take its place.
Never: sees a trail, or says who is right: the member that a head is of checks it
    (`security.audit_heads`).
Follows: docs/adr/0029-audit-heads.md.
Keeps: numbers only go up; what was found to be missing stays so until that member tells more.
"""

from collections.abc import Iterator
from typing import Final, final

from kvsecure.model.ids import MemberId
from kvsecure.proto import state_pb2

__all__ = ["ToldHeads"]

_HASH_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64


@final
class ToldHeads:
    """The newest head of each member."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[MemberId, state_pb2.ToldHead] = {}

    def __iter__(self) -> Iterator[state_pb2.ToldHead]:
        """Yield them in the order of ids; they are not to be changed."""
        return iter([self._heads[member] for member in sorted(self._heads)])

    def of(self, member: int) -> state_pb2.ToldHead | None:
        """Return what a member has told, which is not to be changed, or None."""
        return self._heads.get(MemberId(member))

    @property
    def missing_count(self) -> int:
        """How many members have found that their trail does not hold what they told."""
        return sum(head.is_missing for head in self._heads.values())

    def load(self, head: state_pb2.ToldHead) -> None:
        """Take in a head as it was stored."""
        self._heads[MemberId(head.member_id)] = head

    def tell(self, told: state_pb2.AuditHeadTell) -> state_pb2.ToldHead | None:
        """Take what a member tells; return its record, or None if that says nothing new."""
        before = self.of(told.member_id)
        if before is not None and told.seq <= before.seq:
            return None
        if (len(told.hash), len(told.signature)) != (_HASH_BYTES, _SIGNATURE_BYTES) or not told.seq:
            return None
        head = state_pb2.ToldHead(
            member_id=told.member_id,
            seq=told.seq,
            hash=told.hash,
            signature=told.signature,
            time_s=told.time_s,
        )
        self.load(head)
        return head

    def miss(self, member: int, seq: int) -> state_pb2.ToldHead | None:
        """Note that a trail lacks what was told; return the record, or None if nothing changed.

        Args:
            member: Whose trail.
            seq: What was told last, or nothing is noted: the member speaks of another life.
        """
        before = self.of(member)
        if before is None or before.seq != seq or before.is_missing:
            return None
        head = state_pb2.ToldHead()
        head.CopyFrom(before)
        head.is_missing = True
        self.load(head)
        return head

    def forget(self, member: int) -> bool:
        """Let go of what a member has told; return whether there was anything."""
        return self._heads.pop(MemberId(member), None) is not None
