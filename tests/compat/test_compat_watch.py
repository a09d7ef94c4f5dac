"""Watches seen through a stock gRPC client: the same responses and events as etcd's.

Owns: one script for each rule of the watch service, run against both servers.
Never: compares how events are batched, which etcd leaves open.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.bad_requests import prepare
from support.operations import shifted
from support.pair import Pair
from support.servers import EtcdMember, Member
from support.streams import Control, Observed, WatchScript

from kvsecure.proto import kv_pb2, lease_pb2, mvcc_pb2, watch_pb2

_NOPUT = watch_pb2.WatchCreateRequest.NOPUT
_NODELETE = watch_pb2.WatchCreateRequest.NODELETE


@pytest.fixture(scope="module")
def prepared(pair: Pair) -> Pair:
    """The pair with a limited user."""
    prepare(pair)
    return pair


def _put(key: bytes, value: bytes = b"v") -> kv_pb2.RequestOp:
    return kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=value))


def _delete(key: bytes, range_end: bytes = b"") -> kv_pb2.RequestOp:
    request = kv_pb2.DeleteRangeRequest(key=key, range_end=range_end)
    return kv_pb2.RequestOp(request_delete_range=request)


def live_key(script: WatchScript) -> None:
    """A watch on a key sees each change of it from now on, and nothing of another key."""
    script.put(b"k")
    script.create(b"k")
    script.wait(controls=1)
    script.put(b"k", b"1")
    script.put(b"kk", b"1")
    script.put(b"k", b"2")
    script.delete(b"k")
    script.delete(b"k")
    script.wait(controls=1, events=3)


def live_prefix_with_previous(script: WatchScript) -> None:
    """A prefix watch sees a transaction's writes in order, each with what was there before."""
    script.create(b"p/", range_end=b"p0", prev_kv=True)
    script.wait(controls=1)
    script.txn(_put(b"p/2"), _put(b"p/1"), _put(b"q"))
    script.txn(_delete(b"p/", b"p0"))
    script.txn(_delete(b"p/1"), _put(b"p/3"))
    script.put(b"p/3", b"again")
    script.wait(controls=1, events=6)


def history(script: WatchScript) -> None:
    """A watch from a past revision sees everything since then."""
    script.put(b"h", b"1")
    script.put(b"h", b"2")
    script.delete(b"h")
    script.put(b"h", b"3")
    script.create(b"h", start_revision=script.base + 2, prev_kv=True)
    script.wait(controls=1, events=3)
    script.put(b"h", b"4")
    script.wait(controls=1, events=4)


def future(script: WatchScript) -> None:
    """A watch from a future revision sees nothing older."""
    script.create(b"f", start_revision=script.base + 3)
    script.wait(controls=1)
    for value in (b"1", b"2", b"3", b"4"):
        script.put(b"f", value)
    script.wait(controls=1, events=2)


def filters(script: WatchScript) -> None:
    """Filtered kinds of event are left out."""
    script.create(b"x", filters=[_NOPUT])
    script.create(b"x", filters=[_NODELETE])
    script.create(b"x", filters=[_NODELETE, _NOPUT])
    script.wait(controls=3)
    script.put(b"x")
    script.delete(b"x")
    script.put(b"x")
    script.wait(controls=3, events=3)


def identifiers(script: WatchScript) -> None:
    """Ids are given out from 0; a chosen one is kept; a used one is refused."""
    script.create(b"i")
    script.create(b"i")
    script.create(b"i", watch_id=7)
    script.create(b"i", watch_id=7)
    script.create(b"i")
    script.wait(controls=5)
    script.put(b"i")
    script.wait(controls=5, events=4)


def empty_range(script: WatchScript) -> None:
    """A range that ends before it begins is created and cancelled in one response."""
    script.create(b"z", range_end=b"a")
    script.create(b"z", range_end=b"z")
    script.create(b"z")
    script.wait(controls=3)


