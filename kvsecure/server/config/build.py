"""From settings to the configuration: what flags mean together.

Owns: the rules between flags, in etcd's words where etcd has them.
Never: opens a file, resolves a name, or looks at the data directory.
Follows: etcd's validation of its configuration; differs where the table says so.
"""

import re
from pathlib import Path
from typing import Final

from kvsecure.model import limits
from kvsecure.server.config.build_cluster import build_cluster, check_member_name
from kvsecure.server.config.build_listen import build_listen
from kvsecure.server.config.build_peers import build_peers
from kvsecure.server.config.build_security import build_security
from kvsecure.server.config.checks import check_table, shown
from kvsecure.server.config.durations import HOUR_NS, parse_duration
from kvsecure.server.config.identity import member_id_of
from kvsecure.server.config.member_flags import QUOTA_BYTES_ADVISED, REQUEST_BYTES_ADVISED
from kvsecure.server.config.model import (
    Compaction,
    Compat,
    KeepPeriod,
    KeepRevisions,
    Limits,
    LogFormat,
    Logging,
    LogLevel,
    Member,
    MetricsDetail,
    ServerConfig,
)
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings

__all__ = ["build"]

_RETENTION_NS_MAX: Final = 10 * 366 * 24 * HOUR_NS
_REVISIONS_MAX: Final = (1 << 63) - 1
_HOURS: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
# More than that and one client can hold more of the server than anybody needs.
_STREAMS_ADVISED: Final = 16 * limits.STREAMS_PER_CONNECTION_MAX


def build(settings: Settings, warnings: list[str]) -> ServerConfig:
    """Return the configuration, with the warnings so far and those found here.

    Raises:
        ConfigError: Something is refused, out of bounds, missing or contradictory.
    """
    warnings = [*warnings, *check_table(settings)]
    name = settings.text("name")
    check_member_name(name, "--name")
    cluster = build_cluster(settings, name)
    listen, advertised = build_listen(settings, warnings)
    peers = build_peers(settings, name, cluster, listen, warnings)
    compat = Compat(settings.text("compat"))
    if compat is Compat.ETCD:
        warnings.append("--compat etcd: this server is as permissive as etcd, which is weaker")
    security = build_security(settings, listen, compat, warnings)
    data_dir = settings.path("data-dir") if settings.given("data-dir") else None
    return ServerConfig(
        member=Member(
            name=name,
            member_id=member_id_of(dict(cluster.members)[name], cluster.token),
            data_dir=data_dir or Path(f"{name}.kvsecure"),
            advertise_client_urls=advertised,
        ),
        cluster=cluster,
        peers=peers,
        listen=listen,
        security=security,
        limits=_limits(settings, warnings),
        logging=_logging(settings),
        compat=compat,
        warnings=tuple(warnings),
        given=tuple((setting.flag.name, shown(setting)) for setting in settings.settings()),
    )


def _limits(settings: Settings, warnings: list[str]) -> Limits:
    quota_bytes = settings.number("quota-backend-bytes") or limits.QUOTA_BYTES_DEFAULT
    request_bytes_max = settings.number("max-request-bytes")
    streams_max = settings.number("max-concurrent-streams")
    if quota_bytes > QUOTA_BYTES_ADVISED:
        warnings.append(f"--quota-backend-bytes is above the advised {QUOTA_BYTES_ADVISED} bytes")
    if request_bytes_max > REQUEST_BYTES_ADVISED:
        warnings.append(f"--max-request-bytes is above the advised {REQUEST_BYTES_ADVISED} bytes")
    if streams_max > _STREAMS_ADVISED:
        warnings.append(
            f"--max-concurrent-streams is above the advised {_STREAMS_ADVISED}: one connection may "
            "hold that many streams"
        )
    return Limits(
        quota_bytes=quota_bytes,
        txn_ops_max=settings.number("max-txn-ops"),
        request_bytes_max=request_bytes_max,
        streams_per_connection_max=streams_max,
        connections_per_source_max=settings.number("max-connections-per-source"),
        connections_per_local_source_max=settings.number("max-connections-per-local-source"),
        compaction=_compaction(settings),
        watch_progress_interval_ns=settings.number("watch-progress-notify-interval"),
        slow_apply_ns=settings.number("warning-apply-duration"),
        keepalive_min_time_ns=settings.number("grpc-keepalive-min-time"),
        keepalive_interval_ns=settings.number("grpc-keepalive-interval"),
        keepalive_timeout_ns=settings.number("grpc-keepalive-timeout"),
        corrupt_check_ns=settings.number("corrupt-check-time"),
        corrupt_check_at_start=settings.switch("experimental-initial-corrupt-check")
        or "InitialCorruptCheck=true" in settings.parts("feature-gates"),
    )


def _compaction(settings: Settings) -> Compaction:
    mode = settings.text("auto-compaction-mode") or "periodic"
    text = settings.text("auto-compaction-retention") or "0"
    number = int(text) if _HOURS.fullmatch(text) else None
    if mode == "revision":
        # etcd also takes a duration here, and counts its nanoseconds.
        if number is None or number > _REVISIONS_MAX:
            raise ConfigError(
                "error parsing CompactionRetention: in revision mode it is a number of revisions"
            )
        return KeepRevisions(count=number) if number else None
    if mode != "periodic":
        raise ConfigError(f'unknown auto-compaction-mode "{mode}"')
    try:
        retention_ns = parse_duration(text) if number is None else number * HOUR_NS
    except ValueError as reason:
        raise ConfigError(f"error parsing CompactionRetention: {reason}") from None
    if not 0 <= retention_ns <= _RETENTION_NS_MAX:
        raise ConfigError("--auto-compaction-retention must be between 0 and 10 years")
    return KeepPeriod(retention_ns=retention_ns) if retention_ns else None


def _logging(settings: Settings) -> Logging:
    level = settings.text("log-level")
    outputs = ("stderr" if part == "default" else part for part in settings.parts("log-outputs"))
    return Logging(
        level=LogLevel.FATAL if level in {"dpanic", "panic"} else LogLevel(level),
        format=LogFormat(settings.text("log-format")),
        outputs=tuple(dict.fromkeys(outputs)) or ("stderr",),
        metrics=MetricsDetail(settings.text("metrics")),
    )
