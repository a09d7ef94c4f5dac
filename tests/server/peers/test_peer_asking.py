"""Who is told who the members are, and who is believed about it."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server.peers.deaf import Deaf
from server.peers.lab import CLUSTER, CLUSTER_ID, Lab, Member, Stranger, play, until

from kvsecure.model.limits import PEER_MEMBERS_BYTES_MAX
from kvsecure.pki.authority import create_authority
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.trust import ServerTls
from kvsecure.server.credentials import Credentials
from kvsecure.server.peers import PeerAddress, Told, Unanswered, ask_member
from kvsecure.server.peers.framing import FRAME_HEAD, Kind, frame
from kvsecure.server.peers.hello import VERSIONS, Hello, Purpose, Refusal, Versions, Welcome

_HELLO_S = 5.0
_CONTENT = b"m" * 100_000


async def _teller(lab: Lab, *, is_plain: bool = False, told: bytes | None = _CONTENT) -> Member:
    """Start a member that knows who the members are, and reaches none of them."""
    first = await lab.member(1, is_plain=is_plain)
    first.links.set_peers({2: PeerAddress("m2", ())})
    first.told = told
    return first


def _credentials(lab: Lab, member: Member, name: str) -> Credentials | None:
    """Return a newcomer's certificate, where members have them."""
    if member.credentials is None:
        return None
    lab.show(name)
    own = member.own
    return Credentials(
        ServerTls(
            cert_file=lab.directory / f"{name}.crt",
            key_file=lab.directory / f"{name}.key",
            trusted_ca_file=lab.trusted,
            crl_file=lab.lists,
            member=type(own)(trust_domain=CLUSTER, cluster_id=0, member_id=0, name=name).certified,
        ),
        member.clock.now,
    )


async def _ask(lab: Lab, member: Member, url: str, name: str = "new", **more: float) -> Told:
    credentials = _credentials(lab, member, name)
    return await ask_member(url, name=name, trust_domain=CLUSTER, credentials=credentials, **more)


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("size_bytes", [0, 1, PEER_MEMBERS_BYTES_MAX])
def test_newcomer_with_a_certificate_of_the_cluster_is_told(
    tmp_path: Path, size_bytes: int, *, is_plain: bool
) -> None:
    """By a member that does not know it, with the ids that it has to know; then it is gone."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _teller(lab, is_plain=is_plain, told=bytes(size_bytes))

            told = await _ask(lab, first, first.url)

            assert told == Told(CLUSTER_ID, 1, "m1", bytes(size_bytes))
            await until(lambda: not first.links._setting.channels, "the end of it")
            assert first.refused == []
            assert first.notes == ["members-told"]
            assert first.links.known == {2}

    play(scene())


def test_question_leaves_the_links_of_members_alone(tmp_path: Path) -> None:
    """Even of the member whose name it has: what is asked has no seat."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first, second, third = await lab.three()
            first.told = _CONTENT

            await _ask(lab, first, first.url, "m2")

            assert first.links.active == {2, 3}
            assert second.links.active == {1, 3}
            assert sorted(first.changes) == [(2, True), (3, True)]
            assert third.links.send(1, b"x")
            await until(lambda: first.messages == [(3, b"x")], "a message")

    play(scene())


