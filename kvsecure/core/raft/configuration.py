"""Who the members are, and what a change of them goes through.

Owns: the configuration as a value, its steps, and its form as an entry of the log.
Never: decides when a step is taken.
Follows: Raft section 6 and thesis 4.3 (joint consensus), 4.1 (one voter at a time needs no joint
    step), 4.2.1 (learners).
Keeps: an entry that is a configuration begins with the byte 0; nothing else that is in a log does.
"""

import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from kvsecure.core.raft.messages import MEMBER_MAX
from kvsecure.core.raft.quorum import agreed, has_majority
from kvsecure.model.errors import invariant
from kvsecure.model.ids import Index, MemberId

__all__ = ["MEMBERS_MAX", "Configuration", "DamagedConfiguration"]

# In each of the four groups.
MEMBERS_MAX: Final = 255
_HEAD: Final = struct.Struct(">BBBBBB")
_VERSION: Final = 1


@final
class DamagedConfiguration(Exception):
    """An entry that begins as a configuration is none that can be read."""


@final
@dataclass(frozen=True, slots=True)
class Configuration:
    """Members in sorted groups; whoever is in `outgoing` votes until the joint step is left.

    One without voters is that of a member which joins, and has been told of nobody yet.
    """

    voters: tuple[MemberId, ...]
    # The voters before the change that is under way; empty when none is.
    outgoing: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()
    # Voters of `outgoing` that will be learners.
    learners_next: tuple[MemberId, ...] = ()
    # Everybody, in order; derived.
    members: tuple[MemberId, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the groups, and check that nobody is in two that exclude each other."""
        for name in ("voters", "outgoing", "learners", "learners_next"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        voting = {*self.voters, *self.outgoing}
        everybody = voting.union(self.learners, self.learners_next)
        object.__setattr__(self, "members", tuple(sorted(everybody)))
        invariant(not voting.intersection(self.learners), "a learner has no vote")
        invariant(
            set(self.learners_next) <= set(self.outgoing) - set(self.voters),
            "who will be a learner is a voter that goes",
        )
        invariant(
            all(0 < member <= MEMBER_MAX for member in everybody), "members have possible numbers"
        )
        invariant(len(everybody) <= MEMBERS_MAX, "there are not too many members")

    @property
    def is_joint(self) -> bool:
        """Whether a change is half way: two majorities have to agree."""
        return bool(self.outgoing)

    def can_vote(self, member: MemberId) -> bool:
        """Tell whether a member's voice counts."""
        return member in self.voters or member in self.outgoing

    def have_agreed(self, votes: Collection[MemberId]) -> bool:
        """Tell whether these are enough to decide."""
        return (
            bool(self.voters)
            and has_majority(votes, self.voters)
            and (not self.outgoing or has_majority(votes, self.outgoing))
        )

    def have_refused(self, refusals: Collection[MemberId]) -> bool:
        """Tell whether so many refuse that the others cannot decide."""
        return any(
            group and not has_majority([voter for voter in group if voter not in refusals], group)
            for group in (self.voters, self.outgoing)
        )

    def agreed_index(self, match: Mapping[MemberId, Index]) -> Index:
        """Return the highest index that enough members store."""
        index = agreed(match, self.voters, Index(0))
        return min(index, agreed(match, self.outgoing, Index(0))) if self.outgoing else index

    def agreed_round(self, rounds: Mapping[MemberId, int]) -> int:
        """Return the highest round that enough members have answered."""
        number = agreed(rounds, self.voters, 0)
        return min(number, agreed(rounds, self.outgoing, 0)) if self.outgoing else number

    def towards(
        self, voters: Collection[MemberId], learners: Collection[MemberId]
    ) -> "Configuration":
        """Return the first step from here to a set of voters and learners.

        One voter more or less is the whole way (thesis 4.1): any two majorities of the old and the
        new voters meet. More is a joint step first (thesis 4.3).
        """
        invariant(not self.is_joint, "one change at a time")
        if len(set(voters) ^ set(self.voters)) <= 1:
            return Configuration(tuple(voters), (), tuple(learners))
        going = set(self.voters)
        return Configuration(
            tuple(voters),
            self.voters,
            tuple(member for member in learners if member not in going),
            tuple(member for member in learners if member in going),
        )

    def left(self) -> "Configuration":
        """Return what follows on the joint step."""
        return Configuration(self.voters, (), (*self.learners, *self.learners_next))

    def encode(self) -> bytes:
        """Return the entry of the log that says this."""
        groups = (self.voters, self.outgoing, self.learners, self.learners_next)
        numbers = [member for group in groups for member in group]
        return _HEAD.pack(0, _VERSION, *map(len, groups)) + struct.pack(
            f">{len(numbers)}Q", *numbers
        )

    @staticmethod
    def decode(entry: bytes) -> "Configuration":
        """Read an entry of the log.

        Raises:
            DamagedConfiguration: It is no configuration, or not in the one form it can have.
        """
        try:
            kind, version, *counts = _HEAD.unpack_from(entry)
            numbers = struct.unpack(f">{sum(counts)}Q", entry[_HEAD.size :])
        except struct.error:
            raise DamagedConfiguration("the entry is cut off, or goes on too long") from None
        if kind != 0 or version != _VERSION:
            raise DamagedConfiguration(f"form {kind}.{version} is not known here")
        rest = iter(numbers)
        groups = [tuple(MemberId(next(rest)) for _ in range(count)) for count in counts]
        if not _is_sound(*groups):
            raise DamagedConfiguration("its groups contradict each other")
        return Configuration(*groups)


def _is_sound(
    voters: Collection[MemberId],
    outgoing: Collection[MemberId],
    learners: Collection[MemberId],
    learners_next: Collection[MemberId],
) -> bool:
    groups: Iterable[Collection[MemberId]] = (voters, outgoing, learners, learners_next)
    everybody = {member for group in groups for member in group}
    return (
        bool(voters)
        and all(list(group) == sorted(set(group)) for group in groups)
        and not {*voters, *outgoing} & set(learners)
        and set(learners_next) <= set(outgoing) - set(voters)
        and all(0 < member <= MEMBER_MAX for member in everybody)
        and len(everybody) <= MEMBERS_MAX
    )
