"""Every call of the services KV, Watch, Lease and Auth, made with a stock gRPC client.

Owns: one round through all of them, and that none is left out.
Never: probes the corners of a call; the other files do.
"""

from collections.abc import Iterable
from typing import Any, Final

import pytest
from google.protobuf import text_format
from support.pair import Pair
from support.rpc import Client
from support.servers import ROOT_PASSWORD

from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2, watch_pb2

_LEASE: Final = 4_711
_PASSWORD: Final = "a password that is long enough"
_NEW_PASSWORD: Final = "another one that is long enough"
_SPAN: Final = {"key": b"/calls/", "range_end": b"/calls0"}
_PERMISSION: Final = authstore_pb2.Permission(permType=authstore_pb2.Permission.READWRITE, **_SPAN)

_KEEP_ALIVE: Final = lease_pb2.LeaseKeepAliveRequest(ID=_LEASE)
_CREATE: Final = watch_pb2.WatchRequest(
    create_request=watch_pb2.WatchCreateRequest(start_revision=1, **_SPAN)
)

# In the order in which they are made; a list is what a stream is sent.
_ROUND: Final[tuple[tuple[str, Any], ...]] = (
    ("auth.AuthStatus", auth_pb2.AuthStatusRequest()),
    ("auth.RoleAdd", auth_pb2.AuthRoleAddRequest(name="callers")),
    (
        "auth.RoleGrantPermission",
        auth_pb2.AuthRoleGrantPermissionRequest(name="callers", perm=_PERMISSION),
    ),
    ("auth.RoleGet", auth_pb2.AuthRoleGetRequest(role="callers")),
    ("auth.RoleList", auth_pb2.AuthRoleListRequest()),
    ("auth.UserAdd", auth_pb2.AuthUserAddRequest(name="caller", password=_PASSWORD)),
    ("auth.UserGrantRole", auth_pb2.AuthUserGrantRoleRequest(user="caller", role="callers")),
    ("auth.UserGet", auth_pb2.AuthUserGetRequest(name="caller")),
    ("auth.UserList", auth_pb2.AuthUserListRequest()),
    (
        "auth.UserChangePassword",
        auth_pb2.AuthUserChangePasswordRequest(name="caller", password=_NEW_PASSWORD),
    ),
    ("auth.Authenticate", auth_pb2.AuthenticateRequest(name="caller", password=_NEW_PASSWORD)),
    ("lease.LeaseGrant", lease_pb2.LeaseGrantRequest(ID=_LEASE, TTL=600)),
    ("kv.Put", kv_pb2.PutRequest(key=b"/calls/a", value=b"1", lease=_LEASE)),
    ("kv.Put", kv_pb2.PutRequest(key=b"/calls/b", value=b"2")),
    (
        "kv.Txn",
        kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(key=b"/calls/a", target=kv_pb2.Compare.VALUE, value=b"1")],
            success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"/calls/c", value=b"3"))],
        ),
    ),
    ("kv.Range", kv_pb2.RangeRequest(**_SPAN)),
    ("kv.DeleteRange", kv_pb2.DeleteRangeRequest(key=b"/calls/b", prev_kv=True)),
    ("watch.Watch", [_CREATE]),
    ("lease.LeaseKeepAlive", [_KEEP_ALIVE]),
    ("lease.LeaseTimeToLive", lease_pb2.LeaseTimeToLiveRequest(ID=_LEASE, keys=True)),
    ("lease.LeaseLeases", lease_pb2.LeaseLeasesRequest()),
    ("lease.LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=_LEASE)),
    ("kv.Compact", kv_pb2.CompactionRequest(revision=2, physical=True)),
    (
        "auth.RoleRevokePermission",
        auth_pb2.AuthRoleRevokePermissionRequest(role="callers", **_SPAN),
    ),
    ("auth.UserRevokeRole", auth_pb2.AuthUserRevokeRoleRequest(name="caller", role="callers")),
    ("auth.RoleDelete", auth_pb2.AuthRoleDeleteRequest(role="callers")),
    ("auth.UserDelete", auth_pb2.AuthUserDeleteRequest(name="caller")),
    ("auth.AuthDisable", auth_pb2.AuthDisableRequest()),
    ("auth.AuthEnable", auth_pb2.AuthEnableRequest()),
)
# In our .proto file, and not in etcd 3.5.
_LATER: Final = {"kv.RangeStream"}
# Answered by one response to `created` and one to the events of four revisions.
_WATCH_EVENTS: Final = 4


def _make(client: Client, name: str, request: Any) -> list[Any]:
    """Make a call and return all of its answers that matter."""
    service, method = name.split(".")
    if not isinstance(request, list):
        return [client.call(name, request)]
    call = getattr(getattr(client, service), method)(iter(request))
    if name == "watch.Watch":
        return [next(call), *_events(call)]
    return list(call)


def _events(responses: Iterable[watch_pb2.WatchResponse]) -> list[Any]:
    events: list[Any] = []
    for response in responses:
        events += response.events
        if len(events) >= _WATCH_EVENTS:
            break
    return events


def _told(answer: Any, first: Any) -> str:
    """Return an answer without what is each member's own."""
    told = type(answer)()
    told.CopyFrom(answer)
    if hasattr(told, "header"):
        for own in ("cluster_id", "member_id", "raft_term"):
            told.header.ClearField(own)
    if isinstance(told, auth_pb2.AuthenticateResponse):
        assert told.token
        told.token = ""
    if isinstance(told, auth_pb2.AuthStatusResponse):
        assert told.enabled
        told.authRevision -= first.authRevision
    if isinstance(told, lease_pb2.LeaseTimeToLiveResponse):
        assert 590 <= told.TTL <= 600
        told.TTL = 600
    return text_format.MessageToString(told)


def test_every_call_is_answered_like_etcds(pair: Pair) -> None:
    """One round through all calls is answered alike, headers and events included."""
    first: list[Any] = [None, None]
    for name, request in _ROUND:
        told = []
        for position, client in enumerate(pair.clients()):
            if name == "auth.AuthEnable":
                # Who disabled it is not logged in any more, and need not be to enable it.
                client.use_token("")
            answers = _make(client, name, request)
            first[position] = first[position] or answers[0]
            told.append([_told(answer, first[position]) for answer in answers])
            if name == "auth.AuthEnable":
                client.login("root", ROOT_PASSWORD)
        theirs, ours = told
        assert theirs == ours, name
        assert ours, name


@pytest.mark.parametrize("service", ["kv", "watch", "lease", "auth"])
def test_no_call_is_left_out(pair: Pair, service: str) -> None:
    """The round makes every call that etcd 3.5 has in these services."""
    offered = {f"{service}.{name}" for name in vars(getattr(pair.clients()[0], service))}
    made = {name for name, _ in _ROUND if name.startswith(f"{service}.")}

    assert offered - _LATER == made
