"""Members: who is to be one, as the log has declared it; replicated state.

Owns: the records of members, the ids that never come back, and with which keys members sign tokens.
Never: is what consensus goes by: that has a configuration of its own, which follows this one
    (`core.reconfiguration`).
Follows: etcd's membership (server/etcdserver/api/membership) for preconditions, errors and ids.
Keeps: no two members have a peer URL in common; the key of a member that goes, goes with it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, final

from kvsecure.model.errors import Failure, Refused, invariant
from kvsecure.model.ids import MemberId
from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.proto import cluster_pb2, state_pb2

__all__ = ["PUBLIC_KEY_BYTES", "Members", "added_member_id", "member_view"]

PUBLIC_KEY_BYTES: Final = 32


def added_member_id(peer_urls: Sequence[str], time_s: int) -> MemberId:
    """Return the id of a member that is added while the cluster runs, as etcd computes it.

    Args:
        peer_urls: Where it will be reached, in any order.
        time_s: Now, in seconds since 1970: one that is added again is another member.
    """
    text = "".join(sorted(peer_urls)) + str(time_s)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return MemberId(int.from_bytes(digest[:8], "big"))


def member_view(record: state_pb2.Member) -> cluster_pb2.Member:
    """Return a member as clients are told of it."""
    # etcd's clients take one that has a name for one that was started.
    is_awaited = record.is_joining and not record.client_urls
    return cluster_pb2.Member(
        ID=record.id,
        name="" if is_awaited else record.name,
        peerURLs=record.peer_urls,
        clientURLs=record.client_urls,
        isLearner=record.is_learner,
    )


@final
class Members:
    """The declared members of one cluster."""

    __slots__ = ("_keys", "_records", "_removed", "learners", "revision", "voters")

    def __init__(self) -> None:
        self._records: dict[MemberId, state_pb2.Member] = {}
        # As far as their addresses are known: they are needed until consensus does without them.
        self._removed: dict[MemberId, state_pb2.Member] = {}
        self._keys: dict[MemberId, bytes] = {}
        # In order, as a configuration of consensus has them.
        self.voters: tuple[MemberId, ...] = ()
        self.learners: tuple[MemberId, ...] = ()
        # Rises with every change, to tell cheaply that there was one; another one on each member.
        self.revision = 0

    def __len__(self) -> int:
        """Return how many members there are."""
        return len(self._records)

    def __iter__(self) -> Iterator[state_pb2.Member]:
        """Yield the records in the order of ids; they are not to be changed."""
        return iter([self._records[member] for member in sorted(self._records)])

    def __contains__(self, member: int) -> bool:
        """Tell whether somebody is a member."""
        return member in self._records

    def get(self, member: int) -> state_pb2.Member | None:
        """Return the record of a member, which is not to be changed, or None."""
        return self._records.get(MemberId(member))

    def is_learner(self, member: int) -> bool:
        """Tell whether somebody is a member without a vote."""
        return member in self.learners

    def is_removed(self, member: int) -> bool:
        """Tell whether somebody was a member and was removed."""
        return member in self._removed

    def removed_record(self, member: int) -> state_pb2.Member | None:
        """Return the name and the peer URLs of who was removed, or None."""
        return self._removed.get(MemberId(member))

    @property
    def removed(self) -> frozenset[int]:
        """Who were members and were removed."""
        return frozenset(self._removed)

    @property
    def removed_count(self) -> int:
        """How many were ever removed."""
        return len(self._removed)

    @property
    def keys(self) -> dict[MemberId, bytes]:
        """The public keys, raw, that members sign tokens with."""
        return dict(self._keys)

    def key_of(self, member: int) -> bytes | None:
        """Return the public key that a member signs tokens with, or None if none is known."""
        return self._keys.get(MemberId(member))

    # --- changes --------------------------------------------------------------------------------

    def found(self, founders: Sequence[state_pb2.Member]) -> None:
        """Begin with the members that found a cluster."""
        invariant(not self._records, "a cluster is founded once")
        for founder in founders:
            self.load(founder)
        invariant(len(self._records) == len(founders), "founders have ids of their own")

    def load(self, record: state_pb2.Member) -> None:
        """Take in a member as it was stored."""
        self._put(record)

    def load_removed(self, record: state_pb2.Member) -> None:
        """Take in who was removed, as it was stored."""
        self._removed[MemberId(record.id)] = record

    def load_key(self, record: state_pb2.SigningKey) -> None:
        """Take in a key as it was stored."""
        self._keys[MemberId(record.member_id)] = record.public_key
        self.revision += 1

    def add(self, record: state_pb2.Member, learners_max: int) -> state_pb2.Member:
        """Declare somebody a member; return its record.

        Args:
            record: Of the member.
            learners_max: How many learners there may be with it.

        Raises:
            Refused: Its id or a peer URL of it is or was another's, or there are too many.
        """
        member = MemberId(record.id)
        if not member or member in self._records or member in self._removed:
            raise Refused(Failure.MEMBER_EXISTS)
        self._check_urls(record.peer_urls)
        if record.is_learner and len(self.learners) >= learners_max:
            raise Refused(Failure.TOO_MANY_LEARNERS)
        if len(self._records) >= MEMBERS_MAX:
            raise Refused(Failure.TOO_MANY_MEMBERS)
        return self._put(record)

    def remove(self, member: int) -> state_pb2.Member:
        """Declare that somebody is a member no more; return the record of it.

        Raises:
            Refused: It is none, or nobody else votes.
        """
        record = self._record(member)
        if self.voters == (record.id,):
            raise Refused(Failure.NOT_ENOUGH_STARTED)
        found = MemberId(record.id)
        del self._records[found]
        self._keys.pop(found, None)
        self._removed[found] = record
        self._changed()
        return record

    def update(self, member: int, peer_urls: Sequence[str]) -> state_pb2.Member:
        """Declare where other members reach a member; return its record.

        Raises:
            Refused: It is none, or another one is reached there.
        """
        record = self._record(member)
        self._check_urls(peer_urls, but=record.id)
        return self._put(_changed(record, peer_urls=peer_urls))

    def promote(self, member: int) -> state_pb2.Member:
        """Declare that a learner votes; return its record.

        Raises:
            Refused: It is none, or votes already.
        """
        record = self._record(member)
        if not record.is_learner:
            raise Refused(Failure.MEMBER_NOT_LEARNER)
        return self._put(_changed(record, is_learner=False))

    def publish(self, member: int, name: str, client_urls: Sequence[str]) -> state_pb2.Member:
        """Note what a member says of itself; return its record.

        Raises:
            Refused: It is none.
        """
        record = self._record(member)
        return self._put(_changed(record, name=name, client_urls=client_urls))

    def add_key(self, record: state_pb2.SigningKey) -> None:
        """Note with which key a member signs tokens; it is the only one of that member.

        Raises:
            Refused: It is none.
        """
        self._record(record.member_id)
        self.load_key(record)

    # --- within ---------------------------------------------------------------------------------

    def _record(self, member: int) -> state_pb2.Member:
        record = self._records.get(MemberId(member))
        if record is None:
            raise Refused(Failure.MEMBER_NOT_FOUND)
        return record

    def _check_urls(self, peer_urls: Sequence[str], but: int = 0) -> None:
        taken = {url for each in self if each.id != but for url in each.peer_urls}
        if taken.intersection(peer_urls):
            raise Refused(Failure.PEER_URL_EXISTS)

    def _put(self, record: state_pb2.Member) -> state_pb2.Member:
        self._records[MemberId(record.id)] = record
        self._changed()
        return record

    def _changed(self) -> None:
        self.voters = tuple(MemberId(each.id) for each in self if not each.is_learner)
        self.learners = tuple(MemberId(each.id) for each in self if each.is_learner)
        self.revision += 1


def _changed(
    record: state_pb2.Member,
    *,
    name: str | None = None,
    peer_urls: Sequence[str] | None = None,
    client_urls: Sequence[str] | None = None,
    is_learner: bool | None = None,
) -> state_pb2.Member:
    """Return a record with some of it changed; whoever holds the old one still has it."""
    return state_pb2.Member(
        id=record.id,
        name=record.name if name is None else name,
        peer_urls=record.peer_urls if peer_urls is None else peer_urls,
        client_urls=record.client_urls if client_urls is None else client_urls,
        is_learner=record.is_learner if is_learner is None else is_learner,
        # Who votes has joined.
        is_joining=record.is_joining and is_learner is None,
    )
