"""The shape of requests: each rule lets through what it allows and refuses what it forbids."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
from api.txn_paths import changes_a_key_twice
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.api.shape import (
    check_delete,
    check_lease_ttl,
    check_name,
    check_peer_urls,
    check_permission,
    check_put,
    check_range,
    check_tenant_name,
    check_txn,
)
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import (
    AUTH_NAME_BYTES_MAX,
    LEASE_TTL_S_MAX,
    LEASE_TTL_S_MIN,
    PEER_URL_BYTES_MAX,
    PEER_URLS_MAX,
)
from kvsecure.proto.authstore_pb2 import Permission
from kvsecure.proto.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

_OPS_MAX: Final = 4


def _put(key: bytes = b"k", **fields: Any) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, **fields))


def _get(key: bytes = b"k", **fields: Any) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, **fields))


def _delete(key: bytes = b"k", range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end))


def _nested(success: Sequence[RequestOp] = (), failure: Sequence[RequestOp] = ()) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=success, failure=failure))


def _unknown(field: str) -> Any:
    """Return the number of no enum value; typed as whatever is asked for."""
    return {"order": 3, "target": 5, "result": 4, "compared": 5}[field]


def _failure(check: Any, *arguments: Any) -> Failure | None:
    try:
        check(*arguments)
    except Refused as refused:
        return refused.failure
    return None


# --- single operations ------------------------------------------------------------------------

_RANGES: Final[dict[str, tuple[RangeRequest, Failure | None]]] = {
    "a key": (RangeRequest(key=b"a"), None),
    "no key": (RangeRequest(), Failure.EMPTY_KEY),
    "an end and no key": (RangeRequest(range_end=b"\0"), Failure.EMPTY_KEY),
    "an end before the key": (RangeRequest(key=b"b", range_end=b"a"), None),
    "the last order": (RangeRequest(key=b"a", sort_order=2), None),
    "the last target": (RangeRequest(key=b"a", sort_target=4), None),
    "an order that is not": (
        RangeRequest(key=b"a", sort_order=_unknown("order")),
        Failure.INVALID_SORT_OPTION,
    ),
    "a target that is not": (
        RangeRequest(key=b"a", sort_target=_unknown("target")),
        Failure.INVALID_SORT_OPTION,
    ),
    "an order below all": (
        RangeRequest(key=b"a", sort_order=-1),  # type: ignore[arg-type]  # not one of the enum
        Failure.INVALID_SORT_OPTION,
    ),
    "no key before its order": (
        RangeRequest(sort_order=_unknown("order")),
        Failure.EMPTY_KEY,
    ),
}
_PUTS: Final[dict[str, tuple[PutRequest, Failure | None]]] = {
    "a key": (PutRequest(key=b"a"), None),
    "no key": (PutRequest(value=b"v"), Failure.EMPTY_KEY),
    "the old value": (PutRequest(key=b"a", ignore_value=True), None),
    "the old value and a new one": (
        PutRequest(key=b"a", value=b"v", ignore_value=True),
        Failure.VALUE_PROVIDED,
    ),
    "the old lease": (PutRequest(key=b"a", value=b"v", ignore_lease=True), None),
    "the old lease and a new one": (
        PutRequest(key=b"a", lease=7, ignore_lease=True),
        Failure.LEASE_PROVIDED,
    ),
    "both twice": (
        PutRequest(key=b"a", value=b"v", lease=7, ignore_value=True, ignore_lease=True),
        Failure.VALUE_PROVIDED,
    ),
}
_DELETES: Final[dict[str, tuple[DeleteRangeRequest, Failure | None]]] = {
    "a key": (DeleteRangeRequest(key=b"a"), None),
    "no key": (DeleteRangeRequest(range_end=b"\0"), Failure.EMPTY_KEY),
}


@pytest.mark.parametrize(("request_", "expected"), _RANGES.values(), ids=_RANGES.keys())
def test_range_has_a_key_and_a_known_order(
    request_: RangeRequest, expected: Failure | None
) -> None:
    """A range names a key, and an order and a target that there are."""
    assert _failure(check_range, request_) is expected


@pytest.mark.parametrize(("request_", "expected"), _PUTS.values(), ids=_PUTS.keys())
def test_put_does_not_give_what_it_keeps(request_: PutRequest, expected: Failure | None) -> None:
    """A put names a key, and does not give what it asks to be kept."""
    assert _failure(check_put, request_) is expected


@pytest.mark.parametrize(("request_", "expected"), _DELETES.values(), ids=_DELETES.keys())
def test_deletion_has_a_key(request_: DeleteRangeRequest, expected: Failure | None) -> None:
    """A deletion names a key."""
    assert _failure(check_delete, request_) is expected


# --- transactions -----------------------------------------------------------------------------

_TARGETED: Final = Compare(key=b"a")
_TXNS: Final[dict[str, tuple[TxnRequest, Failure | None]]] = {
    "nothing": (TxnRequest(), None),
    "as many as allowed": (TxnRequest(success=[_get()] * _OPS_MAX), None),
    "one too many": (TxnRequest(success=[_get()] * (_OPS_MAX + 1)), Failure.TOO_MANY_OPS),
    "one too many elsewhere": (TxnRequest(failure=[_get()] * (_OPS_MAX + 1)), Failure.TOO_MANY_OPS),
    "one comparison too many": (
        TxnRequest(compare=[_TARGETED] * (_OPS_MAX + 1)),
        Failure.TOO_MANY_OPS,
    ),
    "as many in each list": (
        TxnRequest(
            compare=[_TARGETED] * _OPS_MAX, success=[_get()] * _OPS_MAX, failure=[_get()] * _OPS_MAX
        ),
        None,
    ),
    "what a level leaves": (TxnRequest(success=[_nested([_get()] * 3)]), None),
    "more than a level leaves": (
        TxnRequest(success=[_nested([_get()] * 4)]),
        Failure.TOO_MANY_OPS,
    ),
    "as deep as allowed": (
        TxnRequest(success=[_nested([_nested([_nested([_get()])])])]),
        None,
    ),
    "too deep": (
        TxnRequest(success=[_nested([_nested([_nested([_nested([_get()])])])])]),
        Failure.TOO_MANY_OPS,
    ),
    "a comparison without a key": (TxnRequest(compare=[Compare()]), Failure.EMPTY_KEY),
    "a comparison of a range": (TxnRequest(compare=[Compare(key=b"a", range_end=b"b")]), None),
    "an unknown result": (
        TxnRequest(compare=[Compare(key=b"a", result=_unknown("result"))]),
        Failure.INVALID_SORT_OPTION,
    ),
    "an unknown target": (
        TxnRequest(compare=[Compare(key=b"a", target=_unknown("compared"))]),
        Failure.INVALID_SORT_OPTION,
    ),
    "an empty operation": (TxnRequest(success=[RequestOp()]), Failure.KEY_NOT_FOUND),
    "an empty operation elsewhere": (TxnRequest(failure=[RequestOp()]), Failure.KEY_NOT_FOUND),
    "an empty operation within": (
        TxnRequest(failure=[_nested([], [RequestOp()])]),
        Failure.KEY_NOT_FOUND,
    ),
    "a range without a key": (TxnRequest(success=[_get(b"")]), Failure.EMPTY_KEY),
    "a put without a key": (TxnRequest(failure=[_put(b"")]), Failure.EMPTY_KEY),
    "a deletion without a key": (TxnRequest(success=[_delete(b"")]), Failure.EMPTY_KEY),
    "a range of no order": (
        TxnRequest(success=[_get(sort_order=_unknown("order"))]),
        Failure.INVALID_SORT_OPTION,
    ),
    "a put with what it keeps": (
        TxnRequest(success=[_put(value=b"v", ignore_value=True)]),
        Failure.VALUE_PROVIDED,
    ),
    "a comparison within": (
        TxnRequest(
            success=[RequestOp(request_txn=TxnRequest(compare=[Compare()]))],
        ),
        Failure.EMPTY_KEY,
    ),
    "the same key in both branches": (TxnRequest(success=[_put()], failure=[_put()]), None),
    "a key twice": (TxnRequest(success=[_put(), _put()]), Failure.DUPLICATE_KEY),
    "a key put and deleted": (TxnRequest(failure=[_put(), _delete()]), Failure.DUPLICATE_KEY),
    "a key deleted and put": (TxnRequest(failure=[_delete(), _put()]), Failure.DUPLICATE_KEY),
    "a key deleted twice": (TxnRequest(success=[_delete(), _delete(b"a", b"z")]), None),
    "a key put and read": (TxnRequest(success=[_put(), _get(), _get()]), None),
    "a put into a deleted range": (
        TxnRequest(success=[_delete(b"a", b"z"), _put(b"m")]),
        Failure.DUPLICATE_KEY,
    ),
    "a put at the end of a deleted range": (
        TxnRequest(success=[_delete(b"a", b"m"), _put(b"m")]),
        None,
    ),
    "a put behind an open end": (
        TxnRequest(success=[_delete(b"a", b"\0"), _put(b"\xff\xff")]),
        Failure.DUPLICATE_KEY,
    ),
    "a put before an open end": (
        TxnRequest(success=[_delete(b"b", b"\0"), _put(b"a")]),
        None,
    ),
    "a key in exclusive branches": (
        TxnRequest(success=[_nested([_put()], [_put()])]),
        None,
    ),
    "a key outside and within": (
        TxnRequest(success=[_put(), _nested([], [_put()])]),
        Failure.DUPLICATE_KEY,
    ),
    "a key in two nested ones": (
        TxnRequest(success=[_nested([_put()]), _nested([], [_put()])]),
        Failure.DUPLICATE_KEY,
    ),
    "a key put within and deleted outside": (
        TxnRequest(success=[_nested([_put()]), _delete()]),
        Failure.DUPLICATE_KEY,
    ),
    "a key put outside and deleted within": (
        TxnRequest(success=[_put(), _nested([_delete()])]),
        Failure.DUPLICATE_KEY,
    ),
}


@pytest.mark.parametrize(("request_", "expected"), _TXNS.values(), ids=_TXNS.keys())
def test_transaction_is_sound(request_: TxnRequest, expected: Failure | None) -> None:
    """A transaction is small, its parts are sound, and it changes no key twice."""
    assert _failure(check_txn, request_, _OPS_MAX) is expected


_KEYS: Final = (b"a", b"b", b"c", b"d")
_KEY: Final = st.sampled_from(_KEYS)
_END: Final = st.sampled_from([b"", b"\0", *_KEYS, b"e"])
_LEAVES: Final = st.one_of(
    _KEY.map(_put), _KEY.map(_put), st.builds(_delete, _KEY, _END), _KEY.map(_get)
)
_BRANCHES: Final = st.recursive(
    st.lists(_LEAVES, max_size=3),
    lambda inner: st.lists(st.one_of(_LEAVES, st.builds(_nested, inner, inner)), max_size=3),
    max_leaves=8,
)


@settings(max_examples=400)
@given(_BRANCHES, _BRANCHES)
def test_key_is_changed_once_on_every_path(
    success: list[RequestOp], failure: list[RequestOp]
) -> None:
    """A transaction is refused exactly if some path through it changes a key twice."""
    expected = any(changes_a_key_twice(branch, _KEYS) for branch in (success, failure))

    refused = _failure(check_txn, TxnRequest(success=success, failure=failure), 128)

    assert refused is (Failure.DUPLICATE_KEY if expected else None)


# --- leases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked_s", "given_s"),
    [
        (-(2**63), LEASE_TTL_S_MIN),
        (0, LEASE_TTL_S_MIN),
        (LEASE_TTL_S_MIN, LEASE_TTL_S_MIN),
        (LEASE_TTL_S_MIN + 1, LEASE_TTL_S_MIN + 1),
        (LEASE_TTL_S_MAX, LEASE_TTL_S_MAX),
    ],
)
def test_lease_lives_as_long_as_possible(asked_s: int, given_s: int) -> None:
    """A time that is too short is raised to the shortest there is."""
    assert check_lease_ttl(asked_s) == given_s


@pytest.mark.parametrize("asked_s", [LEASE_TTL_S_MAX + 1, 2**63 - 1])
def test_lease_does_not_live_for_ever(asked_s: int) -> None:
    """A time that is too long is refused."""
    assert _failure(check_lease_ttl, asked_s) is Failure.LEASE_TTL_TOO_LARGE


# --- accounts ---------------------------------------------------------------------------------

_PERMISSIONS: Final[dict[str, tuple[Permission, bool]]] = {
    "a key": (Permission(key=b"a"), True),
    "a range": (Permission(key=b"a", range_end=b"b", permType=Permission.READWRITE), True),
    "from a key on": (Permission(key=b"a", range_end=b"\0"), True),
    "from the first key on": (Permission(key=b"\0", range_end=b"\0"), True),
    "no key": (Permission(range_end=b"b"), False),
    "an empty range": (Permission(key=b"a", range_end=b"a"), False),
    "a falling range": (Permission(key=b"b", range_end=b"a"), False),
    "an unknown kind": (
        Permission(key=b"a", permType=3),  # type: ignore[arg-type]  # not one of the enum
        False,
    ),
}


@pytest.mark.parametrize(("permission", "good"), _PERMISSIONS.values(), ids=_PERMISSIONS.keys())
def test_permission_is_for_a_range(permission: Permission, *, good: bool) -> None:
    """A permission is of a known kind, for a key, from a key on, or for a rising interval."""
    expected = None if good else Failure.INVALID_AUTH_MANAGEMENT

    assert _failure(check_permission, permission) is expected


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("", True),
        ("alice", True),
        ("Ünïcode 名", True),
        ("a b", True),
        ("n" * AUTH_NAME_BYTES_MAX, True),
        ("n" * (AUTH_NAME_BYTES_MAX + 1), False),
        ("ü" * (AUTH_NAME_BYTES_MAX // 2), True),
        ("ü" * (AUTH_NAME_BYTES_MAX // 2 + 1), False),
        ("a/b", False),
        ("/", False),
        ("a\n", False),
        ("a\0b", False),
        ("\x1b[31m", False),
        ("\u202e", False),
    ],
)
def test_name_is_short_and_plain(name: str, *, good: bool) -> None:
    """A name has a bound, no slash, and nothing that a terminal would obey."""
    assert _failure(check_name, name) is (None if good else Failure.NAME_REJECTED)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", None),
        ("team-1", None),
        ("0", None),
        ("a" * 63, None),
        ("a" * 64, Failure.NAME_REJECTED),
        ("", Failure.NAME_REJECTED),
        ("-a", Failure.NAME_REJECTED),
        ("a-", Failure.NAME_REJECTED),
        ("A", Failure.NAME_REJECTED),
        ("a.b", Failure.NAME_REJECTED),
        ("a_b", Failure.NAME_REJECTED),
        ("a/b", Failure.NAME_REJECTED),
        ("ü", Failure.NAME_REJECTED),
        ("default", Failure.TENANT_EXISTS),
        ("system", Failure.TENANT_EXISTS),
    ],
)
def test_tenant_is_named_by_a_label(name: str, expected: Failure | None) -> None:
    """A tenant's name is a label of host names, and not one that is taken from the start."""
    assert _failure(check_tenant_name, name) is expected


