"""Streams whose token was refused: one new log-in, until something came of it."""

from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest
from support.etcd import ScriptedServer

from kvsecure.client import Client, ClientError, Secret
from kvsecure.model.errors import Failure
from kvsecure.proto import auth_pb2, election_pb2, lease_pb2, lock_pb2, mvcc_pb2

__all__: list[str] = []

_LOGIN: Final = "/etcdserverpb.Auth/Authenticate"
_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
_LOCK: Final = "/v3lockpb.Lock/Lock"
_OBSERVE: Final = "/v3electionpb.Election/Observe"
_BAD_TOKEN: Final = (grpc.StatusCode.UNAUTHENTICATED, Failure.INVALID_AUTH_TOKEN.text)
_LEADER: Final = election_pb2.LeaderResponse(kv=mvcc_pb2.KeyValue(key=b"n/1", value=b"v"))
_WAYS: Final[dict[str, tuple[str, Any, Callable[[Client], object]]]] = {
    "renewal": (
        _KEEP_ALIVE,
        lease_pb2.LeaseKeepAliveResponse(ID=1, TTL=60),
        lambda client: client.lease.renew(1),
    ),
    "lock": (
        _LOCK,
        lock_pb2.LockResponse(key=b"n/1"),
        lambda client: client.lock(b"n").acquire(),
    ),
    "observer": (
        _OBSERVE,
        _LEADER,
        lambda client: next(client.election(b"n").observe()),
    ),
}


@pytest.fixture
def client(scripted: ScriptedServer) -> Client:
    """A client with a password, of which each log-in gives another token."""
    scripted.script(
        _LOGIN, *(auth_pb2.AuthenticateResponse(token=text) for text in ("one", "two", "three"))
    )
    scripted.script(_GRANT, lease_pb2.LeaseGrantResponse(ID=1, TTL=60))
    return Client.open(
        scripted.endpoint, user="web", password=Secret.of_text("a password nobody uses")
    )


@pytest.mark.parametrize("way", list(_WAYS))
def test_stream_with_an_ended_token_is_made_with_a_new_one(
    scripted: ScriptedServer, client: Client, way: str
) -> None:
    """A token that is refused is replaced, once, and what was asked for is had."""
    path, answer, act = _WAYS[way]
    scripted.script(path, _BAD_TOKEN, answer)

    with client:
        act(client)

    assert [seen.token for seen in scripted.calls_of(path)] == ["one", "two"]


@pytest.mark.parametrize("way", list(_WAYS))
def test_second_refusal_of_a_token_ends_a_stream(
    scripted: ScriptedServer, client: Client, way: str
) -> None:
    """A token that is refused right after a log-in is not replaced again."""
    path, answer, act = _WAYS[way]
    scripted.script(path, _BAD_TOKEN, _BAD_TOKEN, answer)

    with client, pytest.raises(ClientError) as refused:
        act(client)

    assert refused.value.failure is Failure.INVALID_AUTH_TOKEN
    assert [seen.token for seen in scripted.calls_of(path)] == ["one", "two"]


def test_token_that_ends_later_is_replaced_again(scripted: ScriptedServer, client: Client) -> None:
    """An observer whose token was good until now may have one more."""
    scripted.script(_OBSERVE, _BAD_TOKEN, [_LEADER, _BAD_TOKEN], [_LEADER])

    with client:
        leaders = client.election(b"n").observe()
        came = [next(leaders).value, next(leaders).value]

    assert came == [b"v", b"v"]
    assert [seen.token for seen in scripted.calls_of(_OBSERVE)] == ["one", "two", "three"]
