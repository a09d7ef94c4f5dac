"""What was set, where, and what everything else defaults to.

Owns: typed access to the values by flag name, and where each came from.
Never: reads the command line, the environment or a file; checks meaning.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar, final

from kvsecure.model.errors import Broken, invariant
from kvsecure.server.config.flag import Flag, Value
from kvsecure.server.config.table import FLAGS
from kvsecure.server.config.values import default_of

__all__ = ["Setting", "Settings", "Source"]

_Type = TypeVar("_Type", str, bool, int, tuple[str, ...])


class Source(Enum):
    """Where a value was found."""

    FLAG = "command line"
    ENVIRONMENT = "environment"
    FILE = "configuration file"


class Setting(NamedTuple):
    """One value that was set."""

    flag: Flag
    value: Value
    source: Source


@final
class Settings:
    """The values of all flags; what was not set has its default."""

    __slots__ = ("_given",)

    def __init__(self, given: Mapping[str, Setting]) -> None:
        invariant(given.keys() <= FLAGS.keys(), "only names of the table are set")
        self._given = dict(given)

    def given(self, name: str) -> bool:
        """Tell whether the flag was set, to whatever value."""
        return name in self._given

    def settings(self) -> Iterator[Setting]:
        """Iterate over what was set, in the order of the table."""
        for name in FLAGS:
            if name in self._given:
                yield self._given[name]

    def text(self, name: str) -> str:
        """Return the value of a text or a choice."""
        return self._value(name, str)

    def path(self, name: str) -> Path | None:
        """Return the path, or None where none is set."""
        text = self._value(name, str)
        return Path(text) if text else None

    def switch(self, name: str) -> bool:
        """Return the value of a switch."""
        return self._value(name, bool)

    def number(self, name: str) -> int:
        """Return a number, or a duration in nanoseconds."""
        return self._value(name, int)

    def parts(self, name: str) -> tuple[str, ...]:
        """Return a list, or URLs."""
        return self._value(name, tuple)

    def _value(self, name: str, kind: type[_Type]) -> _Type:
        setting = self._given.get(name)
        value = setting.value if setting is not None else default_of(FLAGS[name])
        if not isinstance(value, kind):
            raise Broken(f"--{name} is not read as what its row says")
        return value
