"""What is taken away is gone: for the next request, and for streams that are open, at once."""

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from e2e.world import DENIED, INVALID_TOKEN, LOGIN_FAILED, PASSWORD, READ, Fortress, refused
from support.processes import wait_until
from support.rpc import Client, Refusal
from support.streams import WatchScript

from kvsecure.proto import auth_pb2, kv_pb2, lease_pb2, tenant_pb2, watch_pb2

# The promise is one second; the machine that tests it may be busy.
_CUT_S_MAX: Final = 2.0
_RANGE: Final = (b"/r/", b"/r0")
_GET: Final = kv_pb2.RangeRequest(key=b"/r/k")


@pytest.fixture
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server with a user `web`, who may read /r/ by its role `r`."""
    with Fortress(tmp_path_factory.mktemp("revocation")) as built:
        built.role("r", (READ, *_RANGE))
        built.user("web", "r")
        built.put(built.root(), b"/r/k", b"before")
        yield built


def _call(client: Client, name: str, request: Any) -> Refusal | None:
    return refused(lambda: client.call(name, request))


def _watching(client: Client, key: bytes = _RANGE[0], end: bytes = _RANGE[1]) -> WatchScript:
    """Return a stream with one open watch."""
    script = WatchScript(client)
    script.create(key, range_end=end)
    script.wait(controls=1)
    assert not script.observed().controls[0].canceled
    return script


def _is_cut(script: WatchScript) -> bool:
    return any(
        each.canceled and "permission denied" in each.cancel_reason
        for each in script.observed().controls
    )


def _wait_cut(scripts: list[WatchScript]) -> None:
    wait_until(
        lambda: all(_is_cut(each) for each in scripts),
        deadline_s=_CUT_S_MAX,
        what="every watch to be cut",
    )


_TAKEN: Final[dict[str, Callable[[Client], Any]]] = {
    "role revoked": lambda root: root.auth.UserRevokeRole(
        auth_pb2.AuthUserRevokeRoleRequest(name="web", role="r")
    ),
    "role deleted": lambda root: root.auth.RoleDelete(auth_pb2.AuthRoleDeleteRequest(role="r")),
    "permission revoked": lambda root: root.auth.RoleRevokePermission(
        auth_pb2.AuthRoleRevokePermissionRequest(role="r", key=_RANGE[0], range_end=_RANGE[1])
    ),
    "user deleted": lambda root: root.auth.UserDelete(auth_pb2.AuthUserDeleteRequest(name="web")),
}


@pytest.mark.parametrize("what", sorted(_TAKEN))
def test_open_watches_are_cut_when_the_right_is_gone(fortress: Fortress, what: str) -> None:
    """Watches by token and by certificate end within a second, without anything being written."""
    bearer, certified = fortress.bearer("web"), fortress.certified("web")
    scripts = [_watching(bearer), _watching(certified), _watching(bearer, b"/r/k", b"")]
    root = fortress.root()
    try:
        _TAKEN[what](root)
        _wait_cut(scripts)
        fortress.put(root, b"/r/k", b"after")
        after = [_call(client, "kv.Range", _GET) for client in (bearer, certified)]
        seen = [script.observed() for script in scripts]
    finally:
        for script in scripts:
            script.close()

    assert not any(each.events for each in seen)
    gone = INVALID_TOKEN if what == "user deleted" else DENIED
    assert after == [gone, DENIED]


def test_a_new_password_ends_the_sessions_of_the_old_one(fortress: Fortress) -> None:
    """Tokens and their watches end with the password; what a certificate opened goes on."""
    bearer, certified = fortress.bearer("web"), fortress.certified("web")
    by_token, by_certificate = _watching(bearer), _watching(certified)
    root = fortress.root()
    try:
        root.auth.UserChangePassword(
            auth_pb2.AuthUserChangePasswordRequest(name="web", password=PASSWORD + "-new")
        )
        _wait_cut([by_token])
        fortress.put(root, b"/r/k", b"after")
        by_certificate.wait(controls=1, events=1)
    finally:
        by_token.close()
        by_certificate.close()

    assert _call(bearer, "kv.Range", _GET) == INVALID_TOKEN
    assert _call(certified, "kv.Range", _GET) is None
    assert refused(lambda: fortress.bearer("web")) == LOGIN_FAILED
    assert fortress.value(fortress.bearer("web", PASSWORD + "-new"), b"/r/k") == b"after"


def test_a_deleted_tenant_is_gone_for_whoever_is_connected(fortress: Fortress) -> None:
    """With the tenant its watches end, its tokens, and the rights of its certificates."""
    certified = fortress.tenant("acme")
    bearer = fortress.bearer("acme/root")
    lease = certified.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=600)).ID
    scripts = [_watching(certified, b"\0", b"\0"), _watching(bearer, b"\0", b"\0")]
    others = _watching(fortress.certified("web"))
    root = fortress.root()
    try:
        root.tenants.TenantDelete(tenant_pb2.TenantDeleteRequest(name="acme"))
        _wait_cut(scripts)
        fortress.put(root, b"/r/k", b"after")
        others.wait(controls=1, events=1)
    finally:
        for script in (*scripts, others):
            script.close()

    assert _call(certified, "kv.Range", _GET) == DENIED
    assert _call(certified, "kv.Put", kv_pb2.PutRequest(key=b"k")) == DENIED
    assert _call(bearer, "kv.Range", _GET) == INVALID_TOKEN
    alive = lease_pb2.LeaseKeepAliveRequest(ID=lease)
    assert refused(lambda: list(certified.lease.LeaseKeepAlive(iter([alive])))) == DENIED


def test_what_is_still_allowed_goes_on(fortress: Fortress) -> None:
    """Of one stream only the watch without a right is cut; another role can carry a watch on."""
    fortress.role("also", (READ, b"/r/k", b""))
    root = fortress.root()
    root.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="web", role="also"))
    script = WatchScript(fortress.bearer("web"))
    try:
        script.create(*_RANGE[:1], range_end=_RANGE[1], watch_id=1)
        script.create(b"/r/k", watch_id=2)
        script.wait(controls=2)
        _TAKEN["role revoked"](root)
        _wait_cut([script])
        fortress.put(root, b"/r/k", b"after")
        fortress.put(root, b"/r/l", b"after")
        fortress.put(root, b"/r/k", b"last")
        script.wait(controls=3, events=2)
        seen = script.observed()
    finally:
        script.close()

    assert [each.watch_id for each in seen.controls if each.canceled] == [1]
    assert {
        number: [each.kv.value for each in events] for number, events in seen.events.items()
    } == {2: [b"after", b"last"]}


def test_many_watches_are_cut_as_fast_as_one(fortress: Fortress) -> None:
    """A thousand watches on one connection end within a second of the right."""
    script = WatchScript(fortress.bearer("web"))
    try:
        for number in range(1, 1_001):
            script.create(b"/r/%d" % number, watch_id=number)
        script.wait(controls=1_000)
        _TAKEN["role revoked"](fortress.root())
        begun = time.monotonic()
        script.wait(controls=2_000)
        took_s = time.monotonic() - begun
        seen = script.observed()
    finally:
        script.close()

    assert {each.watch_id for each in seen.controls if each.canceled} == set(range(1, 1_001))
    assert took_s < _CUT_S_MAX


def test_a_slow_reader_gets_nothing_new_after_the_right_is_gone(fortress: Fortress) -> None:
    """Whoever does not read his stream gets what was on its way, and then the refusal."""
    client, root = fortress.bearer("web"), fortress.root()
    requests: queue.SimpleQueue[watch_pb2.WatchRequest | None] = queue.SimpleQueue()
    create = watch_pb2.WatchCreateRequest(key=_RANGE[0], range_end=_RANGE[1])
    requests.put(watch_pb2.WatchRequest(create_request=create))
    stream = client.watch.Watch(iter(requests.get, None))
    assert next(stream).created
    for _ in range(40):
        fortress.put(root, b"/r/k", bytes(200_000))

    _TAKEN["role revoked"](root)
    cut = int(root.kv.Range(kv_pb2.RangeRequest(key=b"x")).header.revision)
    for _ in range(40):
        fortress.put(root, b"/r/k", bytes(200_000))
    seen = []
    for answer in stream:
        seen += [each.kv.mod_revision for each in answer.events]
        if answer.canceled:
            break
    stream.cancel()
    requests.put(None)

    assert "permission denied" in answer.cancel_reason
    assert max(seen, default=0) <= cut


def test_leases_are_kept_alive_by_the_right_of_now(fortress: Fortress) -> None:
    """On an open keep-alive stream the next message is refused once the right is gone."""
    fortress.role("w", (2, *_RANGE))
    root = fortress.root()
    root.auth.UserGrantRole(auth_pb2.AuthUserGrantRoleRequest(user="web", role="w"))
    client = fortress.bearer("web")
    number = client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=600)).ID
    client.kv.Put(kv_pb2.PutRequest(key=b"/r/leased", lease=number))
    requests: queue.SimpleQueue[lease_pb2.LeaseKeepAliveRequest | None] = queue.SimpleQueue()
    stream = client.lease.LeaseKeepAlive(iter(requests.get, None))
    alive = lease_pb2.LeaseKeepAliveRequest(ID=number)
    requests.put(alive)
    assert next(stream).TTL == 600

    root.auth.UserRevokeRole(auth_pb2.AuthUserRevokeRoleRequest(name="web", role="w"))
    requests.put(alive)

    assert refused(lambda: next(stream)) == DENIED
    requests.put(None)


def test_a_user_that_was_made_again_is_another_one(fortress: Fortress) -> None:
    """A token of a deleted user is none of a new user of the same name and password."""
    bearer = fortress.bearer("web")
    script = _watching(bearer)
    _TAKEN["user deleted"](fortress.root())
    fortress.user("web", "r")
    try:
        _wait_cut([script])
    finally:
        script.close()

    assert _call(bearer, "kv.Range", _GET) == INVALID_TOKEN
    assert fortress.value(fortress.bearer("web"), b"/r/k") == b"before"


def test_a_cut_is_in_the_trail(fortress: Fortress) -> None:
    """When a watch is cut, a record says whose it was, and what it was of."""
    script = _watching(fortress.certified("web"))
    try:
        _TAKEN["role revoked"](fortress.root())
        _wait_cut([script])
    finally:
        script.close()

    record = fortress.requests("WatchCreate")[-1]
    assert record["stage"] == "denied"
    assert record["actor"] == {"user": "web", "via": "certificate"}
    assert record["op"]["key"] == "/r/"
    assert record["result"] == {"code": "PERMISSION_DENIED"}


def test_a_follower_of_the_trail_is_cut(fortress: Fortress) -> None:
    """Whoever loses the role root stops hearing of the trail, in the middle of the stream too."""
    root = fortress.root()
    fortress.user("auditor", "root")
    client = fortress.bearer("auditor")
    stream = fortress.audit(client, "Tail")(tenant_pb2.AuditTailRequest(count=1, follow=True))
    next(stream)

    root.auth.UserRevokeRole(auth_pb2.AuthUserRevokeRoleRequest(name="auditor", role="root"))
    fortress.put(root, b"/r/unseen", b"x")
    heard: list[bytes] = []
    answer = refused(lambda: heard.extend(each for more in stream for each in more.records))

    assert answer == DENIED
    assert b"/r/unseen" not in b"".join(heard)
