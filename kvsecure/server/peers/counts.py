"""Counts: what passes over the links of a member, for whoever shows it.

Owns: the numbers, under the meaning that etcd's metrics of the same names have.
Never: decides anything.
"""

from typing import final

from kvsecure.telemetry.histogram import ROUND_TRIP_BUCKETS_S, TRANSFER_BUCKETS_S, Histogram

__all__ = ["LinkCounts", "PeerCounts"]


@final
class PeerCounts:
    """What has passed between us and one other member; plain counts.

    Attributes:
        sent_bytes: `etcd_network_peer_sent_bytes_total`, before TLS.
        received_bytes: `etcd_network_peer_received_bytes_total`, before TLS.
        sent_failures: `etcd_network_peer_sent_failures_total`: messages that were dropped.
        received_failures: `etcd_network_peer_received_failures_total`: connections that ended for
            what was received.
        round_trip: `etcd_network_peer_round_trip_time_seconds`.
        disconnections: `etcd_network_disconnected_peers_total`.
        sent_messages: Messages that were queued.
        received_messages: Messages that were handed on.
        bulk_sending: `etcd_network_snapshot_send_inflights_total`.
        bulk_sent: `etcd_network_snapshot_send_success`.
        bulk_send_failures: `etcd_network_snapshot_send_failures`.
        bulk_send: `etcd_network_snapshot_send_total_duration_seconds`.
        bulk_receiving: `etcd_network_snapshot_receive_inflights_total`.
        bulk_received: `etcd_network_snapshot_receive_success`.
        bulk_receive_failures: `etcd_network_snapshot_receive_failures`.
        bulk_receive: `etcd_network_snapshot_receive_total_duration_seconds`.
    """

    __slots__ = (
        "bulk_receive",
        "bulk_receive_failures",
        "bulk_received",
        "bulk_receiving",
        "bulk_send",
        "bulk_send_failures",
        "bulk_sending",
        "bulk_sent",
        "disconnections",
        "received_bytes",
        "received_failures",
        "received_messages",
        "round_trip",
        "sent_bytes",
        "sent_failures",
        "sent_messages",
    )

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.sent_failures = 0
        self.received_failures = 0
        self.round_trip = Histogram(ROUND_TRIP_BUCKETS_S)
        self.disconnections = 0
        self.sent_messages = 0
        self.received_messages = 0
        self.bulk_sending = 0
        self.bulk_sent = 0
        self.bulk_send_failures = 0
        self.bulk_send = Histogram(TRANSFER_BUCKETS_S)
        self.bulk_receiving = 0
        self.bulk_received = 0
        self.bulk_receive_failures = 0
        self.bulk_receive = Histogram(TRANSFER_BUCKETS_S)


@final
class LinkCounts:
    """All of a member's links.

    Attributes:
        peers: By member id; those that are gone stay.
        refused: Handshakes and hellos that were refused, by either side, by reason.
    """

    __slots__ = ("peers", "refused")

    def __init__(self) -> None:
        self.peers: dict[int, PeerCounts] = {}
        self.refused: dict[str, int] = {}

    def of(self, member: int) -> PeerCounts:
        """Return the counts of one member."""
        found = self.peers.get(member)
        if found is None:
            found = self.peers[member] = PeerCounts()
        return found

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
