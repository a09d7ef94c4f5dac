"""Pings: how often a peer may send them, and ours to one that is silent; grpc-go's rules.

The peer's are judged by its keepalive.EnforcementPolicy; ours follow its ServerParameters.
"""

from typing import Final

import pytest
from wire.dialogue import LIMITS, TRAILERS, Dialogue
from wire.rawframes import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    PING,
    data,
    goaway_code,
    headers,
    message,
    ping,
    request_block,
    window_update,
)

from kvsecure.wire.h2.frames import ErrorCode
from kvsecure.wire.h2.pings import PingLimits, Pings, Probe

_S: Final = 1_000_000_000
_HOUR_NS: Final = 3_600 * _S
_ETCD: Final = PingLimits(
    interval_ns_min=5 * _S, silence_ns_max=2 * _HOUR_NS, answer_ns_max=20 * _S
)


def _dialogue(*, streams: int = 1, limits: PingLimits = _ETCD) -> Dialogue:
    """A connection on which so many streams are open, and nothing has been answered."""
    dialogue = Dialogue(LIMITS._replace(pings=limits))
    for number in range(streams):
        dialogue.feed(headers(2 * number + 1, request_block()))
    dialogue.frames.clear()
    return dialogue


def _ping(dialogue: Dialogue, after_ns: int = 0) -> bool:
    """Let time pass, ping, and tell whether the connection is still there."""
    dialogue.now_ns += after_ns
    dialogue.feed(ping())
    return dialogue.connection.failed is None


# --- theirs -----------------------------------------------------------------------------------


def test_pings_at_the_shortest_interval_are_all_taken() -> None:
    """A peer that keeps the interval exactly is never in the wrong, and is always answered."""
    dialogue = _dialogue()

    assert all(_ping(dialogue, 5 * _S) for _ in range(100))
    assert [(one.type, one.flags) for one in dialogue.frames] == [(PING, ACK)] * 100


def test_two_early_pings_are_forgiven_and_the_third_is_not() -> None:
    """The first ping is free, two may come early, and the one after them ends the connection."""
    dialogue = _dialogue()

    assert [_ping(dialogue, 5 * _S - 1) for _ in range(4)] == [True, True, True, False]
    assert dialogue.connection.failed is ErrorCode.ENHANCE_YOUR_CALM


def test_goaway_says_too_many_pings() -> None:
    """The words and the code are those by which clients of gRPC learn to ping less often."""
    dialogue = _dialogue()
    while _ping(dialogue):
        pass

    last = dialogue.frames[-1]
    assert (last.type, last.payload[8:]) == (GOAWAY, b"too_many_pings")
    assert goaway_code([last]) == ErrorCode.ENHANCE_YOUR_CALM
    assert int.from_bytes(last.payload[:4], "big") == 1


def test_strikes_stay_when_later_pings_are_in_time() -> None:
    """Only an answer forgives; strikes add up over any time (grpc-go)."""
    dialogue = _dialogue()
    steps = [0, 0, 60 * _S, 60 * _S, 0, 60 * _S, 0]

    assert [_ping(dialogue, step) for step in steps] == [True] * 6 + [False]


