"""The first members by SRV records: which of them is this one, and what the others begin with."""

import asyncio
from pathlib import Path

import pytest
from server.command_line import configured
from server.peers.lab import CLUSTER, CLUSTER_ID, Lab, play
from support.names import NameServer

from kvsecure.model.ids import MemberId
from kvsecure.server.config import ServerConfig
from kvsecure.server.config.identity import cluster_id_of, member_id_of
from kvsecure.server.discovery.discovering import Discovered, discover
from kvsecure.server.discovery.failure import DiscoveryFailed
from kvsecure.server.joining import KnownMember, encode_members, join

_SECURE = "_etcd-server-ssl._tcp.example.test"
_PLAIN = "_etcd-server._tcp.example.test"
_TLS = ("--peer-cert-file=c", "--peer-key-file=k", "--peer-trusted-ca-file=ca")
_THREE = tuple(f"0 0 2380 m{number}.example.test." for number in (1, 2, 3))


def _config(own: str, *flags: str, name: str = "m1") -> ServerConfig:
    return configured(
        f"--name={name}",
        f"--initial-advertise-peer-urls={own}",
        "--listen-peer-urls=https://127.0.0.1:2380",
        "--discovery-srv=example.test",
        *_TLS,
        *flags,
    )


def _discovered(server: NameServer, config: ServerConfig) -> Discovered:
    return discover(config, resolver=server.resolver())


def _urls(*numbers: int) -> list[str]:
    return [f"https://m{number}.example.test:2380" for number in numbers]


def test_records_name_the_members() -> None:
    """This member is the record with its URL; the others are numbered, as in etcd."""
    with NameServer() as server:
        server.say(_SECURE, "SRV", *_THREE)

        config, _ = _discovered(server, _config(*_urls(2), name="m2"))

        # A name that is one of the URLs' own costs no further question.
        assert server.asked.total() == 2
    assert dict(config.cluster.members) == {
        "m2": tuple(_urls(2)),
        "0": tuple(_urls(1)),
        "1": tuple(_urls(3)),
    }
    ids = [member_id_of([url], "etcd-cluster") for url in _urls(1, 2, 3)]
    assert config.member.member_id == ids[1]
    assert config.cluster.cluster_id == cluster_id_of(ids)


def test_members_begin_with_the_same_by_records() -> None:
    """No member knows the others' names, so none begins with any: the state is the same for all."""
    with NameServer() as server:
        server.say(_SECURE, "SRV", *_THREE)

        founders = [
            _discovered(server, _config(*_urls(number), name=f"m{number}")).founders
            for number in (1, 2, 3)
        ]

    assert founders[0] == founders[1] == founders[2]
    assert sorted(each.peer_urls for each in founders[0]) == [(url,) for url in _urls(1, 2, 3)]
    assert {each.name for each in founders[0]} == {""}


def test_record_with_the_same_address_is_this_member() -> None:
    """A member that calls itself otherwise than DNS does is known by address and port."""
    with NameServer() as server:
        server.say(_SECURE, "SRV", *_THREE)
        for number in (1, 2, 3):
            server.say(f"m{number}.example.test", "A", f"10.0.0.{number}")

        config, _ = _discovered(server, _config("https://10.0.0.3:2380"))

    assert dict(config.cluster.members)["m1"] == tuple(_urls(3))
    assert config.member.member_id == member_id_of(_urls(3), "etcd-cluster")


def test_number_of_another_member_is_never_the_own_name() -> None:
    """A member that is called 0 keeps its name to itself."""
    with NameServer() as server:
        server.say(_SECURE, "SRV", *_THREE)

        config, _ = _discovered(server, _config(*_urls(1), name="0"))

    assert [name for name, _ in config.cluster.members] == ["0", "1", "2"]


def test_service_name_tells_clusters_of_a_domain_apart() -> None:
    """With --discovery-srv-name the records of that name count, and no others."""
    with NameServer() as server:
        server.say("_etcd-server-ssl-blue._tcp.example.test", "SRV", *_THREE)

        config, _ = _discovered(server, _config(*_urls(1), "--discovery-srv-name=blue"))

        assert set(server.asked) == {
            "_etcd-server-ssl-blue._tcp.example.test",
            "_etcd-server-blue._tcp.example.test",
        }
    assert len(config.cluster.members) == 3


@pytest.mark.parametrize(
    ("own", "records", "text"),
    [
        (_urls(1), {}, "error querying DNS SRV records: _etcd-server-ssl._tcp.example.test: there"),
        (_urls(4), {_SECURE: _THREE}, 'cannot find local etcd member "m1" in SRV records'),
        (
            _urls(1),
            {_PLAIN: _THREE},
            "has scheme mismatch with expected peer https://m1.example.test:2380",
        ),
        # Both services count, as in etcd; and members with certificates speak no plaintext.
        (
            _urls(1),
            {_SECURE: _THREE, _PLAIN: ("0 0 2380 m4.example.test.",)},
            "http://m4.example.test:2380 must be https",
        ),
        (
            _urls(1, 4),
            {_SECURE: _THREE},
            "has https://m4.example.test:2380 but missing from SRV records",
        ),
        (
            _urls(1),
            {_SECURE: [f"0 0 {port} m1.example.test." for port in range(2380, 2445)]},
            "65 records, of 64 at most",
        ),
    ],
)
def test_records_that_do_not_fit_are_refused(
    own: list[str], records: dict[str, list[str]], text: str
) -> None:
    """A member that is not in them, or not as it says of itself, does not start."""
    with NameServer() as server:
        for name, texts in records.items():
            server.say(name, "SRV", *texts)

        with pytest.raises(DiscoveryFailed) as caught:
            _discovered(server, _config(",".join(own)))

    assert text in str(caught.value)


def test_member_that_is_added_may_learn_of_the_others_by_records(tmp_path: Path) -> None:
    """With --initial-cluster-state existing the records stand for the list in flags."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1, is_plain=True)
            port = first.url.rpartition(":")[2]
            config = configured(
                "--name=m9",
                f"--cluster-name={CLUSTER}",
                "--initial-advertise-peer-urls=http://127.0.0.1:12380",
                "--initial-cluster-state=existing",
                "--discovery-srv=example.test",
            )
            with NameServer() as server:
                server.say(_PLAIN, "SRV", f"0 0 {port} localhost.", "0 0 12380 m9.example.test.")
                server.say("m9.example.test", "A", "127.0.0.1")
                found = await asyncio.to_thread(discover, config, resolver=server.resolver())
            own, other = "http://m9.example.test:12380", f"http://localhost:{port}"
            first.told = encode_members(
                [
                    KnownMember(MemberId(1), "m1", (other,), ("https://10.0.0.1:2379",), False),
                    KnownMember(MemberId(9), "", (own,), (), False),
                ]
            )

            joined = await join(found.config, None)

            assert (joined.cluster, joined.member) == (CLUSTER_ID, 9)

    play(scene())
