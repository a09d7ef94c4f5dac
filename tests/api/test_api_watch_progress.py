"""Progress of watch streams: asked for, and given unasked in quiet times."""

from api.watching import PROGRESS_S, Bench

from kvsecure.proto import kv_pb2, watch_pb2


def test_progress_is_told_when_everything_was_sent(bench: Bench) -> None:
    """A request for progress is answered for the whole stream, after all events so far."""
    stream = bench.stream()
    bench.create(stream)
    bench.create(stream, b"z")
    bench.put()
    bench.put(b"elsewhere")

    bench.progress(stream)

    *_, events, progress = stream.responses
    assert events.events
    assert (progress.watch_id, progress.header.revision) == (-1, bench.revision)
    assert not any((progress.created, progress.canceled, progress.events))


def test_progress_follows_events_of_its_turn(bench: Bench) -> None:
    """An event that waits for the end of the turn is sent before the progress that covers it."""
    stream = bench.stream()
    bench.create(stream)
    stream.take()
    bench.world.system(kv_pb2.PutRequest(key=b"k"))

    bench.progress(stream)

    assert [len(one.events) for one in stream.responses] == [1, 0]


def test_progress_is_not_told_while_something_waits(bench: Bench) -> None:
    """While a watcher has not got everything there is no answer at all (etcd)."""
    stream = bench.stream()
    bench.create(stream)
    stream.take()
    stream.is_full = True
    bench.put()

    bench.progress(stream)
    assert stream.take() == []
    bench.read_on(stream)
    bench.progress(stream)

    assert [len(one.events) for one in stream.responses] == [1, 0]


def test_progress_waits_for_history_that_is_being_read(bench: Bench) -> None:
    """Asked for right behind a watch from the past, it comes after the past, as often as asked."""
    past = bench.put()
    bench.put()
    stream = bench.stream()
    request = watch_pb2.WatchCreateRequest(key=b"k", start_revision=past)
    stream.receiver.received(watch_pb2.WatchRequest(create_request=request))
    for _ in range(2):
        stream.receiver.received(
            watch_pb2.WatchRequest(progress_request=watch_pb2.WatchProgressRequest())
        )
    bench.end_turn()
    bench.put()

    created, history, first, second, event = stream.responses
    assert created.created
    assert len(history.events) == 2
    for progress in (first, second):
        assert (progress.watch_id, progress.header.revision) == (-1, bench.revision - 1)
    assert len(event.events) == 1


def test_progress_is_not_told_before_a_watch_begins(bench: Bench) -> None:
    """A watcher of the future keeps its stream silent until its time has come."""
    stream = bench.stream()
    bench.create(stream, start_revision=bench.revision + 2)
    stream.take()

    bench.progress(stream)
    assert stream.take() == []
    bench.put(b"elsewhere")
    bench.progress(stream)

    assert [one.watch_id for one in stream.responses] == [-1]


def test_progress_of_an_empty_stream_is_told(bench: Bench) -> None:
    """A stream without watchers has everything it asked for."""
    stream = bench.stream()

    bench.progress(stream)

    assert [(one.watch_id, one.header.revision) for one in stream.responses] == [
        (-1, bench.revision)
    ]


def test_notice_comes_in_every_quiet_interval(bench: Bench) -> None:
    """A watcher that asked for it is told how far it is, from the first interval on (etcd)."""
    stream = bench.stream()
    bench.create(stream, progress_notify=True)
    bench.create(stream, b"other")
    stream.take()
    bench.put(b"elsewhere")

    for _ in range(3):
        bench.timers.forward(PROGRESS_S)

    assert [(one.watch_id, one.header.revision, len(one.events)) for one in stream.responses] == [
        (0, bench.revision, 0)
    ] * 3


def test_events_take_the_place_of_a_notice(bench: Bench) -> None:
    """After an interval with events one notice is left out."""
    stream = bench.stream()
    bench.create(stream, progress_notify=True)
    bench.put()
    stream.take()

    bench.timers.forward(PROGRESS_S)
    assert stream.take() == []
    bench.timers.forward(PROGRESS_S)

    assert [one.watch_id for one in stream.responses] == [0]


def test_notice_waits_for_what_is_behind(bench: Bench) -> None:
    """A watcher that has not got everything is not told that it has."""
    stream = bench.stream()
    bench.create(stream, progress_notify=True)
    stream.take()
    stream.is_full = True
    bench.put()

    bench.timers.forward(PROGRESS_S)

    assert stream.responses == []


def test_notice_waits_for_a_watch_to_begin(bench: Bench) -> None:
    """A watch of the future is not told a revision from which its client would resume too early."""
    stream = bench.stream()
    bench.create(stream, progress_notify=True, start_revision=bench.revision + 5)
    stream.take()

    bench.timers.forward(PROGRESS_S)

    assert stream.responses == []


def test_cancelled_watch_gets_no_notice(bench: Bench) -> None:
    """A watcher that is gone is not told anything."""
    stream = bench.stream()
    bench.create(stream, progress_notify=True)
    bench.cancel(stream, 0)
    stream.take()

    bench.timers.forward(3 * PROGRESS_S)

    assert stream.responses == []
