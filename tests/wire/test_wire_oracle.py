"""Another implementation as the peer: everything said is understood, on both sides, to the byte."""

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from wire.dialogue import LIMITS

from kvsecure.wire.grpc import OK_HEADERS, OK_TRAILERS, encode_refusal
from kvsecure.wire.h2.connection import DATA, DRAINED, REQUEST, RESET, Connection
from kvsecure.wire.h2.frames import ErrorCode

_PATHS = st.sampled_from(["/a", "/etcdserverpb.KV/Put", "/" + "x" * 300])
_SIZES = st.one_of(st.integers(0, 100), st.sampled_from([16_384, 16_385, 70_000, 200_000]))
_Setting = h2.settings.SettingCodes


@settings(max_examples=80, stateful_step_count=40)
class PeerMachine(RuleBasedStateMachine):
    """Requests and answers of all shapes between h2, as a client, and the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Connection(LIMITS, lambda: 0)
        self.client = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.client.initiate_connection()
        # What each side said on a stream, and what the other has heard of it.
        self.asked: dict[int, tuple[str, bytes]] = {}
        self.asking: set[int] = set()
        self.heard: dict[int, list[Any]] = {}
        self.answered: dict[int, bytes] = {}
        self.answering: set[int] = set()
        self.received: dict[int, bytes] = {}
        self.complete: set[int] = set()
        self.dropped: set[int] = set()
        self.unread: list[tuple[int, int]] = []
        self._exchange()

    # --- the client -----------------------------------------------------------------------------

    @rule(path=_PATHS, sizes=st.lists(_SIZES, max_size=4), ends=st.booleans(), call=st.booleans())
    def ask(self, path: str, sizes: list[int], *, ends: bool, call: bool) -> None:
        """Begin a request, and perhaps end it."""
        if self.client.open_outbound_streams >= LIMITS.streams_max:
            return
        stream = self.client.get_next_available_stream_id()
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
            ("x", "y" * 50),
            *([("te", "trailers")] if call else []),
        ]
        self.client.send_headers(stream, fields, end_stream=ends and not sizes)
        content = b""
        for number, size in enumerate(sizes, 1):
            piece = bytes((stream & 0xFF,)) * size
            content += self._send(stream, piece, end=ends and number == len(sizes))
        self.asked[stream] = path, content
        if not ends:
            self.asking.add(stream)
        self._exchange()

    def _send(self, stream: int, piece: bytes, *, end: bool) -> bytes:
        sent = b""
        while len(sent) < len(piece):
            room = min(
                self.client.local_flow_control_window(stream), self.client.max_outbound_frame_size
            )
            if not room:
                self._exchange()
                continue
            part = piece[len(sent) : len(sent) + room]
            self.client.send_data(stream, part)
            sent += part
        if end:
            self.client.end_stream(stream)
        return sent

    @rule(data=st.data(), trailers=st.booleans())
    def end_request(self, data: st.DataObject, *, trailers: bool) -> None:
        """End a request, with trailers or without."""
        if not self.asking:
            return
        stream = data.draw(st.sampled_from(sorted(self.asking)))
        self.asking.discard(stream)
        if trailers:
            self.client.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        else:
            self.client.end_stream(stream)
        self._exchange()

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """Reset a stream from the client's side."""
        waiting = sorted(self.asked.keys() - self.complete - self.dropped)
        if waiting:
            stream = data.draw(st.sampled_from(waiting))
            self.client.reset_stream(stream)
            self.dropped.add(stream)
            self.asking.discard(stream)
            self.answering.discard(stream)
            self._exchange()

    @rule()
    def read_on(self) -> None:
        """Let the server send more."""
        unread, self.unread = self.unread, []
        for stream, size in unread:
            self.client.acknowledge_received_data(size, stream)
        self._exchange()

    @rule(
        window=st.sampled_from([0, 1, 100, 65_535, 1_000_000]),
        frame=st.sampled_from([16_384, 50_000]),
    )
    def change_settings(self, window: int, frame: int) -> None:
        """Change what the client takes."""
        self.client.update_settings(
            {_Setting.INITIAL_WINDOW_SIZE: window, _Setting.MAX_FRAME_SIZE: frame}
        )
        self._exchange()

    @rule()
    def ping(self) -> None:
        """Ask for a sign of life."""
        self.client.ping(b"abcdefgh")
        self._exchange()

    # --- the server -----------------------------------------------------------------------------

    @rule(data=st.data(), size=_SIZES, whole=st.booleans())
    def answer(self, data: st.DataObject, size: int, *, whole: bool) -> None:
        """Begin an answer, and perhaps end it."""
        fresh = sorted(
            self.heard.keys() & self.server.outgoing.streams.keys() - self.answered.keys()
        )
        if not fresh:
            return
        stream = data.draw(st.sampled_from(fresh))
        outgoing = self.server.outgoing
        self.answered[stream] = b"a" * size
        if whole:
            outgoing.respond(
                stream, OK_HEADERS, b"a" * (size // 2), b"a" * (size - size // 2), OK_TRAILERS
            )
            self.asking.discard(stream)
        else:
            self.answering.add(stream)
            outgoing.send_headers(stream, OK_HEADERS)
            outgoing.send_data(stream, b"a" * size)
        self._exchange()

    @rule(data=st.data(), size=_SIZES, trailers=st.sampled_from([OK_TRAILERS, b""]))
    def go_on(self, data: st.DataObject, size: int, trailers: bytes) -> None:
        """Send more of an answer, and end it."""
        if not self.answering:
            return
        stream = data.draw(st.sampled_from(sorted(self.answering)))
        self.answering.discard(stream)
        self.asking.discard(stream)
        self.answered[stream] += b"a" * size
        self.server.outgoing.send_data(stream, b"a" * size)
        self.server.outgoing.end(stream, trailers)
        self._exchange()

    @rule(data=st.data(), resets=st.booleans())
    def refuse(self, data: st.DataObject, *, resets: bool) -> None:
        """Refuse a request, whether it is whole or not."""
        fresh = sorted(
            self.heard.keys() & self.server.outgoing.streams.keys() - self.answered.keys()
        )
        if not fresh:
            return
        stream = data.draw(st.sampled_from(fresh))
        self.asking.discard(stream)
        if resets:
            self.dropped.add(stream)
            self.server.outgoing.reset(stream, ErrorCode.CANCEL)
        else:
            self.answered[stream] = b""
            self.server.outgoing.refuse(stream, encode_refusal(5, "not here"))
        self._exchange()

    # --- between --------------------------------------------------------------------------------

    def _exchange(self) -> None:
        for _ in range(50):
            to_server = self.client.data_to_send()
            if to_server:
                self._hear(self.server.receive(to_server))
            to_client = list(self.server.outgoing.out)
            self.server.outgoing.out.clear()
            # Piece by piece: h2 takes larger frames only from the next call on.
            for piece in to_client:
                self._read(self.client.receive_data(piece))
            if not to_server and not to_client:
                return
        raise AssertionError("they never stop talking")

    def _hear(self, events: list[tuple[Any, ...]]) -> None:
        for kind, stream, *rest in events:
            if kind == REQUEST:
                head, content, ended = rest
                self.heard[stream] = [head.path.decode(), content, ended]
            elif kind == DATA:
                self.heard[stream][1] += rest[0]
                self.heard[stream][2] = rest[1]
            else:
                assert kind in (RESET, DRAINED)

    def _read(self, events: list[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.DataReceived(stream_id=stream, data=content):
                    self.received[stream] = self.received.get(stream, b"") + content
                    self.unread.append((stream, event.flow_controlled_length))
                case h2.events.StreamEnded(stream_id=stream):
                    self.complete.add(stream)
                case h2.events.ConnectionTerminated(error_code=code):
                    raise AssertionError(f"the server went away with {code}")
                case _:
                    pass

    @invariant()
    def both_understand(self) -> None:
        """What one side said is what the other heard."""
        assert self.server.failed is None
        for stream, (path, content) in self.asked.items():
            if stream in self.dropped or stream in self.answered:
                continue
            ended = stream not in self.asking
            assert self.heard[stream] == [path, content, ended]
        for stream, content in self.answered.items():
            received = self.received.get(stream, b"")
            assert content.startswith(received)
            if stream in self.complete:
                assert received == content

    def teardown(self) -> None:
        """Let everything through: then every answer is complete."""
        try:
            self.client.update_settings({_Setting.INITIAL_WINDOW_SIZE: 2_000_000})
            self.client.increment_flow_control_window(2**29)
            self._exchange()
            # Answers to requests that do not end have waited long enough.
            self.server.tick()
            self.server.tick()
            self._exchange()
        except h2.exceptions.FlowControlError as error:
            raise AssertionError(str(error)) from None
        ended = self.answered.keys() - self.answering - self.dropped
        assert ended <= self.complete


test_peer_and_connection_understand_each_other = PeerMachine.TestCase
