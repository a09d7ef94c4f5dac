"""What the links and consensus are given, from flags and files."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from server.command_line import configured

from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.limits import UNFLUSHED_BYTES_MAX, WAL_SEGMENT_BYTES_MAX
from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.revoking import revocation_list
from kvsecure.pki.trust import TrustError
from kvsecure.server.config import ServerConfig
from kvsecure.server.peer_setting import (
    link_timing,
    peer_credentials,
    peer_identity,
    raft_settings,
    tick_s,
)
from kvsecure.server.peers import LinkTiming, PeerIdentity


def _with_certificate(
    directory: Path, name: str, profile: ProfileName = ProfileName.PEER, cluster: str = "kvsecure"
) -> tuple[Authority, ServerConfig]:
    authority = create_authority(directory / "authority", cluster)
    hosts = ("localhost",) if profile is ProfileName.SERVER else ()
    issued = authority.issue(profile, name, hosts=hosts)
    write_public(directory / "m.crt", issued.certificate_pem + issued.chain_pem)
    write_private(directory / "m.key", issued.private_key)
    write_public(directory / "ca.crt", authority.trust_pem)
    write_public(directory / "peers.crl", revocation_list(authority, timedelta(days=1)))
    return authority, configured(
        "--name=m1",
        f"--peer-cert-file={directory}/m.crt",
        f"--peer-key-file={directory}/m.key",
        f"--peer-trusted-ca-file={directory}/ca.crt",
        f"--peer-crl-file={directory}/peers.crl",
    )


def test_peer_credentials_are_the_member_s(tmp_path: Path) -> None:
    """With a member's certificate there is a context for either side, and its lists count."""
    _, config = _with_certificate(tmp_path, "m1")

    credentials = peer_credentials(config)

    assert credentials is not None
    assert credentials.dialing is not credentials.context
    assert credentials.next_list_s is not None


def test_peer_credentials_are_none_in_plaintext() -> None:
    """Without certificates members speak plaintext."""
    assert peer_credentials(configured()) is None


@pytest.mark.parametrize(
    ("name", "profile", "cluster", "reason"),
    [
        ("m2", ProfileName.PEER, "kvsecure", "node/m2, not of spiffe://kvsecure.kvsecure/node/m1"),
        ("m1", ProfileName.SERVER, "kvsecure", "is not a member's certificate"),
        ("m1", ProfileName.CLIENT, "kvsecure", "lacks serverAuth"),
        ("m1", ProfileName.PEER, "other", "it is of another cluster"),
    ],
)
def test_peer_credentials_of_somebody_else_are_refused(
    tmp_path: Path, name: str, profile: ProfileName, cluster: str, reason: str
) -> None:
    """Others would refuse them; it is better said at the start."""
    _, config = _with_certificate(tmp_path, name, profile, cluster)

    with pytest.raises(TrustError) as caught:
        peer_credentials(config)

    assert reason in str(caught.value)


def test_certificates_of_the_pki_command_are_a_member_s(tmp_path: Path) -> None:
    """What docs/clusters.md tells an operator to run is what a member takes."""

    def pki(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "kvsecure", "pki", *arguments],
            check=True,
            capture_output=True,
            timeout=60,
            env={**os.environ, "KVSECURE_HOME": str(tmp_path)},
        )

    pki("init", "--cluster", "prod")
    pki("issue", "peer", "m1", "--out", str(tmp_path / "m1"))
    config = configured(
        "--name=m1",
        "--cluster-name=prod",
        f"--peer-cert-file={tmp_path}/m1/m1.crt",
        f"--peer-key-file={tmp_path}/m1/m1.key",
        f"--peer-trusted-ca-file={tmp_path}/m1/ca.crt",
    )

    assert peer_credentials(config) is not None


def test_peer_identity_has_the_ids_of_the_data_directory() -> None:
    """Ids of the flags are those of a first start; name and trust domain are the flags'."""
    config = configured("--name=m1", "--cluster-name=prod")

    identity = peer_identity(config, ClusterId(7), MemberId(8))

    assert identity == PeerIdentity(trust_domain="prod", cluster_id=7, member_id=8, name="m1")


def test_pace_of_links_and_consensus_is_the_flags() -> None:
    """A tick is a heartbeat; an election takes as many whole ticks as fit."""
    peers = configured("--heartbeat-interval=150", "--election-timeout=1600").peers

    assert tick_s(peers) == 0.15
    assert link_timing(peers) == LinkTiming(heartbeat_s=0.15, election_s=1.6)
    assert raft_settings(peers) == Settings(election_ticks=10, heartbeat_ticks=1)


def test_consensus_takes_what_the_engine_takes_and_is_bounded() -> None:
    """The engine, which tells its clients why, says no first, whatever the last request is."""
    bytes_max = raft_settings(configured().peers).uncommitted_bytes_max

    # A request fits into a segment of the log.
    assert UNFLUSHED_BYTES_MAX + WAL_SEGMENT_BYTES_MAX < bytes_max <= 2 * UNFLUSHED_BYTES_MAX


@pytest.mark.parametrize(
    ("heartbeat", "election"), [("1", "5"), ("10000", "50000"), ("1", "50000")]
)
def test_pace_within_its_bounds_is_possible_for_consensus(heartbeat: str, election: str) -> None:
    """Whatever the flags allow, consensus takes."""
    peers = configured(f"--heartbeat-interval={heartbeat}", f"--election-timeout={election}").peers

    assert raft_settings(peers).election_ticks >= 5
