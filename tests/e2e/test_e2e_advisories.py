"""What went wrong in etcd, tried here: authorisation of keys, transactions, watches and leases.

The names follow etcd-surface B.3 and the attack corpus; where there is one, the advisory is named.
"""

import struct
import time
from typing import Any

import pytest
from e2e.world import DENIED, INVALID_TOKEN, NOBODY, PASSWORD, Fortress, refused
from support.forbidden_requests import ADMIN_CALLS, PUBLIC_CALLS, USER_CALLS
from support.rpc import Client, Refusal
from support.streams import WatchScript

from kvsecure.model.errors import Failure
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    tenant_pb2,
)


def _op(**fields: Any) -> kv_pb2.RequestOp:
    return kv_pb2.RequestOp(**fields)


def _get(key: bytes, **fields: Any) -> kv_pb2.RequestOp:
    return _op(request_range=kv_pb2.RangeRequest(key=key, **fields))


def _put(key: bytes, **fields: Any) -> kv_pb2.RequestOp:
    return _op(request_put=kv_pb2.PutRequest(key=key, **fields))


def _nested(depth: int, leaf: kv_pb2.RequestOp) -> kv_pb2.TxnRequest:
    txn = kv_pb2.TxnRequest(success=[leaf])
    for _ in range(depth - 1):
        txn = kv_pb2.TxnRequest(failure=[_op(request_txn=txn)])
    return txn


def _call(client: Client, name: str, request: Any) -> Refusal | None:
    return refused(lambda: client.call(name.partition(" ")[0], request))


@pytest.fixture(scope="module")
def web(fortress: Fortress) -> Client:
    """User `web`, who may read and write /app/."""
    return fortress.bearer("web")


# --- transactions -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 40])
@pytest.mark.parametrize(
    "leaf",
    [
        _get(b"/ops/k"),
        _put(b"/ops/k"),
        _op(request_delete_range=kv_pb2.DeleteRangeRequest(key=b"/ops/k")),
        _put(b"/app/x", lease=777),
        _get(b"/app/", range_end=b"\0"),
    ],
    ids=["get", "put", "delete", "lease", "from key"],
)
def test_nested_transactions_are_decided_at_every_depth(
    fortress: Fortress, web: Client, depth: int, leaf: kv_pb2.RequestOp
) -> None:
    """CVE-2026-33343: what is forbidden by itself is forbidden however deep it is nested."""
    root = fortress.root()

    assert _call(web, "kv.Txn", _nested(depth, leaf)) == DENIED

    assert fortress.value(root, b"/ops/k") == b"operations"
    assert fortress.value(root, b"/app/x") is None


def test_previous_values_are_reading(fortress: Fortress) -> None:
    """CVE-2026-44283: whoever may write and not read is not shown what was there before."""
    writer = fortress.bearer("writer")
    peek = kv_pb2.PutRequest(key=b"/app/p", value=b"1", prev_kv=True)
    wipe = kv_pb2.DeleteRangeRequest(key=b"/app/p", prev_kv=True)

    assert _call(writer, "kv.Put", kv_pb2.PutRequest(key=b"/app/p", value=b"1")) is None
    for request, name in (
        (peek, "kv.Put"),
        (wipe, "kv.DeleteRange"),
        (kv_pb2.TxnRequest(success=[_op(request_put=peek)]), "kv.Txn"),
        (kv_pb2.TxnRequest(failure=[_op(request_delete_range=wipe)]), "kv.Txn"),
        (_nested(4, _op(request_put=peek)), "kv.Txn"),
    ):
        assert _call(writer, name, request) == DENIED
    assert _call(writer, "kv.DeleteRange", kv_pb2.DeleteRangeRequest(key=b"/app/p")) is None


def test_comparing_is_reading(fortress: Fortress, web: Client) -> None:
    """A comparison says something about a key, so it needs the right to read it."""
    writer = fortress.bearer("writer")
    for target in ("VALUE", "VERSION", "CREATE", "MOD", "LEASE"):
        compare = kv_pb2.Compare(key=b"/ops/k", target=target)
        own = kv_pb2.Compare(key=b"/app/k", target=target)
        assert _call(web, "kv.Txn", kv_pb2.TxnRequest(compare=[compare])) == DENIED
        assert _call(writer, "kv.Txn", kv_pb2.TxnRequest(compare=[own])) == DENIED
    wide = kv_pb2.Compare(key=b"/app/", range_end=b"\0", target="VERSION")
    assert _call(web, "kv.Txn", kv_pb2.TxnRequest(compare=[wide])) == DENIED


