"""How discovery fails.

Owns: the one exception of this package.
Never: carries what somebody else has said without having it cut and cleaned.
"""

from typing import Final, final

__all__ = ["DiscoveryFailed", "shown"]

_SHOWN_CHARACTERS_MAX: Final = 200


@final
class DiscoveryFailed(Exception):
    """Nobody could tell who the first members are; the text says why, for the operator."""


def shown(text: str) -> str:
    """Return somebody else's words, short and on one line."""
    return "".join(c if c.isprintable() else "?" for c in text[:_SHOWN_CHARACTERS_MAX])
