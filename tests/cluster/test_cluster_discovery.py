"""Three members that no flag tells who the others are: real processes, real DNS, a real etcd."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cluster.members import RealCluster, RealMember, eventually, places_on_loopback
from support.names import NameServer
from support.processes import ProcessFailedError, wait_until
from support.servers import ROOT_PASSWORD, EtcdMember, KvsecureServer, Member

from kvsecure.pki.files import write_private
from kvsecure.proto import cluster_pb2, kv_pb2

_DOMAIN = "example.test"


def _member_names(cluster: RealCluster) -> dict[str, tuple[str, ...]]:
    """Return who the members are, once all of them have said their names."""
    found: dict[str, tuple[str, ...]] = {}

    def told() -> bool:
        request = cluster_pb2.MemberListRequest()
        answer = eventually(lambda: cluster.client("m1").cluster.MemberList(request))
        found.clear()
        found.update({each.name: tuple(each.peerURLs) for each in answer.members})
        return "" not in found

    wait_until(told, deadline_s=30.0, what="names")
    return found


def _wait_for_others(member: RealMember) -> None:
    """Return when a member waits for the others to register."""
    wait_until(
        lambda: b"waiting for other members" in member.process.log(),
        deadline_s=30.0,
        what="a member to wait",
    )


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    """A DNS server that members ask that are started with its prefix."""
    if not NameServer.programs_can_be_led():
        pytest.skip("a resolv.conf of one's own takes root, unshare and mount")
    with NameServer.for_programs() as server:
        yield server


def test_members_found_by_records_form_a_cluster(tmp_path: Path, name_server: NameServer) -> None:
    """Three founders are told a domain alone; a restart asks no more, not even after a crash."""
    places = [
        replace(place, prefix=name_server.prefix(tmp_path)) for place in places_on_loopback(3)
    ]
    for number, place in enumerate(places, 1):
        name_server.say(f"m{number}.{_DOMAIN}", "A", place.host)
    name_server.say(
        f"_etcd-server-ssl._tcp.{_DOMAIN}",
        "SRV",
        *(f"0 0 {place.peer_port} m{number}.{_DOMAIN}." for number, place in enumerate(places, 1)),
    )
    service = f"_etcd-server-ssl._tcp.{_DOMAIN}"
    flags = (f"--discovery-srv={_DOMAIN}",)

    with RealCluster(tmp_path / "trio", places, discovery=flags) as cluster:
        cluster.start()
        cluster.put("m1", b"k", b"v")

        assert cluster.value("m3", b"k") == b"v"
        assert _member_names(cluster) == {
            f"m{number}": (f"https://m{number}.{_DOMAIN}:{place.peer_port}",)
            for number, place in enumerate(places, 1)
        }

        asked = name_server.asked[service]
        for member in cluster.members:
            member.kill9()
        # Whatever the records say now, the members know each other.
        name_server.say(service, "SRV", "0 0 2380 elsewhere.test.")
        cluster.start()

        assert asked == 3
        assert name_server.asked[service] == asked
        assert eventually(lambda: cluster.value("m2", b"k")) == b"v"
        cluster.assert_alike()


@pytest.fixture(params=[EtcdMember, KvsecureServer], ids=lambda kind: kind.product)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Member]:
    """A store where members meet; with TLS, and a user."""
    with request.param(tmp_path / "registry") as member:
        yield member


def test_members_found_by_token_form_a_cluster(tmp_path: Path, registry: Member) -> None:
    """Three meet under a token, a fourth is one too many, and who restarts asks no more."""
    password = tmp_path / "password"
    write_private(password, ROOT_PASSWORD.encode())
    flags = (
        "--discovery-token=blue",
        f"--discovery-endpoints={registry.url}",
        f"--discovery-cacert={registry.authority.certificate}",
        "--discovery-user=root",
        f"--discovery-password-file={password}",
    )
    with registry.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=b"/_etcd/registry/blue/_config/size", value=b"3"))

    cluster = RealCluster(tmp_path / "quartet", places_on_loopback(4), discovery=flags)
    with contextlib.ExitStack() as stack:
        stack.push(cluster)
        first, *rest, late = cluster.members
        first.process.spawn()
        _wait_for_others(first)
        assert first.process.stop() == -signal.SIGTERM
        assert not first.data_directory.exists()
        first.process.spawn()
        _wait_for_others(first)
        for member in rest:
            member.process.spawn()
        for member in (first, *rest):
            member.process.wait_ready()
        late.process.spawn()

        assert late.process.wait_exit() == 1
        assert b"discovery: cluster is full" in late.process.log()
        assert not late.data_directory.exists()
        cluster.put("m1", b"k", b"v")
        assert cluster.value("m3", b"k") == b"v"
        assert _member_names(cluster) == {
            member.name: (member.place.peer_url,) for member in (first, *rest)
        }

        registry.stop()
        first.kill9()
        # The flags have done what they are for.
        line = cluster._line("m1", first.place, {}, "new")
        first.redirect([each for each in line if not each.startswith("--discovery")])
        first.process.start()

        assert eventually(lambda: cluster.value("m1", b"k")) == b"v"


def test_member_without_records_ends(tmp_path: Path, name_server: NameServer) -> None:
    """Where DNS names nobody, the member says so, ends, and makes no data directory."""
    (place,) = places_on_loopback(1)
    own = replace(place, prefix=name_server.prefix(tmp_path))
    flags = (f"--discovery-srv={_DOMAIN}",)

    cluster = RealCluster(tmp_path / "solo", [own], discovery=flags)
    with contextlib.ExitStack() as stack:
        stack.push(cluster)
        with pytest.raises(ProcessFailedError, match="error querying DNS SRV records"):
            cluster.start()

        assert cluster["m1"].process.wait_exit() == 1
        assert not cluster["m1"].data_directory.exists()
