"""The relay: what waits for a leader, or for its answer."""

from kvsecure.core.raft.participant import NOBODY
from kvsecure.core.relay import Relay
from kvsecure.core.relay_codec import Answer, Ask, Propose, decode
from kvsecure.core.replica import Proposal
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT, SYSTEM_TENANT, MemberId
from kvsecure.proto import kv_pb2, lease_pb2, state_pb2

_LEADER = MemberId(1)
_OTHER = MemberId(2)
_CALLER = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)


class _Way:
    """A way to other members that a test can close."""

    def __init__(self) -> None:
        self.room = 1_000
        self.sent: list[tuple[MemberId, object]] = []

    def __call__(self, member: MemberId, text: bytes) -> bool:
        """Take bytes while there is room."""
        if len(self.sent) >= self.room:
            return False
        self.sent.append((member, decode(text)))
        return True

    @property
    def proposed(self) -> list[bytes]:
        """The entries that were sent to be proposed, in order."""
        return [
            entry for _, said in self.sent if isinstance(said, Propose) for entry in said.entries
        ]


def _command(entry: bytes, since_ns: int = 0) -> Proposal:
    return Proposal(entry, _CALLER, kv_pb2.PutRequest(), since_ns, None)


def _number(said: object) -> int:
    assert isinstance(said, Propose | Ask)
    return said.number


def test_commands_are_sent_in_order_and_in_messages_of_bounded_size() -> None:
    """All commands go in the order they came, with no more than a mebibyte in one message."""
    way = _Way()
    relay = Relay(way, 0)
    entries = [bytes([n]) * 400_000 for n in range(7)] + [b"x" * 3_000_000, b"y"]
    relay.waiting = [_command(entry) for entry in entries]

    relay.carry(_LEADER)

    assert way.proposed == entries
    assert len(way.sent) == 6
    assert not relay.waiting


def test_what_cannot_be_sent_waits_in_its_order() -> None:
    """Commands behind the first that cannot be sent wait, and go later, each once."""
    way = _Way()
    relay = Relay(way, 0)
    entries = [bytes([n]) * 900_000 for n in range(5)]
    relay.waiting = [_command(entry) for entry in entries]
    way.room = 2

    relay.carry(_LEADER)
    assert [proposal.entry for proposal in relay.waiting] == entries[2:]
    way.room = 1_000
    relay.carry(_OTHER)

    assert way.proposed == entries


def test_answer_counts_from_whoever_was_asked_and_once() -> None:
    """Commands are answered by the member that they were sent to, once, and by no other."""
    way = _Way()
    relay = Relay(way, 0)
    command = _command(b"c")
    relay.waiting = [command]
    relay.carry(_LEADER)
    number = _number(way.sent[0][1])

    assert relay.proposed(_OTHER, number) == ()
    assert relay.proposed(_LEADER, number + 1) == ()
    assert list(relay.proposed(_LEADER, number)) == [command]
    assert relay.proposed(_LEADER, number) == ()


def test_commands_of_a_leader_that_is_gone_are_given_back() -> None:
    """When another leads, what the earlier one was sent is lost, and what waits is not."""
    relay = Relay(_Way(), 0)
    lost, waiting = _command(b"l"), _command(b"w")
    relay.waiting = [lost]
    relay.carry(_LEADER)
    relay.waiting = [waiting]

    assert relay.forsake(_LEADER) == []
    assert relay.forsake(_OTHER) == [lost]
    assert relay.waiting == [waiting]


def test_commands_of_a_lost_leader_are_kept_until_somebody_leads() -> None:
    """Nobody is told of the loss while trying again would come to the same; they do expire."""
    relay = Relay(_Way(), 0)
    lost, late = _command(b"l", 9), _command(b"e", 1)
    relay.waiting = [lost, late]
    relay.carry(_LEADER)

    assert relay.forsake(NOBODY) == []
    assert relay.has_orphans
    assert list(relay.expired(5)) == [late]
    late.done = True
    assert relay.drop_done() == [late]
    assert relay.forsake(_OTHER) == [lost]
    assert not relay.has_orphans
    assert relay.forsake(_LEADER) == []


def test_question_is_answered_once_whatever_becomes_of_the_leader() -> None:
    """Who asks is told the answer, that the leader is lost, or that it took too long."""
    way = _Way()
    relay = Relay(way, 0)
    told: list[object] = []
    request = lease_pb2.LeaseKeepAliveRequest(ID=7)

    def ask(now_ns: int) -> int:
        relay.ask(_LEADER, DEFAULT_TENANT, request, now_ns, lambda *came: told.append(came))
        return _number(way.sent[-1][1])

    answered, _, _ = ask(10), ask(20), ask(30)
    relay.answered(_OTHER, Answer(answered, 5, b"not asked"))
    relay.answered(_LEADER, Answer(answered, 5, b"yes"))
    relay.answered(_LEADER, Answer(answered, 5, b"again"))
    assert told == [(5, b"yes")]
    assert list(relay.expired(25)) == []
    relay.forsake(_OTHER)

    failures = [came.failure for _, came in told[1:] if isinstance(came, Refused)]
    assert failures == [Failure.TIMEOUT, Failure.TIMEOUT_LEADER_LOST]


def test_question_may_be_given_more_time_and_ends_with_who_was_asked() -> None:
    """What takes long is waited for longer, and not from a member that cannot be reached."""
    relay = Relay(_Way(), 0)
    told: list[tuple[str, bytes | Refused]] = []

    def ask(name: str, member: MemberId, grace_ns: int) -> None:
        request = state_pb2.MarkRequest(index=1)

        def answered(_: int, came: bytes | Refused) -> None:
            told.append((name, came))

        relay.ask(member, SYSTEM_TENANT, request, 10, answered, grace_ns)

    ask("short", _OTHER, 0)
    ask("long", _OTHER, 100)
    ask("lost", _LEADER, 100)
    assert list(relay.expired(50)) == []
    relay.lost(_LEADER)
    assert [name for name, _ in told] == ["short", "lost"]
    assert list(relay.expired(111)) == []

    assert [name for name, _ in told] == ["short", "lost", "long"]
    assert all(isinstance(came, Refused) for _, came in told)


def test_commands_nobody_waits_for_are_forgotten() -> None:
    """What has waited too long is named, and forgotten once it is marked as done."""
    relay = Relay(_Way(), 0)
    sent, young, waiting = _command(b"s", 1), _command(b"y", 9), _command(b"w", 2)
    relay.waiting = [sent]
    relay.carry(_LEADER)
    relay.waiting = [young, waiting]

    expired = list(relay.expired(5))
    for proposal in expired:
        proposal.done = True

    assert expired == [waiting, sent]
    assert relay.drop_done() == [waiting, sent]
    assert relay.waiting == [young]
    assert relay.forsake(_OTHER) == []
