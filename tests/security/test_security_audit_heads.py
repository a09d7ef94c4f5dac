"""What a member tells of its trail, and what comes of it if the trail does not hold it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, final

import pytest
from google.protobuf.message import Message
from security.lab import CLUSTER, MEMBER, World

from kvsecure.core.member import MemberFacts, status_body
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.proto import maintenance_pb2, state_pb2, tenant_pb2
from kvsecure.security.audit import checkpoint_text
from kvsecure.security.audit_heads import AuditHeads

_OTHER: Final = 0xFACE
_EVERY_S: Final = 5
_SOON: Final = 30


@final
class _Telling:
    """A member on the bench that tells of its trail."""

    def __init__(self, world: World, *, others: bool = True) -> None:
        self.world = world
        self.questions: list[tuple[Message, Callable[[int, bytes | Refused], None]]] = []
        self._work: list[Coroutine[Any, Any, None]] = []
        if world.state.members.get(MEMBER) is None:
            for member in (MEMBER, _OTHER)[: 1 + others]:
                record = state_pb2.Member(id=member, peer_urls=[f"https://{member}:2380"])
                world.system(state_pb2.MemberAdd(member=record, learners_max=0), SYSTEM_TENANT)
        world.engine.peering = SimpleNamespace(
            ask=lambda _, question, answered: self.questions.append((question, answered))
        )
        world.engine.sync_audit = self.sync
        for _ in range(5):
            self.ask()
        self.heads = AuditHeads(
            world.gate,
            world.place,
            lambda: world.keyring,
            spawn=self._work.append,
            now_ns=world.clock,
            wall_ns=world.clock,
        )

    def ask(self) -> None:
        """Have something to record."""
        self.world.ask(tenant_pb2.AuditHeadRequest())

    def sync(self) -> None:
        """Have everything that is written on the disk."""
        self.world.trail.note_durable(self.world.trail.written_head)

    def look(self) -> None:
        """Look, to the end of the turn and of what is looked up."""
        self.heads.look()
        self.world.turn.end()
        while self._work:
            asyncio.run(_run(self._work.pop()))
            self.world.turn.end()

    def live(self, seconds: int, *, busy: bool = False) -> None:
        """Let seconds pass, with a request in each of them or none."""
        for _ in range(seconds):
            if busy:
                self.ask()
            self.sync()
            self.look()
            self.world.clock.forward(1)

    @property
    def told(self) -> state_pb2.ToldHead:
        """What the state has."""
        told = self.world.state.heads.of(MEMBER)
        assert told is not None
        return told

    def said(self, kind: type[Message] = state_pb2.AuditHeadTell) -> list[Message]:
        """Return what was said so far."""
        return [each for each in self.world.engine.applied if type(each) is kind]

    def reports(self) -> list[dict[str, Any]]:
        """Return the notes of what was reported."""
        return [each["note"] for each in self.world.records() if each["stage"] == "trail-behind"]

    def know(self, seq: int, digest: bytes, *, member: int = MEMBER) -> None:
        """Have the cluster know a head from an earlier life of a member."""
        command = state_pb2.AuditHeadTell(
            member_id=member, seq=seq, hash=digest, signature=bytes(64), time_s=1
        )
        self.world.system(command, SYSTEM_TENANT)


async def _run(work: Coroutine[Any, Any, None]) -> None:
    await work


@pytest.fixture
def telling(world: World) -> _Telling:
    """A member that has another one."""
    return _Telling(world)


def test_member_tells_what_is_on_its_disk(telling: _Telling) -> None:
    """The newest durable record, not one that is only written, signed by the trail's own key."""
    telling.sync()
    durable = telling.world.trail.durable_head
    telling.ask()

    telling.look()

    trail, told = telling.world.trail, telling.told
    assert (told.seq, told.hash) == durable
    assert trail.written_head.seq > durable.seq
    _, _, key = trail.signed_head()
    key.verify(told.signature, checkpoint_text(trail.stream, durable))


def test_idle_member_says_nothing(telling: _Telling) -> None:
    """What telling adds to the trail is not told: nobody would ever be still."""
    telling.live(_SOON)

    assert len(telling.said()) == 1


def test_busy_member_tells_every_few_seconds_at_most(telling: _Telling) -> None:
    """The cost of it does not rise with what is recorded, and the numbers do."""
    telling.live(_SOON, busy=True)

    seqs = [told.seq for told in telling.said() if isinstance(told, state_pb2.AuditHeadTell)]
    assert len(seqs) == _SOON // _EVERY_S
    assert seqs == sorted(set(seqs))
    assert telling.reports() == []


