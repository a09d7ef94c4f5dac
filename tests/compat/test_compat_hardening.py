"""Who may do what, call by call: the rules that etcd 3.5.1 states and does not keep.

Owns: the matrix of calls by users, on kvsecure, also while an alarm is on.
Never: runs against etcd, which stops, or lets a stranger switch auth off, at several of these.
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.bad_requests import prepare
from support.forbidden_requests import (
    ADMIN_CALLS,
    DENIED,
    LEASE_CALLS,
    NO_USER,
    PUBLIC_CALLS,
    USER_CALLS,
)
from support.pair import NOBODY, Pair
from support.rpc import Refusal, refusal_of
from support.servers import Member

from kvsecure.proto import kv_pb2, maintenance_pb2

_PROTECTED = {**ADMIN_CALLS, **USER_CALLS, **LEASE_CALLS, "kv.Range": kv_pb2.RangeRequest(key=b"a")}


@pytest.fixture(scope="module")
def alone(subject_type: type[Member], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The server under test, with the content of the tables."""
    if subject_type.product == "etcd":
        pytest.skip("etcd 3.5.1 is known not to keep these rules")
    with subject_type(tmp_path_factory.mktemp("alone")) as member:
        pair = Pair(member)
        prepare(pair)
        yield pair
        pair.close()


def _refusal(pair: Pair, method: str, user: str) -> Refusal | None:
    (subject,) = pair.clients(user)
    request = {**_PROTECTED, **PUBLIC_CALLS}[method]
    try:
        subject.call(method.partition(" ")[0], request)
    except grpc.RpcError as error:
        return refusal_of(error)
    return None


@pytest.mark.parametrize("method", sorted(ADMIN_CALLS))
def test_administration_is_for_administrators(alone: Pair, method: str) -> None:
    """A user without role root is denied every call that administers."""
    assert _refusal(alone, method, "web") == DENIED


@pytest.mark.parametrize("method", sorted(_PROTECTED))
def test_stranger_is_told_nothing(alone: Pair, method: str) -> None:
    """Without a token every call but the public ones is refused for want of a user."""
    assert _refusal(alone, method, NOBODY) == NO_USER


@pytest.mark.parametrize("method", sorted(PUBLIC_CALLS))
def test_public_call_needs_no_token(alone: Pair, method: str) -> None:
    """Whether auth is on, and whether the server is well, may be asked by anybody."""
    assert _refusal(alone, method, NOBODY) is None


@pytest.mark.parametrize("method", sorted(USER_CALLS))
def test_user_may_ask_about_the_member(alone: Pair, method: str) -> None:
    """Status, alarms, members and leases of one's own need a user, and no more."""
    assert _refusal(alone, method, "web") is None


@pytest.mark.parametrize("method", sorted(LEASE_CALLS))
def test_lease_is_as_secret_as_its_keys(alone: Pair, method: str) -> None:
    """Keys on a lease are shown to those, and deleted by those, who may read or write them."""
    assert _refusal(alone, method, "web") == DENIED


def test_alarm_does_not_open_the_door(subject_type: type[Member], tmp_path: Path) -> None:
    """While an alarm is on, strangers and users are refused exactly what they always are."""
    if subject_type.product == "etcd":
        pytest.skip("etcd 3.5.1 lets anybody do anything while an alarm is on")
    with subject_type(tmp_path / "alarmed") as member:
        pair = Pair(member)
        prepare(pair)
        (root,) = pair.clients()
        root.call(
            "maintenance.Alarm",
            maintenance_pb2.AlarmRequest(
                action=maintenance_pb2.AlarmRequest.ACTIVATE, alarm=maintenance_pb2.NOSPACE
            ),
        )

        strangers = {method: _refusal(pair, method, NOBODY) for method in _PROTECTED}
        users = {method: _refusal(pair, method, "web") for method in ADMIN_CALLS}

        assert strangers == dict.fromkeys(_PROTECTED, NO_USER)
        assert users == dict.fromkeys(ADMIN_CALLS, DENIED)
        pair.close()