def compacted(script: WatchScript) -> None:
    """A start that was compacted away is created, then cancelled with the revision to go to."""
    for value in (b"1", b"2", b"3"):
        script.put(b"c", value)
    script.compact(script.base + 3)
    script.create(b"c", start_revision=script.base + 1)
    script.wait(controls=2)
    script.create(b"c", start_revision=script.base + 3, prev_kv=True)
    script.wait(controls=3, events=1)


def cancelled(script: WatchScript) -> None:
    """A cancelled watch is acknowledged and silent; an unknown one is passed over."""
    script.create(b"d")
    script.create(b"d", watch_id=9)
    script.wait(controls=2)
    script.put(b"d", b"1")
    script.wait(controls=2, events=2)
    script.cancel(9)
    script.wait(controls=3)
    script.cancel(4711)
    script.put(b"d", b"2")
    script.wait(controls=3, events=3)


def progress(script: WatchScript) -> None:
    """A request for progress is answered with the revision up to which all is delivered."""
    script.create(b"g")
    script.wait(controls=1)
    script.progress()
    script.wait(controls=2)
    script.put(b"g")
    script.put(b"elsewhere")
    script.wait(controls=2, events=1)
    script.progress()
    script.wait(controls=3)


def everything(script: WatchScript) -> None:
    """An empty key with an open end is every key."""
    script.create(b"", range_end=b"\0")
    script.create(b"\0", range_end=b"\0")
    script.create(b"m", range_end=b"\0")
    script.wait(controls=3)
    script.put(b"\0")
    script.put(b"m")
    script.put(b"\xff\xff")
    script.wait(controls=3, events=8)


def nothing_asked(script: WatchScript) -> None:
    """A request without content is passed over."""
    script.nothing()
    script.create(b"o")
    script.wait(controls=1)
    script.put(b"o")
    script.wait(controls=1, events=1)


def rewritten_in_transaction(script: WatchScript) -> None:
    """A key that is deleted and made again in one transaction is seen twice in one revision."""
    script.put(b"r", b"1")
    script.create(b"r", prev_kv=True)
    script.wait(controls=1)
    nested = kv_pb2.TxnRequest(success=[_put(b"r2")])
    script.txn(_delete(b"r"), kv_pb2.RequestOp(request_txn=nested))
    script.put(b"r", b"2")
    script.wait(controls=1, events=2)


def fragments(script: WatchScript) -> None:
    """A history larger than a message arrives whole, in fragments or not."""
    for key in (b"big1", b"big2", b"big3"):
        script.put(key, bytes(900_000))
    script.create(b"big", range_end=b"bih", start_revision=script.base + 1, fragment=True)
    script.create(b"big", range_end=b"bih", start_revision=script.base + 1)
    script.wait(controls=2, events=6)


def chosen_identifiers(script: WatchScript) -> None:
    """A chosen id may be any number; the server's own ids pass over it, and free ones come back."""
    script.create(b"j", watch_id=1)
    script.create(b"j")
    script.create(b"j")
    script.create(b"j", watch_id=-7)
    script.create(b"j", watch_id=2**62)
    script.wait(controls=5)
    script.cancel(1)
    script.cancel(1)
    script.wait(controls=6)
    script.create(b"j", watch_id=1)
    script.create(b"j")
    script.wait(controls=8)
    script.put(b"j")
    script.wait(controls=8, events=6)


def deleted_at_the_compaction(script: WatchScript) -> None:
    """A watch from the compacted revision on sees the deletion that was made in it."""
    script.put(b"t", b"1")
    script.delete(b"t")
    script.compact(script.base + 2)
    script.create(b"t", start_revision=script.base + 2, prev_kv=True)
    script.wait(controls=1, events=1)
    script.create(b"t", start_revision=script.base + 1)
    script.create(b"t", start_revision=1)
    script.wait(controls=5)
    script.put(b"t", b"2")
    script.wait(controls=5, events=2)


