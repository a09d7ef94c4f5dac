"""What a cluster agrees on: registers, lists, sets, locks with leases, and what has changed.

    command(...)        one command as the bytes of a log entry
    Machine             the state after a prefix of the log

Owns: what commands do.
Never: knows a clock; a lease ends by a command.
Keeps: the same commands in the same order give the same state, and the same digest of it.
"""

import json
import pickle
import zlib
from collections import deque
from typing import Any, NamedTuple, final

__all__ = ["Change", "Machine", "command", "command_of"]


class Change(NamedTuple):
    """Something that a watcher sees."""

    at: int
    key: str
    name: str
    value: Any


def command(serial: int, name: str, key: str, *arguments: Any) -> bytes:
    """Return a log entry; `serial` makes it like no other."""
    return json.dumps([serial, name, key, *arguments]).encode()


def command_of(entry: bytes) -> tuple[int, str, str, list[Any]]:
    """Read what `command` wrote: serial, name, key and arguments."""
    serial, name, key, *arguments = json.loads(entry)
    return serial, name, key, arguments


@final
class Machine:
    """The state after everything up to an index."""

    __slots__ = (
        "applied",
        "changes",
        "changes_max",
        "digest",
        "forgotten",
        "leases",
        "locks",
        "values",
    )

    def __init__(self, changes_max: int = 200) -> None:
        """Begin with nothing.

        Args:
            changes_max: How many changes are kept for those who ask later.
        """
        self.changes_max = changes_max
        self.applied = 0
        # Of everything that was applied, in order.
        self.digest = 0
        # Registers, lists and sets by their keys.
        self.values: dict[str, Any] = {}
        # The owner and number of each lock that is held, and how long its lease is, in virtual us.
        self.locks: dict[str, tuple[str, int]] = {}
        self.leases: dict[str, tuple[str, int]] = {}
        self.changes: deque[Change] = deque()
        # Up to where changes are gone.
        self.forgotten = 0

    def apply(self, index: int, entry: bytes) -> Any:
        """Apply the next entry; return what its client is told."""
        self.applied = index
        self.digest = zlib.crc32(entry, self.digest)
        if not entry:
            return None
        _, name, key, arguments = command_of(entry)
        answer, value = self._run(index, name, key, arguments)
        if answer not in (False, None):
            self.changes.append(Change(index, key, name, value))
            if len(self.changes) > self.changes_max:
                self.forgotten = self.changes.popleft().at
        return answer

    def skip(self, index: int, entry: bytes) -> None:
        """Take note of an entry that is consensus's own."""
        self.applied = index
        self.digest = zlib.crc32(entry, self.digest)

    def read(self, key: str) -> Any:
        """Return what is there, as a value that compares."""
        if key.startswith("lock"):
            held = self.locks.get(key)
            return None if held is None else held[1]
        value = self.values.get(key)
        match key[:3]:
            case "lis":
                return tuple(value or ())
            case "set":
                return frozenset(value or ())
            case _:
                return value

    def changes_after(self, index: int) -> list[Change] | None:
        """Return what has changed since, or None if that is gone."""
        if index < self.forgotten:
            return None
        found = []
        for change in reversed(self.changes):
            if change.at <= index:
                break
            found.append(change)
        found.reverse()
        return found

    def save(self) -> bytes:
        """Return the state."""
        return pickle.dumps([getattr(self, name) for name in self.__slots__])

    def load(self, saved: bytes) -> None:
        """Be in a state that was saved."""
        for name, value in zip(self.__slots__, pickle.loads(saved), strict=True):
            setattr(self, name, value)

    def _run(self, index: int, name: str, key: str, arguments: list[Any]) -> tuple[Any, Any]:
        """Return the answer and the value that watchers see."""
        values, value = self.values, arguments[0]
        match name:
            case "put":
                values[key] = value
                return True, value
            case "swap":
                is_equal = values.get(key) == value
                if is_equal:
                    values[key] = arguments[1]
                return is_equal, arguments[1]
            case "append":
                values.setdefault(key, []).append(value)
                return True, value
            case "add":
                values.setdefault(key, set()).add(value)
                return True, value
            case "take":
                found = value in values.get(key, ())
                if found:
                    values[key].discard(value)
                return found, value
            case "acquire":
                if key in self.locks:
                    return None, None
                self.locks[key] = (value, index)
                self.leases[value] = (key, arguments[1])
                return index, value
            case "release" | "expire":
                self.leases.pop(value, None)
                is_held = self.locks.get(key, ("", 0))[0] == value
                if is_held:
                    del self.locks[key]
                return is_held, value
            case _:
                raise AssertionError(f"no such command: {name}")
