"""Where the lines of the log go.

Owns: the outputs, opened once; a line is one write to each.
Never: stops the server because a line cannot be written: it counts the line as lost.
Keeps: a file of ours is 0600 before its first line, whatever the umask says.
"""

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, final

__all__ = ["OutputError", "Sink", "SinkStatistics"]

_STREAMS: Final = {"default": 2, "stderr": 2, "stdout": 1}
_OPEN: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY


@final
class OutputError(Exception):
    """A log output cannot be opened; the text names it and says why."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatistics:
    """What became of the lines.

    Attributes:
        lines: Lines given to the sink.
        lost: Writes that failed, counted once per output.
    """

    lines: int
    lost: int


@final
class Sink:
    """Some open outputs."""

    __slots__ = ("_descriptors", "_lines", "_lost")

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = tuple(descriptors)
        self._lines = 0
        self._lost = 0

    @classmethod
    def open(cls, outputs: Sequence[str]) -> Self:
        """Open the outputs: `default` and `stderr`, `stdout`, or paths of files to append to.

        Raises:
            OutputError: A file cannot be opened, or is no regular file of this user's.
        """
        descriptors: dict[int, None] = {}
        try:
            for output in dict.fromkeys(outputs):
                stream = _STREAMS.get(output)
                descriptors[_open(output) if stream is None else stream] = None
        except OutputError:
            cls(tuple(descriptors)).close()
            raise
        return cls(tuple(descriptors))

    def write(self, line: str) -> None:
        """Write one line to every output; the line end is added here."""
        self._lines += 1
        content = line.encode("utf-8", "backslashreplace") + b"\n"
        for descriptor in self._descriptors:
            _flush(descriptor)
            if not _write(descriptor, content):
                self._lost += 1

    def statistics(self) -> SinkStatistics:
        """Return how many lines there were, and how many writes failed."""
        return SinkStatistics(lines=self._lines, lost=self._lost)

    def close(self) -> None:
        """Close the files; standard output and standard error stay open."""
        for descriptor in self._descriptors:
            if descriptor not in _STREAMS.values():
                os.close(descriptor)
        self._descriptors = ()


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, _OPEN, 0o600)
    except (OSError, ValueError) as reason:
        text = reason.strerror if isinstance(reason, OSError) else str(reason)
        raise OutputError(f"cannot open the log file {path}: {text}") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        try:
            # One that was there before may be open to others.
            if stat.S_IMODE(status.st_mode) != 0o600:
                os.fchmod(descriptor, 0o600)
        except OSError as reason:
            os.close(descriptor)
            raise OutputError(f"cannot protect the log file {path}: {reason.strerror}") from None
    elif path != os.devnull:
        os.close(descriptor)
        raise OutputError(f"cannot use {path} as a log file: it is no regular file")
    return descriptor


def _flush(descriptor: int) -> None:
    # What Python still holds for the same stream was printed earlier and must stand earlier.
    stream = sys.stdout if descriptor == _STREAMS["stdout"] else None
    if stream is not None and not stream.closed:
        try:
            stream.flush()
        except (OSError, ValueError):
            # Whoever printed it finds out at exit; a log line is no place to fail for it.
            return


def _write(descriptor: int, content: bytes) -> bool:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        return False
    return True
