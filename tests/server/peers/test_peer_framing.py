"""Frames, hellos and the roster: any bytes are what they say, or one error."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.server.peers import PeerAddress, PeerIdentity
from kvsecure.server.peers.framing import FrameReader, Kind, Malformed, frame
from kvsecure.server.peers.hello import (
    Hello,
    Purpose,
    Refusal,
    Versions,
    Welcome,
    agree,
    refusal_of,
)
from kvsecure.server.peers.roster import Roster

_NUMBERS = st.integers(min_value=0, max_value=2**64 - 1)
_NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)
_VERSIONS = st.tuples(
    st.integers(min_value=0, max_value=65_535), st.integers(min_value=0, max_value=65_535)
).map(lambda pair: Versions(min(pair), max(pair)))
_FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=80)), max_size=12)


def _cut(content: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(content)) for place in places} | {0, len(content)})
    return [content[start:stop] for start, stop in pairwise(ends)]


@given(_FRAMES, st.lists(st.integers(min_value=0, max_value=1_200), max_size=20))
def test_frames_are_the_same_however_they_are_cut(
    frames: list[tuple[Kind, bytes]], places: list[int]
) -> None:
    """What was framed comes out, in order, wherever reads begin and end."""
    reader = FrameReader(80)

    found = []
    for piece in _cut(b"".join(frame(*each) for each in frames), places):
        found += reader.take(piece)

    assert found == frames


@given(st.binary(max_size=400), st.lists(st.integers(min_value=0, max_value=400), max_size=9))
def test_any_bytes_are_frames_or_malformed(content: bytes, places: list[int]) -> None:
    """There is one error, and no more is kept than one frame may have."""
    reader = FrameReader(64)

    try:
        for piece in _cut(content, places):
            for _, payload in reader.take(piece):
                assert len(payload) <= 64
            assert len(reader._held) < 64 + 5
    except Malformed:
        pass


def test_length_that_is_too_large_is_refused_by_its_first_bytes() -> None:
    """Nothing is kept of what has not come yet, however much was announced."""
    reader = FrameReader(1_000)

    assert reader.take((1_000).to_bytes(4, "big") + b"\x04") == []
    with pytest.raises(Malformed, match="longer"):
        FrameReader(1_000).take((1_001).to_bytes(4, "big") + b"\x04")


@given(_VERSIONS, st.sampled_from(Purpose), _NUMBERS, _NUMBERS, _NUMBERS, _NAMES, st.binary())
def test_hello_says_what_was_put_into_it(
    versions: Versions,
    purpose: Purpose,
    cluster: int,
    sender: int,
    recipient: int,
    name: str,
    later: bytes,
) -> None:
    """Whatever a later version adds behind it."""
    hello = Hello(versions, purpose, cluster, sender, recipient, name)

    assert Hello.decode(hello.encode() + later) == hello


@given(_NUMBERS, _NUMBERS, _NAMES, st.binary())
def test_welcome_says_what_was_put_into_it(
    cluster: int, member: int, name: str, later: bytes
) -> None:
    """Whatever a later version adds behind it."""
    welcome = Welcome(1, cluster, member, name)

    assert Welcome.decode(welcome.encode() + later) == welcome


@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda rest: b"kvsp" + rest)),
    st.sampled_from([Hello.decode, Welcome.decode, refusal_of]),
)
def test_any_payload_of_a_greeting_is_one_or_malformed(content: bytes, decode: object) -> None:
    """There is one error."""
    assert callable(decode)

    with suppress(Malformed):
        decode(content)


@given(_VERSIONS, _VERSIONS)
def test_version_that_is_agreed_on_is_the_highest_that_both_speak(
    own: Versions, theirs: Versions
) -> None:
    """Members of two releases get on as long as their ranges overlap."""
    both = set(range(own.lowest, own.highest + 1)) & set(range(theirs.lowest, theirs.highest + 1))

    assert agree(own, theirs) == (max(both) if both else None)


def test_refusal_that_a_later_version_has_is_understood_as_one() -> None:
    """A reason that is not known yet is a reason."""
    assert [refusal_of(bytes((each.code,))) for each in Refusal] == list(Refusal)
    assert refusal_of(b"\xff") is Refusal.OTHER


@pytest.mark.parametrize(
    ("member", "name", "certified", "doubt"),
    [
        (2, "m2", "m2", None),
        (2, "m2", None, None),
        (2, "m2", "m3", Refusal.NAME),
        (2, "m3", "m3", Refusal.NAME),
        (1, "m1", "m1", Refusal.STRANGER),
        (9, "m2", "m2", Refusal.STRANGER),
        (8, "m8", "m8", Refusal.REMOVED),
        # The one that was added and has not started.
        (4, "m4", "m4", None),
        (4, "m1", "m1", Refusal.NAME),
        (4, "m2", "m2", Refusal.NAME),
        (4, "m4", "m2", Refusal.NAME),
    ],
)
def test_member_is_the_one_that_its_certificate_names(
    member: int, name: str, certified: str | None, doubt: Refusal | None
) -> None:
    """One without a name yet is any node of the cluster that is no other member."""
    roster = Roster(PeerIdentity(trust_domain="c1", cluster_id=1, member_id=1, name="m1"))
    roster.set(
        {1: PeerAddress("m1", ()), 2: PeerAddress("m2", ()), 4: PeerAddress("", ())},
        frozenset({8, 1}),
    )

    assert roster.doubt(member, name, certified) is doubt
