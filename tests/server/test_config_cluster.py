"""This member and its cluster: of one, and of several."""

from pathlib import Path

import pytest
from server.command_line import configured, refused

from kvsecure.server.config.model import ClusterState


def test_cluster_of_one_is_taken_from_etcds_flags() -> None:
    """The harness's command line for one member gives etcd's ids."""
    config = configured(
        "--name=n0",
        "--listen-client-urls=http://localhost:20000",
        "--advertise-client-urls=http://localhost:20000",
        "--listen-peer-urls=https://localhost:20001",
        "--peer-cert-file=peer.crt",
        "--peer-key-file=peer.key",
        "--peer-trusted-ca-file=ca.crt",
        "--initial-advertise-peer-urls=https://localhost:20001",
        "--initial-cluster-token=new",
        "--data-dir=/data",
        "--snapshot-count=0",
        "--initial-cluster=n0=https://localhost:20001",
        "--initial-cluster-state=existing",
    )

    assert f"{config.member.member_id:x}" == "a8f3458387986d"
    assert f"{config.cluster.cluster_id:x}" == "34c21a2d427db393"
    assert config.cluster.members == (("n0", ("https://localhost:20001",)),)
    assert config.cluster.state is ClusterState.EXISTING
    assert config.member.data_dir == Path("/data")
    assert [warning.split(" has no effect")[0] for warning in config.warnings] == [
        "--snapshot-count",
    ]
    assert config.peers.listen_urls == ("https://localhost:20001",)
    assert config.peers.advertise_urls == ("https://localhost:20001",)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ("--initial-cluster=default=http://localhost:2380,b=http://localhost:2380",),
            (
                "initial cluster b=http://localhost:2380,default=http://localhost:2380 has "
                "duplicate url"
            ),
        ),
        (
            (
                "--initial-cluster=default=http://localhost:2380,"
                + ",".join(f"m{port}=http://localhost:{port}" for port in range(20_000, 20_064)),
            ),
            "--initial-cluster has 65 members, of 64 at most",
        ),
        (
            (f"--initial-cluster={','.join(['default=http://localhost:2380'] * 2)}",),
            (
                "initial cluster default=http://localhost:2380,default=http://localhost:2380 has "
                "duplicate url"
            ),
        ),
        (
            (
                "--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2381",
                "--initial-cluster=default=http://localhost:2380,b=http://localhost:2382",
            ),
            (
                "--initial-advertise-peer-urls has http://localhost:2381 but missing from "
                "--initial-cluster=b=http://localhost:2382,default=http://localhost:2380"
            ),
        ),
        (
            ("--initial-cluster=default=http://localhost:2380,b/c=http://localhost:2381",),
            (
                "error setting up initial cluster: a name in --initial-cluster must have 1 to 128 "
                "letters, digits, dots, dashes or underscores"
            ),
        ),
        (
            ("--initial-cluster=b=http://localhost:2380",),
            'couldn\'t find local name "default" in the initial cluster configuration',
        ),
        (
            ("--initial-cluster=default=http://localhost:2381",),
            (
                "--initial-cluster has default=http://localhost:2381 but missing from "
                "--initial-advertise-peer-urls=http://localhost:2380"
            ),
        ),
        (
            ("--initial-cluster=default",),
            "error setting up initial cluster: --initial-cluster is NAME=URL,...",
        ),
        (
            ("--initial-cluster=default=x://y",),
            (
                "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "
                "x://y"
            ),
        ),
        (
            ("--initial-advertise-peer-urls=",),
            "--initial-advertise-peer-urls must name at least one URL",
        ),
        (("--heartbeat-interval=0",), "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            ("--election-timeout=499",),
            (
                "--election-timeout[499ms] should be at least as 5 times as "
                "--heartbeat-interval[100ms]"
            ),
        ),
        (
            ("--election-timeout=50001",),
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            ("--name=a/b",),
            "--name must have 1 to 128 letters, digits, dots, dashes or underscores",
        ),
        (("--name=..",), "--name must have 1 to 128 letters, digits, dots, dashes or underscores"),
        (("--name=",), "--name must have 1 to 128 letters, digits, dots, dashes or underscores"),
        (
            ("--cluster-name=Prod",),
            "--cluster-name must have 1 to 63 lower-case letters, digits or inner dashes",
        ),
    ],
)
def test_cluster_that_cannot_be_is_refused(flags: tuple[str, ...], text: str) -> None:
    """Membership must fit this member, in etcd's words where it has them."""
    assert refused(*flags) == text


def _three(*arguments: str) -> tuple[str, ...]:
    return (
        "--name=m1",
        "--initial-advertise-peer-urls=http://127.0.0.1:12380",
        "--listen-peer-urls=http://127.0.0.1:12380",
        (
            "--initial-cluster=m2=http://127.0.0.1:22380,m1=http://127.0.0.1:12380,"
            "m3=http://127.0.0.1:32380,"
        ),
        *arguments,
    )


def test_cluster_of_three_is_the_same_for_each_of_them() -> None:
    """Ids are computed from all of them, in whatever order they are listed."""
    first = configured(*_three())
    second = configured(
        "--name=m2",
        "--initial-advertise-peer-urls=http://127.0.0.1:22380",
        (
            "--initial-cluster=m1=http://127.0.0.1:12380,m3=http://127.0.0.1:32380,"
            "m2=http://127.0.0.1:22380"
        ),
    )

    assert first.cluster == second.cluster
    assert [name for name, _ in first.cluster.members] == ["m1", "m2", "m3"]
    assert first.member.member_id != second.member.member_id


def test_strict_reconfiguration_is_on_unless_it_is_switched_off() -> None:
    """As in etcd."""
    assert configured().cluster.strict_reconfig_check
    assert not configured("--strict-reconfig-check=false").cluster.strict_reconfig_check
