"""Joining by token: what is looked at before anybody decides, and what a stranger leaves behind."""

import dataclasses
import json
from typing import Any, final

import pytest
from api.watching import Bench
from security.lab import NO_ADMISSION, Asked

from kvsecure.api.joining import authority, redeem
from kvsecure.api.services import Admission, Services
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.joining_pb2 import (
    JoinAuthorityRequest,
    JoinAuthorityResponse,
    JoinRedeemRequest,
)


@final
class _Known:
    """The admission of a member that has an authority and lets nobody in."""

    add_token = staticmethod(NO_ADMISSION.add_token)
    redeem = staticmethod(NO_ADMISSION.redeem)

    def authority(self) -> JoinAuthorityResponse:
        """Say who the authority is."""
        return JoinAuthorityResponse(certificates=b"pem")


def _asked(bench: Bench) -> Asked:
    return Asked(bench.world.turn, bench.world.peer(""), b"")


def _with(bench: Bench, admission: Admission) -> Services:
    return dataclasses.replace(bench.services, admission=admission)


@pytest.mark.parametrize(
    ("admission", "body", "why", "code"),
    [
        (_Known(), JoinAuthorityResponse(certificates=b"pem").SerializeToString(), "", "OK"),
        (NO_ADMISSION, None, "JOIN_REJECTED", "FAILED_PRECONDITION"),
    ],
)
def test_question_for_the_authority_is_one_record(
    bench: Bench, admission: Admission, body: bytes | None, why: str, code: str
) -> None:
    """Strangers ask it without number: it costs no more than a read, and is recorded as one."""
    services = _with(bench, admission)
    asked = _asked(bench)

    authority(services, asked, JoinAuthorityRequest(), b"")
    bench.world.turn.end()

    assert (asked.body, asked.why) == (body, why)
    records = map(json.loads, bench.world.trail.recent(100))
    told = [each for each in records if each.get("op", {}).get("rpc") == "JoinAuthority"]
    assert [(each["stage"], each["result"]["code"]) for each in told] == [("read", code)]


_RIGHT: dict[str, Any] = {
    "token_id": "0" * 16,
    "secret": bytes(32),
    "name": "m2",
    "peer_urls": ["https://m2.internal:2380"],
    "hosts": ["m2.internal"],
}


@pytest.mark.parametrize(
    ("wrong", "failure"),
    [
        ({"token_id": "0" * 17}, Failure.JOIN_TOKEN_REJECTED),
        ({"secret": bytes(31)}, Failure.JOIN_TOKEN_REJECTED),
        ({"peer_urls": []}, Failure.MEMBER_BAD_URLS),
        ({"name": "n" * 129}, Failure.JOIN_REJECTED),
        ({"name": "m\n2"}, Failure.JOIN_REJECTED),
        ({"hosts": []}, Failure.JOIN_REJECTED),
        ({"hosts": ["h"] * 17}, Failure.JOIN_REJECTED),
        ({"hosts": ["h" * 254]}, Failure.JOIN_REJECTED),
        ({"server_request": bytes(4097)}, Failure.JOIN_REJECTED),
        ({"peer_request": bytes(4097)}, Failure.JOIN_REJECTED),
    ],
)
def test_newcomer_of_another_shape_is_refused_before_its_token_is_tried(
    bench: Bench, wrong: dict[str, Any], failure: Failure
) -> None:
    """What is out of bounds reaches no file, no throttle and no trail."""
    with pytest.raises(Refused) as refused:
        redeem(bench.services, _asked(bench), JoinRedeemRequest(**{**_RIGHT, **wrong}), b"")

    assert refused.value.failure is failure


def test_newcomer_of_the_right_shape_is_let_through(bench: Bench) -> None:
    """Nothing about it is wrong but that it has not been decided."""
    begun: list[Any] = []
    services = dataclasses.replace(bench.services, spawn=begun.append)

    redeem(services, _asked(bench), JoinRedeemRequest(**_RIGHT), b"")

    (work,) = begun
    work.close()
