"""grpc.health.v1: whether the member serves, once or at every change, for anybody."""

from typing import final

import pytest
from api.watching import Bench
from security.lab import MEMBER

from kvsecure.api.health import check, watch
from kvsecure.api.services import Receiver
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import state_pb2
from kvsecure.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from kvsecure.security.session import Peer

_SERVING = HealthCheckResponse.SERVING
_NOT_SERVING = HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN
_SERVICES = ["", "etcdserverpb.KV", "etcdserverpb.Watch", "kvsecurepb.Tenants"]


@final
class _Asking:
    """A client that asks, once or on a stream."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.token = b""
        self.is_full = False
        self.told: list[int] = []
        self.receiver: Receiver

    def succeed(self, answer: Answer) -> None:
        """Take the one answer."""
        assert answer.revision == 0
        self.send(answer.body)

    def send(self, message: bytes) -> None:
        """Take an answer."""
        self.told.append(HealthCheckResponse.FromString(message).status)

    def fail(self, refused: Refused) -> None:
        """Fail: health is for everybody."""
        raise AssertionError(refused)

    def finish(self, refused: Refused | None = None) -> None:
        """Fail: a watch of health does not end by itself."""
        raise AssertionError(refused)


def _lead(bench: Bench, *, leads: bool) -> None:
    bench.world.engine.has_leader = leads  # type: ignore[attr-defined]  # all that health asks of it


def _watch(bench: Bench, service: str = "") -> _Asking:
    asking = _Asking(bench.world.peer())
    asking.receiver = watch(bench.services, asking)
    asking.receiver.received(HealthCheckRequest(service=service))
    return asking


@pytest.mark.parametrize("service", _SERVICES)
@pytest.mark.parametrize("leads", [True, False])
def test_member_serves_while_somebody_leads(bench: Bench, service: str, *, leads: bool) -> None:
    """Every service there is, and the whole server, serves while there is a leader."""
    _lead(bench, leads=leads)
    asking = _Asking(bench.world.peer())

    check(bench.services, asking, HealthCheckRequest(service=service), b"")

    assert asking.told == [_SERVING if leads else _NOT_SERVING]


def test_learner_does_not_serve(bench: Bench) -> None:
    """A member without a vote says so, though somebody leads."""
    _lead(bench, leads=True)
    record = state_pb2.Member(id=MEMBER, peer_urls=["https://m:1"], is_learner=True)
    bench.world.system(state_pb2.MemberAdd(member=record, learners_max=1), SYSTEM_TENANT)
    asking = _Asking(bench.world.peer())

    check(bench.services, asking, HealthCheckRequest(), b"")

    assert asking.told == [_NOT_SERVING]


@pytest.mark.parametrize("service", ["etcdserverpb", "nobody", "etcdserverpb.KV "])
def test_unknown_service_is_refused(bench: Bench, service: str) -> None:
    """A check of a service that there is not is NOT_FOUND."""
    with pytest.raises(Refused) as caught:
        check(
            bench.services,
            _Asking(bench.world.peer()),
            HealthCheckRequest(service=service),
            b"",
        )

    assert caught.value.failure is Failure.UNKNOWN_HEALTH_SERVICE


def test_watch_of_health_tells_changes(bench: Bench) -> None:
    """A watch is told the present status at once, and every other one once."""
    _lead(bench, leads=True)
    asking = _watch(bench)
    for leads in (True, False, False, True):
        _lead(bench, leads=leads)
        bench.timers.forward(1.0)

    assert asking.told == [_SERVING, _NOT_SERVING, _SERVING]


def test_watch_of_an_unknown_service_waits_for_it(bench: Bench) -> None:
    """A watch of a service that there is not says so, and goes on."""
    _lead(bench, leads=True)
    asking = _watch(bench, "nobody")

    bench.timers.forward(5.0)

    assert asking.told == [_SERVICE_UNKNOWN]
    assert bench.timers.count == 1


def test_watch_of_health_ends_with_its_stream(bench: Bench) -> None:
    """When nobody listens nothing is looked at."""
    _lead(bench, leads=True)
    asking = _watch(bench)

    asking.receiver.half_closed()
    asking.receiver.closed()
    _lead(bench, leads=False)
    bench.timers.forward(5.0)

    assert (asking.told, bench.timers.count) == ([_SERVING], 0)


def test_watch_of_health_looks_once_a_second(bench: Bench) -> None:
    """However often a client repeats its one request, it makes one watch."""
    _lead(bench, leads=True)
    asking = _watch(bench)

    for _ in range(100):
        asking.receiver.received(HealthCheckRequest(service=""))

    assert (asking.told, bench.timers.count) == ([_SERVING], 1)
