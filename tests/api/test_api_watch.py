"""Watch streams: ids, order, refusals in band, progress, fragments, and rights that end."""

from typing import Any, Final

import pytest
from api.watching import REQUEST_BYTES_MAX, Bench, keys_of

from kvsecure.model.limits import WATCH_QUEUE_BYTES_MAX, WATCHES_PER_STREAM_MAX
from kvsecure.proto import auth_pb2, kv_pb2, mvcc_pb2, watch_pb2

_DENIED: Final = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
_NOPUT: Final = watch_pb2.WatchCreateRequest.NOPUT
_NODELETE: Final = watch_pb2.WatchCreateRequest.NODELETE


def _compact(revision: int) -> kv_pb2.CompactionRequest:
    return kv_pb2.CompactionRequest(revision=revision)


def _delete(key: bytes) -> kv_pb2.DeleteRangeRequest:
    return kv_pb2.DeleteRangeRequest(key=key)


def _reader(bench: Bench, name: str, key: bytes, range_end: bytes = b"") -> None:
    bench.world.role(name, key, range_end, kind=0)
    bench.world.user(name, name)


# --- creating ---------------------------------------------------------------------------------


def test_watch_is_created_before_its_events(bench: Bench) -> None:
    """The first response of a watcher says that it is there, at the present revision."""
    first = bench.put()
    bench.put()
    stream = bench.stream()

    bench.create(stream, start_revision=first)

    created, *rest = stream.responses
    assert (created.created, created.canceled, created.watch_id) == (True, False, 0)
    assert created.header.revision == bench.revision
    assert (created.header.cluster_id, created.header.raft_term) == (0xC0FFEE, 3)
    assert not created.events
    assert [event.kv.mod_revision for one in rest for event in one.events] == [first, first + 1]


def test_watch_begins_now(bench: Bench) -> None:
    """Without a revision a watcher sees what is written from now on."""
    bench.put()
    stream = bench.stream()

    bench.create(stream)
    revision = bench.put()

    assert [event.kv.mod_revision for event in stream.events()] == [revision]


def test_watch_of_the_future_waits_for_it(bench: Bench) -> None:
    """A watcher from a later revision sees nothing before it."""
    stream = bench.stream()
    bench.create(stream, start_revision=bench.revision + 3)

    for _ in range(4):
        bench.put()

    newest = bench.revision
    assert [event.kv.mod_revision for event in stream.events()] == [newest - 1, newest]


def test_ids_are_given_out_from_zero(bench: Bench) -> None:
    """Each watcher that asks for no id gets the next one that is free."""
    stream = bench.stream()
    bench.create(stream)
    bench.create(stream, watch_id=2)
    bench.create(stream)
    bench.create(stream)

    assert [one.watch_id for one in stream.take()] == [0, 2, 1, 3]


def test_given_id_is_not_given_again(bench: Bench) -> None:
    """An id that was given out is not given to another watcher, even when the first is gone."""
    stream = bench.stream()
    bench.create(stream)
    bench.cancel(stream, 0)
    bench.create(stream)

    assert [one.watch_id for one in stream.take()] == [0, 0, 1]


def test_used_id_is_refused(bench: Bench) -> None:
    """An id in use is refused in band, and its watcher goes on."""
    stream = bench.stream()
    bench.create(stream, watch_id=7)
    bench.create(stream, watch_id=7)
    bench.put()

    _, refused, event = stream.responses
    assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
    assert refused.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    assert (event.watch_id, len(event.events)) == (7, 1)


def test_cancelled_id_may_be_used_again(bench: Bench) -> None:
    """An id that was let go may be chosen again, on its own stream or another."""
    stream, other = bench.stream(), bench.stream()
    bench.create(stream, watch_id=7)
    bench.create(other, watch_id=7)
    bench.cancel(stream, 7)
    bench.create(stream, watch_id=7)

    assert [one.canceled for one in stream.responses + other.responses] == [
        False,
        True,
        False,
        False,
    ]


_MISSHAPEN: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "an empty range": ({"key": b"b", "range_end": b"b"}, "mvcc: watcher range is empty"),
    "a falling range": ({"key": b"b", "range_end": b"a"}, "mvcc: watcher range is empty"),
    "a negative start": (
        {"start_revision": -1},
        "etcdserver: mvcc: required revision has been compacted",
    ),
}


@pytest.mark.parametrize(("fields", "reason"), _MISSHAPEN.values(), ids=_MISSHAPEN.keys())
def test_misshapen_watch_is_refused_in_band(
    bench: Bench, fields: dict[str, Any], reason: str
) -> None:
    """What cannot be watched is created and cancelled in one response, without an id."""
    stream = bench.stream()
    bench.create(stream, **fields)
    bench.create(stream)

    refused, created = stream.responses
    assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
    assert (refused.cancel_reason, refused.compact_revision) == (reason, 0)
    assert (created.watch_id, created.canceled) == (0, False)
    assert not stream.is_over


