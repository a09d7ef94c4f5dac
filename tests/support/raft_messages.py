"""Messages of every kind, for properties.

Owns: strategies for messages that honest members could send, and for those that nobody could.
Never: sends any.
"""

from typing import Final

from hypothesis import strategies as st

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.messages import (
    MEMBER_MAX,
    NUMBER_MAX,
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

__all__ = ["ANY_MESSAGES", "POSSIBLE_MESSAGES"]

# Entries by which members change, and some that only look like it.
_ENTRIES: Final = st.one_of(
    st.just(b""),
    st.binary(max_size=6).map(b"\x01".__add__),
    st.sampled_from(
        [
            Configuration((1, 2)).encode(),  # type: ignore[arg-type] # the numbers are enough here
            Configuration((2, 3), (1, 2, 3), (4,)).encode(),  # type: ignore[arg-type] # as above
            b"\x00",
            b"\x00\x01\x00\x00\x00\x00",
            Configuration((5,)).encode()[:-1],  # type: ignore[arg-type] # as above
        ]
    ),
)
_LISTS: Final = st.lists(_ENTRIES, max_size=4)


def _kinds(numbers: st.SearchStrategy[int], members: st.SearchStrategy[int]) -> list:
    head = (members, members, numbers)
    truths = st.booleans()
    return [
        st.builds(PreVote, *head, numbers, numbers),
        st.builds(PreVoteReply, *head, truths),
        st.builds(Vote, *head, numbers, numbers, truths),
        st.builds(VoteReply, *head, truths),
        st.builds(Append, *head, numbers, numbers, numbers, numbers, _LISTS),
        st.builds(AppendReply, *head, numbers, truths, numbers, numbers),
        st.builds(Heartbeat, *head, numbers, numbers, numbers),
        st.builds(HeartbeatReply, *head, numbers),
        st.builds(TimeoutNow, *head),
        st.builds(ReadIndex, *head, numbers),
        st.builds(ReadIndexReply, *head, numbers, numbers),
    ]


_SMALL: Final = st.integers(0, 6)
_LARGE: Final = st.sampled_from([-1, NUMBER_MAX - 1, NUMBER_MAX, NUMBER_MAX + 1, 1 << 64, 1 << 80])
# Numbers near each other, so that much of it fits; a few large ones end what a node can take.
ANY_MESSAGES: Final[st.SearchStrategy[Message]] = st.one_of(
    _kinds(
        st.one_of(*[_SMALL] * 20, _LARGE),
        st.sampled_from([1, 2, 2, 3, 3, 4, MEMBER_MAX, 1 << 64, 0, -1]),
    )
)
POSSIBLE_MESSAGES: Final[st.SearchStrategy[Message]] = st.one_of(
    _kinds(st.one_of(_SMALL, st.integers(0, NUMBER_MAX)), st.sampled_from([1, 2, MEMBER_MAX]))
).filter(is_possible)