def test_member_without_others_tells_nobody(world: World) -> None:
    """There is nobody to remember it: its own tables would go back with its trail."""
    alone = _Telling(world, others=False)

    alone.live(_SOON, busy=True)

    assert alone.said() == []


def test_member_that_is_behind_tells_nothing(telling: _Telling) -> None:
    """Until it has what was told before this life it must not take its place."""
    engine = telling.world.engine
    engine.is_alone = False
    telling.live(_SOON, busy=True)
    before = len(telling.said())

    engine.catch_up()
    telling.live(1)

    assert before == 0
    assert len(telling.said()) == 1


def test_full_disk_costs_no_record(telling: _Telling) -> None:
    """What is not taken is told again, without a word in the trail."""
    telling.world.engine.refusal = Refused(Failure.NO_SPACE)
    before = telling.world.trail.written_head
    telling.live(_SOON)
    after = telling.world.trail.written_head
    telling.world.engine.refusal = None

    telling.live(1)

    assert before == after
    assert len(telling.said()) == 1


def test_new_life_goes_on_where_the_cluster_knows_it_to_be(telling: _Telling) -> None:
    """What an earlier life told is looked up, found, and followed by more."""
    telling.live(_SOON, busy=True)
    again = _Telling(telling.world)

    again.live(_SOON, busy=True)

    assert again.reports() == []
    assert len(again.said()) == 2 * _SOON // _EVERY_S


@pytest.mark.parametrize("ahead", [100, -2], ids=["its end was cut off", "it was rewritten"])
def test_trail_without_what_was_told_is_reported(telling: _Telling, ahead: int) -> None:
    """On the record and in the state, once, and nothing more is told: the evidence stays."""
    seq = telling.world.trail.written_head.seq + ahead
    telling.know(seq, b"x" * 32)

    telling.live(_SOON, busy=True)

    (report,) = telling.reports()
    assert (report["member"], report["record"]) == (f"{MEMBER:x}", seq)
    assert (telling.told.seq, telling.told.is_missing) == (seq, True)
    assert telling.said() == []
    assert len(telling.said(state_pb2.AuditHeadMiss)) == 1


def test_report_is_made_again_in_each_life(telling: _Telling) -> None:
    """Nobody has to have seen the first one; the cluster is not told twice."""
    telling.know(1_000, b"x" * 32)
    telling.live(1)

    again = _Telling(telling.world)
    again.live(_SOON)

    assert len(again.reports()) == 2
    assert len(again.said(state_pb2.AuditHeadMiss)) == 1


def test_others_report_it_too(telling: _Telling) -> None:
    """Whoever reads any member's log or trail hears of it."""
    telling.know(7, b"x" * 32, member=_OTHER)
    missing = state_pb2.AuditHeadMiss(member_id=_OTHER, seq=7)
    telling.world.system(missing, SYSTEM_TENANT)

    telling.live(_SOON)

    assert [(each["member"], each["record"]) for each in telling.reports()] == [(f"{_OTHER:x}", 7)]


def test_status_names_the_members_whose_trail_is_behind() -> None:
    """Also etcd's tools show it, though no alarm is raised."""
    state = SimpleNamespace(
        alarms=(), members={}, heads=[state_pb2.ToldHead(member_id=7, is_missing=True)]
    )
    log = SimpleNamespace(committed=1, applied=1)
    engine = SimpleNamespace(
        replica=SimpleNamespace(node=SimpleNamespace(leader=1, term=1, log=log)),
        statistics=SimpleNamespace(table_bytes=1, table_bytes_in_use=1),
        has_leader=True,
        state=state,
    )
    facts = MemberFacts(
        cluster=CLUSTER,
        member=MEMBER,
        name="",
        peer_urls=(),
        client_urls=(),
        version="3.5.0",
        quota_bytes=1,
    )

    status = maintenance_pb2.StatusResponse.FromString(status_body(facts, engine))  # type: ignore[arg-type]  # all that it looks at

    assert status.errors == ["kvsecure: memberID:7 audit trail behind "]


def test_trail_that_cannot_be_read_is_not_accused(telling: _Telling, tmp_path: Path) -> None:
    """Nothing is told until what was told before is found; then everything goes on."""
    telling.live(_SOON, busy=True)
    told, audit = telling.told, telling.world.place.directory
    again = _Telling(telling.world)
    audit.rename(tmp_path / "aside")
    again.live(_SOON)
    while_gone = (again.reports(), again.told)
    (tmp_path / "aside").rename(audit)

    again.live(2 * _EVERY_S, busy=True)

    assert while_gone == ([], told)
    assert again.told.seq > told.seq
    assert again.reports() == []


