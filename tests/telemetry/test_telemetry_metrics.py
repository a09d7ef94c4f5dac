"""The metrics page, as Prometheus reads it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kvsecure.telemetry.histogram import (
    DISK_BUCKETS_S,
    METHOD_BUCKETS_S,
    ROUND_TRIP_BUCKETS_S,
    TRANSFER_BUCKETS_S,
    Histogram,
)
from kvsecure.telemetry.metrics import render
from kvsecure.telemetry.snapshot import (
    GrpcMethod,
    GrpcOutcome,
    HealthOutcome,
    PeerNumbers,
    Snapshot,
)

PUT = GrpcMethod("etcdserverpb.KV", "Put", "unary")
WATCH = GrpcMethod("etcdserverpb.Watch", "Watch", "bidi_stream")
# What etcd 3.5.1 did not have yet.
SINCE_3_5_11 = {"etcd_server_healthcheck": "gauge", "etcd_server_healthchecks_total": "counter"}
# What etcd 3.5 has besides once there are several members, by its source.
OF_SEVERAL = {
    "etcd_network_active_peers": "gauge",
    "etcd_network_disconnected_peers_total": "counter",
    "etcd_network_known_peers": "gauge",
    "etcd_network_peer_received_bytes_total": "counter",
    "etcd_network_peer_received_failures_total": "counter",
    "etcd_network_peer_round_trip_time_seconds": "histogram",
    "etcd_network_peer_sent_bytes_total": "counter",
    "etcd_network_peer_sent_failures_total": "counter",
    "etcd_network_snapshot_receive_failures": "counter",
    "etcd_network_snapshot_receive_inflights_total": "gauge",
    "etcd_network_snapshot_receive_success": "counter",
    "etcd_network_snapshot_receive_total_duration_seconds": "histogram",
    "etcd_network_snapshot_send_failures": "counter",
    "etcd_network_snapshot_send_inflights_total": "gauge",
    "etcd_network_snapshot_send_success": "counter",
    "etcd_network_snapshot_send_total_duration_seconds": "histogram",
}
TYPES = Path(__file__).with_name("etcd-3.5.1-metric-types.txt")


def full_peer() -> PeerNumbers:
    """Return the numbers of another member, in which every number is another."""
    times = Histogram(ROUND_TRIP_BUCKETS_S)
    times.observe(0.0003)
    transfers = Histogram(TRANSFER_BUCKETS_S)
    transfers.observe(0.3)
    return PeerNumbers(
        is_known=True,
        is_active=False,
        disconnections=145,
        sent_bytes=146,
        received_bytes=147,
        sent_failures=148,
        received_failures=149,
        round_trip=times.view(),
        snapshots_sending=150,
        snapshots_sent=151,
        snapshot_send_failures=152,
        snapshot_send=transfers.view(),
        snapshots_receiving=153,
        snapshots_received=154,
        snapshot_receive_failures=155,
        snapshot_receive=transfers.view(),
    )


def full_snapshot() -> Snapshot:
    """Return a snapshot in which every number is another."""
    fsync = Histogram(DISK_BUCKETS_S)
    for duration_s in (0.0005, 0.001, 0.003, 60.0):
        fsync.observe(duration_s)
    handling = Histogram(METHOD_BUCKETS_S)
    handling.observe(1.0)
    return Snapshot(
        etcd_version="3.5.21",
        cluster_version="3.5",
        member_id="a8f3458387986d",
        has_leader=True,
        is_leader=True,
        leader_changes=101,
        proposals_committed=102,
        proposals_applied=103,
        proposals_pending=104,
        proposals_failed=105,
        slow_applies=106,
        puts=107,
        deletes=108,
        txns=109,
        ranges=110,
        keys=111,
        current_revision=112,
        compact_revision=113,
        db_bytes=114,
        db_in_use_bytes=115,
        quota_bytes=1 << 31,
        wal_bytes=117,
        wal_fsync=fsync.view(),
        watch_streams=118,
        watchers=119,
        slow_watchers=120,
        events=121,
        pending_events=122,
        leases_granted=123,
        leases_revoked=124,
        leases_renewed=125,
        leases_expired=126,
        peers={"b2": full_peer()},
        auth_revision=127,
        audit_records=128,
        audit_failures=129,
        audit_trails_behind=190,
        auth_failures={"password": 130, "token": 131},
        health_successes=141,
        health_failures=142,
        health_checks={HealthOutcome("readyz", "linearizable_read", "error"): 143},
        health_passing={("readyz", "linearizable_read"): False},
        connections_refused={"handshakes": 144},
        tls_handshake_failures=132,
        log_lines_lost=133,
        client_sent_bytes=134,
        client_received_bytes=135,
        grpc_started={PUT: 136},
        grpc_handled={GrpcOutcome(PUT, 0): 137, GrpcOutcome(WATCH, 1): 138},
        grpc_received={PUT: 139},
        grpc_sent={WATCH: 140},
        grpc_handling={PUT: handling.view()},
    )


@pytest.mark.parametrize(
    "line",
    [
        'etcd_server_version{server_version="3.5.21"} 1.0',
        'etcd_cluster_version{cluster_version="3.5"} 1.0',
        'etcd_server_id{server_id="a8f3458387986d"} 1.0',
        "etcd_server_has_leader 1.0",
        "etcd_server_is_leader 1.0",
        "etcd_server_leader_changes_seen_total 101.0",
        "etcd_server_proposals_committed_total 102.0",
        "etcd_server_proposals_applied_total 103.0",
        "etcd_server_proposals_pending 104.0",
        "etcd_server_proposals_failed_total 105.0",
        "etcd_mvcc_put_total 107.0",
        "etcd_mvcc_delete_total 108.0",
        "etcd_mvcc_txn_total 109.0",
        "etcd_mvcc_range_total 110.0",
        "etcd_debugging_mvcc_keys_total 111.0",
        "etcd_mvcc_db_total_size_in_bytes 114.0",
        "etcd_mvcc_db_total_size_in_use_in_bytes 115.0",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 2.0',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.004"} 3.0',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="8.192"} 3.0',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 4.0',
        "etcd_disk_wal_fsync_duration_seconds_count 4.0",
        "etcd_debugging_mvcc_watcher_total 119.0",
        "etcd_debugging_lease_granted_total 123.0",
        "etcd_debugging_server_lease_expired_total 126.0",
        'etcd_network_known_peers{Local="a8f3458387986d",Remote="b2"} 1.0',
        'etcd_network_active_peers{Local="a8f3458387986d",Remote="b2"} 0.0',
        'etcd_network_disconnected_peers_total{Local="a8f3458387986d",Remote="b2"} 145.0',
        'etcd_network_peer_sent_bytes_total{To="b2"} 146.0',
        'etcd_network_peer_received_bytes_total{From="b2"} 147.0',
        'etcd_network_peer_sent_failures_total{To="b2"} 148.0',
        'etcd_network_peer_received_failures_total{From="b2"} 149.0',
        'etcd_network_peer_round_trip_time_seconds_bucket{To="b2",le="0.0002"} 0.0',
        'etcd_network_peer_round_trip_time_seconds_bucket{To="b2",le="0.0004"} 1.0',
        'etcd_network_snapshot_send_success{To="b2"} 151.0',
        'etcd_network_snapshot_send_failures{To="b2"} 152.0',
        'etcd_network_snapshot_send_total_duration_seconds_count{To="b2"} 1.0',
        'etcd_network_snapshot_receive_inflights_total{From="b2"} 153.0',
        'etcd_network_snapshot_receive_success{From="b2"} 154.0',
        "kvsecure_audit_records_total 128.0",
        "kvsecure_audit_failures_total 129.0",
        "kvsecure_audit_trails_behind 190.0",
        'kvsecure_auth_failures_total{reason="password"} 130.0',
        "kvsecure_tls_handshake_failures_total 132.0",
        "etcd_server_health_success 141.0",
        "etcd_server_health_failures 142.0",
        (
            'etcd_server_healthchecks_total{name="linearizable_read",status="error",'
            'type="readyz"} 143.0'
        ),
        'etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0.0',
        'kvsecure_connections_refused_total{bound="handshakes"} 144.0',
        (
            'grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",'
            'grpc_type="unary"} 136.0'
        ),
        (
            'grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",'
            'grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 138.0'
        ),
        (
            'grpc_server_handling_seconds_bucket{grpc_method="Put",grpc_service="etcdserverpb.KV",'
            'grpc_type="unary",le="1"} 1.0'
        ),
    ],
)
def test_metrics_have_the_series_that_etcds_alerts_ask_for(line: str) -> None:
    """Names, labels in alphabetical order, and values, as etcd's own test matches them."""
    assert line in render(full_snapshot()).decode().splitlines()


