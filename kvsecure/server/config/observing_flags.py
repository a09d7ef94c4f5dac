"""The table's rows about looking at the server, and about its periodic work.

Owns: names, defaults, bounds and help of Monitoring, Logging, Features and Unsafe.
Never: reads a value.
Follows: etcd's flags of the same names; differs where the help says so.
"""

from typing import Final

from kvsecure.server.config.durations import HOUR_NS, MILLISECOND_NS
from kvsecure.server.config.flag import (
    Bounds,
    Flag,
    Kind,
    Section,
    accepted,
    honoured,
    rejected,
)

__all__ = ["NOT_COMPARED", "OBSERVING_FLAGS"]

_M: Final = Section.MONITORING
_L: Final = Section.LOGGING
_F: Final = Section.FEATURES
_U: Final = Section.UNSAFE

_NO_TRACES: Final = "traces are not exported in this release"
_NO_ROTATION: Final = (
    "log files are not rotated by the server and grow; rotate them from outside with a copy and a "
    "truncation"
)
NOT_COMPARED: Final = "members are compared at the interval of --corrupt-check-time alone"

OBSERVING_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(
        _M,
        "metrics",
        Kind.CHOICE,
        "basic",
        "extensive adds a histogram of every method's time.",
        choices=("basic", "extensive"),
    ),
    honoured(
        _M,
        "listen-metrics-urls",
        Kind.URLS,
        "",
        "Further listeners that serve metrics, health and version only; http is for loopback only.",
    ),
    accepted(_M, "enable-pprof", Kind.SWITCH, "false", "there are no profiling endpoints"),
    accepted(_M, "enable-distributed-tracing", Kind.SWITCH, "false", _NO_TRACES),
    accepted(_M, "distributed-tracing-address", Kind.TEXT, "localhost:4317", _NO_TRACES),
    accepted(_M, "distributed-tracing-service-name", Kind.TEXT, "etcd", _NO_TRACES),
    accepted(_M, "distributed-tracing-instance-id", Kind.TEXT, "", _NO_TRACES),
    accepted(_M, "distributed-tracing-sampling-rate", Kind.INTEGER, "0", _NO_TRACES),
    honoured(_L, "logger", Kind.CHOICE, "zap", "The only kind of log there is.", choices=("zap",)),
    honoured(
        _L,
        "log-outputs",
        Kind.LIST,
        "default",
        "default and stderr are standard error; also stdout, and files, which are made 0600.",
    ),
    honoured(
        _L,
        "log-level",
        Kind.CHOICE,
        "info",
        "What is not worth a line.",
        choices=("debug", "info", "warn", "error", "dpanic", "panic", "fatal"),
    ),
    honoured(
        _L,
        "log-format",
        Kind.CHOICE,
        "json",
        "One JSON object per line, or columns for people.",
        choices=("json", "console"),
    ),
    accepted(_L, "enable-log-rotation", Kind.SWITCH, "false", _NO_ROTATION),
    accepted(_L, "log-rotation-config-json", Kind.TEXT, "", _NO_ROTATION),
    accepted(
        _L,
        "warning-unary-request-duration",
        Kind.DURATION,
        "300ms",
        "slow requests are not logged; --warning-apply-duration logs slow writes",
    ),
    honoured(
        _F,
        "watch-progress-notify-interval",
        Kind.DURATION,
        "10m0s",
        "How often an idle watch that asked for it is told the revision.",
        bounds=Bounds(10 * MILLISECOND_NS, 24 * HOUR_NS),
    ),
    honoured(
        _F,
        "warning-apply-duration",
        Kind.DURATION,
        "100ms",
        "An applied entry that takes longer is logged.",
        bounds=Bounds(0, HOUR_NS),
    ),
    honoured(
        _F,
        "corrupt-check-time",
        Kind.DURATION,
        "0s",
        "How often everything stored is read and checked, and compared with what other members "
        "have; damage and differences raise the CORRUPT alarm. 0 never does.",
        bounds=Bounds(0, 365 * 24 * HOUR_NS),
    ),
    accepted(_F, "compact-hash-check-time", Kind.DURATION, "1m0s", NOT_COMPARED),
    accepted(
        _F, "compaction-batch-limit", Kind.INTEGER, "1000", "compaction sizes its own batches"
    ),
    accepted(
        _F,
        "compaction-sleep-interval",
        Kind.DURATION,
        "10ms",
        "compaction sizes its own batches",
    ),
    accepted(_F, "downgrade-check-time", Kind.DURATION, "5s", "there is no downgrade"),
    honoured(
        _U,
        "force-new-cluster",
        Kind.SWITCH,
        "false",
        "At this start, go on as the only member with all that this one has, and remove the others "
        "for good. For when a majority will never come back; take it away afterwards.",
    ),
    rejected(
        _U,
        "unsafe-no-fsync",
        Kind.SWITCH,
        "false",
        "a write that was acknowledged is on disk; there is no other mode",
    ),
)
