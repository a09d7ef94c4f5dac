"""Majorities, also of two groups at once.

Owns: what a majority of voters has agreed on.
Never: knows how they came to agree.
Follows: Raft section 5.3 (an entry is committed once a majority stores it); section 6: while a
    change of members is under way, agreement takes majorities of the old and of the new voters.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from kvsecure.model.ids import MemberId

__all__ = ["agreed", "has_majority"]

_Number = TypeVar("_Number", bound=int)


def has_majority(votes: Collection[MemberId], voters: Collection[MemberId]) -> bool:
    """Tell whether more than half of the voters are among the votes."""
    return 2 * sum(voter in votes for voter in voters) > len(voters)


def agreed(
    reached: Mapping[MemberId, _Number], voters: Sequence[MemberId], nothing: _Number
) -> _Number:
    """Return the highest number that a majority of the voters has reached.

    Args:
        reached: How far each got.
        voters: At least one.
        nothing: What counts for a voter that is not in `reached`.
    """
    numbers = [reached.get(voter, nothing) for voter in voters]
    numbers.sort(reverse=True)
    return numbers[len(numbers) // 2]
