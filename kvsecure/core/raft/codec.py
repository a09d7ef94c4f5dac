"""Messages between members, as bytes.

    message := version, kind, sender u64, to u64, term u64, the kind's numbers as u64
    Append  := ..., count u32, the lengths of the entries as u32, the entries

Owns: the one form that a message has, and the number of each kind.
Never: frames, compresses or seals; the transport does. Changes what a number means.
Keeps: any bytes are a message or `DamagedMessage`; what is read was possible; a message has one
    form, so what is read is what is written again.
"""

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, final

from kvsecure.core.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
    is_possible,
)
from kvsecure.model.ids import Index, MemberId, Term
from kvsecure.model.limits import PEER_MESSAGE_BYTES_MAX

__all__ = ["ENTRIES_MAX", "DamagedMessage", "decode", "encode"]

# A message of more entries is not read.
ENTRIES_MAX: Final = 4_096

_VERSION: Final = 1
_KIND: Final = struct.Struct(">BB")
# sender, to, term, prev_index, prev_term, entry_term, committed, count
_APPEND: Final = struct.Struct(">BBQQQQQQQI")
_APPEND_KIND: Final = 5
_KINDS: Final[Mapping[int, type[Message]]] = MappingProxyType(
    {
        1: PreVote,
        2: PreVoteReply,
        3: Vote,
        4: VoteReply,
        _APPEND_KIND: Append,
        6: AppendReply,
        7: Heartbeat,
        8: HeartbeatReply,
        9: TimeoutNow,
        10: ReadIndex,
        11: ReadIndexReply,
    }
)
# The place of a truth value among a message's fields; everything else is a number.
_TRUTHS: Final[Mapping[type[Message], int]] = MappingProxyType(
    {PreVoteReply: 3, Vote: 5, VoteReply: 3, AppendReply: 4}
)


def _form(kind: type[Message]) -> struct.Struct:
    truth = _TRUTHS.get(kind)
    fields = ["B" if place == truth else "Q" for place in range(len(kind._fields))]
    return struct.Struct(">BB" + "".join(fields))


_FORMS: Final = {
    kind: (number, _form(kind)) for number, kind in _KINDS.items() if kind is not Append
}


@final
class DamagedMessage(Exception):
    """These bytes are no message of a member's, or of another version."""


def encode(message: Message) -> bytes:
    """Return a message's bytes."""
    if isinstance(message, Append):
        entries = message.entries
        lengths = list(map(len, entries))
        head = _APPEND.pack(_VERSION, _APPEND_KIND, *message[:-1], len(entries))
        return b"".join((head, struct.pack(f">{len(lengths)}I", *lengths), *entries))
    number, form = _FORMS[type(message)]
    return form.pack(_VERSION, number, *message)


def decode(text: bytes) -> Message:
    """Read what `encode` wrote.

    Raises:
        DamagedMessage: It is not that, or no honest member could have written it.
    """
    if len(text) > PEER_MESSAGE_BYTES_MAX:
        raise DamagedMessage("the message is too large")
    try:
        version, number = _KIND.unpack_from(text)
        if version != _VERSION:
            raise DamagedMessage(f"message version {version} is not known here")
        if number == _APPEND_KIND:
            message: Message = _decode_append(text)
        else:
            message = _decode_numbers(number, text)
    except (struct.error, KeyError):
        raise DamagedMessage("the message is cut off, too long, or of an unknown kind") from None
    if not is_possible(message):
        raise DamagedMessage("the message contradicts itself")
    return message


def _decode_numbers(number: int, text: bytes) -> Message:
    kind = _KINDS[number]
    fields: list[Any] = list(_FORMS[kind][1].unpack(text)[2:])
    truth = _TRUTHS.get(kind)
    if truth is not None:
        if fields[truth] > 1:
            raise DamagedMessage("a truth value is neither")
        fields[truth] = bool(fields[truth])
    return kind(*fields)


def _decode_append(text: bytes) -> Append:
    _, _, sender, to, term, prev_index, prev_term, entry_term, committed, count = (
        _APPEND.unpack_from(text)
    )
    if count > ENTRIES_MAX:
        raise DamagedMessage("there are too many entries")
    lengths = struct.unpack_from(f">{count}I", text, _APPEND.size)
    start = _APPEND.size + 4 * count
    if start + sum(lengths) != len(text):
        raise DamagedMessage("the entries are not as long as they should be")
    entries = []
    for length in lengths:
        end = start + length
        entries.append(text[start:end])
        start = end
    return Append(
        MemberId(sender),
        MemberId(to),
        Term(term),
        Index(prev_index),
        Term(prev_term),
        Term(entry_term),
        Index(committed),
        entries,
    )