def test_attaching_a_lease_is_writing_what_hangs_on_it(fortress: Fortress, web: Client) -> None:
    """CVE-2026-44283: nobody binds a key to a lease that decides over keys of others."""
    plain = kv_pb2.PutRequest(key=b"/app/leasing", lease=777)

    assert _call(web, "kv.Put", plain) == DENIED
    assert _call(web, "kv.Txn", kv_pb2.TxnRequest(success=[_op(request_put=plain)])) == DENIED
    assert fortress.value(fortress.root(), b"/app/leasing") is None


def test_operations_of_nested_transactions_are_counted(web: Client) -> None:
    """A transaction does not get around the limit by nesting (etcd 3.7.1)."""
    many = [_get(b"/app/k")] * 100
    nested = kv_pb2.TxnRequest(success=[_op(request_txn=kv_pb2.TxnRequest(success=many)), *many])

    refusal = _call(web, "kv.Txn", nested)

    assert refusal == Refusal("INVALID_ARGUMENT", Failure.TOO_MANY_OPS.text)


def test_a_denied_transaction_does_nothing(fortress: Fortress, web: Client) -> None:
    """One forbidden operation, also in the branch that is not taken, and none of it is done."""
    false = kv_pb2.Compare(key=b"/app/k", target="VERSION", version=10_000)
    txn = kv_pb2.TxnRequest(
        compare=[false], success=[_put(b"/ops/k")], failure=[_put(b"/app/none", value=b"x")]
    )

    assert _call(web, "kv.Txn", txn) == DENIED
    assert fortress.value(fortress.root(), b"/app/none") is None


# --- ranges and watches -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"keys_only": True}, {"count_only": True}])
@pytest.mark.parametrize("limit", [0, 1, -1, 1 << 62])
def test_no_way_of_listing_goes_around_the_right_to_read(
    web: Client, options: dict[str, bool], limit: int
) -> None:
    """Names and counts are read like values, with any limit (OpenBao GHSA-xp3c-3jw3-4vcr)."""
    for key, end in ((b"/ops/", b"/ops0"), (b"/app/", b"\0"), (b"\0", b"\0"), (b"/ops/k", b"")):
        request = kv_pb2.RangeRequest(key=key, range_end=end, limit=limit, **options)
        assert _call(web, "kv.Range", request) == DENIED
        request.serializable = True
        assert _call(web, "kv.Range", request) == DENIED


def test_a_right_on_a_key_is_no_right_to_watch_from_it(fortress: Fortress) -> None:
    """GHSA-xg4h-6gfc-h4m8: from-key, whole-space and empty-key watches need what they show."""
    point = WatchScript(fortress.bearer("point"))
    try:
        point.create(b"/app/k", range_end=b"\0")
        point.create(b"/app/k", range_end=b"/app/l")
        point.create(b"", range_end=b"\0")
        point.create(b"\0", range_end=b"\0")
        point.create(b"")
        point.create(b"/app/k")
        point.wait(controls=6)
        root = fortress.root()
        fortress.put(root, b"/app/l", b"not for point")
        fortress.put(root, b"/app/k", b"application")
        point.wait(controls=6, events=1)
        seen = point.observed()
    finally:
        point.close()

    refusals, [good] = seen.controls[:5], seen.controls[5:]
    assert all(each.created and each.canceled and each.watch_id == -1 for each in refusals)
    assert all("permission denied" in each.cancel_reason for each in refusals)
    assert good.created
    assert not good.canceled
    assert [each.kv.key for events in seen.events.values() for each in events] == [b"/app/k"]


def test_a_refused_watch_leaves_the_stream_alone(fortress: Fortress) -> None:
    """One denied watch does not silence the others of its stream (etcd #11708)."""
    script = WatchScript(fortress.bearer("reader"))
    try:
        script.create(b"/app/s")
        script.create(b"/ops/s")
        script.create(b"/app/t")
        script.wait(controls=3)
        root = fortress.root()
        fortress.put(root, b"/app/s", b"1")
        fortress.put(root, b"/app/t", b"1")
        script.wait(controls=3, events=2)
    finally:
        script.close()


