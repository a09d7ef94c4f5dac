"""Who may be the other end of a link, and what becomes of everybody else."""

import asyncio
import ssl
from pathlib import Path

import pytest
from server.peers.deaf import Deaf
from server.peers.lab import CLUSTER, CLUSTER_ID, Lab, Stranger, play, until

from kvsecure.pki.authority import create_authority
from kvsecure.pki.profiles import ProfileName
from kvsecure.server.identity import IdentityOf
from kvsecure.server.peers import PeerAddress
from kvsecure.server.peers.framing import Kind, frame
from kvsecure.server.peers.hello import VERSIONS, Hello, Purpose, Refusal, Versions, Welcome

_H = Stranger.hello


async def _turned_away(lab: Lab, hello: Hello | None, name: str = "m2") -> str:
    """Let somebody say hello to member 1 of 1 and 2; return the one reason that was recorded."""
    first = await lab.member(1)
    first.links.set_peers({2: PeerAddress("m2", ()), 3: PeerAddress("m3", ())})
    stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, name))
    stranger.say(Kind.HELLO, (hello or _H(first, 2, "m2")).encode())
    stranger.say(Kind.MESSAGE, b"believe me")
    refusal = await stranger.end()
    assert first.messages == []
    assert refusal is not None
    (reason,) = first.refused
    assert reason.startswith(refusal.words)
    assert first.links.counts.refused == {refusal.words: 1}
    return refusal.words


@pytest.mark.parametrize(
    ("certified", "hello", "refusal"),
    [
        ("m2", (VERSIONS, 1, CLUSTER_ID, 3, 1, "m3"), Refusal.NAME),
        ("m2", (VERSIONS, 1, CLUSTER_ID, 3, 1, "m2"), Refusal.NAME),
        ("m3", (VERSIONS, 1, CLUSTER_ID, 2, 1, "m2"), Refusal.NAME),
        ("m2", (VERSIONS, 1, CLUSTER_ID, 9, 1, "m2"), Refusal.STRANGER),
        ("m1", (VERSIONS, 1, CLUSTER_ID, 1, 1, "m1"), Refusal.STRANGER),
        ("m2", (VERSIONS, 1, CLUSTER_ID + 1, 2, 1, "m2"), Refusal.CLUSTER),
        ("m2", (VERSIONS, 1, CLUSTER_ID, 2, 3, "m2"), Refusal.RECIPIENT),
        ("m2", (Versions(7, 9), 1, CLUSTER_ID, 2, 1, "m2"), Refusal.VERSION),
    ],
)
def test_hello_that_does_not_fit_its_certificate_or_cluster_is_refused(
    tmp_path: Path,
    certified: str,
    hello: tuple[Versions, int, int, int, int, str],
    refusal: Refusal,
) -> None:
    """It is told why, counted and recorded, and nothing that came with it is heard."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            said = Hello(hello[0], Purpose(hello[1]), *hello[2:])

            assert await _turned_away(lab, said, certified) == refusal.words

    play(scene())


@pytest.mark.parametrize(
    ("profile", "foreign", "reason"),
    [
        (ProfileName.CLIENT, None, "no certificate of a member: it is a user's"),
        (ProfileName.SERVER, None, "UNSUITABLE_CERTIFICATE_PURPOSE|unsuitable certificate purpose"),
        (ProfileName.PEER, CLUSTER, "unable to get|certificate signature failure|not trusted"),
        (ProfileName.PEER, "other", "unable to get|certificate signature failure"),
    ],
    ids=["user", "server", "another authority", "another cluster"],
)
def test_certificate_that_is_no_member_s_gets_no_word_in(
    tmp_path: Path, profile: ProfileName, foreign: str | None, reason: str
) -> None:
    """A user's, a server's, or one of another authority; it is counted and recorded."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            first.links.set_peers({2: PeerAddress("m2", ())})
            other = create_authority(tmp_path / "other", foreign) if foreign else None
            pair = lab.issue(profile, "m2", other)

            stranger = await lab.stranger(first, pair)
            stranger.say(Kind.HELLO, _H(first, 2, "m2").encode())
            await stranger.end()
            await until(lambda: first.refused, "the record")

            (found,) = first.refused
            assert any(part in found for part in reason.split("|"))
            assert sum(first.links.counts.refused.values()) == 1

    play(scene())


def test_trusted_authority_of_another_cluster_brings_no_members_in(tmp_path: Path) -> None:
    """Whoever trusts two authorities still knows whose cluster a certificate is of."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            other = create_authority(tmp_path / "other", "other")
            lab.trust(lab.authority, other)
            lab.publish(lab.authority, other)
            first = await lab.member(1)
            first.links.set_peers({2: PeerAddress("m2", ())})

            stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, "m2", other))
            stranger.say(Kind.HELLO, _H(first, 2, "m2").encode())

            assert await stranger.end() is Refusal.CERTIFICATE
            assert first.refused == ["no certificate of a member: it is of another cluster"]

    play(scene())


def test_nobody_without_a_certificate_gets_in(tmp_path: Path) -> None:
    """Nor with an old version of TLS, nor in plaintext."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            bare = await lab.stranger(first, None)
            await bare.end()
            await until(lambda: len(first.refused) == 1, "the first")
            old = lab.context(lab.issue(ProfileName.PEER, "m2"))
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", first.port, ssl=old, server_hostname="")
            await until(lambda: len(first.refused) == 2, "the second")
            _, writer = await asyncio.open_connection("127.0.0.1", first.port)
            lab.closers.append(writer.close)
            writer.write(frame(Kind.HELLO, _H(first, 2, "m2").encode()))
            await until(lambda: len(first.refused) == 3, "the third")

            assert "certificate" in first.refused[0].lower()
            assert first.refused[1] == "UNSUPPORTED_PROTOCOL"

    play(scene())


