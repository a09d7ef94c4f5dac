"""Metrics in Prometheus' text format, under etcd's names.

Owns: the names, types, labels and texts of every metric.
Never: keeps a number: each scrape asks for a snapshot, so that the hot path pays nothing.
Follows: etcd 3.5's metrics, types included, so that its alerts and dashboards work unchanged;
    differs: what belongs to Go or to bbolt is not there.
Keeps: no `_created` series; labels come from closed sets.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kvsecure.telemetry.histogram import HistogramView
from kvsecure.telemetry.peer_metrics import nameless_peer_totals, peer_metrics
from kvsecure.telemetry.snapshot import GrpcMethod, Snapshot

__all__ = ["CONTENT_TYPE", "MemberCollector", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# The names that Go's gRPC gives to the codes, by number; alerts are written against them.
_CODES: Final = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
_METHOD_LABELS: Final = ("grpc_service", "grpc_method", "grpc_type")


@final
class MemberCollector(Collector):
    """Asks for a snapshot at every scrape."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Return every metric of the member."""
        snapshot = self._snapshot()
        yield from _server(snapshot)
        yield from _store(snapshot)
        yield from _disk(snapshot)
        yield from _watches_and_leases(snapshot)
        yield from peer_metrics(snapshot.member_id, snapshot.peers)
        yield from _health(snapshot)
        yield from _security(snapshot)
        yield from _grpc(snapshot)


def render(snapshot: Snapshot) -> bytes:
    """Return what `/metrics` answers, with the process's own numbers."""
    registry = CollectorRegistry()
    registry.register(MemberCollector(lambda: snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry) + b"".join(_nameless_totals(snapshot))


def _server(s: Snapshot) -> Iterator[Metric]:
    yield _labelled("etcd_server_version", "Which version is running.", s.etcd_version)
    yield _labelled("etcd_cluster_version", "Which version the cluster has.", s.cluster_version)
    yield _labelled("etcd_server_id", "Member id in hexadecimal.", s.member_id)
    yield _gauge("etcd_server_has_leader", "Whether a leader is known.", s.has_leader)
    yield _gauge("etcd_server_is_leader", "Whether this member leads.", s.is_leader)
    yield _gauge("etcd_server_is_learner", "Whether this member is a learner.", s.is_learner)
    yield _counter(
        "etcd_server_leader_changes_seen_total", "Changes of the leader.", s.leader_changes
    )
    yield _gauge(
        "etcd_server_proposals_committed_total",
        "Index of the last committed entry.",
        s.proposals_committed,
    )
    yield _gauge(
        "etcd_server_proposals_applied_total",
        "Index of the last applied entry.",
        s.proposals_applied,
    )
    yield _gauge(
        "etcd_server_proposals_pending", "Proposals not yet committed.", s.proposals_pending
    )
    yield _counter("etcd_server_proposals_failed_total", "Failed proposals.", s.proposals_failed)
    yield _counter("etcd_server_slow_apply_total", "Entries slow to apply.", s.slow_applies)
    yield _gauge("etcd_server_quota_backend_bytes", "Bytes that may be stored.", s.quota_bytes)


def _store(s: Snapshot) -> Iterator[Metric]:
    yield _counter("etcd_mvcc_put_total", "Puts.", s.puts)
    yield _counter("etcd_mvcc_delete_total", "Deletes.", s.deletes)
    yield _counter("etcd_mvcc_txn_total", "Transactions.", s.txns)
    yield _counter("etcd_mvcc_range_total", "Ranges.", s.ranges)
    yield _gauge("etcd_debugging_mvcc_keys_total", "Keys.", s.keys)
    yield _gauge("etcd_debugging_mvcc_current_revision", "Current revision.", s.current_revision)
    yield _gauge(
        "etcd_debugging_mvcc_compact_revision", "Last compacted revision.", s.compact_revision
    )
    yield _gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes stored.", s.db_bytes)
    yield _gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes stored, without free space.",
        s.db_in_use_bytes,
    )


def _disk(s: Snapshot) -> Iterator[Metric]:
    yield _gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", s.wal_bytes)
    yield _histogram(
        "etcd_disk_wal_fsync_duration_seconds", "Time to make the log durable.", s.wal_fsync
    )
    yield _histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "Time to make the store durable.",
        s.backend_commit,
    )
    yield _histogram(
        "kvsecure_loop_pause_seconds",
        "How late a timer of 10 ms came: how long everybody waited for something.",
        s.loop_pauses,
    )


def _watches_and_leases(s: Snapshot) -> Iterator[Metric]:
    yield _gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", s.watch_streams)
    yield _gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", s.watchers)
    yield _gauge(
        "etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.", s.slow_watchers
    )
    yield _counter("etcd_debugging_mvcc_events_total", "Events sent.", s.events)
    yield _gauge(
        "etcd_debugging_mvcc_pending_events_total", "Events waiting to be sent.", s.pending_events
    )
    yield _counter("etcd_debugging_lease_granted_total", "Granted leases.", s.leases_granted)
    yield _counter("etcd_debugging_lease_revoked_total", "Revoked leases.", s.leases_revoked)
    yield _counter("etcd_debugging_lease_renewed_total", "Renewed leases.", s.leases_renewed)
    yield _counter("etcd_debugging_server_lease_expired_total", "Expired leases.", s.leases_expired)