def test_everything_may_be_watched(bench: Bench) -> None:
    """An empty key with an open end is every key."""
    stream = bench.stream()
    bench.create(stream, key=b"", range_end=b"\0")

    bench.put(b"\0")
    bench.put(b"\xff\xff")

    assert keys_of(stream.events()) == [b"\0", b"\xff\xff"]


def test_watchers_of_a_stream_are_bounded(bench: Bench) -> None:
    """A stream takes so many watchers and no more, until one goes."""
    stream = bench.stream()
    for _ in range(WATCHES_PER_STREAM_MAX):
        bench.ask(stream, create_request=watch_pb2.WatchCreateRequest(key=b"k"))
    stream.take()

    bench.create(stream)
    bench.cancel(stream, 5)
    bench.create(stream)

    refused, _, created = stream.responses
    assert (refused.watch_id, refused.canceled) == (-1, True)
    assert (created.watch_id, created.canceled) == (WATCHES_PER_STREAM_MAX, False)


def test_request_of_nothing_is_ignored(bench: Bench) -> None:
    """A request without content is passed over (etcd)."""
    stream = bench.stream()

    bench.ask(stream)

    assert (stream.responses, stream.is_over) == ([], False)


# --- rights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "range_end"), [(b"z", b""), (b"a", b"c"), (b"a", b"\0"), (b"", b"\0")]
)
def test_forbidden_watch_is_refused_in_band(bench: Bench, key: bytes, range_end: bytes) -> None:
    """A watcher without a right to all of its range is refused, and others go on."""
    _reader(bench, "web", b"a", b"b")
    stream = bench.stream("web")
    bench.create(stream, b"a", range_end=b"b")

    bench.create(stream, key, range_end=range_end)
    bench.put(b"a")

    _, refused, event = stream.responses
    assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
    assert refused.cancel_reason == _DENIED
    assert (event.watch_id, keys_of(event.events)) == (0, [b"a"])


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        (b"x", "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
    ],
)
def test_stranger_is_refused_in_band(bench: Bench, token: bytes, reason: str) -> None:
    """Who nobody knows is told so in Go's words, on a stream that goes on."""
    stream = bench.stream("", token=token)

    bench.create(stream)
    bench.put()

    assert [(one.watch_id, one.cancel_reason) for one in stream.responses] == [(-1, reason)]
    assert not stream.is_over


def test_revoked_right_ends_the_watch_before_its_next_event(bench: Bench) -> None:
    """Once a right is gone nothing more is handed out, not even what was queued before."""
    _reader(bench, "web", b"a", b"z")
    stream = bench.stream("web")
    bench.create(stream, b"a", range_end=b"c")
    bench.create(stream, b"k")
    stream.take()
    stream.is_full = True
    bench.put(b"k")
    bench.world.system(
        auth_pb2.AuthRoleRevokePermissionRequest(role="web", key=b"a", range_end=b"z")
    )

    bench.put(b"k")
    bench.read_on(stream)

    assert [(one.watch_id, one.canceled) for one in stream.take()] == [(1, True)]
    bench.world.feeds.wake_stale()
    bench.end_turn()
    (ended,) = stream.take()
    assert (ended.watch_id, ended.cancel_reason) == (0, _DENIED)
    bench.put(b"a")
    assert stream.take() == []


def test_damaged_history_ends_the_watch_that_needs_it(bench: Bench) -> None:
    """A record that cannot be read any more cancels its watch, says why, and leaves the others."""
    stream = bench.stream()
    bench.put(b"lost")
    start = bench.revision
    bench.world.lose_records()
    bench.create(stream, b"here")
    stream.take()

    bench.create(stream, b"lost", start_revision=start)
    bench.put(b"here")

    created, cancelled, event = stream.take()
    assert created.created
    assert cancelled.canceled
    assert cancelled.cancel_reason == (
        "rpc error: code = DataLoss desc = etcdserver: corrupt cluster"
    )
    assert (event.watch_id, len(event.events)) == (0, 1)


def test_deleted_user_watches_no_more(bench: Bench) -> None:
    """A user that is gone is cut off without waiting for an event."""
    _reader(bench, "web", b"k")
    stream = bench.stream("web")
    bench.create(stream)
    stream.take()

    bench.world.system(auth_pb2.AuthUserDeleteRequest(name="web"))
    bench.world.feeds.wake_stale()
    bench.end_turn()

    assert [(one.canceled, one.cancel_reason) for one in stream.take()] == [(True, _DENIED)]