def test_watching_the_past_needs_the_right_of_the_present(fortress: Fortress) -> None:
    """A watch from an old revision is decided by what may be read now."""
    fortress.role("late", (0, b"/late/", b"/late0"))
    fortress.user("late", "late")
    revision = fortress.put(fortress.root(), b"/late/k", b"1")
    client = fortress.bearer("late")
    fortress.root().auth.UserRevokeRole(
        auth_pb2.AuthUserRevokeRoleRequest(name="late", role="late")
    )

    script = WatchScript(client)
    try:
        script.create(b"/late/k", start_revision=revision)
        script.wait(controls=1)
        seen = script.observed()
    finally:
        script.close()

    assert seen.controls[0].canceled
    assert not seen.events


# --- leases -------------------------------------------------------------------------------------


def test_leases_show_and_lose_keys_only_by_right(fortress: Fortress, web: Client) -> None:
    """CVE-2023-32082 and PR 8031: names of keys are read, and revoking is deleting."""
    show = lease_pb2.LeaseTimeToLiveRequest(ID=777, keys=True)
    reader = fortress.bearer("reader")

    assert _call(web, "lease.LeaseTimeToLive", show) == DENIED
    assert _call(web, "lease.LeaseLeases", lease_pb2.LeaseLeasesRequest()) == DENIED
    assert _call(web, "lease.LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=777)) == DENIED
    answer = reader.lease.LeaseTimeToLive(lease_pb2.LeaseTimeToLiveRequest(ID=777))
    assert answer.TTL > 0
    assert not answer.keys
    assert fortress.value(fortress.root(), b"/ops/leased") == b"x"


def test_a_lease_is_kept_alive_by_right(fortress: Fortress, web: Client) -> None:
    """Whoever may not write what hangs on a lease cannot keep it from dying either."""
    stream = web.lease.LeaseKeepAlive(iter([lease_pb2.LeaseKeepAliveRequest(ID=777)]))

    assert refused(lambda: list(stream)) == DENIED

    own = web.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=60)).ID
    [answer] = web.lease.LeaseKeepAlive(iter([lease_pb2.LeaseKeepAliveRequest(ID=own)]))
    assert answer.TTL == 60


# --- who may at all -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ADMIN_CALLS))
def test_strangers_and_users_make_no_call_of_administrators(
    fortress: Fortress, web: Client, name: str
) -> None:
    """CVE-2026-33413: every administrative method asks who calls, and refuses plain users."""
    request = ADMIN_CALLS[name]
    stranger = fortress.stranger()

    of_stranger, of_user = _call(stranger, name, request), _call(web, name, request)

    assert of_stranger == NOBODY
    assert of_user == DENIED


@pytest.mark.parametrize("name", sorted(USER_CALLS))
def test_strangers_make_no_call_of_users(fortress: Fortress, name: str) -> None:
    """CVE-2026-33413: member lists, status, alarms and leases are for users."""
    assert _call(fortress.stranger(), name, USER_CALLS[name]) == NOBODY


def test_strangers_may_ask_little(fortress: Fortress) -> None:
    """Health and whether authentication is on is all that a stranger is told."""
    for name, request in PUBLIC_CALLS.items():
        assert _call(fortress.stranger(), name, request) is None


def test_streams_ask_who_calls(fortress: Fortress) -> None:
    """A watch and a keep-alive of a stranger are refused like anything else."""
    stranger = fortress.stranger()
    stream = stranger.lease.LeaseKeepAlive(iter([lease_pb2.LeaseKeepAliveRequest(ID=777)]))

    assert refused(lambda: list(stream)) == NOBODY
    tail = fortress.audit(stranger, "Tail")
    assert refused(lambda: list(tail(tenant_pb2.AuditTailRequest(count=1)))) == NOBODY
    head = fortress.audit(stranger, "Head")
    assert refused(lambda: head(tenant_pb2.AuditHeadRequest())) == NOBODY


