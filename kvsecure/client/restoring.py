"""Bringing back what keys were: by ordinary transactions that no concurrent write gets lost in.

    steps     what has to be written and deleted, found out by reading now and then side by side
    carry_out as many of them in one transaction as go; what has changed meanwhile is left alone

Owns: what has to be done to make keys as they were, and doing it.
Never: overwrites a version that it has not seen; gives a key a lease that it had.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from kvsecure.client.client import Client
from kvsecure.client.errors import ClientError
from kvsecure.client.keys import Keys
from kvsecure.client.operations import Compare, Delete, Found, Operation, Put
from kvsecure.client.values import KeyValue
from kvsecure.model.errors import Failure
from kvsecure.model.limits import TXN_OPS_MAX_DEFAULT

__all__ = ["Change", "Difference", "Step", "carry_out", "differences", "steps_to"]

_PAGE_KEYS: Final = 128
_TXN_BYTES_MAX: Final = 1024 * 1024


class Change(Enum):
    """What there is to a key on one side and not on the other."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key that was not the same at two revisions.

    Attributes:
        key: The key.
        before: What it was at the first one; None if it did not exist.
        after: What it was at the second one; None if it did not exist.
    """

    key: bytes
    before: KeyValue | None
    after: KeyValue | None

    @property
    def change(self) -> Change:
        """What became of it."""
        if self.before is None:
            return Change.ADDED
        return Change.REMOVED if self.after is None else Change.CHANGED


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What has to be done to one key.

    Attributes:
        key: The key.
        now: What it was when that was found out; None if it did not exist.
        then: What it is to be, but for its lease; None if it is not to exist.
    """

    key: bytes
    now: KeyValue | None
    then: KeyValue | None

    def condition(self) -> Compare:
        """Return that nobody has changed the key since."""
        return Compare.missing(self.key) if self.now is None else Compare.unchanged(self.now)

    def operation(self) -> Operation:
        """Return what to do."""
        if self.then is None:
            return Delete(keys=Keys.one(self.key))
        return Put(key=self.key, value=self.then.value)


def differences(client: Client, keys: Keys, first: int, second: int) -> Iterator[Difference]:
    """Yield the keys that were not the same at two revisions, in their order.

    A key that was written in between is different, whatever its value.
    """
    before, after = _read(client, keys, first), _read(client, keys, second)
    old, new = next(before, None), next(after, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.key < new.key):
            assert old is not None  # noqa: S101 - one of the two is there
            yield Difference(key=old.key, before=old, after=None)
            old = next(before, None)
        elif old is None or new.key < old.key:
            yield Difference(key=new.key, before=None, after=new)
            new = next(after, None)
        else:
            if old.mod_revision != new.mod_revision:
                yield Difference(key=old.key, before=old, after=new)
            old, new = next(before, None), next(after, None)


def steps_to(client: Client, keys: Keys, revision: int, current: int) -> Iterator[Step]:
    """Yield what makes keys have the values again that they had at a revision.

    Args:
        client: Asks.
        keys: Which.
        revision: When they were as they are to be.
        current: The newest revision; what was written after it counts as changed meanwhile.
    """
    for found in differences(client, keys, revision, current):
        before, after = found.before, found.after
        if before is None or after is None or before.value != after.value:
            yield Step(key=found.key, now=after, then=before)


def carry_out(client: Client, steps: Iterable[Step]) -> Iterator[tuple[Step, bool]]:
    """Do steps, many at a time, and yield each with whether it was done.

    One that was not done has been changed by somebody else since it was found out.
    """
    ops_max = TXN_OPS_MAX_DEFAULT
    waiting: list[Step] = []
    size_bytes = 0
    for step in steps:
        more_bytes = len(step.key) * 2 + (len(step.then.value) if step.then else 0)
        if waiting and (len(waiting) == ops_max or size_bytes + more_bytes > _TXN_BYTES_MAX):
            yield from _together(client, waiting)
            waiting, size_bytes = [], 0
        waiting.append(step)
        size_bytes += more_bytes
    if waiting:
        yield from _together(client, waiting)


def _together(client: Client, steps: Sequence[Step]) -> Iterator[tuple[Step, bool]]:
    """Do steps in one transaction; where that cannot be, in two of half the size."""
    try:
        done = client.kv.txn(
            when=tuple(step.condition() for step in steps),
            then=tuple(step.operation() for step in steps),
        ).succeeded
    except ClientError as error:
        # A server may be told to take fewer operations in one.
        if error.failure is not Failure.TOO_MANY_OPS or len(steps) == 1:
            raise
        done = False
    if done or len(steps) == 1:
        yield from ((step, done) for step in steps)
        return
    half = len(steps) // 2
    yield from _together(client, steps[:half])
    yield from _together(client, steps[half:])


def _read(client: Client, keys: Keys, revision: int) -> Iterator[KeyValue]:
    """Yield what keys were at a revision, page by page."""
    while True:
        found: Found = client.kv.range(keys, revision=revision, limit=_PAGE_KEYS)
        yield from found.kvs
        if not found.more:
            return
        keys = Keys(found.kvs[-1].key + b"\0", keys.range_end)
