"""Members: what the log declares of them, and what it refuses."""

import pytest
from core.snapshots import everything
from core.stored_tables import MemoryTables, flush, reload
from google.protobuf.message import Message

from kvsecure.core.apply import apply
from kvsecure.core.members import Members, added_member_id, member_view
from kvsecure.core.state import MEMBERSHIP_KINDS, State
from kvsecure.model.answer import Answer
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT
from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.proto import cluster_pb2, maintenance_pb2, state_pb2
from kvsecure.storage.rows import Table

_SYSTEM = Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0)


def _member(number: int, *, is_learner: bool = False) -> state_pb2.Member:
    return state_pb2.Member(
        id=number,
        name=f"m{number}",
        peer_urls=[f"https://m{number}:2380"],
        is_learner=is_learner,
    )


def _state(*founders: int) -> State:
    state = State(MemoryTables())
    state.found([_member(number) for number in founders])
    return state


def _do(state: State, command: Message) -> Answer | Failure:
    try:
        came = apply(state, _SYSTEM, command, 0)
    except Refused as refused:
        return refused.failure
    assert isinstance(came, Answer)
    return came


def _add(number: int, *, is_learner: bool = False, learners_max: int = 1) -> state_pb2.MemberAdd:
    record = state_pb2.Member(
        id=number, peer_urls=[f"https://m{number}:2380"], is_learner=is_learner
    )
    return state_pb2.MemberAdd(member=record, learners_max=learners_max)


def _ids(state: State) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return state.members.voters, state.members.learners


def test_founders_vote_from_the_beginning() -> None:
    """A cluster begins with its founders as voters, and is stored with them."""
    state, tables = _state(3, 1, 2), MemoryTables()

    flush(state, tables)

    assert _ids(state) == ((1, 2, 3), ())
    assert [each.name for each in reload(tables).members] == ["m1", "m2", "m3"]


def test_a_state_of_former_days_is_given_its_members_once() -> None:
    """A state that was stored before it named members has none, until they are named."""
    tables = MemoryTables()
    flush(_state(), tables)

    state = reload(tables)
    before = len(state.members)
    state.found_members([_member(1)])
    flush(state, tables)

    assert before == 0
    assert _ids(reload(tables)) == ((1,), ())


def test_a_member_is_added_with_what_it_is_told() -> None:
    """The answer tells the new member and all of them, by id; nobody knows its name yet."""
    state = _state(1, 9)

    came = _do(state, _add(5))

    assert isinstance(came, Answer)
    answer = cluster_pb2.MemberAddResponse.FromString(came.body)
    assert (answer.member.ID, answer.member.name) == (5, "")
    assert list(answer.member.peerURLs) == ["https://m5:2380"]
    assert [each.ID for each in answer.members] == [1, 5, 9]


def test_a_learner_votes_once_it_is_promoted() -> None:
    """A learner is none of the voters until then."""
    state = _state(1)

    _do(state, _add(2, is_learner=True))
    before = _ids(state)
    _do(state, state_pb2.MemberPromote(id=2))

    assert before == ((1,), (2,))
    assert _ids(state) == ((1, 2), ())


def test_who_joins_by_token_is_joining_until_it_votes() -> None:
    """It is one that has not started until it says where clients come, whatever happens else."""
    state, tables = _state(1), MemoryTables()
    command = _add(2, is_learner=True)
    command.member.name, command.member.is_joining = "two", True
    _do(state, command)
    told = member_view(state.members.get(2) or state_pb2.Member())
    _do(state, state_pb2.MemberUpdate(id=2, peer_urls=["https://n2:2380"]))
    _do(state, state_pb2.MemberPublish(id=2, name="two", client_urls=["https://m2:2379"]))
    flush(state, tables)
    before = reload(tables).members.get(2)

    _do(state, state_pb2.MemberPromote(id=2))

    after = state.members.get(2)
    assert before is not None
    assert after is not None
    assert (before.is_joining, after.is_joining) == (True, False)
    assert (told.name, member_view(before).name) == ("", "two")


def test_an_update_changes_peer_urls_and_nothing_else() -> None:
    """A learner stays a learner, whatever its URLs (etcd 3.6.12 promoted it)."""
    state = _state(1)
    _do(state, _add(2, is_learner=True))
    _do(state, state_pb2.MemberPublish(id=2, name="two", client_urls=["https://m2:2379"]))

    _do(state, state_pb2.MemberUpdate(id=2, peer_urls=["https://n2:2380"]))

    assert state.members.get(2) == state_pb2.Member(
        id=2,
        name="two",
        peer_urls=["https://n2:2380"],
        client_urls=["https://m2:2379"],
        is_learner=True,
    )


def test_a_member_that_goes_takes_its_alarms_its_key_and_its_head_along() -> None:
    """Nothing of it is left but that it must not come back, also after a restart."""
    state, tables = _state(1, 2), MemoryTables()
    for member in (1, 2):
        _do(state, maintenance_pb2.AlarmRequest(action=1, memberID=member, alarm=1))
        _do(state, state_pb2.SigningKeyAdd(member_id=member, public_key=b"k" * 32))
        _do(
            state,
            state_pb2.AuditHeadTell(
                member_id=member, seq=1, hash=bytes(32), signature=bytes(64), time_s=1
            ),
        )
    flush(state, tables)

    _do(state, state_pb2.MemberRemove(id=2))
    flush(state, tables)
    again = reload(tables)

    for each in (state, again):
        assert _ids(each) == ((1,), ())
        assert each.alarms == {(1, 1)}
        assert each.members.keys == {1: b"k" * 32}
        assert [head.member_id for head in each.heads] == [1]
        assert each.members.is_removed(2)
        assert not each.members.is_removed(1)
    assert [key[:1] for key in tables.keys(Table.STATE) if key[:1] in MEMBERSHIP_KINDS] == [
        b"H",
        b"K",
        b"N",
        b"X",
    ]


