"""Bursts: plain gets or puts of one caller that came together and are served together.

Owns: the form in which they, and the plain puts of one transaction, travel from the connection
    through the gate to the core.
Never: holds a request that asks for more than one key, or one key and its value.
Follows: docs/adr/0011-bursts.md.
Keeps: what comes of a burst is what would have come of its requests one after the other.
"""

from typing import Final, NamedTuple

__all__ = ["BURST_MAX", "GetBurst", "PutBurst", "PutTxn"]

# So many requests are one burst: its audit record lists them all.
BURST_MAX: Final = 128


class GetBurst(NamedTuple):
    """Range requests that each name one key and nothing else."""

    keys: list[bytes]


class PutBurst(NamedTuple):
    """Put requests that each name one key and its value and nothing else."""

    puts: list[tuple[bytes, bytes]]


class PutTxn(NamedTuple):
    """A transaction that puts keys, each once, under no condition, and does nothing else."""

    puts: list[tuple[bytes, bytes]]
