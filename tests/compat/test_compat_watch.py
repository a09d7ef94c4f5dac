"""Watches seen through a stock gRPC client: the same responses and events as etcd's.

Owns: one script for each rule of the watch service, run against both servers.
Never: compares how events are batched, which etcd leaves open.
"""

from collections.abc import Callable

import pytest
from support.bad_requests import prepare
from support.pair import Pair
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
)


def _observe(pair: Pair, play: Callable[[WatchScript], None], user: str) -> list[Observed]:
    observed = []
    for client in pair.clients(user):
        script = WatchScript(client)
        try:
            play(script)
            observed.append(script.observed())
        finally:
            script.close()
    return observed


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

    ours = _observe(prepared, play, "web")[-1]

    assert [(control.watch_id, control.canceled) for control in ours.controls] == [(-1, True)] * 3


def test_watch_from_negative_revision_is_refused(prepared: Pair) -> None:
    """A negative start revision is created and cancelled in one response, as in later etcd."""
    if prepared.subject.product == "etcd":
        pytest.skip("etcd 3.5.1 takes it for the present")

    def play(script: WatchScript) -> None:
        script.create(b"n", start_revision=-1)
        script.wait(controls=1)

    ours = _observe(prepared, play, "root")[-1]

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