@pytest.mark.parametrize(
    ("urls", "good"),
    [
        (["https://10.0.0.1:2380"], True),
        (["http://localhost:1", "https://[::1]:65535"], True),
        (["https://m-1.example.com:2380"], True),
        ([], False),
        ([""], False),
        (["10.0.0.1:2380"], False),
        (["https://10.0.0.1"], False),
        (["https://10.0.0.1:"], False),
        (["https://10.0.0.1:65536"], False),
        (["https://:2380"], False),
        (["https://10.0.0.1:2380/"], False),
        (["https://10.0.0.1:2380/path"], False),
        (["https://10.0.0.1:2380?x=1"], False),
        (["https://user@10.0.0.1:2380"], False),
        (["ftp://10.0.0.1:2380"], False),
        (["unix:///run/peer.sock"], False),
        (["https://10.0.0.1:2380\n"], False),
        (["https://a:1", "b"], False),
        (["https://a:1"] * (PEER_URLS_MAX + 1), False),
        ([f"https://{'a' * PEER_URL_BYTES_MAX}:1"], False),
    ],
)
def test_peer_is_reached_at_a_host_and_a_port(urls: list[str], *, good: bool) -> None:
    """A member's address is a scheme, a host and a port, and nothing else."""
    if good:
        check_peer_urls(urls)
        return
    with pytest.raises(Refused) as caught:
        check_peer_urls(urls)
    assert caught.value.failure is Failure.MEMBER_BAD_URLS
