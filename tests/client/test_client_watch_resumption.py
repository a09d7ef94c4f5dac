"""A watch over broken streams: where it goes on, and what ends it, against a scripted server."""

import itertools

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.etcd import ScriptedServer

from kvsecure.client import Client, ClientError, Keys, Secret
from kvsecure.client.watch import Event, Watch
from kvsecure.model.errors import Failure
from kvsecure.proto import auth_pb2, kv_pb2, mvcc_pb2, watch_pb2

__all__: list[str] = []

_WATCH = "/etcdserverpb.Watch/Watch"
_LOGIN = "/etcdserverpb.Auth/Authenticate"
_KEYS = Keys.prefix(b"k")
_GONE = (grpc.StatusCode.UNAVAILABLE, "Socket closed")


def _header(revision: int) -> kv_pb2.ResponseHeader:
    return kv_pb2.ResponseHeader(revision=revision)


def _created(revision: int = 1) -> watch_pb2.WatchResponse:
    return watch_pb2.WatchResponse(header=_header(revision), created=True)


def _events(
    *revisions: int, header: int | None = None, fragment: bool = False
) -> watch_pb2.WatchResponse:
    return watch_pb2.WatchResponse(
        header=_header(revisions[-1] if header is None else header),
        fragment=fragment,
        events=[
            mvcc_pb2.Event(kv=mvcc_pb2.KeyValue(key=b"k%d" % number, mod_revision=revision))
            for number, revision in enumerate(revisions)
        ],
    )


def _starts(server: ScriptedServer) -> list[int]:
    return [
        seen.request.create_request.start_revision  # type: ignore[attr-defined]  # a WatchRequest
        for seen in server.calls_of(_WATCH)
    ]


def _take(watch: Watch, count: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < count:
        events += next(watch).events
    return events


def test_watch_resumes_after_the_last_event(scripted: ScriptedServer) -> None:
    """After a break the watch asks for the revision after the last one it handed out."""
    scripted.script(_WATCH, [_created(4), _events(5, 6), _GONE], [_created(9), _events(7)])

    with Client.open(scripted.endpoint) as client, client.watch(_KEYS) as watch:
        events = _take(watch, 3)

    assert [event.kv.mod_revision for event in events] == [5, 6, 7]
    assert _starts(scripted) == [0, 7]


def test_watch_that_saw_nothing_resumes_where_it_began(scripted: ScriptedServer) -> None:
    """A break before the first event must not lose what happened during the break."""
    scripted.script(_WATCH, [_created(4), _GONE], [_created(9), _events(5)])

    with Client.open(scripted.endpoint) as client, client.watch(_KEYS) as watch:
        (event,) = _take(watch, 1)

    assert event.kv.mod_revision == 5
    assert _starts(scripted) == [0, 5]


def test_watch_does_not_trust_a_header_ahead_of_its_events(scripted: ScriptedServer) -> None:
    """While catching up the header is ahead; the watch resumes after the events, not after it."""
    scripted.script(
        _WATCH, [_created(100), _events(5, header=100), _GONE], [_created(100), _events(6)]
    )

    with (
        Client.open(scripted.endpoint) as client,
        client.watch(_KEYS, start_revision=5) as watch,
    ):
        _take(watch, 2)

    assert _starts(scripted) == [5, 6]


def test_progress_moves_the_point_of_resumption(scripted: ScriptedServer) -> None:
    """A notice of progress means that everything before it need not be asked for again."""
    progress = watch_pb2.WatchResponse(header=_header(50))
    scripted.script(_WATCH, [_created(4), progress, _GONE], [_created(60), _events(51)])

    with Client.open(scripted.endpoint) as client, client.watch(_KEYS) as watch:
        first, second = next(watch), next(watch)

    assert (first.revision, first.events) == (50, ())
    assert second.revision == 51
    assert _starts(scripted) == [0, 51]


def test_broken_fragment_is_read_again_whole(scripted: ScriptedServer) -> None:
    """A revision of which a part had come before the break is handed out once and whole."""
    scripted.script(
        _WATCH,
        [_created(4), _events(5, 6, fragment=True), _GONE],
        [_created(9), _events(6, 6), _events(7)],
    )

    with Client.open(scripted.endpoint) as client, client.watch(_KEYS) as watch:
        events = _take(watch, 4)

    assert [event.kv.mod_revision for event in events] == [5, 6, 6, 7]
    assert _starts(scripted) == [0, 6]


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_fragments_and_breaks_never_lose_or_repeat(data: st.DataObject) -> None:
    """However answers are cut and streams break, each event comes once, revisions unbroken."""
    per_revision = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    history = [
        (revision, number)
        for revision, count in enumerate(per_revision, start=2)
        for number in range(count)
    ]
    server = _HistoryServer(history, data)

    events = server.watch_to_the_end()

    assert events == history


class _HistoryServer:
    """Feeds a watch from a history, in fragments of drawn sizes, with drawn breaks."""

    def __init__(self, history: list[tuple[int, int]], data: st.DataObject) -> None:
        self._history = history
        self._data = data

    def watch_to_the_end(self) -> list[tuple[int, int]]:
        # The part of the watch that decides is driven directly; the way there is tested above.
        watch = Watch.__new__(Watch)
        watch._held = []
        watch._next_revision = 2
        seen: list[tuple[int, int]] = []
        for attempt in itertools.count():
            watch._held.clear()
            left = [pair for pair in self._history if pair[0] >= watch._next_revision]
            while left:
                size = self._data.draw(st.integers(1, len(left)))
                part, left = left[:size], left[size:]
                # A batch that ends inside a revision must be marked as a fragment.
                inside = bool(left) and left[0][0] == part[-1][0]
                fragment = bool(left) and (inside or self._data.draw(st.booleans()))
                batch = watch._take(self._answer(part, fragment=fragment), "")
                seen += [
                    (event.kv.mod_revision, event.kv.version)
                    for event in (batch.events if batch else ())
                ]
                if attempt < 5 and self._data.draw(st.booleans()):
                    break
            else:
                return seen
        raise AssertionError("unreachable")

    @staticmethod
    def _answer(part: list[tuple[int, int]], *, fragment: bool) -> watch_pb2.WatchResponse:
        return watch_pb2.WatchResponse(
            fragment=fragment,
            events=[
                mvcc_pb2.Event(kv=mvcc_pb2.KeyValue(mod_revision=revision, version=number))
                for revision, number in part
            ],
        )


@pytest.mark.parametrize("status", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.PERMISSION_DENIED])
def test_other_ends_of_the_stream_are_final(
    scripted: ScriptedServer, status: grpc.StatusCode
) -> None:
    """A stream that ends with anything but UNAVAILABLE or INTERNAL is not opened again."""
    scripted.script(_WATCH, [_created(), (status, "no")], [_created()])

    with (
        Client.open(scripted.endpoint) as client,
        client.watch(_KEYS) as watch,
        pytest.raises(ClientError, match="no"),
    ):
        next(watch)

    assert len(scripted.calls_of(_WATCH)) == 1


