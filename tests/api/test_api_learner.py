"""What a member without a vote answers, and that it refuses all else at once."""

from typing import Any, Final, final

import pytest
from api.watching import Bench
from google.protobuf.message import Message
from security.lab import MEMBER, Asked

from kvsecure.api import kv
from kvsecure.api.methods import METHODS
from kvsecure.api.services import Receiver
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import kv_pb2, maintenance_pb2, state_pb2

# Of etcd's own, what a learner serves whatever is asked.
_ALWAYS: Final = {
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/Defragment",
}
_OWN: Final = ("/kvsecurepb.Audit/", "/kvsecurepb.Crypto/", "/grpc.")
_REFUSED: Final = sorted(
    path for path in METHODS if path not in _ALWAYS and not path.startswith(_OWN)
)


@final
class _Streaming:
    """A client with a stream to the member."""

    def __init__(self, bench: Bench) -> None:
        self.peer = bench.world.peer("root")
        self.token = b""
        self.is_full = False
        self.ended: Refused | None = None
        self.receiver: Receiver

    def send(self, message: bytes) -> None:
        """Take a message."""

    def send_each(self, *_: object) -> None:
        """Take messages."""

    def succeed(self, answer: Answer) -> None:
        """Take an answer."""

    def fail(self, refused: Refused) -> None:
        """End."""
        self.ended = refused

    def finish(self, refused: Refused | None = None) -> None:
        """End."""
        self.ended = refused


@pytest.fixture
def learner(bench: Bench) -> Bench:
    """A member without a vote, which has a key."""
    bench.put(b"k", b"v")
    record = state_pb2.Member(id=MEMBER, peer_urls=["https://m:1"], is_learner=True)
    bench.world.system(state_pb2.MemberAdd(member=record, learners_max=1), SYSTEM_TENANT)
    return bench


def _ask(bench: Bench, path: str, request: Message) -> Asked:
    """Call a method of one request, as the server does; its refusals are the caller's."""
    world = bench.world
    asked: Any = Asked(world.turn, world.peer("root"), b"")
    method = METHODS[path]
    assert method.unary is not None
    try:
        method.unary(bench.services, asked, request, request.SerializeToString())
    except Refused as refused:
        world.gate.reject(asked, request, refused)
    world.turn.end()
    return asked


def _open(bench: Bench, path: str, request: Message) -> _Streaming:
    call = _Streaming(bench)
    method = METHODS[path]
    assert method.stream is not None
    call.receiver = method.stream(bench.services, call)
    call.receiver.received(request)
    bench.world.turn.end()
    return call


@pytest.mark.parametrize("path", _REFUSED)
def test_learner_refuses_what_only_a_voter_answers(learner: Bench, path: str) -> None:
    """Every method but a few is refused at once, with etcd's words, and put on record."""
    request = METHODS[path].request()

    if METHODS[path].stream is not None:
        refused = _open(learner, path, request).ended
    else:
        refused = _ask(learner, path, request).refused

    assert refused is not None
    assert refused.failure is Failure.NOT_FOR_LEARNERS
    assert refused.text == "etcdserver: rpc not supported for learner"
    (record,) = learner.world.last(1)
    assert (record["stage"], record["actor"]["user"]) == ("rejected", "root")
    assert learner.world.engine.applied == []


def test_learner_reads_keys_as_it_has_them(learner: Bench) -> None:
    """A read that may be stale is answered, and another one is not."""
    path = "/etcdserverpb.KV/Range"

    stale = _ask(learner, path, kv_pb2.RangeRequest(key=b"k", serializable=True))
    agreed = _ask(learner, path, kv_pb2.RangeRequest(key=b"k"))

    assert stale.body is not None
    assert [each.value for each in kv_pb2.RangeResponse.FromString(stale.body).kvs] == [b"v"]
    assert agreed.why == "NOT_FOR_LEARNERS"


def test_learner_does_not_take_bursts(learner: Bench) -> None:
    """Plain gets and puts that come together are left to be refused one by one."""
    asking: Any = None
    put = kv_pb2.PutRequest(key=b"k", value=b"w").SerializeToString()

    assert kv.gets(learner.services, asking, [b"k"], 1_000) == 0
    assert not kv.puts(learner.services, asking, [(b"k", b"w")], [put])


def test_learner_decides_who_may_read(learner: Bench) -> None:
    """Having no vote, it knows the rights of everybody all the same."""
    world = learner.world
    asked: Any = Asked(world.turn, world.peer(), b"")
    request = kv_pb2.RangeRequest(key=b"k", serializable=True)
    unary = METHODS["/etcdserverpb.KV/Range"].unary
    assert unary is not None

    unary(learner.services, asked, request, request.SerializeToString())
    world.turn.end()

    assert asked.why == "USER_EMPTY"


def test_member_with_a_vote_answers_as_always(learner: Bench) -> None:
    """Once it is promoted nothing is refused for this any more, on streams neither."""
    learner.world.system(state_pb2.MemberPromote(id=MEMBER), SYSTEM_TENANT)

    put = _ask(learner, "/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"k", value=b"w"))
    alarm = _ask(learner, "/etcdserverpb.Maintenance/Alarm", maintenance_pb2.AlarmRequest())

    assert (put.why, alarm.why) == ("", "")
