"""Majorities.

Owns: what a majority of voters has agreed on.
Never: knows how they came to agree.
Follows: Raft section 5.3 (an entry is committed once a majority stores it).
"""

from collections.abc import Collection, Mapping

from kvsecure.model.ids import Index, MemberId

__all__ = ["agreed_index", "has_majority"]


def has_majority(votes: Collection[MemberId], voters: Collection[MemberId]) -> bool:
    """Tell whether more than half of the voters are among the votes."""
    return 2 * sum(voter in votes for voter in voters) > len(voters)


def agreed_index(match: Mapping[MemberId, Index], voters: Collection[MemberId]) -> Index:
    """Return the highest index that a majority of the voters stores; 0 when there is none."""
    stored = sorted((match.get(voter, Index(0)) for voter in voters), reverse=True)
    return stored[len(stored) // 2] if stored else Index(0)