@pytest.mark.parametrize(
    "reason",
    [
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    ],
)
def test_watch_with_an_ended_token_logs_in_again(scripted: ScriptedServer, reason: str) -> None:
    """A watch that is refused for its token, under either name, is made with a new one."""
    refusal = watch_pb2.WatchResponse(
        created=True, canceled=True, watch_id=-1, cancel_reason=reason
    )
    scripted.script(
        _LOGIN,
        auth_pb2.AuthenticateResponse(token="one"),
        auth_pb2.AuthenticateResponse(token="two"),
    )
    scripted.script(_WATCH, [refusal], [_created()])
    password = Secret.of_text("a password nobody uses")

    with (
        Client.open(scripted.endpoint, user="web", password=password) as client,
        client.watch(_KEYS),
    ):
        pass

    assert [seen.token for seen in scripted.calls_of(_WATCH)] == ["one", "two"]


def test_watch_is_cancelled_with_the_servers_reason(scripted: ScriptedServer) -> None:
    """A watch that the server ends later, as after a revocation, ends with its code and text."""
    end = watch_pb2.WatchResponse(
        canceled=True,
        cancel_reason="rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    )
    scripted.script(_WATCH, [_created(), end])

    with (
        Client.open(scripted.endpoint) as client,
        client.watch(_KEYS) as watch,
        pytest.raises(ClientError) as refused,
    ):
        next(watch)

    assert refused.value.failure is Failure.PERMISSION_DENIED


def test_watch_gives_up_after_its_patience(scripted: ScriptedServer) -> None:
    """A watch whose server does not come back ends with an error, not never."""
    scripted.script(_WATCH, [_created(), _GONE], *([_GONE] for _ in range(50)))

    with (
        Client.open(scripted.endpoint) as client,
        client.watch(_KEYS, resume_s=0.3) as watch,
        pytest.raises(ClientError, match="Socket closed"),
    ):
        next(watch)