def _health(s: Snapshot) -> Iterator[Metric]:
    passing = GaugeMetricFamily(
        "etcd_server_healthcheck", "How each check of health ended last.", labels=("type", "name")
    )
    for (page, check), passed in s.health_passing.items():
        passing.add_metric((page, check), passed)
    yield passing
    ended = CounterMetricFamily(
        "etcd_server_healthchecks", "Checks of health.", labels=("type", "name", "status")
    )
    for outcome, count in s.health_checks.items():
        ended.add_metric(outcome, count)
    yield ended


def _nameless_totals(s: Snapshot) -> Iterator[bytes]:
    """Yield etcd's counters whose names do not say so; the library would give them a new name."""
    for name, text, count in (
        ("etcd_server_health_success", "Times that /health was well.", s.health_successes),
        ("etcd_server_health_failures", "Times that /health was not well.", s.health_failures),
    ):
        yield f"# HELP {name} {text}\n# TYPE {name} counter\n{name} {count}.0\n".encode()
    yield from nameless_peer_totals(s.peers)


def _security(s: Snapshot) -> Iterator[Metric]:
    yield _gauge("etcd_debugging_auth_revision", "Revision of the accounts.", s.auth_revision)
    yield _counter("kvsecure_audit_records_total", "Audit records written.", s.audit_records)
    yield _counter(
        "kvsecure_audit_failures_total",
        "Audit records that failed to be written.",
        s.audit_failures,
    )
    yield _gauge(
        "kvsecure_audit_trails_behind",
        "Members whose audit trail lacks what they told the cluster of it.",
        s.audit_trails_behind,
    )
    failures = CounterMetricFamily(
        "kvsecure_auth_failures", "Refused authentications.", labels=("reason",)
    )
    for reason, count in s.auth_failures.items():
        failures.add_metric((reason,), count)
    yield failures
    refused = CounterMetricFamily(
        "kvsecure_connections_refused",
        "Connections that were not taken because there were too many.",
        labels=("bound",),
    )
    for bound, count in s.connections_refused.items():
        refused.add_metric((bound,), count)
    yield refused
    yield _counter(
        "kvsecure_tls_handshake_failures_total",
        "TLS handshakes that failed.",
        s.tls_handshake_failures,
    )
    yield from _credentials(s)
    yield _counter("kvsecure_log_lines_lost_total", "Log lines not written.", s.log_lines_lost)


def _credentials(s: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "kvsecure_tls_reloads_total", "Times that new TLS files were taken up.", s.tls_reloads
    )
    yield _counter(
        "kvsecure_tls_reload_failures_total",
        "Times that new TLS files could not be used.",
        s.tls_reload_failures,
    )
    cut = CounterMetricFamily(
        "kvsecure_tls_connections_cut",
        "Connections ended for what became of their certificate.",
        labels=("reason",),
    )
    for reason, count in s.tls_connections_cut.items():
        cut.add_metric((reason,), count)
    yield cut
    if s.tls_certificate_expires_s is not None:
        yield _gauge(
            "kvsecure_tls_certificate_expiry_timestamp_seconds",
            "When the server's certificate ends.",
            s.tls_certificate_expires_s,
        )
    if s.tls_next_list_s is not None:
        yield _gauge(
            "kvsecure_tls_revocation_list_next_update_timestamp_seconds",
            "When the first revocation list is overdue.",
            s.tls_next_list_s,
        )


def _grpc(s: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.", s.client_sent_bytes
    )
    yield _counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Bytes received from clients.",
        s.client_received_bytes,
    )
    yield _by_method("grpc_server_started_total", "Calls started.", s.grpc_started)
    handled = CounterMetricFamily(
        "grpc_server_handled", "Calls finished.", labels=(*_METHOD_LABELS, "grpc_code")
    )
    for (method, code), count in s.grpc_handled.items():
        handled.add_metric((*_labels(method), _CODES[code]), count)
    yield handled
    yield _by_method("grpc_server_msg_received_total", "Messages received.", s.grpc_received)
    yield _by_method("grpc_server_msg_sent_total", "Messages sent.", s.grpc_sent)
    if s.grpc_handling:
        times = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time of calls.", labels=_METHOD_LABELS
        )
        for grpc_method, view in s.grpc_handling.items():
            times.add_metric(_labels(grpc_method), view.cumulative(), view.sum_s)
        yield times


def _labels(method: GrpcMethod) -> tuple[str, str, str]:
    return method.service, method.method, method.shape


def _by_method(name: str, text: str, counts: Mapping[GrpcMethod, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=_METHOD_LABELS)
    for method, count in counts.items():
        family.add_metric(_labels(method), count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, value: str) -> Metric:
    """Return a gauge of one whose label says everything; the label is the name's end."""
    label = name.removeprefix("etcd_")
    family = GaugeMetricFamily(name, text, labels=(label,))
    family.add_metric((value,), 1)
    return family


def _histogram(name: str, text: str, view: HistogramView) -> Metric:
    return HistogramMetricFamily(name, text, buckets=view.cumulative(), sum_value=view.sum_s)
