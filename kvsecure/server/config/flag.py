"""What a flag is: the columns of the table.

Owns: the vocabulary of the table: kinds, sections, what this release does with a flag.
Never: knows a particular flag, or reads a value.
Keeps: a number has bounds; what is not honoured says why; nothing is accepted in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from kvsecure.model.errors import invariant

__all__ = [
    "Bounds",
    "Flag",
    "Kind",
    "Section",
    "Status",
    "Value",
    "accepted",
    "honoured",
    "rejected",
]

# What a flag's value is once it is read: durations in nanoseconds, URLs and lists as tuples.
Value = str | int | bool | tuple[str, ...]


class Kind(Enum):
    """How a value is written; the value is the placeholder in the help."""

    TEXT = "TEXT"
    PATH = "FILE"
    CHOICE = "NAME"
    SWITCH = ""
    UNSIGNED = "N"
    INTEGER = "INT"
    DURATION = "DURATION"
    URLS = "URL,..."
    LIST = "A,B,..."


class Section(Enum):
    """Where a flag stands in the help."""

    MEMBER = "Member"
    CLUSTERING = "Clustering"
    SECURITY = "Security"
    AUTH = "Authentication"
    MONITORING = "Monitoring"
    LOGGING = "Logging"
    FEATURES = "Features"
    UNSAFE = "Unsafe"
    KVSECURE = "kvsecure's own"
    REMOVED = "Removed from etcd"


class Status(Enum):
    """What this release does with a flag that is set to anything but its default."""

    HONOURED = "honoured"
    ACCEPTED = "accepted, with a warning that it has no effect"
    REJECTED = "rejected"


@final
@dataclass(frozen=True, slots=True)
class Bounds:
    """The smallest and the largest value, both allowed; nanoseconds where it is a duration."""

    minimum: int
    maximum: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One row of the table.

    Attributes:
        name: As on the command line, without dashes.
        default: As an operator would write it; empty where there is none.
        help: What it does, for the operator; for a flag without effect, why it has none.
        choices: The values of a CHOICE.
        bounds: Present for every number and duration, unless setting it is an error anyway.
        prefix: What its environment variable begins with; empty where it has none.
    """

    name: str
    kind: Kind
    default: str
    help: str
    section: Section
    status: Status
    choices: tuple[str, ...]
    bounds: Bounds | None
    prefix: str

    @property
    def variable(self) -> str:
        """The name of its environment variable, or nothing."""
        return self.prefix and self.prefix + self.name.upper().replace("-", "_")


# Asking for help or for the version is a matter of the command line only.
_WITHOUT_VARIABLE: Final = frozenset({"help", "version"})
_COUNTED: Final = frozenset({Kind.UNSIGNED, Kind.INTEGER, Kind.DURATION})
_NOT_NEGATIVE: Final = Bounds(0, (1 << 63) - 1)


def honoured(
    section: Section,
    name: str,
    kind: Kind,
    default: str,
    text: str,
    *,
    choices: Sequence[str] = (),
    bounds: Bounds | None = None,
) -> Flag:
    """Return the row of a flag that does what it says."""
    invariant(kind not in _COUNTED or bounds is not None, f"--{name} is a number without bounds")
    invariant(bool(choices) == (kind is Kind.CHOICE), f"--{name}: choices belong to a choice")
    return Flag(
        name=name,
        kind=kind,
        default=default,
        help=text,
        section=section,
        status=Status.HONOURED,
        choices=tuple(choices),
        bounds=bounds,
        prefix=_prefix(section, name),
    )


def accepted(
    section: Section,
    name: str,
    kind: Kind,
    default: str,
    why: str,
    *,
    bounds: Bounds | None = None,
) -> Flag:
    """Return the row of a flag that is understood, and whose being set changes nothing here."""
    if bounds is None and kind in _COUNTED:
        bounds = _NOT_NEGATIVE
    return Flag(
        name=name,
        kind=kind,
        default=default,
        help=why,
        section=section,
        status=Status.ACCEPTED,
        choices=(),
        bounds=bounds,
        prefix=_prefix(section, name),
    )


def rejected(section: Section, name: str, kind: Kind, default: str, why: str) -> Flag:
    """Return the row of a flag that asks for what this release will not or cannot do."""
    return Flag(
        name=name,
        kind=kind,
        default=default,
        help=why,
        section=section,
        status=Status.REJECTED,
        choices=(),
        bounds=None,
        prefix=_prefix(section, name),
    )


def _prefix(section: Section, name: str) -> str:
    if name in _WITHOUT_VARIABLE:
        return ""
    return "KVSECURE_" if section is Section.KVSECURE else "ETCD_"
