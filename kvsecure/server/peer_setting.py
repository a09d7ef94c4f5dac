"""The peer setting: what the links and consensus need of the configuration.

Owns: from flags to certificates, identity, pace and numbers of a member among others.
Never: opens a connection; decides who the members are.
Keeps: links and consensus have one clock: a tick of both is --heartbeat-interval.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.pki.trust import ServerTls
from kvsecure.server.config.model import Peers, ServerConfig
from kvsecure.server.credentials import Credentials
from kvsecure.server.peers import LinkTiming, PeerIdentity

__all__ = ["link_timing", "peer_credentials", "peer_identity", "raft_settings", "tick_s"]

_MS: Final = 1_000.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


def peer_identity(config: ServerConfig, cluster: ClusterId, member: MemberId) -> PeerIdentity:
    """Return who this member is to the others.

    Args:
        config: Has its name, and the trust domain of certificates.
        cluster: From the data directory: flags have it for a first start only.
        member: From the data directory as well.
    """
    return PeerIdentity(
        trust_domain=config.cluster.name,
        cluster_id=cluster,
        member_id=member,
        name=config.member.name,
    )


def peer_credentials(
    config: ServerConfig, now: Callable[[], datetime] = _utc_now
) -> Credentials | None:
    """Return what this member shows to others and whom it trusts, or None for plaintext.

    Args:
        config: Names the files.
        now: The time of day in UTC.

    Raises:
        TrustError: The files cannot be used, or the certificate is not this member's.
    """
    tls = config.peers.tls
    if tls is None:
        return None
    # The ids are of no matter here: a certificate has the name and the trust domain.
    member = peer_identity(config, config.cluster.cluster_id, config.member.member_id).certified
    return Credentials(
        ServerTls(
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            trusted_ca_file=tls.trusted_ca_file,
            crl_file=tls.crl_file,
            member=member,
        ),
        now,
    )


def tick_s(peers: Peers) -> float:
    """Return the seconds between two ticks of consensus."""
    return peers.heartbeat_ms / _MS


def link_timing(peers: Peers) -> LinkTiming:
    """Return how patient links are."""
    return LinkTiming(heartbeat_s=tick_s(peers), election_s=peers.election_ms / _MS)


def raft_settings(peers: Peers) -> Settings:
    """Return the numbers of consensus, in ticks of `tick_s`: a heartbeat with each.

    An election timeout that is no whole number of ticks is cut to one, as etcd does.
    """
    return Settings(election_ticks=peers.election_ms // peers.heartbeat_ms, heartbeat_ticks=1)
