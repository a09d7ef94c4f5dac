"""Why a member does not do what its caller asks.

Owns: the ways to say no to a caller.
Never: an answer to a peer; those are messages.
"""

from typing import final

__all__ = [
    "ChangeRefused",
    "NotLeader",
    "Refusal",
    "TooManyReads",
    "TooMuchUncommitted",
    "TransferRefused",
    "Transferring",
]


class Refusal(Exception):
    """Nothing was done, and nothing will be."""


@final
class NotLeader(Refusal):
    """Only a leader can do this."""


@final
class Transferring(Refusal):
    """The leader is handing over, and takes no entries meanwhile (thesis 3.10)."""


@final
class TooMuchUncommitted(Refusal):
    """What was taken before is not committed yet, and is as much as may be."""


@final
class TooManyReads(Refusal):
    """Reads that wait for their index are as many as may be."""


@final
class ChangeRefused(Refusal):
    """This change of members cannot begin now, or at all; the text says why."""


@final
class TransferRefused(Refusal):
    """Nobody can take over by this name; the text says why."""