def test_other_changes_of_accounts_leave_a_watch_alone(bench: Bench) -> None:
    """A watcher whose right has not changed goes on when accounts have."""
    _reader(bench, "web", b"k")
    stream = bench.stream("web")
    bench.create(stream)
    stream.take()

    bench.world.user("other")
    bench.world.feeds.wake_stale()
    bench.put()

    assert keys_of(stream.events()) == [b"k"]


# --- events -----------------------------------------------------------------------------------


def test_revision_is_one_response(bench: Bench) -> None:
    """Everything of one transaction comes at once, in order, with its revision."""
    stream = bench.stream()
    bench.create(stream, b"a", range_end=b"z")
    stream.take()
    puts = [
        kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=b"v"))
        for key in (b"c", b"a", b"b")
    ]

    revision = bench.write(kv_pb2.TxnRequest(success=puts))

    (response,) = stream.responses
    assert keys_of(response.events) == [b"c", b"a", b"b"]
    assert response.header.revision == revision


def test_events_say_what_was_and_what_is(bench: Bench) -> None:
    """A put carries the key whole, a deletion its name alone, and each what was there before."""
    stream = bench.stream()
    bench.create(stream, prev_kv=True)
    first = bench.put(value=b"1")
    second = bench.put(value=b"2")
    third = bench.write(_delete(b"k"))

    created, changed, deleted = stream.events()
    assert not created.HasField("prev_kv")
    assert changed.kv == mvcc_pb2.KeyValue(
        key=b"k", create_revision=first, mod_revision=second, version=2, value=b"2"
    )
    assert (changed.prev_kv.value, changed.prev_kv.mod_revision) == (b"1", first)
    assert deleted.type == mvcc_pb2.Event.DELETE
    assert deleted.kv == mvcc_pb2.KeyValue(key=b"k", mod_revision=third)
    assert deleted.prev_kv.value == b"2"


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        ([], [0, 1]),
        ([_NOPUT], [1]),
        ([_NODELETE], [0]),
        ([_NOPUT, _NODELETE], []),
        ([_NOPUT, _NOPUT], [1]),
    ],
)
@pytest.mark.parametrize("past", [True, False])
def test_filtered_events_are_left_out(
    bench: Bench, filters: list[Any], kinds: list[int], *, past: bool
) -> None:
    """Kinds of event that are not wanted do not come, live or from history."""
    start = bench.revision + 1
    stream = bench.stream()
    if not past:
        bench.create(stream, filters=filters)
    bench.put()
    bench.write(_delete(b"k"))
    if past:
        bench.create(stream, filters=filters, start_revision=start)

    assert [event.type for event in stream.events()] == kinds


def test_ready_watchers_take_turns(bench: Bench) -> None:
    """When several have something, each hands out one batch in turn."""
    stream = bench.stream()
    bench.create(stream)
    bench.create(stream)
    stream.is_full = True
    for _ in range(2):
        # Two of them are more than a batch holds.
        bench.put(value=bytes(WATCH_QUEUE_BYTES_MAX))
    stream.take()

    bench.read_on(stream)

    assert [one.watch_id for one in stream.responses] == [0, 1, 0, 1]


def test_what_piled_up_is_one_response(bench: Bench) -> None:
    """A client that was slow gets the revisions it missed together, whole and in order."""
    stream = bench.stream()
    bench.create(stream)
    stream.take()
    stream.is_full = True
    revisions = [bench.put() for _ in range(5)]

    bench.read_on(stream)

    (response,) = stream.take()
    assert [event.kv.mod_revision for event in response.events] == revisions
    assert response.header.revision == revisions[-1]


# --- cancelling and ending --------------------------------------------------------------------


def test_cancelled_watch_is_silent(bench: Bench) -> None:
    """After the answer to a cancel nothing of that watcher comes, not even what was queued."""
    stream = bench.stream()
    bench.create(stream)
    stream.take()
    stream.is_full = True
    bench.put()

    bench.cancel(stream, 0)
    bench.put()
    bench.read_on(stream)

    (answer,) = stream.responses
    assert (answer.watch_id, answer.canceled, answer.created) == (0, True, False)
    assert (answer.cancel_reason, answer.compact_revision) == ("", 0)


@pytest.mark.parametrize("watch_id", [1, -1, 4711])
def test_cancel_of_nothing_is_passed_over(bench: Bench, watch_id: int) -> None:
    """Who cancels what is not there hears nothing."""
    stream = bench.stream()
    bench.create(stream)
    stream.take()

    bench.cancel(stream, watch_id)

    assert stream.responses == []


