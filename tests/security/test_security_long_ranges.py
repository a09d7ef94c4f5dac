"""Ranges of very many keys: the answer of a range that is read at once, in bounded steps."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from security.lab import Asked, World

from kvsecure.model.limits import LONG_RANGES_WAITING_MAX
from kvsecure.proto import auth_pb2, kv_pb2, version_pb2
from kvsecure.security.long_ranges import LONG_RANGE_KEYS, LongRanges
from kvsecure.security.session import Peer

_KEYS: Final = 3 * LONG_RANGE_KEYS
_ALL: Final[dict[str, Any]] = {"key": b"/k/", "range_end": b"/k0"}


class _Reading:
    """Long ranges of a world, whose steps are run by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps: deque[Callable[[], None]] = deque()
        self.peers: dict[str, Peer] = {}
        self.ranges = LongRanges(world.gate, self.steps.append)

    def begin(
        self, request: kv_pb2.RangeRequest, user: str = "root", *, peer: Peer | None = None
    ) -> Asked:
        """Ask, over one connection or another, and run no step yet."""
        asked = Asked(
            self.world.turn, peer or self.peers.setdefault(user, self.world.peer(user)), b""
        )
        self.ranges.read(asked, request)
        return asked

    def run(self, count: int = 1_000_000) -> int:
        """Run some steps, each in a turn of its own; return how many there were."""
        for done in range(count):
            if not self.steps:
                return done
            self.steps.popleft()()
            self.world.turn.end()
        return count


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with keys that were overwritten and deleted."""
    world = World(tmp_path_factory.mktemp("world"))
    for number in range(_KEYS):
        world.system(kv_pb2.PutRequest(key=b"/k/%05d" % number, value=b"v%d" % number))
    for number in range(0, _KEYS, 3):
        world.system(kv_pb2.PutRequest(key=b"/k/%05d" % number, value=b"w"))
    for number in range(0, _KEYS, 7):
        world.system(kv_pb2.DeleteRangeRequest(key=b"/k/%05d" % number))
    yield world
    world.close()


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[_Reading]:
    """A world of one's own with many keys."""
    world = World(tmp_path)
    for number in range(_KEYS):
        world.system(kv_pb2.PutRequest(key=b"/k/%05d" % number, value=b"v"))
    yield _Reading(world)
    world.close()


def _answer(asked: Asked) -> kv_pb2.RangeResponse:
    assert asked.body is not None, asked.why
    return kv_pb2.RangeResponse.FromString(asked.body)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, _KEYS),
    end=st.integers(0, _KEYS),
    limit=st.sampled_from([0, 1, LONG_RANGE_KEYS, LONG_RANGE_KEYS + 1, _KEYS, 2 * _KEYS]),
    revision=st.integers(0, 2 * _KEYS),
    keys_only=st.booleans(),
    order=st.integers(0, 2),
    target=st.integers(0, 4),
)
@example(start=0, end=_KEYS, limit=0, revision=0, keys_only=False, order=0, target=0)
@example(start=0, end=_KEYS, limit=0, revision=0, keys_only=False, order=2, target=0)
@example(start=0, end=_KEYS, limit=_KEYS, revision=_KEYS, keys_only=True, order=1, target=0)
@example(start=0, end=_KEYS, limit=0, revision=0, keys_only=False, order=1, target=1)
def test_a_long_range_is_answered_as_one_that_is_read_at_once(
    filled: World,
    *,
    start: int,
    end: int,
    limit: int,
    revision: int,
    keys_only: bool,
    order: int,
    target: int,
) -> None:
    """Whatever is asked for, the answer is the same to the byte."""
    request = kv_pb2.RangeRequest(
        key=b"/k/%05d" % start,
        range_end=b"/k/%05d" % end,
        limit=limit,
        revision=revision,
        keys_only=keys_only,
        sort_order=order,  # type: ignore[arg-type]  # an enum is an int here
        sort_target=target,  # type: ignore[arg-type]  # as above
    )
    reading = _Reading(filled)

    asked = reading.begin(request)
    reading.run()
    filled.turn.end()

    at_once = filled.ask(request)
    assert (asked.body, asked.why) == (at_once.body, at_once.why)


def test_a_long_range_of_the_past_takes_steps_too(reading: _Reading) -> None:
    """Keys that are gone by now count for a revision at which they were there."""
    world = reading.world
    before = world.state.store.revision
    world.system(kv_pb2.DeleteRangeRequest(**_ALL))
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL, revision=before))

    assert reading.run() >= _KEYS // 100
    assert _answer(asked).count == _KEYS


def test_a_long_range_leaves_turns_to_others(reading: _Reading) -> None:
    """It takes many steps, and is not answered before the last; a short one takes none."""
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL))
    steps = reading.run()
    short = reading.begin(kv_pb2.RangeRequest(key=b"/k/", range_end=b"/k/00100"))
    reading.world.turn.end()

    assert steps >= _KEYS // 100
    assert _answer(asked).count == _KEYS
    assert not reading.steps
    assert _answer(short).count == 100