def previous_of_compacted_history(script: WatchScript) -> None:
    """What was there before is told as far as it has not been compacted."""
    for value in (b"1", b"2", b"3"):
        script.put(b"pc", value)
    script.delete(b"pc")
    script.put(b"pc", b"4")
    script.compact(script.base + 2)
    script.create(b"pc", start_revision=script.base + 2, prev_kv=True)
    script.wait(controls=1, events=4)


def compacted_while_it_waits(script: WatchScript) -> None:
    """A watch that has everything, or waits for the future, is not touched by a compaction."""
    script.create(b"w", start_revision=script.base + 4)
    script.create(b"w")
    script.wait(controls=2)
    for value in (b"1", b"2", b"3"):
        script.put(b"w", value)
    script.wait(controls=2, events=3)
    script.compact(script.base + 3)
    script.put(b"w", b"4")
    script.wait(controls=2, events=5)


def filters_of_history(script: WatchScript) -> None:
    """Filters, also ones that nobody knows, work on history as they do on what happens."""
    for value in (b"1", b"2"):
        script.put(b"y", value)
        script.delete(b"y")
    start = script.base + 1
    for kinds in ([_NOPUT], [_NODELETE], [_NOPUT, _NODELETE], [_NOPUT, _NOPUT], [7]):
        script.create(b"y", start_revision=start, filters=kinds, prev_kv=True)
    script.wait(controls=5, events=10)
    script.put(b"y", b"3")
    script.delete(b"y")
    script.wait(controls=5, events=15)


def leases_in_events(script: WatchScript) -> None:
    """Events tell the lease of a key, and of what was there before."""
    script.lease(888)
    script.create(b"l", prev_kv=True)
    script.wait(controls=1)
    script.put(b"l", b"1", lease=888)
    script.put(b"l", b"2", ignore_lease=True)
    script.put(b"l", b"3")
    script.put(b"l", b"4", lease=888)
    script.revoke(888)
    script.wait(controls=1, events=5)


def fragments_of_one_revision(script: WatchScript) -> None:
    """Events of one revision that are too large for a message come whole, live and from history."""
    keys = (b"fr1", b"fr2", b"fr3")
    for key in keys:
        script.put(key, bytes(700_000))
    script.create(b"fr", range_end=b"fs", prev_kv=True, fragment=True)
    script.wait(controls=1)
    script.delete(b"fr", b"fs")
    script.wait(controls=1, events=3)
    script.create(
        b"fr", range_end=b"fs", prev_kv=True, fragment=True, start_revision=script.base + 4
    )
    script.wait(controls=2, events=6)


def progress_of_many(script: WatchScript) -> None:
    """One answer tells the progress of all watches of a stream, also where there is none."""
    script.progress()
    script.wait(controls=1)
    for key in (b"q1", b"q2", b"q3"):
        script.create(key)
    script.wait(controls=4)
    script.put(b"q2")
    script.wait(controls=4, events=1)
    script.progress()
    script.progress()
    script.wait(controls=6)
    script.cancel(0)
    script.wait(controls=7)
    script.progress()
    script.wait(controls=8)


def cancelled_before_it_is_told(script: WatchScript) -> None:
    """Cancelling passes over ids that were never given, and those that were given up."""
    script.cancel(0)
    script.cancel(-1)
    script.create(b"cc")
    script.create(b"cc", range_end=b"aa")
    script.wait(controls=2)
    script.cancel(-1)
    script.cancel(0)
    script.wait(controls=3)
    script.put(b"cc")
    script.create(b"cc")
    script.wait(controls=4)
    script.put(b"cc")
    script.wait(controls=4, events=1)


_SCRIPTS = (
    live_key,
    live_prefix_with_previous,
    history,
    future,
    filters,
    identifiers,
    empty_range,
    compacted,
    cancelled,
    progress,
    everything,
    nothing_asked,
    rewritten_in_transaction,
    fragments,
    chosen_identifiers,
    previous_of_compacted_history,
    compacted_while_it_waits,
    filters_of_history,
    leases_in_events,
    fragments_of_one_revision,
    progress_of_many,
    cancelled_before_it_is_told,
)