@pytest.mark.parametrize(
    ("profile", "name", "is_foreign"),
    [
        (ProfileName.CLIENT, "new", False),
        (ProfileName.SERVER, "new", False),
        (ProfileName.PEER, "new", True),
        (ProfileName.PEER, "other", False),
    ],
    ids=["user", "server", "another authority", "another name"],
)
def test_nobody_but_a_node_of_the_cluster_is_told(
    tmp_path: Path, profile: ProfileName, name: str, *, is_foreign: bool
) -> None:
    """In its own name; everybody else is refused, counted and recorded."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _teller(lab)
            other = create_authority(tmp_path / "other", CLUSTER) if is_foreign else None
            stranger = await lab.stranger(first, lab.issue(profile, name, other))

            stranger.say(Kind.HELLO, Stranger.question("new").encode())

            assert await stranger.end() in {None, Refusal.CERTIFICATE, Refusal.NAME}
            await until(lambda: first.refused, "the record")
            assert sum(first.links.counts.refused.values()) == 1

    play(scene())


def test_revoked_node_is_told_nothing(tmp_path: Path) -> None:
    """A question is heard by whoever may be a member, and a revoked one may not."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _teller(lab)
            credentials = _credentials(lab, first, "new")
            assert credentials is not None
            lab.revoke(credentials._in_force.serial)
            await until(lambda: "credentials-reloaded" in first.notes, "the new list")

            with pytest.raises(Unanswered):
                await ask_member(
                    first.url, name="new", trust_domain=CLUSTER, credentials=credentials
                )

            assert sum(first.links.counts.refused.values()) == 1

    play(scene())


@pytest.mark.parametrize(
    ("told", "refusal"),
    [(None, Refusal.UNREADY), (bytes(PEER_MEMBERS_BYTES_MAX + 1), Refusal.FAILED)],
)
def test_member_that_cannot_tell_says_so(
    tmp_path: Path, told: bytes | None, refusal: Refusal
) -> None:
    """One that does not know it yet; and no answer is longer than any that would be taken."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _teller(lab, told=told)

            with pytest.raises(Unanswered) as caught:
                await _ask(lab, first, first.url)

            assert str(caught.value) == f"refused by the peer: {refusal.words}"

    play(scene())


@pytest.mark.parametrize(
    "hello",
    [
        Hello(VERSIONS, Purpose.MEMBERS, CLUSTER_ID, 0, 0, "new"),
        Hello(VERSIONS, Purpose.MEMBERS, 0, 2, 0, "new"),
        Hello(VERSIONS, Purpose.MEMBERS, 0, 0, 1, "new"),
    ],
)
def test_question_has_no_ids(tmp_path: Path, hello: Hello) -> None:
    """Who knows them has nothing to ask."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _teller(lab)
            stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, "new"))

            stranger.say(Kind.HELLO, hello.encode())

            assert await stranger.end() is Refusal.MALFORMED

    play(scene())


def test_question_of_another_release_is_refused_or_understood(tmp_path: Path) -> None:
    """As every hello: by the range of versions in it."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await lab.member(1, versions=Versions(2, 3))
            first.told = _CONTENT
            credentials = _credentials(lab, first, "new")

            with pytest.raises(Unanswered, match=Refusal.VERSION.words):
                await ask_member(
                    first.url, name="new", trust_domain=CLUSTER, credentials=credentials
                )
            told = await ask_member(
                first.url,
                name="new",
                trust_domain=CLUSTER,
                credentials=credentials,
                versions=Versions(1, 2),
            )

            assert told.content == _CONTENT

    play(scene())


def test_newcomer_says_nothing_else_and_hangs_up(tmp_path: Path) -> None:
    """A message is not heard from it, and it is not waited for."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            first = await _teller(lab)
            strangers = []
            for name in ("new", "newer"):
                stranger = await lab.stranger(first, lab.issue(ProfileName.PEER, name))
                stranger.say(Kind.HELLO, Stranger.question(name).encode())
                assert [(await stranger.hear())[0] for _ in range(2)] == [
                    Kind.WELCOME,
                    Kind.MEMBERS,
                ]
                strangers.append(stranger)
            talking, staying = strangers

            talking.say(Kind.MESSAGE, b"believe me")
            assert await talking.end() is Refusal.MALFORMED
            first.pass_time(_HELLO_S + 0.2)
            assert await staying.end() is None

            assert first.messages == []
            assert first.links.counts.of(0).received_messages == 0

    play(scene())


# --- the newcomer's side ------------------------------------------------------------------------