def test_what_is_written_meanwhile_is_not_seen(reading: _Reading) -> None:
    """The answer is of the moment when it was begun, though keys come, change and go."""
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL))
    reading.run(3)
    world = reading.world
    world.system(kv_pb2.PutRequest(key=b"/k/00000", value=b"new"))
    world.system(kv_pb2.PutRequest(key=b"/k/99999", value=b"new"))
    world.system(kv_pb2.DeleteRangeRequest(key=b"/k/01000"))
    reading.run()

    answer = _answer(asked)
    assert [kv.key for kv in answer.kvs] == [b"/k/%05d" % number for number in range(_KEYS)]
    assert {kv.value for kv in answer.kvs} == {b"v"}
    assert answer.count == _KEYS


def test_a_compaction_meanwhile_costs_nobody_an_answer(reading: _Reading) -> None:
    """What was begun on a revision that is compacted is answered anew, on the newest one."""
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL))
    reading.run(3)
    world = reading.world
    world.system(kv_pb2.PutRequest(key=b"/k/00000", value=b"new"))
    world.system(kv_pb2.CompactionRequest(revision=world.state.store.revision))
    reading.run()
    world.turn.end()

    assert _answer(asked).kvs[0].value == b"new"
    assert len(_answer(asked).kvs) == _KEYS


def test_rights_that_are_lost_meanwhile_end_it(reading: _Reading) -> None:
    """Whoever may not read any more when the last step is done is refused."""
    world = reading.world
    world.role("reader", b"/k/", b"/k0", kind=0)
    world.user("web", "reader")
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL), user="web")
    reading.run(3)
    world.system(
        auth_pb2.AuthRoleRevokePermissionRequest(role="reader", key=b"/k/", range_end=b"/k0")
    )
    reading.run()
    world.turn.end()

    assert asked.why == "PERMISSION_DENIED"
    assert world.records()[-1]["stage"] == "denied"


def test_rights_that_move_and_stay_change_nothing(reading: _Reading) -> None:
    """Somebody else's rights are no reason to refuse."""
    world = reading.world
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL))
    reading.run(3)
    world.role("other", b"/other")
    reading.run()
    world.turn.end()

    assert _answer(asked).count == _KEYS


def test_nobody_without_the_right_begins(reading: _Reading) -> None:
    """A long range is decided like any other before a step is taken."""
    reading.world.user("nobody")
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL), user="nobody")
    reading.world.turn.end()

    assert asked.why == "PERMISSION_DENIED"
    assert not reading.steps


def test_long_ranges_go_one_after_the_other(reading: _Reading) -> None:
    """However many are asked for, one is held at a time, and all are answered in order."""
    asked = [reading.begin(kv_pb2.RangeRequest(**_ALL)) for _ in range(3)]
    order: list[int] = []
    while reading.steps:
        assert len(reading.steps) == 1
        reading.run(1)
        order += [n for n, each in enumerate(asked) if each.body is not None and n not in order]

    assert order == [0, 1, 2]
    assert len({each.body for each in asked}) == 1


def test_connections_take_turns(reading: _Reading) -> None:
    """Whoever asks for many does not keep others waiting for all of them."""
    many = [reading.begin(kv_pb2.RangeRequest(**_ALL)) for _ in range(5)]
    other = reading.begin(kv_pb2.RangeRequest(**_ALL), peer=reading.world.peer("root"))
    while other.body is None:
        reading.run(1)

    assert sum(each.body is not None for each in many) == 1


def test_a_connection_may_have_so_many_waiting(reading: _Reading) -> None:
    """Beyond a bound long ranges are refused, and recorded; others' are not."""
    # One is being read, and the others wait.
    taken = 1 + LONG_RANGES_WAITING_MAX
    asked = [reading.begin(kv_pb2.RangeRequest(**_ALL)) for _ in range(taken + 1)]
    reading.begin(kv_pb2.RangeRequest(**_ALL), peer=reading.world.peer("root"))
    reading.world.turn.end()

    assert [each.why for each in asked] == [*[""] * taken, "TOO_MANY_REQUESTS"]
    assert reading.world.records()[-1]["result"]["code"] == "RESOURCE_EXHAUSTED"


def test_a_failure_leaves_the_others_their_turn(reading: _Reading) -> None:
    """What goes wrong in an unknown way costs one request its answer, and no other."""
    first, second = (reading.begin(kv_pb2.RangeRequest(**_ALL)) for _ in range(2))
    first.succeed = None  # type: ignore[assignment,method-assign]  # it fails when it is called
    with pytest.raises(TypeError):
        reading.run()
    reading.run()

    assert first.body is None
    assert _answer(second).count == _KEYS


def test_a_long_range_is_recorded_when_it_is_answered(reading: _Reading) -> None:
    """The trail has one record of it, with how much was read."""
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL))
    reading.run()

    (record,) = [
        each for each in reading.world.records() if each.get("op", {}).get("rpc") == "Range"
    ]
    assert asked.body is not None
    assert record["result"]["bytes"] == len(asked.body)
    assert record["stage"] == "read"


def test_a_destruction_meanwhile_costs_nobody_an_answer(reading: _Reading) -> None:
    """A key that is destroyed while it is read is in no answer: the range is answered anew."""
    asked = reading.begin(kv_pb2.RangeRequest(**_ALL))
    reading.run(3)
    world = reading.world
    world.system(version_pb2.DestroyRequest(key=b"/k/01000"))
    reading.run()
    world.turn.end()

    answer = _answer(asked)
    assert answer.count == len(answer.kvs) == _KEYS - 1