def _observe(
    pair: Pair, play: Callable[[WatchScript], None], user: str, *, alone: bool = False
) -> list[Observed]:
    """Play a script on both members, or on the one under test alone."""
    # No script sees when keys of another one were made.
    pair.do("kv.DeleteRange", kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    observed = []
    for client in pair.clients(user)[-1:] if alone else pair.clients(user):
        script = WatchScript(client)
        try:
            play(script)
            observed.append(_relative(script.observed(), script.base))
        finally:
            script.close()
    return observed


def _relative(observed: Observed, base: int) -> Observed:
    """Count revisions from the script's beginning: no script depends on how others ended."""
    controls = [
        control._replace(
            revision=max(control.revision - base, -1),
            compact_revision=control.compact_revision and control.compact_revision - base,
        )
        for control in observed.controls
    ]
    events = {
        watch_id: [shifted(event, -base) for event in told]
        for watch_id, told in observed.events.items()
    }
    return Observed(controls, events)


@pytest.mark.parametrize("play", _SCRIPTS, ids=lambda play: play.__name__)
def test_watch_responds_like_etcd(prepared: Pair, play: Callable[[WatchScript], None]) -> None:
    """Each script sees etcd's responses and etcd's events."""
    theirs, ours = _observe(prepared, play, "root")

    assert theirs.controls == ours.controls
    assert theirs.events == ours.events


def _refused_in_band(script: WatchScript) -> None:
    script.create(b"/ops/x")
    script.create(b"/app/", range_end=b"/app1")
    script.create(b"/app/", range_end=b"/app0")
    script.wait(controls=3)
    script.put(b"/app/w")
    script.wait(controls=3, events=1)


def test_watch_without_permission_is_refused_in_band(prepared: Pair) -> None:
    """A watch that the user may not have is refused on a stream that goes on."""
    theirs, ours = _observe(prepared, _refused_in_band, "web")

    # etcd 3.5.1 gives the refused watch an id; later etcd gives it -1, as clients expect.
    assert [_without_id(control) for control in theirs.controls] == [
        _without_id(control) for control in ours.controls
    ]
    assert [_told(theirs)] == [_told(ours)]
    if prepared.subject.product == "kvsecure":
        assert [control.watch_id for control in ours.controls] == [-1, -1, 0]


def _without_id(control: Control) -> Control:
    return control._replace(watch_id=0)


def _told(observed: Observed) -> list[mvcc_pb2.Event]:
    return [event for events in observed.events.values() for event in events]


def test_watch_of_the_open_end_needs_all_of_it(prepared: Pair) -> None:
    """A watch from a key on is refused to who may not read everything behind the key."""
    if prepared.subject.product == "etcd":
        pytest.skip("etcd 3.5.1 grants it (GHSA-xg4h-6gfc-h4m8)")

    def play(script: WatchScript) -> None:
        script.create(b"/app/", range_end=b"\0")
        script.create(b"/app/w", range_end=b"\0")
        script.create(b"", range_end=b"\0")
        script.wait(controls=3)

    (ours,) = _observe(prepared, play, "web", alone=True)

    assert [(control.watch_id, control.canceled) for control in ours.controls] == [(-1, True)] * 3


def test_watch_from_negative_revision_is_refused(prepared: Pair) -> None:
    """A negative start revision is created and cancelled in one response, as in later etcd."""
    if prepared.subject.product == "etcd":
        pytest.skip("etcd 3.5.1 takes it for the present")

    def play(script: WatchScript) -> None:
        script.create(b"n", start_revision=-1)
        script.wait(controls=1)

    (ours,) = _observe(prepared, play, "root", alone=True)

    assert ours.controls == [
        Control(
            watch_id=-1,
            created=True,
            canceled=True,
            compact_revision=0,
            cancel_reason="etcdserver: mvcc: required revision has been compacted",
            revision=ours.controls[0].revision,
        )
    ]


@pytest.mark.parametrize("lease", [777, 4711, 0, -1])
def test_keep_alive_answers_like_etcd(prepared: Pair, lease: int) -> None:
    """A lease is kept alive with its full time; one that is not there has none left."""
    answers = []
    for client in prepared.clients():
        request = lease_pb2.LeaseKeepAliveRequest(ID=lease)
        stream = client.lease.LeaseKeepAlive(iter([request, request]), timeout=10)
        answers.append([(answer.ID, answer.TTL) for answer in stream])

    assert answers[0] == answers[1]


def test_deletion_at_the_compaction_is_told(prepared: Pair) -> None:
    """A watch from the compacted revision on sees the deletion that was made in it."""
    if prepared.subject.product == "etcd":
        pytest.skip("etcd 3.5.1 forgets it")

    (ours,) = _observe(prepared, deleted_at_the_compaction, "root", alone=True)

    assert [(event.type, event.kv.mod_revision) for event in ours.events[0]] == [(1, 2), (0, 3)]
    controls = sorted((control.watch_id, control.compact_revision) for control in ours.controls)
    assert controls == [(0, 0), (1, 0), (1, 2), (2, 0), (2, 2)]


def test_progress_is_of_the_stream_that_asked(prepared: Pair) -> None:
    """Of two streams only the one that asked is told its progress, after all its events."""
    for client in prepared.clients():
        asking, silent = WatchScript(client), WatchScript(client)
        try:
            for script in (asking, silent):
                script.create(b"two")
                script.wait(controls=1)
            asking.put(b"two")
            asking.progress()
            asking.wait(controls=2, events=1)
            silent.cancel(0)
            silent.wait(controls=2, events=1)

            (_, progress), (_, cancelled) = asking.observed().controls, silent.observed().controls
            assert (progress.watch_id, progress.canceled) == (-1, False)
            assert progress.revision == asking.base + 1
            assert (cancelled.watch_id, cancelled.canceled) == (0, True)
        finally:
            asking.close()
            silent.close()


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        ("nonsense", "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
    ],
)
def test_watch_without_identity_is_refused_in_band(prepared: Pair, token: str, reason: str) -> None:
    """Whoever is nobody is told so by the reason of the cancel, as by etcd since 3.5.8."""
    if prepared.subject.product == "etcd":
        pytest.skip("etcd 3.5.1 says that permission is denied")
    create = watch_pb2.WatchCreateRequest(key=b"a")
    with prepared.subject.anonymous() as client:
        client.use_token(token)
        stream = client.watch.Watch(iter([watch_pb2.WatchRequest(create_request=create)]))
        answer = next(stream)
        stream.cancel()

    assert (answer.created, answer.canceled, answer.watch_id) == (True, True, -1)
    assert answer.cancel_reason == reason


def test_progress_is_told_now_and_then(subject_type: type[Member], tmp_path: Path) -> None:
    """A watch that asked for it is told how far it is while nothing happens, and no other is."""
    flags = ("--experimental-watch-progress-notify-interval=100ms",)
    with (
        EtcdMember(tmp_path / "etcd", flags=flags) as etcd,
        subject_type(tmp_path / "subject", flags=flags) as subject,
    ):
        pair = Pair(etcd, subject)

        def play(script: WatchScript) -> None:
            script.create(b"n", progress_notify=True)
            script.create(b"n")
            script.wait_for_progress(script.base)
            script.put(b"n")
            script.put(b"elsewhere")
            script.wait_for_progress(script.base + 2)

        theirs, ours = _observe(pair, play, "root")
        pair.close()

    assert ours.events == theirs.events
    assert {each._replace(revision=0) for each in ours.controls} == {
        each._replace(revision=0) for each in theirs.controls
    }
    assert max(each.revision for each in ours.controls) == 2
