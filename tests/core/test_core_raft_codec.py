"""Messages as bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raft_messages import POSSIBLE_MESSAGES

from kvsecure.core.raft.codec import ENTRIES_MAX, DamagedMessage, decode, encode
from kvsecure.core.raft.messages import Append, Heartbeat, Message, TimeoutNow, Vote, is_possible
from kvsecure.model.ids import Index, MemberId, Term
from kvsecure.model.limits import PEER_MESSAGE_BYTES_MAX

_APPEND = Append(
    *(MemberId(1), MemberId(2), Term(5), Index(3), Term(4), Term(5), Index(3)),
    [b"\x01one", b"", b"\x01three"],
)


@settings(max_examples=300, deadline=None)
@given(POSSIBLE_MESSAGES)
def test_message_is_read_as_it_was_written(message: Message) -> None:
    """Every message of every kind comes back the same."""
    assert decode(encode(message)) == message
    assert type(decode(encode(message))) is type(message)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=120), st.binary(max_size=80).map(b"\x01\x05".__add__)))
def test_any_bytes_are_a_message_or_damaged(text: bytes) -> None:
    """Whatever comes is a possible message in its one form, or is refused as damaged."""
    try:
        message = decode(text)
    except DamagedMessage:
        return
    assert is_possible(message)
    assert encode(message) == text


@settings(max_examples=300, deadline=None)
@given(POSSIBLE_MESSAGES, st.data())
def test_changed_bytes_are_a_message_or_damaged(message: Message, data: st.DataObject) -> None:
    """A message with a byte changed, cut off or added is another possible one, or damaged."""
    text = bytearray(encode(message))
    place = data.draw(st.integers(0, len(text) - 1))
    match data.draw(st.sampled_from(["change", "cut", "add"])):
        case "change":
            text[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del text[place:]
        case _:
            text.append(0)
    try:
        other = decode(bytes(text))
    except DamagedMessage:
        return
    assert is_possible(other)
    assert encode(other) == bytes(text)


@pytest.mark.parametrize("size", range(len(encode(_APPEND))))
def test_message_that_is_cut_off_is_damaged(size: int) -> None:
    """No beginning of a message is a message."""
    with pytest.raises(DamagedMessage):
        decode(encode(_APPEND)[:size])


def test_message_of_another_version_is_damaged() -> None:
    """A version that is not known here is not guessed at."""
    text = encode(TimeoutNow(MemberId(1), MemberId(2), Term(3)))

    with pytest.raises(DamagedMessage):
        decode(b"\x02" + text[1:])


def test_message_of_an_unknown_kind_is_damaged() -> None:
    """A kind that has no number here is refused."""
    text = encode(TimeoutNow(MemberId(1), MemberId(2), Term(3)))

    with pytest.raises(DamagedMessage):
        decode(text[:1] + b"\xff" + text[2:])


def test_truth_has_two_forms_only() -> None:
    """A truth value is 0 or 1."""
    vote = Vote(MemberId(1), MemberId(2), Term(3), Index(0), Term(0), is_transfer=True)
    text = encode(vote)

    assert text[-1:] == b"\x01"
    with pytest.raises(DamagedMessage):
        decode(text[:-1] + b"\x02")


def test_entries_are_bounded_in_number() -> None:
    """A message with more entries than a leader sends at once is not read."""
    most = _APPEND._replace(entries=[b""] * ENTRIES_MAX)

    assert decode(encode(most)) == most
    with pytest.raises(DamagedMessage):
        decode(encode(_APPEND._replace(entries=[b""] * (ENTRIES_MAX + 1))))


def test_messages_are_bounded_in_bytes() -> None:
    """What is larger than any message is not looked into."""
    without = encode(_APPEND._replace(entries=[b""]))
    entry = bytes(PEER_MESSAGE_BYTES_MAX - len(without))

    assert len(encode(decode(encode(_APPEND._replace(entries=[entry]))))) == PEER_MESSAGE_BYTES_MAX
    with pytest.raises(DamagedMessage):
        decode(encode(_APPEND._replace(entries=[entry + b"."])))


def test_impossible_numbers_are_damaged() -> None:
    """What no honest member could say is not a message: a term of none, or oneself as the other."""
    for message in (
        Heartbeat(MemberId(1), MemberId(2), Term(0), Index(0), Term(0), 0),
        Heartbeat(MemberId(1), MemberId(1), Term(1), Index(0), Term(0), 0),
        Heartbeat(MemberId(0), MemberId(1), Term(1), Index(0), Term(0), 0),
        Heartbeat(MemberId(1), MemberId(2), Term(1), Index(1 << 63), Term(1), 0),
        Heartbeat(MemberId(1), MemberId(2), Term(1), Index(1), Term(2), 0),
        _APPEND._replace(entry_term=Term(6)),
        _APPEND._replace(prev_term=Term(0)),
        Vote(MemberId(1), MemberId(2), Term(3), Index(1), Term(3), is_transfer=False),
    ):
        with pytest.raises(DamagedMessage):
            decode(encode(message))