def test_answer_forgives_the_strikes() -> None:
    """What was sent for a request shows that the peer had reason to look whether we are there."""
    dialogue = _dialogue(streams=2)
    for _ in range(3):
        assert _ping(dialogue)
    dialogue.connection.outgoing.refuse(3, TRAILERS)

    # The first after the answer is free, and two more may come early.
    assert [_ping(dialogue) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("kind", ["headers", "data", "whole", "refusal"])
def test_every_kind_of_answer_forgives(kind: str) -> None:
    """Header blocks and data alike, as part of an answer or as all of it."""
    dialogue = _dialogue()
    dialogue.feed(headers(3, request_block()), data(3, message(b""), END_STREAM))
    dialogue.now_ns += _S
    for _ in range(3):
        assert _ping(dialogue)
    outgoing = dialogue.connection.outgoing
    match kind:
        case "headers":
            outgoing.send_headers(1, TRAILERS)
        case "data":
            outgoing.stream(1).headers_sent = True
            outgoing.send_data(1, message(b"x"))
        case "whole":
            outgoing.respond(3, TRAILERS, b"", message(b"x"), TRAILERS)
        case _:
            outgoing.refuse(1, TRAILERS)

    assert _ping(dialogue)
    assert _ping(dialogue)


def test_answer_is_not_lost_between_other_frames() -> None:
    """Frames about nothing between an answer and a ping do not make the answer unseen."""
    dialogue = _dialogue(streams=2)
    for _ in range(3):
        assert _ping(dialogue)
    dialogue.connection.outgoing.refuse(3, TRAILERS)
    dialogue.feed(window_update(0, 1))

    assert _ping(dialogue)


def test_peer_without_streams_has_nothing_to_keep_alive() -> None:
    """Without a stream a ping every two hours is all (etcd does not permit more)."""
    dialogue = _dialogue(streams=0)

    assert all(_ping(dialogue, 2 * _HOUR_NS) for _ in range(10))
    assert [_ping(dialogue, 2 * _HOUR_NS - 1) for _ in range(3)] == [True, True, False]


def test_interval_counts_from_stream_to_stream() -> None:
    """As soon as a stream is open the peer may ping at its interval again."""
    dialogue = _dialogue(streams=0)
    for _ in range(3):
        assert _ping(dialogue, 60 * _S)
    dialogue.feed(headers(1, request_block(), END_HEADERS | END_STREAM))

    assert all(_ping(dialogue, 5 * _S) for _ in range(10))


def test_answers_to_our_pings_are_no_pings() -> None:
    """An acknowledgement is never one too many."""
    dialogue = _dialogue()

    dialogue.feed(*[ping(flags=ACK) for _ in range(100)])

    assert dialogue.connection.failed is None


def test_pings_without_an_interval_are_not_judged() -> None:
    """0 lets a peer ping as it likes; the bound of frames about nothing is there all the same."""
    dialogue = _dialogue(limits=PingLimits())

    assert all(_ping(dialogue) for _ in range(LIMITS.idle_frames_per_s_max))
    assert not _ping(dialogue)


# --- ours -------------------------------------------------------------------------------------


def _seconds(dialogue: Dialogue, count: int) -> None:
    for _ in range(count):
        dialogue.now_ns += _S
        dialogue.connection.tick()
    dialogue.feed()


def _limits(silence_s: int, answer_s: int) -> PingLimits:
    return PingLimits(silence_ns_max=silence_s * _S, answer_ns_max=answer_s * _S)


def _silent(limits: PingLimits) -> Dialogue:
    """A connection whose peer has just stopped saying anything."""
    dialogue = _dialogue(limits=limits)
    dialogue.connection.tick()
    return dialogue


def _ticks(pings: Pings, count: int, start_ns: int = 0) -> list[Probe]:
    return [pings.tick(start_ns + number * _S, heard=False) for number in range(count)]


def test_silent_peer_is_pinged_once() -> None:
    """After the interval there is one ping, and not another while its answer is awaited."""
    pings = Pings(_limits(10, 5))

    probes = _ticks(pings, 15)

    assert probes == [Probe.NOTHING] * 10 + [Probe.PING] + [Probe.NOTHING] * 4


def test_peer_that_stays_silent_is_given_up() -> None:
    """When the time for an answer is over the peer counts as gone, and goes on doing so."""
    pings = Pings(_limits(10, 5))

    probes = _ticks(pings, 17)

    assert probes[15:] == [Probe.GIVE_UP] * 2


def test_any_word_counts_as_an_answer() -> None:
    """It need not be the acknowledgement: whoever talks is there (grpc-go)."""
    pings = Pings(_limits(10, 5))
    _ticks(pings, 12)

    assert pings.tick(12 * _S, heard=True) is Probe.NOTHING
    assert _ticks(pings, 10, 13 * _S) == [Probe.NOTHING] * 9 + [Probe.PING]


@pytest.mark.parametrize(("silence_s", "answer_s"), [(0, 0), (0, 5)])
def test_no_interval_never_pings(silence_s: int, answer_s: int) -> None:
    """0 switches our pings off, as etcd's manual says, and with them the giving up."""
    assert set(_ticks(Pings(_limits(silence_s, answer_s)), 100_000)) == {Probe.NOTHING}


def test_no_timeout_never_gives_up() -> None:
    """0 pings and waits for ever."""
    assert Probe.GIVE_UP not in _ticks(Pings(_limits(10, 0)), 100_000)


def test_connection_pings_a_silent_peer() -> None:
    """The ping is a frame of eight bytes on stream 0 that asks for an answer."""
    dialogue = _silent(_limits(10, 5))

    _seconds(dialogue, 14)

    (sent,) = dialogue.frames
    assert (sent.type, sent.flags, sent.stream, len(sent.payload)) == (PING, 0, 0, 8)
    assert not dialogue.connection.silent


def test_connection_is_silent_without_an_answer() -> None:
    """Whoever owns the connection is told, and nothing more is sent."""
    dialogue = _silent(_limits(10, 5))

    _seconds(dialogue, 16)

    assert dialogue.connection.silent
    assert [one.type for one in dialogue.frames] == [PING]
    assert dialogue.connection.failed is None


@pytest.mark.parametrize("word", [ping(flags=ACK), window_update(0, 1), b"\0"])
def test_connection_takes_any_bytes_for_life(word: bytes) -> None:
    """The acknowledgement, another frame, or not even a whole one."""
    dialogue = _silent(_limits(10, 5))
    _seconds(dialogue, 13)

    dialogue.feed(word)
    _seconds(dialogue, 10)

    assert not dialogue.connection.silent


def test_reading_is_a_sign_of_life() -> None:
    """Who is not read from because it reads slowly is alive as long as it reads."""
    dialogue = _silent(_limits(10, 5))
    for _ in range(10):
        _seconds(dialogue, 14)
        dialogue.connection.heard = True

    assert not dialogue.connection.silent
