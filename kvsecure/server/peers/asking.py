"""Asking: who the members of a cluster are, by one that knows none of their ids yet.

    newcomer   HELLO for MEMBERS, with zeros for all ids
    member     WELCOME, MEMBERS; or REFUSAL
    newcomer   hangs up

Owns: the newcomer's side of that.
Never: knows what the answer says; judges whether it belongs to the cluster that was meant.
Follows: docs/adr/0022-joining.md.
Keeps: whoever answers has a certificate of a node of the same trust domain, in its own name, or is
    on this machine where there are no certificates; an answer is bounded, and so is the wait.
"""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any, Final, NamedTuple, final

from kvsecure.model.errors import Broken
from kvsecure.model.limits import PEER_HELLO_S_MAX, PEER_MEMBERS_BYTES_MAX
from kvsecure.server.credentials import Credentials
from kvsecure.server.peers.channel import Channel
from kvsecure.server.peers.framing import Kind, Malformed, frame
from kvsecure.server.peers.greeting import accept_teller
from kvsecure.server.peers.hello import VERSIONS, Purpose, Versions, Welcome
from kvsecure.server.peers.roster import PeerIdentity, Roster
from kvsecure.server.peers.setting import Setting
from kvsecure.server.peers.timing import LinkTiming

__all__ = ["Told", "Unanswered", "ask_member"]

_LATE: Final = "no answer in time"


@final
class Unanswered(Exception):
    """A member has not told who the members are; the text says why."""


@final
class Told(NamedTuple):
    """What a member has told.

    Attributes:
        cluster_id: Its cluster.
        member_id: Which member it is.
        name: As its certificate has it.
        content: Who the members are.
    """

    cluster_id: int
    member_id: int
    name: str
    content: bytes


async def ask_member(
    url: str,
    *,
    name: str,
    trust_domain: str,
    credentials: Credentials | None,
    versions: Versions = VERSIONS,
    answer_s_max: float = PEER_HELLO_S_MAX,
) -> Told:
    """Ask whoever listens at a URL who the members of its cluster are.

    Args:
        url: Where, as --initial-cluster has it.
        name: Who asks, as its certificate has it.
        trust_domain: The label of the cluster in certificates.
        credentials: Those of a member; None for plaintext, which is spoken over loopback only.
        versions: The versions of the protocol that are spoken.
        answer_s_max: Seconds to wait for an answer, once the connection is there.

    Raises:
        Unanswered: There is no answer, or nobody who may give one.
    """
    own = PeerIdentity(trust_domain=trust_domain, cluster_id=0, member_id=0, name=name)
    setting = Setting(
        roster=Roster(own),
        credentials=credentials,
        timing=LinkTiming(),
        versions=versions,
        clock=asyncio.get_running_loop().time,
        dice=Random(),
        spawn=_spawn_nothing,
        on_refused=_ignore,
        on_cut=_ignore,
        on_refused_by=_ignore,
        release=_ignore,
    )
    question = _Question(setting)
    try:
        await setting.dial(url, question)
        async with asyncio.timeout(answer_s_max):
            return await question.answer
    except TimeoutError:
        raise Unanswered(_LATE) from None
    finally:
        question.close()
        for channel in list(setting.channels):
            channel.abort("the question is over")


@final
class _Question:
    """The one question."""

    def __init__(self, setting: Setting) -> None:
        self.answer: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._setting = setting
        self._welcome: Welcome | None = None

    def close(self) -> None:
        """Want no answer any more."""
        if not self.answer.cancel() and not self.answer.cancelled():
            # Whoever waited may be gone; why there is none is then nobody's concern.
            self.answer.exception()

    def opened(self, channel: Channel) -> None:
        """Ask."""
        # The answer is right behind the welcome, and may be read with it.
        channel.expect(PEER_MEMBERS_BYTES_MAX)
        channel.write(frame(Kind.HELLO, self._setting.hello(0, Purpose.MEMBERS).encode()))

    def heard(self, channel: Channel, kind: int, payload: bytes) -> None:
        """Take in the answer.

        Raises:
            Malformed: Something else came.
        """
        if self._welcome is None:
            welcome = accept_teller(self._setting, channel, kind, payload)
            self._welcome = welcome
            return
        if kind != Kind.MEMBERS:
            raise Malformed("a frame that does not belong here")
        if not self.answer.done():
            told = self._welcome
            self.answer.set_result(Told(told.cluster_id, told.member_id, told.name, payload))
        channel.abort("answered")

    def writable(self, _: Channel) -> None:
        """Do nothing: a question is short."""

    def lost(self, _: Channel, reason: str) -> None:
        """Give up, unless it was answered."""
        if not self.answer.done():
            self.answer.set_exception(Unanswered(reason))


def _ignore(*_: object) -> None:
    """Do nothing: a refusal is in the log already, and there is no audit trail yet."""


def _spawn_nothing(work: Coroutine[Any, Any, None]) -> None:
    work.close()
    raise Broken("a question has nothing that runs beside it")
