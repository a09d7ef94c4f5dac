"""Which configuration is in force: the newest in the log, whether or not it is committed.

Owns: the configurations of the log by index, and that of the snapshot before it.
Never: decides on a change; reads the log by itself.
Follows: Raft section 6: a member uses the newest configuration in its log, and goes back when that
    is cut off; thesis 4.1.
"""

from collections.abc import Sequence
from typing import Final, final

from kvsecure.core.raft.configuration import Configuration
from kvsecure.model.ids import Index, MemberId

__all__ = ["Membership", "configurations_in"]

# Commands begin with a higher byte; a leader's first entry is empty.
_COMMANDS: Final = b"\x01"


def configurations_in(first: Index, entries: Sequence[bytes]) -> list[tuple[Index, Configuration]]:
    """Return the configurations among entries, with their indexes.

    Raises:
        DamagedConfiguration: An entry begins as one and is none.
    """
    # Nearly always there are commands and nothing else: this one look is made without a loop.
    if all(map(_COMMANDS.__le__, entries)):
        return []
    return [
        (Index(index), Configuration.decode(entry))
        for index, entry in enumerate(entries, first)
        if entry and entry < _COMMANDS
    ]


@final
class Membership:
    """The configurations that a member knows, oldest first."""

    __slots__ = ("_known", "current")

    def __init__(self, offset: Index, configuration: Configuration) -> None:
        self._known = [(offset, configuration)]
        # In force.
        self.current = configuration

    @property
    def since(self) -> Index:
        """The index of the configuration in force."""
        return self._known[-1][0]

    @property
    def previous(self) -> Configuration:
        """The configuration before the one in force; the same if no other is known."""
        return self._known[-2][1] if len(self._known) > 1 else self.current

    def add(self, found: Sequence[tuple[Index, Configuration]]) -> None:
        """Take note of configurations that were appended to the log."""
        self._known += found
        self.current = self._known[-1][1]

    def truncate(self, after: Index) -> None:
        """Go back to what was in force before entries that were cut off."""
        while self._known[-1][0] > after:
            self._known.pop()
        self.current = self._known[-1][1]

    def forget(self, through: Index) -> None:
        """Drop what nobody can ask about any more; what is in force at `through` stays."""
        while len(self._known) > 1 and self._known[1][0] <= through:
            del self._known[0]

    def restore(self, index: Index, configuration: Configuration, *, keeps: bool) -> None:
        """Take over the configuration of a snapshot; `keeps` says that entries behind it stay."""
        behind = [known for known in self._known if known[0] > index] if keeps else []
        self._known = [(index, configuration), *behind]
        self.current = self._known[-1][1]

    def at(self, index: Index) -> Configuration:
        """Return the configuration in force at an index of the log or of the snapshot."""
        for since, configuration in reversed(self._known):
            if since <= index:
                return configuration
        return self._known[0][1]

    def can_stand(self, member: MemberId, committed: Index) -> bool:
        """Tell whether a member may stand for election.

        Whoever is being removed may, until that is committed: nobody else might have the entry
        that removes it (thesis 4.2.2).
        """
        if self.current.can_vote(member):
            return True
        return self.since > committed and self.previous.can_vote(member)
