"""Tenants on one server: full isolation, and nothing of the neighbour to be noticed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from e2e.tables import rows_by_tenant
from e2e.world import (
    DENIED,
    INVALID_TOKEN,
    LOGIN_FAILED,
    NOBODY,
    PASSWORD,
    READ,
    READWRITE,
    Fortress,
    refused,
)
from support.processes import wait_until
from support.rpc import Client, Refusal
from support.streams import WatchScript

from kvsecure.model.errors import Failure
from kvsecure.proto import (
    auth_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    tenant_pb2,
)

_ALL: Final = (b"\0", b"\0")
_OTHER_PASSWORD: Final = "meadow-Anchor-dusk-7719"


class _Two(NamedTuple):
    """A server with two tenants, and clients with the certificates of their roots."""

    fortress: Fortress
    acme: Client
    globex: Client


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Two]:
    """Two tenants side by side."""
    with Fortress(tmp_path_factory.mktemp("tenants")) as fortress:
        yield _Two(fortress, fortress.tenant("acme"), fortress.tenant("globex"))


def _call(client: Client, name: str, request: Any) -> Refusal | None:
    return refused(lambda: client.call(name, request))


def _put(client: Client, key: bytes, value: bytes, **fields: Any) -> int:
    answer = client.kv.Put(kv_pb2.PutRequest(key=key, value=value, **fields))
    return int(answer.header.revision)


def _everything(client: Client, prefix: bytes = b"") -> dict[bytes, bytes]:
    answer = client.kv.Range(kv_pb2.RangeRequest(key=_ALL[0], range_end=_ALL[1]))
    return {each.key: each.value for each in answer.kvs if each.key.startswith(prefix)}


def _of_prefix(prefix: bytes) -> tuple[bytes, bytes]:
    return prefix, prefix[:-1] + bytes((prefix[-1] + 1,))


# --- keys ---------------------------------------------------------------------------------------


def test_equal_keys_are_different_keys(two: _Two) -> None:
    """A key of one tenant and the same key of another have nothing to do with each other."""
    for number in range(3):
        _put(two.acme, b"/same/k", b"acme %d" % number)
    _put(two.globex, b"/same/k", b"globex")
    _put(two.fortress.root(), b"/same/k", b"default")

    [ours] = two.acme.kv.Range(kv_pb2.RangeRequest(key=b"/same/k")).kvs
    [theirs] = two.globex.kv.Range(kv_pb2.RangeRequest(key=b"/same/k")).kvs

    assert (ours.value, ours.version) == (b"acme 2", 3)
    assert (theirs.value, theirs.version) == (b"globex", 1)
    assert two.fortress.value(two.fortress.root(), b"/same/k") == b"default"


@pytest.mark.parametrize(
    ("key", "end"),
    [_ALL, (b"/wide/", b"/wide0"), (b"/", b"\xff" * 64), (b"\0", b"\xff"), (b"/wide/a", b"\0")],
)
def test_no_range_reaches_into_another_tenant(two: _Two, key: bytes, end: bytes) -> None:
    """Whatever the range, it is of one tenant: for reading, counting and deleting."""
    for name in (b"a", b"b", b"c"):
        _put(two.acme, b"/wide/" + name, b"acme")
        _put(two.globex, b"/wide/" + name, b"globex")
    request = kv_pb2.RangeRequest(key=key, range_end=end)
    old = kv_pb2.RangeRequest(key=key, range_end=end, revision=_put(two.acme, b"/wide/a", b"acme"))

    answer, past = two.globex.kv.Range(request), two.globex.kv.Range(old)
    deleted = two.globex.kv.DeleteRange(
        kv_pb2.DeleteRangeRequest(key=key, range_end=end, prev_kv=True)
    )

    assert b"acme" not in {each.value for each in [*answer.kvs, *past.kvs, *deleted.prev_kvs]}
    assert answer.count == len(answer.kvs) == deleted.deleted >= 3
    assert len(_everything(two.acme, b"/wide/")) == 3


def test_transactions_compare_and_change_their_own_tenant(two: _Two) -> None:
    """A comparison sees the tenant's own key, and every branch writes there."""
    _put(two.acme, b"/txn/k", b"acme")
    _put(two.globex, b"/txn/k", b"globex")
    compare = kv_pb2.Compare(key=b"/txn/k", target="VALUE", value=b"acme")
    inner = kv_pb2.TxnRequest(
        success=[
            kv_pb2.RequestOp(
                request_delete_range=kv_pb2.DeleteRangeRequest(key=_ALL[0], range_end=_ALL[1])
            )
        ]
    )

    seen = two.globex.kv.Txn(
        kv_pb2.TxnRequest(compare=[compare], failure=[kv_pb2.RequestOp(request_txn=inner)])
    )

    assert not seen.succeeded
    assert _everything(two.globex) == {}
    assert two.fortress.value(two.acme, b"/txn/k") == b"acme"


