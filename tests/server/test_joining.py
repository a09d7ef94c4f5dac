"""What a member without a data directory makes of what the others tell."""

import contextlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.peers.lab import CLUSTER, CLUSTER_ID, Lab, Member, play
from support.processes import free_ports

from kvsecure.model.ids import MemberId
from kvsecure.proto import cluster_pb2
from kvsecure.server.config import ServerConfig, load
from kvsecure.server.joining import (
    KnownMember,
    ask_members,
    decode_members,
    encode_members,
    join,
    refuse_second_founding,
)
from kvsecure.server.peer_setting import peer_credentials
from kvsecure.server.peers import PeerAddress
from kvsecure.storage.files import StorageError

_OWN = "http://127.0.0.1:12380"


def _configured(
    members: Iterable[tuple[str, str]], *arguments: str, own: str = _OWN
) -> ServerConfig:
    """Return the configuration of member m9 that is told of others: name and URL of each."""
    listed = ",".join(f"{name}={url}" for name, url in [("m9", own), *members])
    config = load(
        [
            "--kek-file=/run/kek",
            "--name=m9",
            f"--cluster-name={CLUSTER}",
            f"--initial-advertise-peer-urls={own}",
            f"--initial-cluster={listed}",
            "--initial-cluster-state=existing",
            *arguments,
        ],
        {},
    )
    assert isinstance(config, ServerConfig)
    return config


def _known(
    number: int, name: str, url: str, *, is_started: bool = True, is_learner: bool = False
) -> KnownMember:
    client_urls = ("https://10.0.0.1:2379",) if is_started else ()
    return KnownMember(MemberId(number), name, (url,), client_urls, is_learner)


def _added(
    number: int = 9, name: str = "", url: str = _OWN, *, is_started: bool = False
) -> KnownMember:
    return _known(number, name, url, is_started=is_started)


async def _one(lab: Lab) -> tuple[Member, ServerConfig]:
    """Start member 1, and configure the newcomer to join it."""
    first = await lab.member(1, is_plain=True)
    return first, _configured([("m1", first.url)])


async def _refused(lab: Lab, told: bytes) -> str:
    first, config = await _one(lab)
    first.told = told
    with pytest.raises(StorageError) as caught:
        await join(config, None)
    return str(caught.value)


def test_newcomer_learns_its_cluster_and_its_id(tmp_path: Path) -> None:
    """Its entry is the one with its peer URLs, and the others are its peers."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, config = await _one(lab)
            members = (_known(1, "m1", first.url), _added())
            first.told = encode_members(members)

            joined = await join(config, None)

            assert joined.cluster == CLUSTER_ID
            assert joined.member == 9
            assert joined.own == _added()
            assert joined.members == members
            assert joined.peers == {1: PeerAddress("m1", (first.url,))}

    play(scene())


def test_newcomer_with_certificates_learns_it_over_tls(tmp_path: Path) -> None:
    """Its flags name the files, and the answer comes from a certified member."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            lab.show("m9")
            own = _OWN.replace("http", "https")
            config = _configured(
                [("m1", first.url)],
                f"--peer-cert-file={tmp_path}/m9.crt",
                f"--peer-key-file={tmp_path}/m9.key",
                f"--peer-trusted-ca-file={lab.trusted}",
                f"--peer-crl-file={lab.lists}",
                own=own,
            )
            first.told = encode_members([_known(1, "m1", first.url), _added(url=own)])

            joined = await join(config, peer_credentials(config))

            assert joined.member == 9

    play(scene())


def test_newcomer_takes_the_answer_of_a_member_that_has_heard_of_it(tmp_path: Path) -> None:
    """One that lags behind, one that does not know and one that is away are no hindrance."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            tellers = [await lab.member(number, is_plain=True) for number in (1, 2, 3)]
            urls = [each.url for each in tellers]
            (nobody,) = free_ports(1)
            urls.append(f"http://127.0.0.1:{nobody}")
            old = [_known(number, f"m{number}", url) for number, url in enumerate(urls, 1)]
            behind, _, fresh = tellers
            behind.told, fresh.told = encode_members(old), encode_members([*old, _added()])
            config = _configured((f"m{number}", url) for number, url in enumerate(urls, 1))

            told = await ask_members(config, None)
            joined = await join(config, None)

            assert [each.name for each in told] == ["m1", "m3"]
            assert joined.member == 9

    play(scene())


def test_newcomer_waits_for_somebody_to_be_there(tmp_path: Path) -> None:
    """Members that are started at once need not be started in order; but it waits no longer."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, config = await _one(lab)
            asked = []

            def tell() -> bytes | None:
                asked.append(1)
                url = first.url
                return encode_members([_known(1, "m1", url), _added()]) if asked[2:] else None

            first.links._guests.members = tell

            with pytest.raises(StorageError) as caught:
                await join(config, None, patience_s=0)
            joined = await join(config, None)

            assert str(caught.value) == (
                "cannot fetch cluster info from peer urls: could not retrieve cluster information "
                "from the given URLs"
            )
            assert joined.member == 9
            assert len(asked) == 3

    play(scene())


