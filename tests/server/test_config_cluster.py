"""This member and its cluster of one."""

from pathlib import Path

import pytest

from kvsecure.server.config import ConfigError, ServerConfig, load
from kvsecure.server.config.model import ClusterState


def configured(*arguments: str) -> ServerConfig:
    """Return the configuration of a command line that names a key file."""
    config = load(["--kek-file=/run/kek", *arguments], {})
    assert isinstance(config, ServerConfig)
    return config


def refused(*arguments: str) -> str:
    """Return why a command line is refused with status 1."""
    with pytest.raises(ConfigError) as caught:
        configured(*arguments)
    assert caught.value.status == 1
    return str(caught.value)


def test_cluster_of_one_is_taken_from_etcds_flags() -> None:
    """The harness's command line for one member gives etcd's ids."""
    config = configured(
        "--name=n0",
        "--listen-client-urls=http://localhost:20000",
        "--advertise-client-urls=http://localhost:20000",
        "--listen-peer-urls=https://localhost:20001",
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
        "--listen-peer-urls",
    ]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ("--initial-cluster=default=http://localhost:2380,b=http://b:2380",),
            "--initial-cluster: clusters of more than one member are not in this release",
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