def test_watches_see_their_own_tenant(two: _Two) -> None:
    """A watch of everything, from the first revision on, tells of the own tenant's changes only."""
    _put(two.acme, b"/watch/past", b"acme")
    script = WatchScript(two.globex)
    try:
        script.create(_ALL[0], range_end=_ALL[1], start_revision=1, prev_kv=True)
        script.create(_ALL[0], range_end=_ALL[1], prev_kv=True, progress_notify=True)
        script.wait(controls=2)
        _put(two.acme, b"/watch/k", b"acme")
        two.acme.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"/watch/k"))
        last = _put(two.globex, b"/watch/k", b"globex")
        script.wait_for_revision(last)
        wait_until(
            lambda: (
                [last, last]
                == [events[-1].kv.mod_revision for events in script.observed().events.values()]
            ),
            deadline_s=20,
            what="both watches to see the change",
        )
        seen = script.observed()
    finally:
        script.close()

    events = [each for events in seen.events.values() for each in events]
    assert len(seen.events) == 2
    assert b"/watch/past" not in {each.kv.key for each in events}
    assert b"acme" not in {each.kv.value for each in events} | {
        each.prev_kv.value for each in events
    }


# --- leases -------------------------------------------------------------------------------------


def test_equal_leases_are_different_leases(two: _Two) -> None:
    """Leases with one id live and die each in its own tenant, with the keys that hang on them."""
    for client, ttl in ((two.acme, 3_600), (two.globex, 600)):
        client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=4_711, TTL=ttl))
        _put(client, b"/leased/k", b"x", lease=4_711)
    _put(two.acme, b"/leased/more", b"x", lease=4_711)
    ask = lease_pb2.LeaseTimeToLiveRequest(ID=4_711, keys=True)

    ours, theirs = two.acme.lease.LeaseTimeToLive(ask), two.globex.lease.LeaseTimeToLive(ask)
    assert (ours.grantedTTL, sorted(ours.keys)) == (3_600, [b"/leased/k", b"/leased/more"])
    assert (theirs.grantedTTL, list(theirs.keys)) == (600, [b"/leased/k"])
    [renewed] = two.globex.lease.LeaseKeepAlive(iter([lease_pb2.LeaseKeepAliveRequest(ID=4_711)]))
    assert renewed.TTL == 600

    two.globex.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=4_711))

    assert _everything(two.globex, b"/leased/") == {}
    assert len(_everything(two.acme, b"/leased/")) == 2
    assert two.globex.lease.LeaseTimeToLive(ask).TTL == -1
    assert 4_711 not in [
        each.ID for each in two.globex.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases
    ]
    assert two.acme.lease.LeaseTimeToLive(ask).TTL > 3_000


def test_a_lease_that_ends_takes_only_its_own_keys(two: _Two) -> None:
    """The end of a lease deletes in its tenant, not where another has the same id."""
    two.acme.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=99, TTL=600))
    two.globex.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=99, TTL=2))
    for client in (two.acme, two.globex):
        _put(client, b"/ends/k", b"x", lease=99)

    wait_until(
        lambda: not _everything(two.globex, b"/ends/"), deadline_s=10, what="the lease to end"
    )

    assert len(_everything(two.acme, b"/ends/")) == 1


