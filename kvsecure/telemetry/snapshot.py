"""The numbers of a member at one moment, as the metrics need them.

Owns: the shape of that answer; the server fills it when somebody scrapes.
Never: counts anything; every number lives where the work is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, final

from kvsecure.telemetry.histogram import DISK_BUCKETS_S, PAUSE_BUCKETS_S, Histogram, HistogramView

__all__ = ["GrpcMethod", "GrpcOutcome", "HealthOutcome", "PeerNumbers", "Snapshot"]

_NO_DISK_TIMES = Histogram(DISK_BUCKETS_S).view()
_NO_PAUSES = Histogram(PAUSE_BUCKETS_S).view()


class GrpcMethod(NamedTuple):
    """One method that the server has; never a name that a stranger made up.

    Attributes:
        service: As in `etcdserverpb.KV`.
        shape: unary, client_stream, server_stream or bidi_stream.
    """

    service: str
    method: str
    shape: str


class GrpcOutcome(NamedTuple):
    """One way in which calls of a method end; the code is gRPC's number."""

    method: GrpcMethod
    code: int


class HealthOutcome(NamedTuple):
    """One way in which a check of health ends.

    Attributes:
        page: livez or readyz.
        check: Its name; never one that a stranger made up.
        status: success or error.
    """

    page: str
    check: str
    status: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PeerNumbers:
    """What has passed between this member and one other.

    Attributes:
        is_known: Whether there is a way to it; not any more once it is removed.
        is_active: Whether it can be reached.
        disconnections: How often it could not be reached any more.
        sent_bytes: Before TLS, as what was received.
        sent_failures: Messages that were dropped.
        received_failures: Connections that ended for what was received.
        snapshots_sending: Applied states on their way to it; the rest of them counts those that
            got there, those that did not, and how long they took.
    """

    is_known: bool
    is_active: bool
    disconnections: int
    sent_bytes: int
    received_bytes: int
    sent_failures: int
    received_failures: int
    round_trip: HistogramView
    snapshots_sending: int
    snapshots_sent: int
    snapshot_send_failures: int
    snapshot_send: HistogramView
    snapshots_receiving: int
    snapshots_received: int
    snapshot_receive_failures: int
    snapshot_receive: HistogramView


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One member at one moment; counters count since its process started.

    Attributes:
        etcd_version: The server's, as in `3.5.21`.
        cluster_version: Major and minor, as in `3.5`.
        member_id: In lower-case hexadecimal.
        proposals_committed: The index of the last committed entry, as etcd has it.
        proposals_applied: The index of the last applied entry.
        db_bytes: The size of everything stored.
        db_in_use_bytes: What of it is not free space.
        wal_bytes: Bytes written to the log.
        pending_events: Events waiting in the queues of watchers.
        peers: The other members there are and were, by their ids in lower-case hexadecimal.
        health_checks: How checks ended, over all time.
        health_passing: How each check ended last, by page and name.
        auth_failures: By reason, from a closed set.
        connections_refused: By the bound that they were beyond, from a closed set.
        tls_connections_cut: By reason, from a closed set.
        tls_certificate_expires_s: When the server's own certificate ends, in seconds since 1970;
            None without TLS.
        tls_next_list_s: When the first revocation list is overdue, in seconds since 1970; None
            where there is none.
        grpc_handled: Finished calls.
        grpc_handling: Times of calls, only when the metrics are extensive.
    """

    etcd_version: str
    cluster_version: str
    member_id: str

    has_leader: bool
    is_leader: bool
    is_learner: bool = False
    leader_changes: int = 0
    proposals_committed: int
    proposals_applied: int
    proposals_pending: int
    proposals_failed: int
    slow_applies: int = 0

    puts: int
    deletes: int
    txns: int
    ranges: int
    keys: int
    current_revision: int
    compact_revision: int
    db_bytes: int
    db_in_use_bytes: int
    quota_bytes: int

    wal_bytes: int = 0
    wal_fsync: HistogramView = _NO_DISK_TIMES
    backend_commit: HistogramView = _NO_DISK_TIMES
    loop_pauses: HistogramView = _NO_PAUSES

    watch_streams: int
    watchers: int
    slow_watchers: int
    events: int
    pending_events: int

    leases_granted: int
    leases_revoked: int
    leases_renewed: int
    leases_expired: int

    peers: Mapping[str, PeerNumbers] = field(default_factory=dict)

    health_successes: int = 0
    health_failures: int = 0
    health_checks: Mapping[HealthOutcome, int] = field(default_factory=dict)
    health_passing: Mapping[tuple[str, str], bool] = field(default_factory=dict)

    auth_revision: int
    audit_records: int
    audit_failures: int
    audit_trails_behind: int = 0
    auth_failures: Mapping[str, int] = field(default_factory=dict)
    connections_refused: Mapping[str, int] = field(default_factory=dict)
    tls_handshake_failures: int
    tls_reloads: int = 0
    tls_reload_failures: int = 0
    tls_connections_cut: Mapping[str, int] = field(default_factory=dict)
    tls_certificate_expires_s: float | None = None
    tls_next_list_s: float | None = None
    log_lines_lost: int = 0

    client_sent_bytes: int = 0
    client_received_bytes: int = 0
    grpc_started: Mapping[GrpcMethod, int] = field(default_factory=dict)
    grpc_handled: Mapping[GrpcOutcome, int] = field(default_factory=dict)
    grpc_received: Mapping[GrpcMethod, int] = field(default_factory=dict)
    grpc_sent: Mapping[GrpcMethod, int] = field(default_factory=dict)
    grpc_handling: Mapping[GrpcMethod, HistogramView] = field(default_factory=dict)