def test_newcomer_that_is_told_of_nobody_has_nobody_to_ask() -> None:
    """It says so at once."""

    async def scene() -> None:
        with pytest.raises(StorageError, match="could not retrieve cluster information"):
            await join(_configured([]), None)

    play(scene())


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([], "{cluster} Members:[1=[{url}]]}}: member count is unequal"),
        (
            [_added(), _known(3, "m3", "http://127.0.0.1:3")],
            (
                "{cluster} Members:[1=[{url}] 3=[http://127.0.0.1:3] 9=[http://127.0.0.1:12380]]}}:"
                " member count is unequal"
            ),
        ),
        (
            [_added(url="http://127.0.0.1:3")],
            (
                "{cluster} Members:[1=[{url}] 9=[http://127.0.0.1:3]]}}: PeerURLs: no match found "
                "for existing member (9, [http://127.0.0.1:3])"
            ),
        ),
        (
            [_added(name="m9", is_started=True)],
            (
                "member 9 has already been bootstrapped, and its data directory is not here: give "
                "the right --data-dir, or remove the member from the cluster and add it again"
            ),
        ),
        ([_added(name="m8")], "member 9 was added as m8, and this is m9"),
    ],
)
def test_newcomer_that_was_not_added_like_this_is_refused(
    tmp_path: Path, others: list[KnownMember], reason: str
) -> None:
    """In the words of etcd where it has them; and never twice under one id."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, config = await _one(lab)
            first.told = encode_members([_known(1, "m1", first.url), *others])

            with pytest.raises(StorageError) as caught:
                await join(config, None)

            cluster = f"error validating peerURLs {{ClusterID:{CLUSTER_ID:x}"
            assert str(caught.value) == reason.format(cluster=cluster, url=first.url)

    play(scene())


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"\xff", "it is no list of members"),
        (b"", "a cluster has 1 to 64 members"),
        (encode_members(map(_added, range(1, 66))), "1 to 64 members"),
        (encode_members([_added(1), _added(1, url="http://a:1")]), "two members are one"),
        (encode_members([_added(1), _added(2)]), "two members are one"),
        (encode_members([_added(0)]), "a member has no id"),
        (encode_members([_added(name="a" * 129)]), "no name that one can have"),
        (encode_members([_added(name="a\nb")]), "no name that one can have"),
        (encode_members([_added(url="x://y")]), "URL scheme must be"),
        (encode_members([_added()._replace(peer_urls=())]), "a member has no address"),
        (encode_members([_added()._replace(client_urls=("\x1b",))]), "none that one can have"),
    ],
)
def test_answer_that_is_no_list_of_members_is_refused(
    tmp_path: Path, told: bytes, reason: str
) -> None:
    """A member's word is bounded and checked like everybody's."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            text = await _refused(lab, told)

            assert text.startswith("cannot fetch cluster info from member m1: ")
            assert reason in text

    play(scene())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_of_members_or_refused(content: bytes) -> None:
    """There is one error."""
    with contextlib.suppress(ValueError):
        decode_members(content)


@given(
    st.lists(
        st.builds(
            cluster_pb2.Member,
            ID=st.integers(min_value=0, max_value=2**64 - 1),
            name=st.text(max_size=130),
            peerURLs=st.lists(st.one_of(st.text(max_size=20), st.just("http://a:1")), max_size=3),
            clientURLs=st.lists(st.text(max_size=20), max_size=2),
        ),
        max_size=3,
    )
)
def test_any_members_are_members_or_refused(members: list[cluster_pb2.Member]) -> None:
    """There is one error, and what is taken can be told on."""
    content = cluster_pb2.MemberListResponse(members=members).SerializeToString()

    with contextlib.suppress(ValueError):
        decoded = decode_members(content)
        assert decode_members(encode_members(decoded)) == decoded


def test_list_of_a_later_release_is_understood() -> None:
    """What it adds is skipped."""
    known = (_known(1, "m1", "http://a:1", is_learner=True), _added())

    # A field that there is not, of the list itself.
    assert decode_members(encode_members(known) + b"\x9a\x06\x03new") == known


@pytest.mark.parametrize(
    ("number", "is_started", "is_ours"),
    [(0, True, True), (0, False, True), (7, True, True), (0, True, False)],
    ids=["known as started", "known as not started", "not known", "another cluster"],
)
def test_cluster_is_not_founded_again_by_a_member_that_has_lost_its_directory(
    tmp_path: Path, number: int, *, is_started: bool, is_ours: bool
) -> None:
    """It has voted before, and does not know what for; everybody else may found it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, config = await _one(lab)
            own = number or config.member.member_id
            first.told = encode_members(
                [_known(1, "m1", first.url), _known(own, "m9", _OWN, is_started=is_started)]
            )
            if is_ours:
                # Member 1 was founded by the same flags.
                first.links._roster.own = type(first.own)(
                    trust_domain=CLUSTER,
                    cluster_id=config.cluster.cluster_id,
                    member_id=1,
                    name="m1",
                )

            if is_ours and is_started and not number:
                with pytest.raises(StorageError, match="has already been bootstrapped"):
                    await refuse_second_founding(config, None)
            else:
                await refuse_second_founding(config, None)

    play(scene())


def test_first_founding_is_not_held_up_by_members_that_are_not_there() -> None:
    """At a first start nobody is."""

    async def scene() -> None:
        (port,) = free_ports(1)

        await refuse_second_founding(_configured([("m1", f"http://127.0.0.1:{port}")]), None)

    play(scene())


def test_server_that_cannot_join_makes_no_data_directory(tmp_path: Path) -> None:
    """What it would be is not known: it says why, and leaves nothing behind."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kvsecure",
            "server",
            f"--kek-file={tmp_path}/kek",
            f"--data-dir={tmp_path}/data",
            "--initial-cluster-state=existing",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "cannot fetch cluster info from peer urls" in done.stderr
    assert not (tmp_path / "data").exists()