@pytest.mark.parametrize("alarm", ["NOSPACE", "CORRUPT"])
def test_an_alarm_does_not_switch_the_law_off(fortress: Fortress, web: Client, alarm: str) -> None:
    """PR 22386: while an alarm is raised everything is decided as ever."""
    root = fortress.root()
    raised = maintenance_pb2.AlarmRequest(action="ACTIVATE", memberID=1, alarm=alarm)
    root.maintenance.Alarm(raised)
    try:
        for client, expected in ((web, DENIED), (fortress.stranger(), NOBODY)):
            for name, request in (
                ("kv.Range", kv_pb2.RangeRequest(key=b"/ops/k")),
                ("kv.Put", kv_pb2.PutRequest(key=b"/ops/k")),
                ("kv.Txn", _nested(3, _put(b"/ops/k"))),
                ("auth.UserAdd", auth_pb2.AuthUserAddRequest(name="x", password=PASSWORD)),
                ("maintenance.Alarm", raised),
            ):
                assert _call(client, name, request) == expected
    finally:
        root.maintenance.Alarm(
            maintenance_pb2.AlarmRequest(action="DEACTIVATE", memberID=1, alarm=alarm)
        )
    assert fortress.value(root, b"/ops/k") == b"operations"


def test_a_grant_without_a_key_grants_nothing(fortress: Fortress) -> None:
    """An empty key is no permission, and neither is a falling range (etcd #8494)."""
    root = fortress.root()
    bad = Refusal("INVALID_ARGUMENT", "etcdserver: invalid auth management")

    for key, end in ((b"", b""), (b"", b"\0"), (b"", b"z"), (b"b", b"a"), (b"b", b"b")):
        permission = authstore_pb2.Permission(permType=2, key=key, range_end=end)  # type: ignore[arg-type]  # an enum is an int here
        request = auth_pb2.AuthRoleGrantPermissionRequest(name="point", perm=permission)
        assert _call(root, "auth.RoleGrantPermission", request) == bad
    answer = root.auth.RoleGet(auth_pb2.AuthRoleGetRequest(role="point"))
    assert [each.key for each in answer.perm] == [b"/app/k"]


# --- tokens -------------------------------------------------------------------------------------


def test_whatever_is_sent_as_a_token_is_refused_alike(fortress: Fortress) -> None:
    """No token, however it is made, does more than to be refused; the server goes on."""
    good = fortress.bearer("web").token
    head, payload, _ = good.split(".")
    for token in (
        *("x", "..", ".", "a.b.c", "a.1234567890123456789", "abc.18446744073709551616"),
        f"{head}.{payload}.",
        f"{head}.{payload}",
        good[:-2],
        good.swapcase(),
        "eyJhbGciOiJub25lIn0." + payload + ".",
        "x" * 4_095,
        "x" * 8_000,
        "W1tb" * 1_000 + ".a.b",
    ):
        stranger = fortress.stranger()
        stranger.use_token(token)
        request = kv_pb2.RangeRequest(key=b"/app/k")
        assert _call(stranger, "kv.Range", request) == INVALID_TOKEN, token
    assert fortress.value(fortress.bearer("web"), b"/app/k") == b"application"


def test_a_token_of_another_cluster_is_foreign(fortress: Fortress, tmp_path: Any) -> None:
    """A token that another cluster gave the same user is no token here."""
    with Fortress(tmp_path / "other") as other:
        other.user("web")
        token = other.bearer("web").token

    stranger = fortress.stranger()
    stranger.use_token(token)

    assert _call(stranger, "kv.Range", kv_pb2.RangeRequest(key=b"/app/k")) == INVALID_TOKEN


def test_an_expired_token_is_refused(tmp_path: Any) -> None:
    """After its time a token is refused by the text by which clients log in again."""
    with Fortress(tmp_path / "short", flags=("--auth-token-ttl=1",)) as short:
        client = short.bearer("root", "lantern-Orbit-zebra-4271")
        assert short.value(client, b"k") is None
        end = time.monotonic() + 10
        refusal = None
        while refusal is None and time.monotonic() < end:
            refusal = _call(client, "kv.Range", kv_pb2.RangeRequest(key=b"k"))

        assert refusal == INVALID_TOKEN


# --- numbers and texts that nobody means --------------------------------------------------------


