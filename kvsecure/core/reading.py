"""Linearizable reads of this member: who waits for which index, and for how long.

    asked -> together a question to consensus -> its index -> applied that far -> told

Owns: everybody who waits to read, until told that it is time or that it took too long.
Never: answers anything; reads a clock by itself.
Follows: thesis 6.4; design D2. What is asked while a question is on its way is the next one's.
Keeps: who is told may read what is applied at that moment, and at that moment only.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import NamedTuple, Protocol, final

from kvsecure.core.raft.node import Node
from kvsecure.core.raft.refusals import TooManyReads
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import Index

__all__ = ["Reading", "caught_up", "type_fail"]

type_fail = Callable[[Refused], None]


class _Engine(Protocol):
    def can_read(self) -> bool:
        """Tell whether the applied state is good for a linearizable read now."""
        ...

    def when_readable(self, resume: Callable[[], None], fail: type_fail | None = None) -> None:
        """Call back once it is, or when that takes too long."""
        ...


async def caught_up(engine: _Engine) -> None:
    """Wait until what anybody was told before this call is applied here.

    Raises:
        Refused: It takes too long.
    """
    if engine.can_read():
        return
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def resume() -> None:
        if not waiting.done():
            waiting.set_result(None)

    def fail(refused: Refused) -> None:
        if not waiting.done():
            waiting.set_exception(refused)

    engine.when_readable(resume, fail)
    await waiting


class _Waiting(NamedTuple):
    since_ns: int
    resume: Callable[[], None]
    # Of who waits as long as it takes there is none.
    fail: type_fail | None


@final
class Reading:
    """Those who wait to read."""

    __slots__ = ("_asked", "_collected", "_confirmed", "_node", "_number", "is_fresh")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._number = 0
        self._collected: list[_Waiting] = []
        self._asked: dict[int, list[_Waiting]] = {}
        # By the index that has to be applied; the number tells equal ones apart.
        self._confirmed: list[tuple[Index, int, list[_Waiting]]] = []
        # Whether somebody is being told, and what is applied is good for it.
        self.is_fresh = False

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not (self._collected or self._asked or self._confirmed)

    def add(self, now_ns: int, resume: Callable[[], None], fail: type_fail | None) -> None:
        """Let somebody wait.

        Args:
            now_ns: Monotonic time in nanoseconds.
            resume: Called when it is time to read.
            fail: Called instead if that does not come; None to wait as long as it takes.
        """
        self._collected.append(_Waiting(now_ns, resume, fail))

    def ask(self) -> None:
        """Put one question to consensus for all who have come since the last one."""
        if not self._collected:
            return
        number = self._number + 1
        try:
            self._node.read(number)
        except TooManyReads:
            # They go with a later one, or have waited too long.
            return
        self._number = number
        self._asked[number], self._collected = self._collected, []

    def confirm(self) -> None:
        """Take what consensus has answered."""
        for number, index in self._node.take_reads():
            heapq.heappush(self._confirmed, (index, number, self._asked.pop(number)))

    def tell(self, applied: Index) -> bool:
        """Tell those whose index is applied; return whether there were any.

        The state is to be whole: of no command is a part carried out.
        """
        confirmed = self._confirmed
        if not confirmed or confirmed[0][0] > applied:
            return False
        self.is_fresh = True
        try:
            while confirmed and confirmed[0][0] <= applied:
                _, number, waiting = heapq.heappop(confirmed)
                for place, one in enumerate(waiting):
                    try:
                        one.resume()
                    except BaseException:
                        # What went wrong is one caller's; the others have their turn.
                        heapq.heappush(confirmed, (applied, number, waiting[place + 1 :]))
                        raise
        finally:
            self.is_fresh = False
        return True

    def expire(self, before_ns: int) -> bool:
        """Let go of those who have waited since before a time; return whether there were any."""
        expired: list[type_fail] = []
        lists = [self._collected, *self._asked.values(), *(each[2] for each in self._confirmed)]
        for waiting in lists:
            if not waiting or waiting[0].since_ns >= before_ns:
                continue
            left = []
            for one in waiting:
                if one.fail is not None and one.since_ns < before_ns:
                    expired.append(one.fail)
                else:
                    left.append(one)
            waiting[:] = left
        for fail in expired:
            fail(Refused(Failure.TIMEOUT))
        return bool(expired)