def test_half_closed_stream_goes_on(bench: Bench) -> None:
    """A client that has asked for all it wants still gets its events (etcd)."""
    stream = bench.stream()
    bench.create(stream)

    stream.receiver.half_closed()
    bench.put()

    assert keys_of(stream.events()) == [b"k"]
    assert not stream.is_over


def test_closed_stream_leaves_nothing_behind(bench: Bench) -> None:
    """When a stream is over its watchers and timers are gone."""
    stream = bench.stream()
    bench.create(stream, progress_notify=True)
    bench.create(stream, b"a", range_end=b"z", start_revision=1)
    stream.take()

    stream.receiver.closed()
    bench.put()

    assert (len(bench.world.feeds), bench.timers.count, stream.responses) == (0, 0, [])
    assert not bench.world.state.hub.watchers_of(
        bench.world.state.store.space(bench.world.state.accounts.tenant_named("default").id)
    )


# --- compaction -------------------------------------------------------------------------------


def test_compacted_watch_is_told_where_to_go(bench: Bench) -> None:
    """A start that is gone is created, then cancelled with the revision, and with no reason."""
    first = bench.put()
    bench.put()
    compacted = bench.put()
    bench.write(_compact(compacted))
    stream = bench.stream()

    bench.create(stream, start_revision=first)

    created, ended = stream.responses
    assert (created.created, created.canceled) == (True, False)
    assert (ended.canceled, ended.created, ended.watch_id) == (True, False, 0)
    assert (ended.compact_revision, ended.cancel_reason) == (compacted, "")
    assert ended.header.revision == 0
    assert not ended.events


def test_watch_from_the_compacted_revision_is_served(bench: Bench) -> None:
    """The revision that was compacted to is still there."""
    bench.put()
    compacted = bench.put(value=b"2")
    bench.put(value=b"3")
    bench.write(_compact(compacted))
    stream = bench.stream()

    bench.create(stream, start_revision=compacted)

    assert [event.kv.value for event in stream.events()] == [b"2", b"3"]


def test_slow_watch_is_told_when_its_place_is_compacted(bench: Bench) -> None:
    """A watcher that fell behind a compaction gets what it has queued, and then its end."""
    stream = bench.stream()
    bench.create(stream)
    stream.take()
    stream.is_full = True
    for _ in range(4):
        bench.put(value=bytes(400_000))
    bench.write(_compact(bench.revision))

    bench.read_on(stream)

    response, ended = stream.responses
    assert len(response.events) == 2
    assert (ended.canceled, ended.compact_revision) == (True, bench.revision)
    assert len(bench.world.feeds) == 0


# --- fragments --------------------------------------------------------------------------------


def _large(bench: Bench, sizes: list[int]) -> list[bytes]:
    keys = [b"f%02d" % number for number in range(len(sizes))]
    bench.write(
        kv_pb2.TxnRequest(
            success=[
                kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=bytes(size)))
                for key, size in zip(keys, sizes, strict=True)
            ]
        )
    )
    return keys


@pytest.mark.parametrize(
    "sizes", [[10] * 5, [400_000] * 6, [600_000] * 3, [1_200_000, 10, 1_200_000], [999_000, 900]]
)
@pytest.mark.parametrize("live", [True, False])
def test_fragments_are_below_the_limit(bench: Bench, sizes: list[int], *, live: bool) -> None:
    """A large response comes in pieces in a row, all but the last marked, each event once."""
    start = bench.revision + 1
    stream = bench.stream()
    fields: dict[str, Any] = {"range_end": b"g", "fragment": True, "start_revision": start}
    if live:
        bench.create(stream, b"f", **fields)
    keys = _large(bench, sizes)
    if not live:
        bench.create(stream, b"f", **fields)

    pieces = stream.responses[1:]
    assert keys_of(stream.events()) == keys
    assert [one.fragment for one in pieces] == [True] * (len(pieces) - 1) + [False]
    assert {one.header.revision for one in pieces} == {bench.revision}
    for piece, size_bytes in zip(pieces, stream.sizes_bytes[1:], strict=True):
        # An event is never split; a response with more than one event keeps the limit.
        assert len(piece.events) == 1 or size_bytes <= REQUEST_BYTES_MAX + 512 * 1024
    assert len(pieces) <= len(sizes)


def test_no_fragments_unless_asked_for(bench: Bench) -> None:
    """Without the wish a revision is one response, however large."""
    stream = bench.stream()
    bench.create(stream, b"f", range_end=b"g")
    _large(bench, [600_000] * 3)

    (response,) = stream.responses[1:]
    assert (len(response.events), response.fragment) == (3, False)