@pytest.mark.parametrize("alpn", [(), ("h2",)])
def test_another_protocol_is_not_spoken(tmp_path: Path, alpn: tuple[str, ...]) -> None:
    """A member's certificate alone does not make a connection one of members."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, "m2"), alpn)

            assert await stranger.end() is Refusal.PROTOCOL
            assert first.refused == ["another protocol"]

    play(scene())


@pytest.mark.parametrize(
    ("name", "profile", "welcome", "reason"),
    [
        ("m3", ProfileName.PEER, None, Refusal.NAME.words),
        ("m3", ProfileName.PEER, Welcome(1, CLUSTER_ID, 2, "m2"), Refusal.NAME.words),
        ("m2", ProfileName.PEER, Welcome(1, CLUSTER_ID, 3, "m2"), Refusal.RECIPIENT.words),
        ("m2", ProfileName.PEER, Welcome(1, CLUSTER_ID + 1, 2, "m2"), Refusal.CLUSTER.words),
        ("m2", ProfileName.PEER, Welcome(2, CLUSTER_ID, 2, "m2"), Refusal.VERSION.words),
        ("m2", ProfileName.SERVER, None, Refusal.CERTIFICATE.words),
        ("m2", ProfileName.CLIENT, None, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_whoever_is_dialled_has_to_be_the_member_that_was_meant(
    tmp_path: Path, name: str, profile: ProfileName, welcome: Welcome | None, reason: str
) -> None:
    """By certificate and by word; or nothing is sent, and it is recorded, once, however often."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1)
            deaf = await Deaf.start(lab, 2, first, name=name, profile=profile, welcome=welcome)

            first.links.set_peers({2: PeerAddress("m2", deaf.address.urls)})
            link = first.links._links[2]
            await until(lambda: link._failures > 2, "some attempts")

            assert not first.links.send(2, b"secret")
            assert first.links.counts.of(2).sent_messages == 0
            (found,) = first.refused
            assert found.startswith(reason)
            assert sum(first.links.counts.refused.values()) > 1

    play(scene())


def test_members_of_two_releases_speak_what_both_know(tmp_path: Path) -> None:
    """During a rolling upgrade ranges overlap; where they do not, nobody is misunderstood."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            old = await lab.member(1, versions=Versions(1, 2))
            new = await lab.member(2, versions=Versions(2, 3))
            newest = await lab.member(3, versions=Versions(3, 4))
            for member in (old, new, newest):
                member.knows(old, new, newest)

            await old.reaches(new)
            await newest.reaches(new)
            await new.reaches(old, newest)
            await until(lambda: (3, Refusal.VERSION) in old.refused_by, "the refusal")

            assert old.links.active == {2}
            assert newest.links.active == {2}

    play(scene())


def test_member_that_has_not_started_yet_may_have_any_name_that_is_free(tmp_path: Path) -> None:
    """It was added by its address alone, as etcd's members are."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second = await lab.member(1), await lab.member(2, "newcomer")
            second.knows(first)

            first.links.set_peers({2: PeerAddress("", (second.url,))})
            await first.reaches(second)
            await second.reaches(first)
            second.links.send(1, b"here")
            await until(lambda: first.messages, "its word")

            first.links.set_peers({2: PeerAddress("somebody", (second.url,))})
            await until(lambda: (2, False) in first.changes, "the cut")

    play(scene())


def test_own_certificate_has_to_be_the_member_s(tmp_path: Path) -> None:
    """Another member's is refused at the start, and never taken up later."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, _ = await lab.three()
            stolen = lab.authority.issue(ProfileName.PEER, "m3")
            assert first.credentials is not None
            serial = first.credentials._in_force.serial

            lab.pair(stolen, "m1")
            await until(lambda: "credentials-refused" in first.notes, "the refusal")

            assert first.credentials._in_force.serial == serial
            assert first.links.active == {2, 3}
            assert second.links.active == {1, 3}

    play(scene())


def test_member_s_certificate_logs_nobody_in_at_the_client_side(tmp_path: Path) -> None:
    """What is for links is refused where clients come: it names no user."""
    authority = create_authority(tmp_path / "authority", CLUSTER)
    member = authority.issue(ProfileName.PEER, "m2")
    user = authority.issue(ProfileName.CLIENT, "m2")
    read = IdentityOf(CLUSTER, by_common_name=True)

    def der(pem: bytes) -> bytes:
        return ssl.PEM_cert_to_DER_cert(pem.decode())

    assert read(der(member.certificate_pem)) is None
    assert read(der(user.certificate_pem)) is not None
