"""What a founder begins with: what its flags say, or what it has discovered and kept."""

import dataclasses
from pathlib import Path

import pytest
from server.command_line import configured

from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.server.beginning import beginning_of
from kvsecure.server.config import ServerConfig
from kvsecure.server.datadir import MemberIdentity
from kvsecure.server.joining import KnownMember, encode_members
from kvsecure.server.peers import PeerAddress
from kvsecure.storage.files import StorageError

_FOUNDERS = tuple(
    KnownMember(MemberId(number), "", (f"http://127.0.0.{number}:2380",), (), False)
    for number in (1, 2, 3)
)


def _config() -> ServerConfig:
    return configured(
        "--name=m1",
        "--discovery-srv=example.test",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
    )


def _identity(founders: bytes) -> MemberIdentity:
    return MemberIdentity(
        cluster=ClusterId(9),
        member=MemberId(1),
        token="etcd-cluster",
        trust_domain="kvsecure",
        founders=founders,
    )


def test_founder_begins_with_what_it_has_discovered() -> None:
    """Who restarts before there is a state begins with the same, without asking again."""
    kept = _identity(encode_members(_FOUNDERS)).encode()
    identity = MemberIdentity.decode(kept, Path("member.json"))

    beginning = beginning_of(_config(), identity)

    assert [(each.id, each.name) for each in beginning.founders] == [(1, ""), (2, ""), (3, "")]
    assert beginning.voters.voters == (1, 2, 3)
    assert beginning.peers == {each.member: PeerAddress("", each.peer_urls) for each in _FOUNDERS}


@pytest.mark.parametrize("founders", [b"\xff", encode_members(_FOUNDERS[:1]) * 2])
def test_founder_whose_memory_is_damaged_does_not_begin(founders: bytes) -> None:
    """What cannot be the founders founds nothing."""
    with pytest.raises(StorageError, match=r"member\.json is damaged"):
        beginning_of(_config(), dataclasses.replace(_identity(b""), founders=founders))
