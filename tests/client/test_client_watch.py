"""Watching: nothing is missed and nothing comes twice, whatever happens to the connection."""

import threading
from collections.abc import Callable

import pytest
from support.processes import wait_until
from support.servers import ROOT_PASSWORD, Member

from kvsecure.client import Client, ClientError, CompactedError, Keys, Outcome, Secret
from kvsecure.client.watch import Event, EventType, Watch, WatchBatch
from kvsecure.model.errors import Code, Failure

__all__: list[str] = []


def _take(watch: Watch, count: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < count:
        events += next(watch).events
    return events


def test_watch_sees_every_change_in_order(root: Client) -> None:
    """Puts and deletes come in the order of their revisions, with what was there before."""
    with root.watch(Keys.prefix(b"/order/"), previous=True) as watch:
        root.kv.put(b"/order/a", b"1")
        root.kv.put(b"/order/a", b"2")
        root.kv.put(b"/elsewhere", b"")
        root.kv.delete(Keys.one(b"/order/a"))

        created, changed, deleted = _take(watch, 3)

    assert (created.type, created.kv.value, created.previous) == (EventType.PUT, b"1", None)
    assert changed.previous is not None
    assert (changed.kv.value, changed.previous.value) == (b"2", b"1")
    assert (deleted.type, deleted.kv.key) == (EventType.DELETE, b"/order/a")
    assert deleted.kv.mod_revision > changed.kv.mod_revision > created.kv.mod_revision


def test_watch_replays_the_past(root: Client) -> None:
    """A start in the past gives the history from there."""
    first = root.kv.put(b"/past/a", b"1").header.revision
    root.kv.put(b"/past/a", b"2")

    with root.watch(Keys.prefix(b"/past/"), start_revision=first) as watch:
        events = _take(watch, 2)

    assert [event.kv.value for event in events] == [b"1", b"2"]


def test_watch_misses_nothing_after_it_was_made(root: Client) -> None:
    """A change right after the watch was made is seen, without any wait."""
    for number in range(20):
        with root.watch(Keys.one(b"/at-once")) as watch:
            root.kv.put(b"/at-once", b"%d" % number)

            (event,) = _take(watch, 1)

        assert event.kv.value == b"%d" % number


def test_watch_of_compacted_history_says_where_to_start(root: Client) -> None:
    """A start that is compacted is an error with the oldest revision that is left."""
    past = root.kv.put(b"/compacted", b"1").header.revision
    now = root.kv.put(b"/compacted", b"2").header.revision
    root.kv.compact(now)

    with (
        root.watch(Keys.one(b"/compacted"), start_revision=past) as watch,
        pytest.raises(CompactedError) as refused,
    ):
        next(watch)

    assert refused.value.compact_revision == now


def test_watch_without_right_is_refused(
    root: Client, as_user: Callable[[str, str], Client]
) -> None:
    """Who may not read the keys may not watch them."""
    root.users.add("watcher", Secret.of_text(ROOT_PASSWORD))

    with pytest.raises(ClientError) as refused:
        as_user("watcher", ROOT_PASSWORD).watch(Keys.one(b"/private"))

    assert refused.value.code is Code.PERMISSION_DENIED
    assert refused.value.failure is Failure.PERMISSION_DENIED


def test_watch_tells_its_progress(root: Client) -> None:
    """Asked how far it is, the server answers with a batch without events."""
    with root.watch(Keys.one(b"/never-written")) as watch:
        revision = root.kv.put(b"/something-else", b"").header.revision
        watch.request_progress()

        batch = next(watch)

    assert batch == WatchBatch(revision=revision, events=())


def test_closing_ends_the_iteration(root: Client) -> None:
    """Closing from another thread ends a wait for changes, without an error."""
    watch = root.watch(Keys.one(b"/quiet"))
    batches: list[WatchBatch] = []
    thread = threading.Thread(target=lambda: batches.extend(watch))
    thread.start()

    watch.close()
    thread.join(10)

    assert not thread.is_alive()
    assert batches == []


def test_watch_survives_crashes_without_loss_or_repetition(etcd: Member) -> None:
    """Over kills and restarts of the server each write is seen exactly once, in order."""
    client = Client.open(
        etcd.endpoint,
        ca_file=str(etcd.authority.certificate),
        user="root",
        password=Secret.of_text(ROOT_PASSWORD),
    )
    seen: list[bytes] = []
    watch = client.watch(Keys.prefix(b"/crash/"))
    thread = threading.Thread(
        target=lambda: seen.extend(event.kv.value for batch in watch for event in batch.events)
    )
    thread.start()
    written: list[bytes] = []

    for number in range(30):
        if number % 10 == 5:
            etcd.kill9()
            etcd.restart()
        _put_exactly_once(client, b"/crash/%d" % number, b"%d" % number)
        written.append(b"%d" % number)

    wait_until(lambda: len(seen) >= len(written), deadline_s=20, what="all events")
    watch.close()
    thread.join(10)
    client.close()
    assert seen == written


def _put_exactly_once(client: Client, key: bytes, value: bytes) -> None:
    def written() -> bool:
        try:
            if client.kv.get(key) is None:
                client.kv.put(key, value)
        except ClientError as error:
            if error.outcome is Outcome.REFUSED:
                raise
            return False
        return True

    wait_until(written, deadline_s=20, what="a write")


def test_closed_watches_leave_no_threads(root: Client) -> None:
    """Each watch has threads of its own, and they end with it."""
    before = threading.active_count()
    watches = [root.watch(Keys.one(b"/thread")) for _ in range(20)]
    during = threading.active_count()

    for watch in watches:
        watch.close()

    assert during >= before + 20
    # The library keeps one thread for the connection as long as it likes.
    wait_until(lambda: threading.active_count() <= before + 1, deadline_s=10, what="threads to end")
