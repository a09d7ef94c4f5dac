"""The record cache: what was read from the tables lately, in bounded memory.

Owns: which records it holds, and giving up those that came first when there are too many.
Never: knows whether a record is still wanted; whoever frees one says so.
Keeps: the bound holds for what the records really take; nothing here takes longer than a few
    milliseconds, however many records there are.
"""

from itertools import islice
from typing import Final, final

__all__ = ["RecordCache"]

# A dictionary of a hundred thousand entries and more is copied, whenever its room is used up, in
# tens of milliseconds: several small ones are not. A power of two.
_PARTS: Final = 16
# What an entry takes besides its record: the place, and room in the dictionary.
_ENTRY_BYTES: Final = 128
_FORGOTTEN_AT_ONCE: Final = 100


@final
class RecordCache:
    """Records by where they are."""

    __slots__ = ("_part_bytes", "_part_bytes_max", "_parts")

    def __init__(self, bytes_max: int) -> None:
        """Begin with nothing.

        Args:
            bytes_max: How much all records together may take, with what holds them.
        """
        self._part_bytes_max = bytes_max // _PARTS
        self._parts: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(_PARTS))
        self._part_bytes = [0] * _PARTS

    @property
    def size_bytes(self) -> int:
        """How much memory the records take."""
        return sum(self._part_bytes)

    def get(self, place: bytes) -> bytes | None:
        """Return the record at a place, if it is here."""
        return self._parts[hash(place) % _PARTS].get(place)

    def add(self, place: bytes, record: bytes) -> None:
        """Hold a record that is not here yet, as long as there is room."""
        number = hash(place) % _PARTS
        self._parts[number][place] = record
        self._part_bytes[number] += len(record) + _ENTRY_BYTES
        while self._part_bytes[number] > self._part_bytes_max:
            self._forget_some(number)

    def remove(self, place: bytes) -> None:
        """Let go of a record, if it is here."""
        number = hash(place) % _PARTS
        record = self._parts[number].pop(place, None)
        if record is not None:
            self._part_bytes[number] -= len(record) + _ENTRY_BYTES

    def _forget_some(self, number: int) -> None:
        """Let go of what came first in a part, many records together.

        One that is read again comes back for the price of one look-up. Taken out one by one they
        would cost more than reading them: the way to the first entry of a dictionary leads over the
        places of all that were taken out in front of it.
        """
        part = self._parts[number]
        enough_bytes = self._part_bytes_max * 15 // 16
        for place in list(islice(part, _FORGOTTEN_AT_ONCE)):
            self._part_bytes[number] -= len(part.pop(place)) + _ENTRY_BYTES
            if self._part_bytes[number] <= enough_bytes:
                return
