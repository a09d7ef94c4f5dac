"""The server's log: one line per event, as etcd writes it, with nothing secret in it.

Owns: the shape of a line, in JSON and for people, and which lines are written.
Never: decides what is worth saying; never fails the caller.
Follows: etcd's keys (level, ts, caller, msg) and its time format, microseconds in UTC.
Keeps: every line passes the redaction; libraries that use `logging` write the same lines.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import PurePath
from typing import Any, Final, cast, final

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.typing import FilteringBoundLogger

from kvsecure.telemetry.redaction import redact
from kvsecure.telemetry.sink import Sink, SinkStatistics

__all__ = ["Format", "Level", "LogSettings", "log", "set_up", "statistics"]

_Event = MutableMapping[str, Any]

_MICROSECONDS_PER_S: Final = 1_000_000
# etcd's names for the levels; what structlog and logging call them stands on the left.
_LEVEL_NAMES: Final = {"warning": "warn", "exception": "error", "critical": "fatal"}
_TEXT_CHARACTERS_MAX: Final = 16_384
_FIRST: Final = frozenset({"level", "ts", "caller", "msg"})
# Where a line of another library comes from; it was not written where our code calls structlog.
_SOURCE: Final = "_source"
# structlog has an argument of its own that is called logger.
_NAME: Final = "_name"


class Level(IntEnum):
    """What is not worth a line."""

    DEBUG = logging.DEBUG
    INFO = logging.INFO
    WARN = logging.WARNING
    ERROR = logging.ERROR
    FATAL = logging.CRITICAL


class Format(IntEnum):
    """How a line looks."""

    JSON = 1
    CONSOLE = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What to write, how, and where.

    Attributes:
        outputs: `default` or `stderr`, `stdout`, or paths of files; at least one.
    """

    level: Level = Level.INFO
    format: Format = Format.JSON
    outputs: Sequence[str] = ("default",)


def log(name: str) -> FilteringBoundLogger:
    """Return the log of one part of the server; its lines carry the name as `logger`."""
    return cast("FilteringBoundLogger", structlog.get_logger(**{_NAME: name}))


def set_up(settings: LogSettings, *, now_ns: Callable[[], int] = time.time_ns) -> None:
    """Open the outputs and write all further lines to them; call it once, at start.

    Args:
        settings: What to write, how, and where.
        now_ns: The wall clock, in nanoseconds since 1970.

    Raises:
        OutputError: An output cannot be opened; the log is as it was before.
    """
    sink = Sink.open(settings.outputs)
    _current.replace(sink)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            CallsiteParameterAdder({CallsiteParameter.PATHNAME, CallsiteParameter.LINENO}),
            _line_of(now_ns),
            _json_text if settings.format is Format.JSON else _console_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=lambda *_: _Writer(sink),
        cache_logger_on_first_use=False,
    )
    _take_over_logging(settings.level)


def statistics() -> SinkStatistics:
    """Return how many lines were written and how many were lost since `set_up`."""
    return _current.sink.statistics()


@final
class _Current:
    """The open outputs of the process."""

    def __init__(self) -> None:
        self.sink = Sink(())

    def replace(self, sink: Sink) -> None:
        before, self.sink = self.sink, sink
        before.close()


_current: Final = _Current()


@final
class _Writer:
    """What structlog calls with the finished line, under the name of its level."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def _write(self, line: str) -> None:
        self._sink.write(line)

    debug = info = warning = warn = error = critical = fatal = exception = msg = _write


def _line_of(
    now_ns: Callable[[], int],
) -> Callable[[Any, str, _Event], Mapping[str, object]]:
    """Return the processor that puts etcd's four keys first and redacts the rest."""

    def line(_logger: object, _method: str, event: _Event) -> Mapping[str, object]:
        level = str(event.pop("level"))
        path, number = event.pop("pathname", "?"), event.pop("lineno", 0)
        path, number = event.pop(_SOURCE, (path, number))
        message = str(event.pop("event", ""))
        failure = _failure_of(event.pop("exc_info", None))
        name = event.pop(_NAME, None)
        fields = redact(event if name is None else {"logger": name, **event})
        if failure is not None:
            fields["error"] = f"{type(failure).__name__}: {failure}"[:_TEXT_CHARACTERS_MAX]
            fields["stacktrace"] = "".join(traceback.format_tb(failure.__traceback__))[
                -_TEXT_CHARACTERS_MAX:
            ]
        return {
            "level": _LEVEL_NAMES.get(level, level),
            "ts": _timestamp(now_ns()),
            "caller": f"{'/'.join(PurePath(path).parts[-2:])}:{number}",
            "msg": message[:_TEXT_CHARACTERS_MAX],
        } | {name if name not in _FIRST else f"{name}_": value for name, value in fields.items()}

    return line


def _failure_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        failure = exc_info[1]
        return failure if isinstance(failure, BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _timestamp(now_ns: int) -> str:
    seconds, microseconds = divmod(now_ns // 1_000, _MICROSECONDS_PER_S)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    # Go's layout .999999 leaves out the zeros at the end, and the point when nothing remains.
    fraction = f".{microseconds:06d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}Z"


def _json_text(_logger: object, _method: str, line: _Event) -> str:
    return json.dumps(line, separators=(",", ":"))


def _console_text(_logger: object, _method: str, line: _Event) -> str:
    """Return columns, as etcd's console format; nothing in it can move a terminal's cursor."""
    fields = {name: value for name, value in line.items() if name not in _FIRST}
    columns = [line["ts"], line["level"], line["caller"], json.dumps(line["msg"])[1:-1]]
    if fields:
        columns.append(json.dumps(fields))
    return "\t".join(columns)


class _FromLogging(logging.Handler):
    """Passes what libraries say through `logging` on to our log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as a line of ours."""
        level = Level.ERROR if record.levelno >= logging.ERROR else record.levelno
        try:
            message = record.getMessage()
        except (LookupError, TypeError, ValueError):
            # A library's format string does not fit its arguments; say what there is.
            message = str(record.msg)
        structlog.get_logger(**{_NAME: record.name}).log(
            level if level in set(Level) else Level.WARN,
            message,
            exc_info=record.exc_info,
            **{_SOURCE: (record.pathname, record.lineno)},
        )


def _take_over_logging(level: Level) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FromLogging)]:
        root.removeHandler(handler)
    root.addHandler(_FromLogging(level))
    # Libraries are not ours to explain: what is not at least a warning of theirs is noise.
    root.setLevel(max(level, Level.WARN))