@pytest.mark.parametrize("number", [-1, -(1 << 63), (1 << 63) - 1])
def test_extreme_numbers_are_answered(fortress: Fortress, number: int) -> None:
    """Limits, revisions, times and ids of any size have an answer, and the member goes on."""
    root = fortress.root()
    requests: tuple[tuple[str, Any], ...] = (
        ("kv.Range", kv_pb2.RangeRequest(key=b"/app/k", limit=number)),
        ("kv.Range", kv_pb2.RangeRequest(key=b"/app/k", revision=number)),
        ("kv.Range", kv_pb2.RangeRequest(key=b"/app/k", min_mod_revision=number)),
        ("kv.Range", kv_pb2.RangeRequest(key=b"/app/k", max_create_revision=number)),
        ("kv.Compact", kv_pb2.CompactionRequest(revision=-1 if number > 0 else number)),
        ("lease.LeaseGrant", lease_pb2.LeaseGrantRequest(TTL=number)),
        ("lease.LeaseGrant", lease_pb2.LeaseGrantRequest(ID=number, TTL=60)),
        ("lease.LeaseTimeToLive", lease_pb2.LeaseTimeToLiveRequest(ID=number, keys=True)),
        ("lease.LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=number)),
        ("kv.Put", kv_pb2.PutRequest(key=b"/app/n", lease=number)),
        ("kv.Txn", kv_pb2.TxnRequest(compare=[_compare(number)], success=[_get(b"/app/k")])),
    )

    for name, request in requests:
        answer = _call(root, name, request)
        assert answer is None or answer.code not in {"UNKNOWN", "INTERNAL", "UNAVAILABLE"}, name
    assert fortress.value(root, b"/app/k") is not None


def _compare(number: int) -> kv_pb2.Compare:
    return kv_pb2.Compare(key=b"/app/k", target="MOD", result="LESS", mod_revision=number)


@pytest.mark.parametrize("kind", [3, 99, -1, (1 << 31) - 1])
def test_an_alarm_of_an_unknown_kind_is_answered(fortress: Fortress, kind: int) -> None:
    """An alarm that there is not does no harm, to be raised or to be asked for."""
    root = fortress.root()
    alarm: Any = kind
    for action in ("ACTIVATE", "GET", "DEACTIVATE"):
        request = maintenance_pb2.AlarmRequest(action=action, memberID=1, alarm=alarm)
        answer = _call(root, "maintenance.Alarm", request)
        assert answer is None or answer.code == "INVALID_ARGUMENT"
    assert _call(root, "maintenance.Status", maintenance_pb2.StatusRequest()) is None
    assert fortress.put(root, b"/ops/after", b"1")


def test_text_that_is_no_text_is_malformed(fortress: Fortress) -> None:
    """Ada Logics 2022: bytes that are not UTF-8 where text belongs are refused, not crashed on."""
    stranger, root = fortress.stranger(), fortress.root()
    bad = b"\x0a\x04\xff\xfe\x80\xc0"

    for client in (stranger, root):
        for method in ("Authenticate", "UserAdd", "UserGet", "RoleAdd", "RoleGet"):
            call = client.raw(f"/etcdserverpb.Auth/{method}")
            answer = refused(lambda call=call: call(bad))
            assert answer is not None
            assert answer.code in {"INTERNAL", "INVALID_ARGUMENT"}
    assert fortress.value(root, b"/app/k") is not None


def test_messages_that_are_none_are_malformed(fortress: Fortress) -> None:
    """Truncated and endless fields, and nesting beyond reason, are refused one by one."""
    root = fortress.root()
    deep = b""
    for _ in range(120):
        deep = _field(2, _field(4, deep))
    for content in (b"\xff", b"\x0a\xff", b"\x0a\x05abc", b"\x08" * 40, deep, struct.pack(">Q", 1)):
        for path in ("/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range"):
            answer = refused(lambda path=path, content=content: root.raw(path)(content))
            assert answer is None or answer.code in {"INTERNAL", "INVALID_ARGUMENT"}
    assert fortress.value(root, b"/app/k") is not None


def _field(number: int, content: bytes) -> bytes:
    length = len(content)
    varint = b""
    while length >= 0x80:
        varint += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return bytes((number << 3 | 2,)) + varint + bytes((length,)) + content
