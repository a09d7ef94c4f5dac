"""The meeting: the first members of a cluster find each other under a token.

    /_etcd/registry/TOKEN/_config/size      how many they are to be; the operator writes it
    /_etcd/registry/TOKEN/members/ID        NAME=URL,... of each, by member id

Owns: these keys, the order of arrival, and when there are enough.
Never: writes over what somebody else has registered.
Follows: etcd's v3 discovery, section 5.4 of etcd-surface, with its texts; differs: what a
    member registers is written only if nothing is there, and one whose id has another name there
    ends.
Keeps: all members take the same ones, because the order is the registry's: the first that came.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeVar, final

from kvsecure.model.ids import MemberId
from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.proto import kv_pb2
from kvsecure.server.config.build_cluster import members_of
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.discovery.failure import DiscoveryFailed, shown
from kvsecure.server.discovery.registry import Registry, RegistryLost
from kvsecure.telemetry.log import log

__all__ = ["meet"]

_ROOT: Final = "/_etcd/registry"
# Waits double from 2 seconds to 2^8 (etcd).
_DOUBLINGS_MAX: Final = 8
# Those beyond the size of a cluster, and those that mean nothing, are not many.
_REGISTERED_MAX: Final = 1_024

_log = log("discovery")

_Answer = TypeVar("_Answer")


@final
class _Registered(NamedTuple):
    """Somebody who has come."""

    member: str
    name: str
    urls: tuple[str, ...]


@final
class _Roll(NamedTuple):
    """Who has come so far, in order of arrival, and as of which revision."""

    size: int
    registered: tuple[_Registered, ...]
    revision: int


def meet(
    registry: Registry,
    token: str,
    member: MemberId,
    text: str,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Mapping[str, tuple[str, ...]]:
    """Register this member, wait until all have come, and return their peer URLs by name.

    It waits for as long as it takes.

    Args:
        registry: Where.
        token: Of the cluster that is to be.
        member: This member's id.
        text: This member as `NAME=URL,...`.
        pause: Waits for some seconds.

    Raises:
        DiscoveryFailed: There are enough already, or it cannot be.
    """
    return _Meeting(registry, token, member, text, pause).members()


@final
class _Meeting:
    """One member's part of it."""

    def __init__(
        self,
        registry: Registry,
        token: str,
        member: MemberId,
        text: str,
        pause: Callable[[float], None],
    ) -> None:
        self._registry = registry
        self._member = f"{member:x}"
        self._text = text
        self._pause = pause
        self._size_key = f"{_ROOT}/{token}/_config/size".encode()
        self._prefix = f"{_ROOT}/{token}/members/".encode()
        # The slash at the end of the prefix, and the sign after it.
        self._prefix_end = self._prefix[:-1] + b"0"
        self._failures = 0

    def members(self) -> Mapping[str, tuple[str, ...]]:
        """Return who has come, once they are enough."""
        # Somebody who comes too late leaves nothing behind.
        self._place(self._retried(self._roll))
        self._retried(self._register)
        while True:
            roll = self._retried(self._roll)
            if self._place(roll) is None:
                raise DiscoveryFailed(
                    f"discovery: member {self._member} is not registered any more"
                )
            if len(roll.registered) >= roll.size:
                return _agreed(roll)
            _log.info(
                "waiting for other members",
                size=roll.size,
                there=[each.name for each in roll.registered],
            )
            self._retried(partial(self._wait, roll.revision + 1))

    def _place(self, roll: _Roll) -> int | None:
        """Return this member's place among those who have come, if it has.

        Raises:
            DiscoveryFailed: It is beyond the size, or there is none left.
        """
        places = [each.member for each in roll.registered]
        place = places.index(self._member) if self._member in places else None
        if (len(places) if place is None else place) >= roll.size:
            raise DiscoveryFailed("discovery: cluster is full")
        return place

    def _retried(self, act: Callable[[], _Answer]) -> _Answer:
        """Do something until it is done, with longer and longer breaks."""
        while True:
            try:
                answer = act()
            except RegistryLost as error:
                self._failures += 1
                pause_s = float(1 << min(self._failures, _DOUBLINGS_MAX))
                _log.warning(
                    "the discovery cluster does not answer", error=str(error), retry_s=pause_s
                )
                self._pause(pause_s)
            else:
                self._failures = 0
                return answer

    def _roll(self) -> _Roll:
        """Read size and members as of one revision."""
        request = kv_pb2.TxnRequest()
        request.success.add().request_range.key = self._size_key
        members = request.success.add().request_range
        members.key, members.range_end = self._prefix, self._prefix_end
        members.sort_target = kv_pb2.RangeRequest.CREATE
        members.sort_order = kv_pb2.RangeRequest.ASCEND
        members.limit = _REGISTERED_MAX
        answer = self._registry.transact(request)
        if len(answer.responses) != len(request.success):
            raise DiscoveryFailed("discovery: the endpoint does not answer what it was asked")
        size, came = (each.response_range.kvs for each in answer.responses)
        if not size:
            raise DiscoveryFailed("discovery: size key not found")
        registered = (self._registered(bytes(each.key), bytes(each.value)) for each in came)
        return _Roll(
            _size_of(bytes(size[0].value)),
            tuple(each for each in registered if each is not None),
            answer.header.revision,
        )

    def _registered(self, key: bytes, value: bytes) -> _Registered | None:
        """Return who has registered; None for what is nobody, as in etcd."""
        try:
            ((name, urls),) = members_of(value.decode("ascii").strip()).items()
            member = key.removeprefix(self._prefix).decode("ascii").strip()
            number = int(member, 16)
        except (ValueError, ConfigError):
            _log.warning("an entry of the discovery cluster is no member", key=shown(str(key)))
            return None
        return _Registered(f"{number:x}", name, urls)

    def _register(self) -> None:
        """Write down this member, unless it is there.

        Raises:
            DiscoveryFailed: Somebody else has its id.
        """
        key = self._prefix + self._member.encode()
        request = kv_pb2.TxnRequest()
        condition = request.compare.add()
        condition.key = key
        condition.target = kv_pb2.Compare.CREATE
        condition.result = kv_pb2.Compare.EQUAL
        condition.create_revision = 0
        put = request.success.add().request_put
        put.key, put.value = key, self._text.encode()
        request.failure.add().request_range.key = key
        answer = self._registry.transact(request)
        if answer.succeeded:
            _log.info("registered with the discovery cluster", member_id=self._member)
            return
        there = [bytes(each.value) for each in answer.responses[0].response_range.kvs]
        if there != [self._text.encode()]:
            raise DiscoveryFailed(
                f"discovery: member {self._member} is registered as "
                f"{shown(b','.join(there).decode('ascii', 'replace'))}, and this is {self._text}"
            )

    def _wait(self, revision: int) -> None:
        self._registry.wait_for_change(self._prefix, self._prefix_end, revision)


def _size_of(value: bytes) -> int:
    text = value.strip()
    if text.isdigit() and len(text) <= 4 and 0 < int(text) <= MEMBERS_MAX:
        return int(text)
    raise DiscoveryFailed(
        f"discovery: size key is bad: it must be a number from 1 to {MEMBERS_MAX}"
    )


def _agreed(roll: _Roll) -> Mapping[str, tuple[str, ...]]:
    """Return the first who came, as many as they are to be."""
    first = roll.registered[: roll.size]
    members = {each.name: each.urls for each in first}
    if len(members) < len(first):
        raise DiscoveryFailed("discovery: two members have one name")
    return members
