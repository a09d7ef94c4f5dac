"""What a fuzzer tries: a decoder, and the rule that any bytes keep.

    Target       a decoder by name, and what is tried with each input
    Broken       the rule is broken; so is it by any other error that a target lets through

Owns: the form of a target, and how an input says where it is to be cut.
Never: looks for inputs; that is the fuzzer's part, or the corpus's. It imports nothing of what is
    fuzzed, which has to be imported under the fuzzer's eyes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Broken", "Mutation", "SeededMutation", "Target", "agree", "places"]

Mutation = Callable[[bytes, int], bytes]
SeededMutation = Callable[[bytes, int, int], bytes]


@final
class Broken(Exception):
    """A decoder has broken its rule."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A decoder under test.

    Attributes:
        name: As the command line calls it.
        attempt: Tries an input; raises if the rule is broken.
        size_bytes_max: How long inputs get.
        mutate: Makes a mutation (input, longest size, seed) that fits the decoder's grammar out of
            the fuzzer's own (input, longest size); None leaves it at the latter.
    """

    name: str
    attempt: Callable[[bytes], None]
    size_bytes_max: int
    mutate: Callable[[Mutation], SeededMutation] | None = None


def places(how: int, size_bytes: int) -> list[int]:
    """Return where an input is cut.

    Args:
        how: A byte of the input; 0 is after every byte, as far as that does not take too long.
        size_bytes: How long the rest of it is.
    """
    if how == 0 and size_bytes <= 512:
        return list(range(1, size_bytes))
    # A walk of uneven steps, short and long ones, that is the same every time.
    found, at, step = [], 0, how
    while at < size_bytes:
        step = (step * 73 + 41) % 251
        at += 1 + step % (4 + how)
        found.append(at)
    return [place for place in found if place < size_bytes]


def agree(name: str, whole: Any, pieces: Any) -> None:
    """Check that an outcome does not depend on how the bytes were cut.

    Raises:
        Broken: It does.
    """
    if whole != pieces:
        raise Broken(f"{name} depend on how bytes are cut:\n  {whole!r}\n  {pieces!r}")
