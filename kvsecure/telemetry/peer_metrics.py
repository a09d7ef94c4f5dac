"""Metrics of what passes between members, under etcd's names.

Owns: the names, types, labels and texts of these.
Never: keeps a number.
Follows: etcd 3.5's rafthttp: what goes out says `To` whom, what comes in says `From` whom.
"""

from collections.abc import Callable, Iterator, Mapping
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

# What is counted or timed of each member: name, text, label, and where the number is.
_COUNTERS: Final[tuple[tuple[str, str, str, Callable[[PeerNumbers], int]], ...]] = (
    (
        "etcd_network_peer_sent_bytes_total",
        "Bytes sent to a member.",
        _TO,
        lambda peer: peer.sent_bytes,
    ),
    (
        "etcd_network_peer_received_bytes_total",
        "Bytes received from a member.",
        _FROM,
        lambda peer: peer.received_bytes,
    ),
    (
        "etcd_network_peer_sent_failures_total",
        "Messages that were not sent to a member.",
        _TO,
        lambda peer: peer.sent_failures,
    ),
    (
        "etcd_network_peer_received_failures_total",
        "Connections that ended for what a member sent.",
        _FROM,
        lambda peer: peer.received_failures,
    ),
)
_NAMELESS_COUNTERS: Final[tuple[tuple[str, str, str, Callable[[PeerNumbers], int]], ...]] = (
    (
        "etcd_network_snapshot_send_success",
        "Snapshots that got to a member.",
        _TO,
        lambda peer: peer.snapshots_sent,
    ),
    (
        "etcd_network_snapshot_send_failures",
        "Snapshots that did not get to a member.",
        _TO,
        lambda peer: peer.snapshot_send_failures,
    ),
    (
        "etcd_network_snapshot_receive_success",
        "Snapshots that came from a member.",
        _FROM,
        lambda peer: peer.snapshots_received,
    ),
    (
        "etcd_network_snapshot_receive_failures",
        "Snapshots from a member that could not be taken.",
        _FROM,
        lambda peer: peer.snapshot_receive_failures,
    ),
)
_TIMES: Final[tuple[tuple[str, str, str, Callable[[PeerNumbers], HistogramView]], ...]] = (
    (
        "etcd_network_peer_round_trip_time_seconds",
        "Time to a member and back.",
        _TO,
        lambda peer: peer.round_trip,
    ),
    (
        "etcd_network_snapshot_send_total_duration_seconds",
        "Time to send a snapshot.",
        _TO,
        lambda peer: peer.snapshot_send,
    ),
    (
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Time to receive a snapshot.",
        _FROM,
        lambda peer: peer.snapshot_receive,
    ),
)


def peer_metrics(own: str, peers: type_peers) -> Iterator[Metric]:
    """Yield the metrics of a member's links; none where there is nobody.

    Args:
        own: The member's own id, as the ids of the others are.
        peers: The others, by their ids.
    """
    if not peers:
        return
    yield from _links(own, peers)
    for name, text, label, count_of in _COUNTERS:
        counter = CounterMetricFamily(name, text, labels=(label,))
        for peer, numbers in peers.items():
            counter.add_metric((peer,), count_of(numbers))
        yield counter
    yield from _snapshots_under_way(peers)
    for name, text, label, view_of in _TIMES:
        times = HistogramMetricFamily(name, text, labels=(label,))
        for peer, numbers in peers.items():
            view = view_of(numbers)
            times.add_metric((peer,), view.cumulative(), view.sum_s)
        yield times


def nameless_peer_totals(peers: type_peers) -> Iterator[bytes]:
    """Yield etcd's counters whose names do not say so; the library would give them a new name."""
    if not peers:
        return
    for name, text, label, count_of in _NAMELESS_COUNTERS:
        yield f"# HELP {name} {text}\n# TYPE {name} counter\n".encode()
        for peer, numbers in peers.items():
            yield f'{name}{{{label}="{peer}"}} {count_of(numbers)}.0\n'.encode()


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


def _snapshots_under_way(peers: type_peers) -> Iterator[Metric]:
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