def test_metrics_lose_none_of_the_snapshots_numbers() -> None:
    """Every number of the snapshot is on the page."""
    text = render(full_snapshot()).decode()

    assert [
        number for number in range(101, 156) if number != 116 and f" {number}.0\n" not in text
    ] == []


def test_metrics_have_etcds_types() -> None:
    """A metric that etcd has as well is a counter, a gauge or a histogram there too."""
    theirs = dict(
        line.split() for line in TYPES.read_text(encoding="utf-8").splitlines() if line[0] != "#"
    )
    ours = dict(
        line.removeprefix("# TYPE ").split()
        for line in render(full_snapshot()).decode().splitlines()
        if line.startswith("# TYPE ")
    )

    both = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}
    own = {name: ours[name] for name in ours.keys() - theirs.keys() if name[:9] != "kvsecure_"}
    assert own == SINCE_3_5_11 | OF_SEVERAL


def test_metrics_of_peers_are_not_there_without_any() -> None:
    """A member that is alone shows no series of others."""
    alone = render(replace(full_snapshot(), peers={})).decode()

    assert "etcd_network_peer" not in alone
    assert "etcd_network_snapshot" not in alone


def test_metrics_have_no_created_series() -> None:
    """Times of creation would be series that etcd does not have."""
    assert "_created" not in render(full_snapshot()).decode()


def test_metrics_tell_about_the_process() -> None:
    """Memory, processor time and open files are there under their usual names."""
    text = render(full_snapshot()).decode()

    names = {family.name for family in text_string_to_metric_families(text)}

    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names


def test_metrics_time_methods_only_when_asked() -> None:
    """Without histograms in the snapshot there are none on the page; everything else stays."""
    basic = replace(full_snapshot(), grpc_handling={})

    families = {family.name for family in text_string_to_metric_families(render(basic).decode())}

    assert "grpc_server_handling_seconds" not in families
    assert "grpc_server_handled" in families


@given(st.lists(st.floats(0, 100), max_size=50))
def test_histogram_counts_every_observation_once(durations_s: list[float]) -> None:
    """Each falls into the first bucket whose bound is not below it."""
    histogram = Histogram(DISK_BUCKETS_S)
    for duration_s in durations_s:
        histogram.observe(duration_s)

    view = histogram.view()

    assert sum(view.counts) == len(durations_s)
    assert view.sum_s == pytest.approx(sum(durations_s))
    for index, bound_s in enumerate(view.bounds_s):
        assert sum(view.counts[: index + 1]) == sum(value <= bound_s for value in durations_s)
