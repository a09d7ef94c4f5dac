"""Metrics of what passes between members, under etcd's names.

Owns: the names, types, labels and texts of these.
Never: keeps a number.
Follows: etcd 3.5's rafthttp: what goes out says `To` whom, what comes in says `From` whom.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from kvsecure.telemetry.histogram import HistogramView
from kvsecure.telemetry.snapshot import PeerNumbers

__all__ = ["nameless_peer_totals", "peer_metrics"]

type_peers = Mapping[str, PeerNumbers]

_TO: Final = "To"
_FROM: Final = "From"


def peer_metrics(own: str, peers: type_peers) -> Iterator[Metric]:
    """Yield the metrics of a member's links; none where there is nobody.

    Args:
        own: The member's own id, as the ids of the others are.
        peers: The others, by their ids.
    """
    if not peers:
        return
    yield from _links(own, peers)
    yield _counted(
        "etcd_network_peer_sent_bytes_total",
        "Bytes sent to a member.",
        _TO,
        {peer: each.sent_bytes for peer, each in peers.items()},
    )
    yield _counted(
        "etcd_network_peer_received_bytes_total",
        "Bytes received from a member.",
        _FROM,
        {peer: each.received_bytes for peer, each in peers.items()},
    )
    yield _counted(
        "etcd_network_peer_sent_failures_total",
        "Messages that were not sent to a member.",
        _TO,
        {peer: each.sent_failures for peer, each in peers.items()},
    )
    yield _counted(
        "etcd_network_peer_received_failures_total",
        "Connections that ended for what a member sent.",
        _FROM,
        {peer: each.received_failures for peer, each in peers.items()},
    )
    yield _timed(
        "etcd_network_peer_round_trip_time_seconds",
        "Time to a member and back.",
        _TO,
        {peer: each.round_trip for peer, each in peers.items()},
    )
    yield from _snapshots(peers)


def nameless_peer_totals(peers: type_peers) -> Iterator[bytes]:
    """Yield etcd's counters whose names do not say so; the library would give them a new name."""
    if not peers:
        return
    for name, text, label, counts in (
        (
            "etcd_network_snapshot_send_success",
            "Snapshots that got to a member.",
            _TO,
            {peer: each.snapshots_sent for peer, each in peers.items()},
        ),
        (
            "etcd_network_snapshot_send_failures",
            "Snapshots that did not get to a member.",
            _TO,
            {peer: each.snapshot_send_failures for peer, each in peers.items()},
        ),
        (
            "etcd_network_snapshot_receive_success",
            "Snapshots that came from a member.",
            _FROM,
            {peer: each.snapshots_received for peer, each in peers.items()},
        ),
        (
            "etcd_network_snapshot_receive_failures",
            "Snapshots from a member that could not be taken.",
            _FROM,
            {peer: each.snapshot_receive_failures for peer, each in peers.items()},
        ),
    ):
        yield f"# HELP {name} {text}\n# TYPE {name} counter\n".encode()
        for peer, count in counts.items():
            yield f'{name}{{{label}="{peer}"}} {count}.0\n'.encode()


def _links(own: str, peers: type_peers) -> Iterator[Metric]:
    known = GaugeMetricFamily(
        "etcd_network_known_peers", "Whether a member is known.", labels=("Local", "Remote")
    )
    active = GaugeMetricFamily(
        "etcd_network_active_peers", "Whether a member is reached.", labels=("Local", "Remote")
    )
    disconnected = CounterMetricFamily(
        "etcd_network_disconnected_peers_total",
        "Times that a member could not be reached any more.",
        labels=("Local", "Remote"),
    )
    for name, peer in peers.items():
        known.add_metric((own, name), peer.is_known)
        active.add_metric((own, name), peer.is_active)
        disconnected.add_metric((own, name), peer.disconnections)
    yield from (known, active, disconnected)


def _snapshots(peers: type_peers) -> Iterator[Metric]:
    sending = GaugeMetricFamily(
        "etcd_network_snapshot_send_inflights_total",
        "Snapshots on their way to a member.",
        labels=(_TO,),
    )
    receiving = GaugeMetricFamily(
        "etcd_network_snapshot_receive_inflights_total",
        "Snapshots on their way from a member.",
        labels=(_FROM,),
    )
    for name, peer in peers.items():
        sending.add_metric((name,), peer.snapshots_sending)
        receiving.add_metric((name,), peer.snapshots_receiving)
    yield from (sending, receiving)
    yield _timed(
        "etcd_network_snapshot_send_total_duration_seconds",
        "Time to send a snapshot.",
        _TO,
        {peer: each.snapshot_send for peer, each in peers.items()},
    )
    yield _timed(
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Time to receive a snapshot.",
        _FROM,
        {peer: each.snapshot_receive for peer, each in peers.items()},
    )


def _counted(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for peer, count in counts.items():
        family.add_metric((peer,), count)
    return family


def _timed(name: str, text: str, label: str, views: Mapping[str, HistogramView]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for peer, view in views.items():
        family.add_metric((peer,), view.cumulative(), view.sum_s)
    return family