def test_every_change_is_a_new_revision() -> None:
    """Whoever looks at the revision alone misses nothing."""
    state = _state(1, 2)
    seen = [state.members.revision]

    for command in (
        _add(3, is_learner=True),
        state_pb2.MemberPromote(id=3),
        state_pb2.MemberUpdate(id=3, peer_urls=["https://n3:2380"]),
        state_pb2.MemberPublish(id=3, name="x"),
        state_pb2.SigningKeyAdd(member_id=3, public_key=b"k" * 32),
        state_pb2.MemberRemove(id=3),
    ):
        _do(state, command)
        seen.append(state.members.revision)

    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        (_add(1), Failure.MEMBER_EXISTS),
        (_add(8), Failure.MEMBER_EXISTS),
        (_add(0), Failure.MEMBER_EXISTS),
        (
            state_pb2.MemberAdd(
                member=state_pb2.Member(id=5, peer_urls=["https://n:1", "https://m2:2380"])
            ),
            Failure.PEER_URL_EXISTS,
        ),
        (_add(5, is_learner=True), Failure.TOO_MANY_LEARNERS),
        (state_pb2.MemberRemove(id=5), Failure.MEMBER_NOT_FOUND),
        (state_pb2.MemberRemove(id=8), Failure.MEMBER_NOT_FOUND),
        (state_pb2.MemberUpdate(id=5), Failure.MEMBER_NOT_FOUND),
        (state_pb2.MemberUpdate(id=8), Failure.MEMBER_NOT_FOUND),
        (
            state_pb2.MemberUpdate(id=1, peer_urls=["https://m2:2380"]),
            Failure.PEER_URL_EXISTS,
        ),
        (state_pb2.MemberPromote(id=5), Failure.MEMBER_NOT_FOUND),
        (state_pb2.MemberPromote(id=1), Failure.MEMBER_NOT_LEARNER),
        (state_pb2.MemberPublish(id=8, name="n"), Failure.MEMBER_NOT_FOUND),
        (
            state_pb2.SigningKeyAdd(member_id=8, public_key=b"k" * 32),
            Failure.MEMBER_NOT_FOUND,
        ),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Message) else case.name,
)
def test_what_etcd_refuses_is_refused_without_a_trace(command: Message, failure: Failure) -> None:
    """There are members 1 and 2, the learner 3, and 8, who was removed."""
    state = _state(1, 2)
    for before in (_add(8), state_pb2.MemberRemove(id=8), _add(3, is_learner=True)):
        _do(state, before)
    found = everything(state)

    assert _do(state, command) is failure
    assert everything(state) == found


def test_a_member_may_keep_a_peer_url_that_it_has() -> None:
    """Only what is another member's is refused."""
    state = _state(1)
    urls = ["https://m1:2380", "https://n1:2380"]

    assert isinstance(_do(state, state_pb2.MemberUpdate(id=1, peer_urls=urls)), Answer)


def test_the_last_voter_stays() -> None:
    """Somebody has to vote, though there may be learners."""
    state = _state(1)
    _do(state, _add(2, is_learner=True))

    assert _do(state, state_pb2.MemberRemove(id=1)) is Failure.NOT_ENOUGH_STARTED
    assert isinstance(_do(state, state_pb2.MemberRemove(id=2)), Answer)


def test_there_are_no_more_members_than_consensus_can_have() -> None:
    """The number of members is bounded."""
    state = _state(*range(1, MEMBERS_MAX + 1))

    assert _do(state, _add(1_000)) is Failure.TOO_MANY_MEMBERS


def test_what_is_no_key_is_not_taken() -> None:
    """Ed25519 keys have 32 bytes."""
    state = _state(1)

    for key in (b"", b"k" * 31, b"k" * 33):
        _do(state, state_pb2.SigningKeyAdd(member_id=1, public_key=key))

    assert state.members.keys == {}


def test_a_member_has_one_key() -> None:
    """Another key of a member takes the place of the one before."""
    members = Members()
    members.found([_member(1)])

    for key in (b"k" * 32, b"l" * 32):
        members.add_key(state_pb2.SigningKey(member_id=1, public_key=key))

    assert members.keys == {1: b"l" * 32}


def test_an_added_member_has_the_id_that_etcd_gives_it() -> None:
    """It is what etcd 3.5.1 answered with in that second, in whatever order URLs are told."""
    urls = ["http://127.0.0.1:9905", "http://127.0.0.1:9904"]

    assert added_member_id(urls, 1_795_317_080) == 3902993647843727672
    assert added_member_id(urls[::-1], 1_795_317_080) == 3902993647843727672
    assert added_member_id(urls, 1_795_317_081) != 3902993647843727672
