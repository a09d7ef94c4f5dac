"""Who the members are: the value, its steps and its form, against plain sets."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.core.entry import COMMANDS, encode, envelope
from kvsecure.core.raft.configuration import Configuration, DamagedConfiguration
from kvsecure.core.raft.membership import Membership, configurations_in
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Broken
from kvsecure.model.ids import SYSTEM_TENANT, Index, MemberId

_MEMBERS = st.sets(st.integers(1, 7).map(MemberId), max_size=5)
_VOTERS = st.sets(st.integers(1, 7).map(MemberId), min_size=1, max_size=5)


def _of(*voters: int) -> Configuration:
    return Configuration(tuple(map(MemberId, voters)))


@settings(deadline=None)
@given(_VOTERS, _MEMBERS, _VOTERS, _MEMBERS)
def test_steps_lead_where_they_should_section_6(
    voters: set[MemberId],
    learners: set[MemberId],
    new_voters: set[MemberId],
    new_learners: set[MemberId],
) -> None:
    """Whatever the change, its one or two steps end with exactly who was wanted."""
    now = Configuration(tuple(voters), (), tuple(learners - voters))
    wanted = Configuration(tuple(new_voters), (), tuple(new_learners - new_voters))

    step = now.towards(wanted.voters, wanted.learners)

    assert step.is_joint == (len(voters ^ new_voters) > 1)
    assert (step.left() if step.is_joint else step) == wanted
    assert set(step.members) >= set(wanted.members)
    assert Configuration.decode(step.encode()) == step


@settings(deadline=None)
@given(_VOTERS, _VOTERS)
def test_majorities_of_one_step_and_the_next_meet_section_6(
    voters: set[MemberId], new_voters: set[MemberId]
) -> None:
    """At no step of a change can two groups without a common member decide."""
    now = Configuration(tuple(voters))
    step = now.towards(new_voters, ())
    then = step.left() if step.is_joint else step
    everybody = sorted(voters | new_voters)
    groups = [
        set(group)
        for size in range(1, len(everybody) + 1)
        for group in itertools.combinations(everybody, size)
    ]
    for before, after in ((now, step), (step, then)):
        deciding = [group for group in groups if before.have_agreed(group)]
        assert all(
            group & other for group in deciding for other in groups if after.have_agreed(other)
        )


@settings(deadline=None)
@given(_VOTERS, _VOTERS, st.dictionaries(st.integers(1, 7).map(MemberId), st.integers(0, 9)))
def test_agreed_index_is_stored_by_enough_section_6(
    voters: set[MemberId], outgoing: set[MemberId], stored: dict[MemberId, int]
) -> None:
    """The agreed index is the highest that those who store it can decide on, joint or not."""
    for configuration in (
        Configuration(tuple(voters)),
        Configuration(tuple(voters), tuple(outgoing)),
    ):
        match = {member: Index(index) for member, index in stored.items()}
        index = configuration.agreed_index(match)

        def holders(least: int) -> set[MemberId]:
            return {member for member in range(1, 8) if stored.get(member, 0) >= least}

        assert configuration.agreed_round(stored) == index
        assert configuration.have_agreed(holders(index))
        assert not configuration.have_agreed(holders(index + 1))


@settings(deadline=None)
@given(_VOTERS, _VOTERS, _MEMBERS)
def test_refusals_lose_when_the_rest_cannot_win_section_5_2(
    voters: set[MemberId], outgoing: set[MemberId], refusals: set[MemberId]
) -> None:
    """An election is lost exactly when everybody else together could not decide it."""
    configuration = Configuration(tuple(voters), tuple(outgoing))
    others = set(configuration.members) - refusals

    assert configuration.have_refused(refusals) is not configuration.have_agreed(others)


def test_members_have_any_number_of_64_bits() -> None:
    """Members are named by hashes: the largest number is one of them."""
    configuration = _of(1, (1 << 64) - 1)

    assert Configuration.decode(configuration.encode()) == configuration


def test_nobody_decides_nothing() -> None:
    """A member that joins and knows of nobody cannot agree with itself."""
    assert not Configuration(()).have_agreed([MemberId(1)])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(b"\x00\x01".__add__)))
def test_any_entry_is_a_configuration_or_damaged(entry: bytes) -> None:
    """Whatever is read as a configuration is one, in its one form, or is refused."""
    try:
        configuration = Configuration.decode(entry)
    except DamagedConfiguration:
        return
    assert configuration.voters
    assert configuration.encode() == entry


@pytest.mark.parametrize(
    "groups",
    [
        ((1,), (), (1,), ()),
        ((1,), (2,), (2,), ()),
        ((1, 2), (1, 2), (), (2,)),
        ((1,), (2,), (), (3,)),
        ((0,), (), (), ()),
        ((1 << 64,), (), (), ()),
        (tuple(range(1, 257)), (), (), ()),
    ],
)
def test_groups_that_contradict_each_other_are_broken(groups: tuple[tuple[int, ...], ...]) -> None:
    """A configuration of our own making is sound, or nothing goes on."""
    with pytest.raises(Broken):
        Configuration(*(tuple(map(MemberId, group)) for group in groups))


def test_commands_are_never_taken_for_configurations() -> None:
    """No command's entry begins as a configuration does, and a leader's first entry is neither."""
    caller = envelope(Caller(SYSTEM_TENANT, Origin.SYSTEM, "", 0))
    entries = [encode(command, caller, b"") for command in COMMANDS.values()]

    assert configurations_in(Index(1), [*entries, b""]) == []


def test_configurations_are_found_among_commands() -> None:
    """Every configuration among entries is found at its index."""
    entries = [b"\x01a", _of(1, 2).encode(), b"", b"\x01b", _of(3).encode()]

    assert configurations_in(Index(5), entries) == [(6, _of(1, 2)), (9, _of(3))]
    with pytest.raises(DamagedConfiguration):
        configurations_in(Index(5), [b"\x01a", b"\x00"])


def test_membership_goes_back_and_forgets_section_6() -> None:
    """What is in force is the newest that is left, and what a snapshot needs stays."""
    membership = Membership(Index(0), _of(1))
    membership.add([(Index(3), _of(1, 2)), (Index(6), _of(2))])
    newest = (membership.current, membership.since, membership.previous)

    membership.forget(Index(4))
    at = [membership.at(Index(index)) for index in (4, 5, 6)]
    membership.truncate(Index(5))

    assert newest == (_of(2), 6, _of(1, 2))
    assert at == [_of(1, 2), _of(1, 2), _of(2)]
    assert (membership.current, membership.since) == (_of(1, 2), 3)
    assert membership.previous == _of(1, 2)
