"""Ids as etcd computes them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import free_ports

from kvsecure.model.ids import MemberId
from kvsecure.server.config import ServerConfig, load
from kvsecure.server.config.identity import cluster_id_of, member_id_of


@pytest.mark.parametrize(
    ("url", "token", "member", "cluster"),
    [
        # etcd's own test of exact header bytes.
        ("https://localhost:20001", "new", "a8f3458387986d", "34c21a2d427db393"),
        # What etcd 3.5.1 logs when it is started without any flag.
        ("http://localhost:2380", "etcd-cluster", "8e9e05c52164694d", "cdf818194e3a8c32"),
    ],
)
def test_identity_is_the_one_that_etcd_computes(
    url: str, token: str, member: str, cluster: str
) -> None:
    """The first eight bytes of SHA-1 over URL and token, and over the member's id."""
    member_id = member_id_of([url], token)

    assert f"{member_id:x}" == member
    assert f"{cluster_id_of([member_id]):x}" == cluster


@given(st.permutations(["http://a:1", "http://b:2", "http://c:3"]))
def test_identity_ignores_the_order_of_urls(urls: list[str]) -> None:
    """A member is the same however its URLs are listed."""
    assert member_id_of(urls, "t") == member_id_of(sorted(urls), "t")


@given(st.permutations([MemberId(3), MemberId(1 << 63), MemberId(7)]))
def test_identity_ignores_the_order_of_members(members: list[MemberId]) -> None:
    """A cluster is the same however its members are listed."""
    assert cluster_id_of(members) == cluster_id_of(sorted(members))


def test_identity_of_three_members_is_the_one_that_a_running_etcd_has(tmp_path: Path) -> None:
    """The same flags give the same ids: of each member, and of the cluster."""
    ports = free_ports(4)
    urls = {f"m{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(ports[:3])}
    client = f"http://127.0.0.1:{ports[3]}"
    flags = [
        "--name=m1",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={urls['m1']}",
        f"--initial-advertise-peer-urls={urls['m1']}",
        f"--initial-cluster={','.join(f'{name}={url}' for name, url in urls.items())}",
        "--initial-cluster-token=of-three",
    ]
    config = load(["--kek-file=/run/kek", *flags], {})
    assert isinstance(config, ServerConfig)

    found: dict[str, str] = {}
    clusters = set()
    etcd = [str(Path(sys.executable).with_name("etcd")), f"--data-dir={tmp_path}/etcd", *flags]
    with subprocess.Popen(etcd, stderr=subprocess.PIPE, text=True, env={}) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("msg") == "added member":
                found[said["added-peer-peer-urls"][0]] = said["added-peer-id"]
                clusters.add((said["cluster-id"], said["local-member-id"]))
            if len(found) == 3:
                break
        process.kill()

    assert found == {url: f"{member_id_of([url], config.cluster.token):x}" for url in urls.values()}
    assert clusters == {(f"{config.cluster.cluster_id:x}", f"{config.member.member_id:x}")}
