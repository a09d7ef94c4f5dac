"""`/health` beside etcd's: the same status and the same words, with and without alarms."""

import http.client
import json
import ssl

import pytest
from support.pair import Pair
from support.servers import Member
from wire.socket_peer import client_tls

from kvsecure.proto import maintenance_pb2

_QUERIES = (
    "",
    "?serializable=true",
    "?serializable=1",
    "?exclude=NOSPACE",
    "?exclude=NOSPACE&exclude=CORRUPT",
    "?exclude=CORRUPT",
    "?exclude=",
    "?exclude=nospace",
    "?exclude=NOSPACE&serializable=true",
    "?nothing=at-all",
)
_ACTIVATE = maintenance_pb2.AlarmRequest.ACTIVATE
_DEACTIVATE = maintenance_pb2.AlarmRequest.DEACTIVATE


def _health(member: Member, query: str) -> tuple[int, dict[str, str]]:
    context = client_tls(
        member.authority.certificate, alpn=("http/1.1",), maximum=ssl.TLSVersion.TLSv1_3
    )
    connection = http.client.HTTPSConnection("localhost", member.port, timeout=20, context=context)
    try:
        connection.request("GET", f"/health{query}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("query", _QUERIES)
@pytest.mark.parametrize("alarm", [maintenance_pb2.NONE, maintenance_pb2.NOSPACE])
def test_health_is_what_etcd_says(pair: Pair, query: str, alarm: int) -> None:
    """Both give the same status and the same reason, while all is well and while space is out."""
    if alarm:
        request = maintenance_pb2.AlarmRequest(action=_ACTIVATE, memberID=0, alarm=alarm)  # type: ignore[arg-type]  # an enum is an int here
        pair.do("maintenance.Alarm", request)
    try:
        etcd, subject = (_health(member, query) for member in pair.members)
    finally:
        if alarm:
            request.action = _DEACTIVATE
            pair.do("maintenance.Alarm", request)

    assert subject == etcd