# --- users --------------------------------------------------------------------------------------


def test_equal_users_are_different_users(two: _Two) -> None:
    """Users of one name have each their own password, rights and sessions."""
    fortress = two.fortress
    for client, password, kind in (
        (two.acme, PASSWORD, READWRITE),
        (two.globex, _OTHER_PASSWORD, READ),
    ):
        fortress.role("app", (kind, b"/app/", b"/app0"), client=client)
        fortress.user("web", "app", password=password, client=client)
    assert refused(lambda: fortress.bearer("acme/web", _OTHER_PASSWORD)) == LOGIN_FAILED
    assert refused(lambda: fortress.bearer("globex/web", PASSWORD)) == LOGIN_FAILED
    assert refused(lambda: fortress.bearer("web", PASSWORD)) == LOGIN_FAILED
    ours = fortress.bearer("acme/web")
    theirs = fortress.bearer("globex/web", _OTHER_PASSWORD)
    write = kv_pb2.PutRequest(key=b"/app/u", value=b"acme")
    read = kv_pb2.RangeRequest(key=b"/app/u")

    assert _call(ours, "kv.Put", write) is None
    assert _call(theirs, "kv.Put", write) == DENIED
    assert fortress.value(theirs, b"/app/u") is None
    two.globex.auth.UserChangePassword(
        auth_pb2.AuthUserChangePasswordRequest(name="web", password=PASSWORD + "-new")
    )
    assert _call(theirs, "kv.Range", read) == INVALID_TOKEN
    assert _call(ours, "kv.Range", read) is None
    two.globex.auth.UserDelete(auth_pb2.AuthUserDeleteRequest(name="web"))
    two.globex.auth.RoleDelete(auth_pb2.AuthRoleDeleteRequest(role="app"))
    assert _call(ours, "kv.Put", write) is None
    assert list(two.globex.auth.UserList(auth_pb2.AuthUserListRequest()).users) == ["root"]
    assert "web" in two.acme.auth.UserList(auth_pb2.AuthUserListRequest()).users


def test_a_certificate_is_of_one_tenant(two: _Two) -> None:
    """A certificate opens the tenant that it names; one of no tenant opens nothing."""
    fortress = two.fortress
    _put(two.acme, b"/cert/k", b"acme")
    request = kv_pb2.RangeRequest(key=b"/cert/k")

    assert fortress.value(fortress.certified("root", "globex"), b"/cert/k") is None
    assert fortress.value(fortress.certified("root"), b"/cert/k") is None
    assert _call(fortress.certified("root", "initech"), "kv.Range", request) == DENIED
    assert _call(fortress.certified("stranger", "acme"), "kv.Range", request) == DENIED


def test_a_tenants_root_is_not_the_clusters(two: _Two) -> None:
    """What concerns all tenants is refused to the root of one, its own affairs included."""
    acme = two.acme
    alarm = maintenance_pb2.AlarmRequest(action="ACTIVATE", memberID=1, alarm="NOSPACE")
    for name, request in (
        ("tenants.TenantList", tenant_pb2.TenantListRequest()),
        ("tenants.TenantGet", tenant_pb2.TenantGetRequest(name="acme")),
        ("tenants.TenantGet", tenant_pb2.TenantGetRequest(name="none")),
        ("tenants.TenantAdd", tenant_pb2.TenantAddRequest(name="n", root_no_password=True)),
        ("tenants.TenantDelete", tenant_pb2.TenantDeleteRequest(name="acme")),
        ("tenants.TenantDelete", tenant_pb2.TenantDeleteRequest(name="globex")),
        ("kv.Compact", kv_pb2.CompactionRequest(revision=1, physical=True)),
        ("maintenance.Alarm", alarm),
    ):
        assert _call(acme, name, request) == DENIED, name
    tail, head = two.fortress.audit(acme, "Tail"), two.fortress.audit(acme, "Head")
    assert refused(lambda: list(tail(tenant_pb2.AuditTailRequest(count=1)))) == DENIED
    assert refused(lambda: head(tenant_pb2.AuditHeadRequest())) == DENIED


