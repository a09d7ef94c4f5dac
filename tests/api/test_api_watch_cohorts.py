"""Watchers of one stream that want the same: made once, and each as if it were alone."""

from typing import Final

from api.watching import Bench, Stream, keys_of

from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.proto import auth_pb2, kv_pb2, watch_pb2

# Two responses of it are never one part.
_LARGE: Final = bytes(300_000)

_PASSWORD: Final = "a-password-of-many-letters"


def _many(bench: Bench, user: str = "root", count: int = 5) -> Stream:
    stream = bench.stream(user)
    for _ in range(count):
        bench.create(stream)
    stream.take()
    return stream


def _stop_after(bench: Bench, stream: Stream, count: int) -> list[int]:
    """Let a client read so many responses to one large put; return whose they were."""
    stream.full_after = count
    bench.put(value=_LARGE)
    assert stream.is_full
    return [one.watch_id for one in stream.take()]


def _feed_count(bench: Bench) -> int:
    state = bench.world.state
    return len(state.hub.watchers_of(state.store.space(DEFAULT_TENANT)))


def test_watchers_that_want_the_same_share_a_feed(bench: Bench) -> None:
    """The hub feeds one for all of them, and every one of them gets every event."""
    stream = _many(bench)

    bench.put()
    bench.put()

    assert (_feed_count(bench), len(bench.world.feeds)) == (1, 5)
    assert [one.watch_id for one in stream.responses] == [0, 1, 2, 3, 4] * 2
    assert all(keys_of(stream.events(watch_id)) == [b"k", b"k"] for watch_id in range(5))


def test_watchers_that_want_otherwise_share_nothing(bench: Bench) -> None:
    """A range, a filter, what was there before, and fragments are reasons to be alone."""
    stream = bench.stream()
    bench.create(stream)
    bench.create(stream, range_end=b"l")
    bench.create(stream, filters=[watch_pb2.WatchCreateRequest.NOPUT])
    bench.create(stream, prev_kv=True)
    bench.create(stream, fragment=True)
    bench.create(stream, fragment=True)
    bench.create(stream, start_revision=bench.revision + 3)

    assert _feed_count(bench) == 7


def test_watcher_joins_others_once_it_has_caught_up(bench: Bench) -> None:
    """A watcher of the past has what the others had before it shares their feed."""
    first = bench.put()
    stream = _many(bench, count=2)

    bench.create(stream, start_revision=first)
    bench.put()

    assert _feed_count(bench) == 1
    assert [len(stream.events(watch_id)) for watch_id in range(3)] == [1, 1, 2]


def test_ids_of_any_length_are_told_apart(bench: Bench) -> None:
    """What differs between watchers is the id, however long it is encoded."""
    ids = [0, 1, 127, 128, 20_000, 1 << 40, -5]
    stream = bench.stream()
    for watch_id in ids:
        bench.create(stream, watch_id=watch_id)
    stream.take()

    bench.put()

    assert _feed_count(bench) == 1
    assert sorted(one.watch_id for one in stream.responses) == sorted(ids)
    assert all(keys_of(one.events) == [b"k"] for one in stream.responses)


def test_cancelled_watcher_hears_nothing_that_others_have_heard(bench: Bench) -> None:
    """Who is cancelled while the client is slow is not sent what the others were sent before."""
    stream = _many(bench)
    sent = _stop_after(bench, stream, 2)

    bench.cancel(stream, 3)
    bench.cancel(stream, 0)
    bench.read_on(stream)
    bench.put()

    assert sent == [0, 1]
    came = [(one.watch_id, one.canceled) for one in stream.responses]
    assert came[:4] == [(3, True), (0, True), (2, False), (4, False)]
    assert sorted(came[4:]) == [(1, False), (2, False), (4, False)]


def test_right_that_ends_in_between_ends_all(bench: Bench) -> None:
    """Who was not sent an event when the right was lost never is, and each end is on record."""
    bench.world.role("web", b"k", b"", kind=0)
    bench.world.user("web", "web")
    stream = _many(bench, "web")
    _stop_after(bench, stream, 2)
    revoke = auth_pb2.AuthRoleRevokePermissionRequest(role="web", key=b"k")
    bench.world.system(revoke)

    bench.read_on(stream)

    assert [(one.watch_id, one.canceled) for one in stream.responses] == [
        (watch_id, True) for watch_id in range(5)
    ]
    denied = [one for one in bench.world.records() if one["stage"] == "denied"]
    assert len(denied) == 5
    assert (_feed_count(bench), len(bench.world.feeds)) == (0, 0)


def test_newcomer_is_not_sent_what_others_wait_for(bench: Bench) -> None:
    """A watcher that begins while others are behind begins now."""
    stream = _many(bench)
    _stop_after(bench, stream, 2)

    bench.create(stream)
    bench.read_on(stream)
    bench.put(value=b"new")

    assert [len(stream.events(watch_id)) for watch_id in range(6)] == [1, 1, 2, 2, 2, 1]
    assert [event.kv.value for event in stream.events(5)] == [b"new"]
    assert _feed_count(bench) == 1


def test_progress_is_not_told_between_two_watchers(bench: Bench) -> None:
    """As long as one of them has not been sent an event, the stream is not where the store is."""
    stream = _many(bench)
    _stop_after(bench, stream, 2)

    bench.progress(stream)

    assert stream.take() == []
    bench.read_on(stream)
    bench.progress(stream)
    assert [one.watch_id for one in stream.responses] == [2, 3, 4, -1]


def test_compaction_ends_every_watcher_that_needs_what_is_gone(bench: Bench) -> None:
    """Watchers that fell behind together are told together where to go."""
    stream = _many(bench, count=2)
    stream.is_full = True
    for _ in range(5):
        bench.put(value=_LARGE)
    bench.world.system(kv_pb2.CompactionRequest(revision=bench.revision))

    bench.read_on(stream)

    ended = [one for one in stream.responses if one.canceled]
    assert [(one.watch_id, one.compact_revision) for one in ended] == [
        (0, bench.revision),
        (1, bench.revision),
    ]


def test_another_session_shares_nothing(bench: Bench) -> None:
    """Feeds that are decided for different sessions stay apart whatever they are of."""
    feeds, peer = bench.world.feeds, bench.world.peer("")
    opened = []
    for name in ("ann", "ann", "bob"):
        if not opened or name == "bob":
            bench.world.role(name, b"k", b"", kind=0)
            bench.world.user(name, name, password=_PASSWORD)
            token = bench.world.token(name, _PASSWORD)
        request = watch_pb2.WatchCreateRequest(key=b"k")
        feed = feeds.open(Stream(peer, token), request, lambda _: None)
        assert feed is not None
        assert feed.take() is None
        opened.append(feed)
    first, same, other = opened

    assert (other.join(first), same.join(first)) == (False, True)
