"""Members of a cluster through the client: of one that runs, and more that are names."""

import pytest
from support.etcd import ScriptedServer
from support.servers import Member

from kvsecure.client import Client, ClientError
from kvsecure.model.errors import Failure
from kvsecure.proto import maintenance_pb2

__all__: list[str] = []

_MAINTENANCE = "/etcdserverpb.Maintenance"


@pytest.mark.parametrize("serializable", [False, True])
def test_members_are_listed(root: Client, member: Member, *, serializable: bool) -> None:
    """The only member is listed with the addresses that members and clients use."""
    (found,) = root.members.list(serializable=serializable)

    assert (found.name, found.client_urls) == ("m1", (member.url,))
    assert found.peer_urls == (f"http://127.0.0.1:{member.peer_port}",)
    assert not found.is_learner


def test_learner_comes_and_goes(root: Client) -> None:
    """A learner that was added is listed until it is removed, and is gone for good then."""
    before = root.members.list()

    added = root.members.add(["https://127.0.0.1:9"], learner=True)
    during = root.members.list()
    removed = root.members.remove(added.member.member_id)

    assert (added.member.name, added.member.is_learner) == ("", True)
    assert added.member.peer_urls == ("https://127.0.0.1:9",)
    assert (
        added.members
        == during
        == tuple(sorted((*before, added.member), key=lambda each: each.member_id))
    )
    assert removed.members == root.members.list() == before
    with pytest.raises(ClientError) as caught:
        root.members.remove(added.member.member_id)
    assert caught.value.failure is Failure.MEMBER_NOT_FOUND


def test_peer_urls_may_be_said_again(root: Client) -> None:
    """An update answers with all members, as they are then."""
    (own,) = root.members.list()

    assert root.members.update(own.member_id, own.peer_urls).members == (own,)


def test_what_cannot_be_is_refused(root: Client) -> None:
    """Each refusal is of its kind, and changes nothing."""
    (own,) = root.members.list()
    cases = (
        (lambda: root.members.add(["nowhere"]), Failure.MEMBER_BAD_URLS),
        (lambda: root.members.add([]), Failure.MEMBER_BAD_URLS),
        (lambda: root.members.remove(own.member_id), Failure.NOT_ENOUGH_STARTED),
        (lambda: root.members.move_leader(5), Failure.BAD_LEADER_TRANSFEREE),
        # etcd drops a change that comes right behind another one: this is the only one.
        (lambda: root.members.add(own.peer_urls), Failure.PEER_URL_EXISTS),
    )

    for act, failure in cases:
        with pytest.raises(ClientError) as caught:
            act()
        assert caught.value.failure is failure

    assert root.members.list() == (own,)


def test_leader_is_asked_to_hand_over(root: Client) -> None:
    """Whoever led is told; handing over to whoever leads does nothing."""
    (own,) = root.members.list()

    assert root.members.move_leader(own.member_id) == own.member_id


def test_nobody_else_is_asked_to_hand_over(scripted: ScriptedServer) -> None:
    """An endpoint that is not the leader's is left alone."""
    status = maintenance_pb2.StatusResponse(leader=2)
    status.header.member_id = 1
    scripted.script(f"{_MAINTENANCE}/Status", status)

    with Client.open(scripted.endpoint) as client:
        assert client.members.move_leader(3) is None

    assert not scripted.calls_of(f"{_MAINTENANCE}/MoveLeader")
