"""The numbers of a member at one moment, gathered from where the work is done.

Owns: which count of which part becomes which metric.
Never: counts anything.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from kvsecure.api.methods import METHODS
from kvsecure.core.engine import Engine
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.model.versions import ETCD_CLUSTER_VERSION_SHORT, ETCD_VERSION
from kvsecure.security.feeds import Feeds
from kvsecure.security.gate import Gate
from kvsecure.server.calls import CallCounts
from kvsecure.server.credentials import Credentials
from kvsecure.server.health import HealthCounts
from kvsecure.server.peer_connection import ListenerStatistics
from kvsecure.server.peers import PeerLinks
from kvsecure.server.peers.counts import PeerCounts
from kvsecure.server.places import Refusals
from kvsecure.telemetry.log import statistics as log_statistics
from kvsecure.telemetry.snapshot import GrpcMethod, GrpcOutcome, PeerNumbers, Snapshot

__all__ = ["snapshot_of"]

_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_WATCH = "/etcdserverpb.Watch/Watch"


def snapshot_of(
    gate: Gate,
    feeds: Feeds,
    counts: Mapping[str, CallCounts],
    listeners: Iterable[ListenerStatistics],
    refusals: Refusals,
    health: HealthCounts,
    credentials: Credentials | None,
    links: PeerLinks,
) -> Snapshot:
    """Return the numbers of this moment."""
    engine = gate.engine
    node, state, disk = engine.replica.node, engine.state, engine.statistics
    default = state.accounts.tenant(DEFAULT_TENANT)
    listeners = tuple(listeners)

    def done(path: str) -> int:
        return counts[path].done

    snapshot = Snapshot(
        etcd_version=ETCD_VERSION,
        cluster_version=ETCD_CLUSTER_VERSION_SHORT,
        member_id=f"{gate.facts.member:x}",
        has_leader=engine.has_leader,
        is_leader=node.leader == node.member,
        proposals_committed=node.log.committed,
        proposals_applied=node.log.applied,
        proposals_pending=engine.pending_count,
        proposals_failed=disk.proposals_failed,
        slow_applies=disk.slow_applies,
        puts=done(_KV + "Put"),
        deletes=done(_KV + "DeleteRange"),
        txns=done(_KV + "Txn"),
        ranges=done(_KV + "Range") + done(_KV + "RangeStream"),
        keys=sum(len(space.index.live) for space in state.store.spaces()),
        current_revision=state.store.revision,
        compact_revision=state.store.compacted,
        db_bytes=disk.table_bytes,
        db_in_use_bytes=disk.table_bytes_in_use,
        quota_bytes=gate.facts.quota_bytes,
        wal_bytes=disk.log_bytes,
        wal_fsync=disk.syncs.view(),
        backend_commit=disk.commits.view(),
        loop_pauses=disk.pauses.view(),
        watch_streams=counts[_WATCH].open_count,
        watchers=len(feeds),
        slow_watchers=feeds.slow_count,
        events=state.hub.event_count,
        pending_events=feeds.pending_count,
        leases_granted=done(_LEASE + "LeaseGrant"),
        leases_revoked=done(_LEASE + "LeaseRevoke"),
        leases_renewed=gate.leases.renewed,
        leases_expired=gate.leases.expired,
        auth_revision=default.auth_revision if default else 0,
        audit_records=gate.audit.written_head.seq,
        audit_failures=gate.audit.failures,
        auth_failures=dict(gate.auth_failures),
        tls_handshake_failures=sum(each.handshake_failures for each in listeners),
        log_lines_lost=log_statistics().lost,
        client_sent_bytes=sum(each.sent_bytes for each in listeners),
        client_received_bytes=sum(each.received_bytes for each in listeners),
        grpc_started={_METHODS[path]: each.started for path, each in counts.items()},
        grpc_handled=dict(_handled(counts)),
        grpc_handling={
            _METHODS[path]: each.times.view()
            for path, each in counts.items()
            if each.times is not None
        },
    )
    snapshot = _with_cluster(_with_front(snapshot, refusals, health), engine, links)
    return snapshot if credentials is None else _with_credentials(snapshot, credentials)


def _with_front(snapshot: Snapshot, refusals: Refusals, health: HealthCounts) -> Snapshot:
    """Return the numbers with those of health and of connections."""
    return replace(
        snapshot,
        health_successes=health.successes,
        health_failures=health.failures,
        health_checks=dict(health.outcomes),
        health_passing=dict(health.passing),
        connections_refused={each.value: count for each, count in refusals.counts.items()},
    )


def _with_cluster(snapshot: Snapshot, engine: Engine, links: PeerLinks) -> Snapshot:
    """Return the numbers with those of several members."""
    return replace(
        snapshot,
        is_learner=engine.state.members.is_learner(engine.replica.node.member),
        leader_changes=engine.statistics.leader_changes,
        audit_trails_behind=engine.state.heads.missing_count,
        peers=dict(_peers(links)),
    )


def _with_credentials(snapshot: Snapshot, credentials: Credentials) -> Snapshot:
    """Return the numbers with those of TLS."""
    return replace(
        snapshot,
        tls_reloads=credentials.counts.reloads,
        tls_reload_failures=credentials.counts.failures,
        tls_connections_cut=dict(credentials.counts.cut),
        tls_certificate_expires_s=credentials.expires_s,
        tls_next_list_s=credentials.next_list_s,
    )


def _peers(links: PeerLinks) -> Iterator[tuple[str, PeerNumbers]]:
    known, active, counts = links.known, links.active, links.counts.peers
    for member in sorted(known | counts.keys()):
        numbers = counts.get(member) or PeerCounts()
        yield (
            f"{member:x}",
            PeerNumbers(
                is_known=member in known,
                is_active=member in active,
                disconnections=numbers.disconnections,
                sent_bytes=numbers.sent_bytes,
                received_bytes=numbers.received_bytes,
                sent_failures=numbers.sent_failures,
                received_failures=numbers.received_failures,
                round_trip=numbers.round_trip.view(),
                snapshots_sending=numbers.bulk_sending,
                snapshots_sent=numbers.bulk_sent,
                snapshot_send_failures=numbers.bulk_send_failures,
                snapshot_send=numbers.bulk_send.view(),
                snapshots_receiving=numbers.bulk_receiving,
                snapshots_received=numbers.bulk_received,
                snapshot_receive_failures=numbers.bulk_receive_failures,
                snapshot_receive=numbers.bulk_receive.view(),
            ),
        )


def _handled(counts: Mapping[str, CallCounts]) -> Iterator[tuple[GrpcOutcome, int]]:
    for path, each in counts.items():
        yield GrpcOutcome(_METHODS[path], 0), each.done
        for code, count in each.refused.items():
            yield GrpcOutcome(_METHODS[path], code), count


def _method(path: str) -> GrpcMethod:
    _, service, name = path.split("/")
    return GrpcMethod(service, name, METHODS[path].shape.value)


_METHODS = {path: _method(path) for path in METHODS}
