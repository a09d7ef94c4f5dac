"""What members ask of each other besides consensus, as bytes.

    Propose   put these entries into the log            Proposed  they are there, from an index on
    Ask       what only the other member knows          Answer    it, or why not
                                                        Declined  nothing was put into the log

Owns: the one form of each of these, told from messages of consensus by their first byte.
Never: frames, compresses or seals; the transport does. Changes what a number means.
Keeps: any bytes are one of these or `DamagedRelay`.
"""

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, final

from google.protobuf.message import DecodeError, Message

from kvsecure.core.raft.messages import NUMBER_MAX
from kvsecure.model.errors import Failure
from kvsecure.model.ids import Index, TenantId, Term
from kvsecure.proto import lease_pb2, state_pb2

__all__ = [
    "RELAYED",
    "RELAY_ENTRIES_MAX",
    "Answer",
    "Ask",
    "DamagedRelay",
    "Declined",
    "Propose",
    "Proposed",
    "Reason",
    "Relayed",
    "decode",
    "encode",
]

# The first byte. Messages of consensus begin with their version, which is 1.
RELAYED: Final = 0x80
# Of one `Propose`.
RELAY_ENTRIES_MAX: Final = 4_096

_HEAD: Final = struct.Struct(">BBQ")
_COUNT: Final = struct.Struct(">I")
_PLACE: Final = struct.Struct(">QQ")
_ASK: Final = struct.Struct(">BI")
_ANSWER: Final = struct.Struct(">BQ")

# What may be asked.
_ASKED: Final[Mapping[int, type[Message]]] = MappingProxyType(
    {
        1: lease_pb2.LeaseKeepAliveRequest,
        2: lease_pb2.LeaseTimeToLiveRequest,
        3: state_pb2.LearnerReadiness,
        4: state_pb2.MarkRequest,
        5: state_pb2.ToldHeadRequest,
    }
)
_ASKED_NUMBERS: Final = {kind: number for number, kind in _ASKED.items()}
# Why there is no answer, or which it is.
_FAILURES: Final[Mapping[int, Failure]] = MappingProxyType(
    {
        1: Failure.NOT_LEADER,
        2: Failure.TIMEOUT,
        3: Failure.LEASE_NOT_FOUND,
        4: Failure.TOO_MANY_REQUESTS,
        5: Failure.NO_SPACE,
        6: Failure.STOPPED,
        7: Failure.NO_LEADER,
        8: Failure.MEMBER_NOT_FOUND,
        9: Failure.MEMBER_NOT_LEARNER,
        10: Failure.LEARNER_NOT_READY,
        11: Failure.NOT_ENOUGH_STARTED,
    }
)
_FAILURE_NUMBERS: Final = {failure: number for number, failure in _FAILURES.items()}


class _Kind(IntEnum):
    PROPOSE = 1
    PROPOSED = 2
    DECLINED = 3
    ASK = 4
    ANSWER = 5


class Reason(IntEnum):
    """Why nothing was put into the log."""

    # Somebody else leads, or nobody, or it is handing over: it can be tried again.
    NOT_LEADER = 1
    TOO_MUCH = 2
    NO_SPACE = 3
    # Something among the entries is no command.
    DAMAGED = 4


class Propose(NamedTuple):
    """Put these entries into the log, in this order, all or none."""

    number: int
    entries: Sequence[bytes]


class Proposed(NamedTuple):
    """The entries of a `Propose` are in the leader's log."""

    number: int
    term: Term
    first: Index


class Declined(NamedTuple):
    """No entry of a `Propose` is in any log, nor will be."""

    number: int
    reason: Reason


class Ask(NamedTuple):
    """A question of somebody who may ask it, about a lease of a tenant, or about a member."""

    number: int
    tenant: TenantId
    request: Message


class Answer(NamedTuple):
    """The answer to an `Ask`: a response without its header at a revision, or a failure."""

    number: int
    revision: int
    came: bytes | Failure


Relayed = Propose | Proposed | Declined | Ask | Answer


@final
class DamagedRelay(Exception):
    """These bytes are nothing that a member asks or answers, or of another version."""


def encode(said: Relayed) -> bytes:
    """Return the bytes of something."""
    match said:
        case Propose(number, entries):
            lengths = list(map(len, entries))
            packed = struct.pack(f">{len(lengths)}I", *lengths)
            head = _HEAD.pack(RELAYED, _Kind.PROPOSE, number) + _COUNT.pack(len(lengths))
            return b"".join((head, packed, *entries))
        case Proposed(number, term, first):
            return _HEAD.pack(RELAYED, _Kind.PROPOSED, number) + _PLACE.pack(term, first)
        case Declined(number, reason):
            return _HEAD.pack(RELAYED, _Kind.DECLINED, number) + bytes((reason,))
        case Ask(number, tenant, request):
            head = _HEAD.pack(RELAYED, _Kind.ASK, number)
            asked = _ASK.pack(_ASKED_NUMBERS[type(request)], tenant)
            return head + asked + request.SerializeToString()
        case Answer(number, revision, came):
            head = _HEAD.pack(RELAYED, _Kind.ANSWER, number)
            if isinstance(came, Failure):
                known = _FAILURE_NUMBERS.get(came, _FAILURE_NUMBERS[Failure.TIMEOUT])
                return head + _ANSWER.pack(known, revision)
            return head + _ANSWER.pack(0, revision) + came


def decode(text: bytes) -> Relayed:
    """Read what `encode` wrote.

    Raises:
        DamagedRelay: It is not that.
    """
    try:
        mark, kind, number = _HEAD.unpack_from(text)
        if mark != RELAYED:
            raise DamagedRelay("it begins as something else")
        said = _decode(_Kind(kind), number, text[_HEAD.size :])
    except (struct.error, ValueError, KeyError, DecodeError):
        raise DamagedRelay("it is cut off, too long, or of an unknown kind") from None
    return said


def _decode(kind: _Kind, number: int, rest: bytes) -> Relayed:
    match kind:
        case _Kind.PROPOSE:
            return Propose(number, _entries(rest))
        case _Kind.PROPOSED:
            term, first = _PLACE.unpack(rest)
            if max(term, first) > NUMBER_MAX:
                raise DamagedRelay("a number is impossible")
            return Proposed(number, Term(term), Index(first))
        case _Kind.DECLINED:
            (reason,) = rest
            return Declined(number, Reason(reason))
        case _Kind.ASK:
            asked, tenant = _ASK.unpack_from(rest)
            request = _ASKED[asked].FromString(rest[_ASK.size :])
            return Ask(number, TenantId(tenant), request)
        case _Kind.ANSWER:
            failure, revision = _ANSWER.unpack_from(rest)
            body = rest[_ANSWER.size :]
            if failure and body:
                raise DamagedRelay("a failure has no answer")
            return Answer(number, revision, _FAILURES[failure] if failure else body)


def _entries(rest: bytes) -> list[bytes]:
    (count,) = _COUNT.unpack_from(rest)
    if not 0 < count <= RELAY_ENTRIES_MAX:
        raise DamagedRelay("there are too many entries, or none")
    lengths = struct.unpack_from(f">{count}I", rest, _COUNT.size)
    start = _COUNT.size + 4 * count
    if start + sum(lengths) != len(rest):
        raise DamagedRelay("the entries are not as long as they should be")
    entries = []
    for length in lengths:
        entries.append(rest[start : start + length])
        start += length
    return entries