def test_trail_whose_old_files_were_archived_is_not_accused(telling: _Telling) -> None:
    """Whole files may be moved away, with what was told long ago."""
    trail = telling.world.trail
    telling.know(2, b"x" * 32)
    for _ in range(3):
        trail.use(telling.world.keyring)
        telling.ask()
    min(telling.world.place.directory.glob("*.audit")).unlink()

    telling.live(2)

    assert telling.reports() == []
    assert len(telling.said()) == 1


def test_leader_is_asked_while_the_log_does_not_come(telling: _Telling) -> None:
    """A member that lost what it had acknowledged may never be in step, and hears it too."""
    engine = telling.world.engine
    engine.is_alone, engine.leading.is_own = False, False
    telling.live(1)
    ((question, answered),) = telling.questions
    known = state_pb2.ToldHead(member_id=MEMBER, seq=1_000, hash=b"x" * 32)

    answered(1, known.SerializeToString())
    telling.live(2 * _EVERY_S)

    assert question == state_pb2.ToldHeadRequest(member_id=MEMBER)
    assert [each["record"] for each in telling.reports()] == [1_000]
    missed = telling.said(state_pb2.AuditHeadMiss)
    assert missed[0] == state_pb2.AuditHeadMiss(member_id=MEMBER, seq=1_000)


@pytest.mark.parametrize(
    ("answer", "questions"),
    [(b"", 2), (b"\xff", 2), (Refused(Failure.TIMEOUT), 3)],
    ids=["nothing was told", "no answer", "too late"],
)
def test_answer_that_says_nothing_accuses_nobody(
    telling: _Telling, answer: bytes | Refused, questions: int
) -> None:
    """Only a head that the trail lacks is reported; an answer that did not come is asked for."""
    engine = telling.world.engine
    engine.is_alone, engine.leading.is_own = False, False
    telling.live(1)
    ((_, answered),) = telling.questions

    answered(1, answer)
    telling.live(_EVERY_S + 1)

    assert telling.reports() == []
    assert len(telling.questions) == questions


@pytest.mark.parametrize(("member", "seq"), [(MEMBER, 9), (_OTHER, 0)])
def test_question_is_answered_from_the_state(telling: _Telling, member: int, seq: int) -> None:
    """What a member has told, or nothing."""
    telling.know(9, b"x" * 32)
    answers: list[bytes | Refused] = []

    telling.heads.answer_member(
        SYSTEM_TENANT,
        state_pb2.ToldHeadRequest(member_id=member),
        lambda _, said: answers.append(said),
    )

    ((said),) = answers
    assert isinstance(said, bytes)
    assert state_pb2.ToldHead.FromString(said).seq == seq


def test_member_that_ends_tells_its_last(telling: _Telling) -> None:
    """Without waiting for the next time, and with what was not on the disk yet."""
    telling.live(1)
    telling.ask()
    last = telling.world.trail.written_head

    async def end() -> None:
        ending = asyncio.ensure_future(telling.heads.tell_last())
        await asyncio.sleep(0.02)
        telling.world.turn.end()
        await ending

    asyncio.run(end())

    assert (telling.told.seq, telling.told.hash) == last


def test_member_that_cannot_tell_ends_all_the_same(telling: _Telling) -> None:
    """A trail that cannot be synced holds nobody up for long."""
    telling.live(1)
    telling.ask()
    telling.world.engine.sync_audit = lambda: None

    asyncio.run(telling.heads.tell_last())

    assert len(telling.said()) == 1


def test_heads_are_shown_to_a_root_of_the_cluster(telling: _Telling) -> None:
    """Every member is listed, also who has told nothing; the call is on the record."""
    world = telling.world
    telling.live(1)

    asked = world.ask(tenant_pb2.AuditHeadsRequest())

    assert asked.body is not None
    shown = tenant_pb2.AuditHeadsResponse.FromString(asked.body).heads
    assert [(each.member_id, each.stream) for each in shown] == [
        (MEMBER, world.trail.stream),
        (_OTHER, f"node/{_OTHER:x}"),
    ]
    assert (shown[0].seq, shown[0].hash) == (telling.told.seq, telling.told.hash)
    assert shown[1].seq == 0
    assert world.records()[-1]["op"] == {"rpc": "AuditHeads"}
