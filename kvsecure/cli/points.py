"""Points in the past, as people write them: a revision, a version's number, or a time.

    7    v3    2026-11-21T20:00:00Z    2h ago    -1d12h

Owns: reading them, and finding the revision that each stands for.
Never: guesses a time zone.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.texts import shown
from kvsecure.client.errors import ClientError
from kvsecure.model.errors import Failure

if TYPE_CHECKING:
    from kvsecure.client import Client
    from kvsecure.client.versions import Version

__all__ = [
    "Point",
    "read_duration",
    "read_point",
    "read_time",
    "revision_of",
    "time_text",
    "version_at",
]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(?:\d{1,9}[smhdw])+")
_PART: Final = re.compile(r"(\d+)([smhdw])")
_REVISION_MAX: Final = (1 << 63) - 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point in the past of a key; one of the three is given.

    Attributes:
        revision: The state at this revision.
        version: The version of this number.
        time_s: The state at the end of this second, since 1970.
    """

    revision: int | None = None
    version: int | None = None
    time_s: int | None = None


def read_duration(text: str) -> int:
    """Return the seconds of a duration like `30d` or `1h30m`.

    Raises:
        click.UsageError: It is none.
    """
    if not _DURATION.fullmatch(text):
        raise click.UsageError(f"{text!r} is no duration: write 90s, 15m, 12h, 30d, 2w or 1h30m")
    return sum(int(count) * _UNITS_S[unit] for count, unit in _PART.findall(text))


def read_time(text: str, now_s: float) -> int:
    """Return the second that a time is in, since 1970.

    Args:
        text: RFC 3339, or how long ago.
        now_s: The time now, since 1970.

    Raises:
        click.UsageError: It is no time, or lies in the future.
    """
    stripped = text.strip()
    ago = stripped.removesuffix("ago").rstrip() if stripped.endswith("ago") else None
    if stripped.startswith("-"):
        ago = stripped[1:]
    if ago is not None:
        return int(now_s) - read_duration(ago)
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        raise click.UsageError(
            f"{text!r} is no time: write 2026-11-21T20:00:00Z, 2026-11-21T20:00:00+01:00, "
            "'2h ago' or -2h"
        ) from None
    if moment.tzinfo is None:
        raise click.UsageError(f"{text!r} has no time zone: end it with Z or an offset like +01:00")
    found_s = int(moment.timestamp())
    if found_s > now_s:
        raise click.UsageError(f"{text!r} lies in the future")
    return found_s


def read_point(text: str, now_s: float) -> Point:
    """Return the point that REV, vN or TIME stands for.

    Raises:
        click.UsageError: It is none of them.
    """
    digits = text.removeprefix("v")
    if digits.isascii() and digits.isdigit() and 0 < int(digits) <= _REVISION_MAX:
        if text.startswith("v"):
            return Point(version=int(digits))
        return Point(revision=int(digits))
    return Point(time_s=read_time(text, now_s))


def revision_of(client: "Client", point: Point, key: bytes | None) -> int:
    """Return the revision that a point stands for.

    Args:
        client: Asks.
        point: The point.
        key: Whose versions are numbered; None where it is about several keys.

    Raises:
        CommandFailure: There is none.
        ClientError: The server refused or did not answer.
    """
    if point.revision is not None:
        return point.revision
    if point.version is not None:
        if key is None:
            raise click.UsageError("a version's number is about one key: give a revision or a time")
        version = client.versions.numbered(key, point.version)
        if version is None:
            raise CommandFailure(
                f"no version {point.version} of {shown(key)} is kept",
                hint=f"`kvsecure history {shown(key)}` shows those that are",
            )
        return version.mod_revision
    assert point.time_s is not None  # noqa: S101 - one of the three is given
    try:
        return client.versions.revision_at(point.time_s)
    except ClientError as error:
        if error.failure is Failure.TIME_UNKNOWN:
            raise CommandFailure(
                f"nothing is known of {time_text(point.time_s)}: it is before the first time that "
                "is kept"
            ) from None
        raise


def version_at(client: "Client", key: bytes, revision: int) -> "Version | None":
    """Return what a key was at a revision, None if nothing was written to it by then.

    Raises:
        CommandFailure: It was not kept.
        ClientError: The server refused or did not answer.
    """
    try:
        return client.versions.at(key, revision)
    except ClientError as error:
        if error.failure is Failure.COMPACTED:
            raise CommandFailure(
                f"what {shown(key)} was at revision {revision} is compacted, and was not kept",
                hint=f"`kvsecure history {shown(key)}` shows what is",
            ) from None
        raise


def time_text(time_s: int) -> str:
    """Return a second as people read it; `unknown` for 0."""
    if not time_s:
        return "unknown"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