def test_a_tenants_authentication_stays_on(two: _Two) -> None:
    """Neither the tenant's root nor the cluster's opens a tenant to everybody."""
    refusal = Refusal("INVALID_ARGUMENT", Failure.INVALID_AUTH_MANAGEMENT.text)
    assert _call(two.acme, "auth.AuthDisable", auth_pb2.AuthDisableRequest()) == refusal
    _put(two.acme, b"/off/k", b"acme")

    two.fortress.root().auth.AuthDisable(auth_pb2.AuthDisableRequest())
    try:
        everybody = two.fortress.stranger()
        assert two.fortress.value(everybody, b"/off/k") is None
        assert two.fortress.value(two.acme, b"/off/k") == b"acme"
        assert _call(
            two.fortress.certified("stranger", "acme"),
            "kv.Range",
            kv_pb2.RangeRequest(key=b"/off/k"),
        ) == (DENIED)
        assert two.fortress.value(two.fortress.bearer("acme/root"), b"/off/k") == b"acme"
    finally:
        two.fortress.stranger().auth.AuthEnable(auth_pb2.AuthEnableRequest())
    assert _call(two.fortress.stranger(), "kv.Range", kv_pb2.RangeRequest(key=b"/off/k")) == NOBODY


# --- deleting -----------------------------------------------------------------------------------


def _deleted(fortress: Fortress, name: str) -> int:
    """Make a tenant with some keys, delete it, and return the number that it had."""
    client = fortress.tenant(name)
    for number in range(200):
        _put(client, b"/erase/%d" % (number % 150), b"value " * 20)
    root = fortress.root()
    answer = root.tenants.TenantGet(tenant_pb2.TenantGetRequest(name=name))
    assert answer.tenant.key_count == 150
    root.tenants.TenantDelete(tenant_pb2.TenantDeleteRequest(name=name))
    return int(answer.tenant.id)


@pytest.mark.parametrize("end", ["", "stop", "kill9"])
def test_a_deleted_tenants_rows_leave_the_tables(tmp_path: Path, end: str) -> None:
    """Deleting a tenant erases its rows, and an end of the server in between only delays that."""
    with Fortress(tmp_path / "erase") as fortress:
        root = fortress.root()
        _put(root, b"/stays", b"x")
        number = _deleted(fortress, "doomed")
        if end:
            getattr(fortress.server, end)()
            fortress.server.restart()

        def is_erased() -> bool:
            found, records = rows_by_tenant(fortress)
            return not found[number] and records == sum(found.values()) == 1

        wait_until(is_erased, deadline_s=10, what="the tenant's rows to be gone")
        assert fortress.value(root, b"/stays") == b"x"


def test_a_tenant_that_was_made_again_is_new(two: _Two) -> None:
    """Keys, users, tokens and leases of a deleted tenant are not those of its successor."""
    fortress = two.fortress
    first = fortress.tenant("phoenix")
    _put(first, b"/old/k", b"old")
    first.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=5, TTL=600))
    fortress.user("web", client=first)
    token = fortress.bearer("phoenix/root").token
    root = fortress.root()

    root.tenants.TenantDelete(tenant_pb2.TenantDeleteRequest(name="phoenix"))
    assert _call(first, "kv.Range", kv_pb2.RangeRequest(key=b"/old/k")) == DENIED
    assert refused(lambda: fortress.bearer("phoenix/root")) == LOGIN_FAILED
    second = fortress.tenant("phoenix", _OTHER_PASSWORD)

    assert _everything(second) == {}
    assert not second.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases
    assert list(second.auth.UserList(auth_pb2.AuthUserListRequest()).users) == ["root"]
    assert refused(lambda: fortress.bearer("phoenix/root")) == LOGIN_FAILED
    stranger = fortress.stranger()
    stranger.use_token(token)
    assert _call(stranger, "kv.Range", kv_pb2.RangeRequest(key=b"/old/k")) == INVALID_TOKEN