async def _unanswered(lab: Lab, deaf: Deaf, near: Member) -> str:
    with pytest.raises(Unanswered) as caught:
        await _ask(lab, near, deaf.address.urls[0], answer_s_max=0.2)
    return str(caught.value)


@pytest.mark.parametrize(
    ("profile", "name", "welcome", "after", "reason"),
    [
        (ProfileName.PEER, "m2", Welcome(1, 1, 2, "m3"), b"", Refusal.NAME.words),
        (ProfileName.PEER, "m2", Welcome(9, 1, 2, "m2"), b"", Refusal.VERSION.words),
        (ProfileName.SERVER, "m2", None, b"", Refusal.CERTIFICATE.words),
        (ProfileName.CLIENT, "m2", None, b"", "CERTIFICATE_VERIFY_FAILED"),
        (ProfileName.PEER, "m2", None, b"", "no answer in time"),
        (ProfileName.PEER, "m2", None, frame(Kind.PONG, bytes(8)), Refusal.MALFORMED.words),
        (ProfileName.PEER, "m2", None, frame(Kind.HELLO, b"x"), Refusal.MALFORMED.words),
        (
            ProfileName.PEER,
            "m2",
            None,
            FRAME_HEAD.pack(PEER_MEMBERS_BYTES_MAX + 1, Kind.MEMBERS),
            Refusal.MALFORMED.words,
        ),
    ],
)
def test_newcomer_believes_a_node_of_the_cluster_alone(
    tmp_path: Path,
    profile: ProfileName,
    name: str,
    welcome: Welcome | None,
    after: bytes,
    reason: str,
) -> None:
    """Whatever else answers, in whatever way, is no answer, within a bounded time."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            near = await lab.member(1)
            deaf = await Deaf.start(
                lab, 2, near, name=name, profile=profile, welcome=welcome, after=after
            )

            assert (await _unanswered(lab, deaf, near)).startswith(reason)

    play(scene())


@pytest.mark.parametrize("is_plain", [False, True])
def test_newcomer_and_member_have_to_agree_on_certificates(
    tmp_path: Path, *, is_plain: bool
) -> None:
    """Plaintext is not spoken with a member that has them, nor TLS with one that has none."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            near = await lab.member(1, is_plain=is_plain)
            far = await _teller(lab, is_plain=not is_plain)

            for scheme in ("http", "https"):
                with pytest.raises(Unanswered):
                    await _ask(lab, near, f"{scheme}://127.0.0.1:{far.port}", answer_s_max=0.2)

    play(scene())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "unix://kv.sock", "x"])
def test_nobody_at_an_address_is_no_answer(tmp_path: Path, url: str) -> None:
    """Nor is an address that is none."""

    async def scene() -> None:
        async with Lab(tmp_path) as lab:
            near = await lab.member(1, is_plain=True)

            with pytest.raises(Unanswered):
                await _ask(lab, near, url)

    play(scene())


@settings(max_examples=40)
@given(
    after=st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.tuples(st.sampled_from(Kind), st.binary(max_size=60)).map(lambda each: frame(*each)),
        ),
        max_size=4,
    )
)
def test_any_bytes_are_an_answer_or_none(
    *, tmp_path_factory: pytest.TempPathFactory, after: list[bytes]
) -> None:
    """There is one error, and an answer is what was framed as one."""

    async def scene() -> None:
        async with Lab(tmp_path_factory.mktemp("fuzz")) as lab:
            near = await lab.member(1, is_plain=True)
            deaf = await Deaf.start(lab, 2, near, after=b"".join(after))

            told = None
            with contextlib.suppress(Unanswered):
                told = await _ask(lab, near, deaf.address.urls[0], answer_s_max=0.05)

            assert told is None or frame(Kind.MEMBERS, told.content) in b"".join(after)
            await asyncio.sleep(0)
            assert lab.ended == []

    play(scene())
