"""A replica and its engine on the bench, with real disk processes in a real data directory.

    async with running(path) as lab:    restored and leading, or started as far as it gets
        outcome = await lab.put(b"k", b"v")

Owns: restoring and running without listeners, commands of the member itself, and what was told.
Never: replaces the replica, the engine or the disk processes; only the audit trail is a stand-in.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, final

from google.protobuf.message import Message

from kvsecure.core.engine import TICK_S, Engine
from kvsecure.core.entry import encode, envelope
from kvsecure.core.peering import NoPeers, Peers
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.settings import Settings
from kvsecure.core.replica import Outcome, Proposal, decode_frame
from kvsecure.core.state import State
from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.model.answer import Answer
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT, ClusterId, MemberId, TenantId
from kvsecure.model.secret import Secret
from kvsecure.proto import kv_pb2, state_pb2
from kvsecure.server.datadir import DataDirectory, MemberIdentity
from kvsecure.server.restore import Restored, restore
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace, frames_of, list_segments

__all__ = [
    "KEK",
    "TABLES_BYTES_MAX",
    "WANTED",
    "EngineLab",
    "entries_on_disk",
    "eventually",
    "put_away",
    "running",
    "value_of",
    "wal_of",
]

KEK: Final = KeyEncryptionKey(Secret(bytes(range(32))), "file")
WANTED: Final = MemberIdentity(
    cluster=ClusterId(0xC0FFEE), member=MemberId(0xBEEF), token="lab", trust_domain="lab"
)
TABLES_BYTES_MAX: Final = 256 * 1024 * 1024
_DEADLINE_S: Final = 20.0
_ALONE: Final = NoPeers()
_PATIENCE: Final = Settings()
_SYSTEM: Final = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)


@final
class _NoTrail:
    """An audit trail of nothing: always written, always durable."""

    written_head: tuple[int, bytes] = (0, b"")
    durable_head: tuple[int, bytes] = (0, b"")

    def note_durable(self, head: tuple[int, bytes]) -> None:
        """Take note of what is known already."""

    def take_unsynced(self) -> bytes | None:
        """Have the log process sync what it was told of."""
        return None


@final
class EngineLab:
    """One run of a member's core."""

    def __init__(
        self,
        directory: DataDirectory,
        restored: Restored,
        peers: Peers = _ALONE,
        tick_s: float = TICK_S,
    ) -> None:
        self.directory = directory
        self.restored = restored
        # What was told and in which order.
        self.told: list[tuple[Proposal, Outcome]] = []
        self.fatal: list[str] = []
        self.forward_ns = 0
        # How much time passes whenever somebody looks at the clock.
        self.glance_ns = 0
        # The time of day stands still unless a test says so: nothing but the test's own commands
        # is in the log.
        self.wall_ns = 0
        # Steps of long work that wait until a test runs them, where it says that it does.
        self.held: list[Callable[[], None]] | None = None
        self.starting: asyncio.Future[None]
        self.engine = Engine(
            restored.replica,
            restored.log,
            restored.tables,
            refresh=restored.reader.refresh,
            reopen=restored.reader.reopen,
            now_ns=self._now_ns,
            wall_ns=lambda: self.wall_ns,
            on_finished=self._on_finished,
            on_batch=lambda: None,
            on_fatal=self.fatal.append,
            audit=_NoTrail(),
            on_slow_apply=lambda _: None,
            slow_apply_ns=1 << 62,
            in_turn=self._in_turn,
            peers=peers,
            tick_s=tick_s,
        )

    @property
    def state(self) -> State:
        """The applied state."""
        return self.engine.state

    def submit(
        self, command: Message, tenant: TenantId = DEFAULT_TENANT
    ) -> "asyncio.Future[Outcome]":
        """Take a command on its way; it goes to the log when the turn ends.

        Raises:
            Refused: It was not taken.
        """
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        caller = _SYSTEM._replace(tenant=tenant)
        entry = encode(type(command), envelope(caller), command.SerializeToString())
        self._submit(entry, command, told, caller)
        return told

    async def do(self, command: Message, tenant: TenantId = DEFAULT_TENANT) -> Answer:
        """Have a command carried out, and wait until that was told."""
        told = self.submit(command, tenant)
        self.engine.end_turn()
        outcome = await asyncio.wait_for(told, _DEADLINE_S)
        assert isinstance(outcome, Answer), outcome
        return outcome

    def submit_put(self, key: bytes, value: bytes) -> "asyncio.Future[Outcome]":
        """Take a put on its way."""
        return self.submit(kv_pb2.PutRequest(key=key, value=value))

    def submit_entry(self, entry: bytes) -> "asyncio.Future[Outcome]":
        """Take an entry on its way that is not meant to be carried out.

        Raises:
            Refused: It was not taken.
        """
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._submit(entry, kv_pb2.PutRequest(), told)
        return told

    async def put(self, key: bytes, value: bytes) -> Answer:
        """Put a key, and wait until that was told."""
        return await self.do(kv_pb2.PutRequest(key=key, value=value))

    async def flushed(self) -> None:
        """Wait until the tables hold everything that was applied."""
        await eventually(lambda: not self.state.dirty and not self.engine.flushing.is_under_way)

    def _now_ns(self) -> int:
        self.forward_ns += self.glance_ns
        return time.monotonic_ns() + self.forward_ns

    def _in_turn(self, step: Callable[[], None]) -> None:
        if self.held is None:
            asyncio.get_running_loop().call_soon(step)
        else:
            self.held.append(step)

    def _submit(
        self,
        entry: bytes,
        command: Message,
        told: "asyncio.Future[Outcome]",
        caller: Caller = _SYSTEM,
    ) -> None:
        now_ns = time.monotonic_ns() + self.forward_ns
        self.engine.submit(Proposal(entry, caller, command, now_ns, told))

    def _on_finished(self, proposal: Proposal, outcome: Outcome) -> None:
        self.told.append((proposal, outcome))
        context = proposal.context
        assert isinstance(context, asyncio.Future)
        context.set_result(outcome)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a callable gives something true.

    Raises:
        TimeoutError: It did not.
    """
    async with asyncio.timeout(_DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what it waits for is in other processes
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    path: Path,
    *,
    leads: bool = True,
    identity: MemberIdentity = WANTED,
    founders: Configuration | None = None,
    members: Sequence[state_pb2.Member] = (),
    patience: Settings = _PATIENCE,
    peers: Peers = _ALONE,
    tick_s: float = TICK_S,
) -> AsyncIterator[EngineLab]:
    """Open a data directory, restore it and run its engine; afterwards nothing of it is left.

    Args:
        path: The data directory, made if it is not there.
        leads: Whether it has to come as far as to lead; otherwise it is only set going.
        identity: Who it is.
        founders: With whom it is in a cluster; None if it is alone.
        members: Who the state declares to be members from the first.
        patience: How patient consensus is.
        peers: The ways to the others.
        tick_s: How long a tick is.
    """
    directory = DataDirectory(path, identity, KEK)
    restored = restore(
        directory,
        tables_bytes_max=TABLES_BYTES_MAX,
        now_ns=time.monotonic_ns(),
        founders=members,
        beginning=founders,
        patience=patience,
    )
    lab = EngineLab(directory, restored, peers, tick_s)
    starting = lab.starting = asyncio.ensure_future(lab.engine.start())
    try:
        if leads:
            await asyncio.wait_for(starting, _DEADLINE_S)
        yield lab
    finally:
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        lab.engine.stop()
        await _links_closed(restored)
        put_away(directory, restored)


async def _links_closed(restored: Restored) -> None:
    """Wait until the disk processes have taken what they were still told, and the links are gone.

    Raises:
        TimeoutError: They have not.
    """
    async with asyncio.timeout(_DEADLINE_S):
        links = (restored.log, restored.tables)
        while any(link._transport for link in links):  # noqa: ASYNC110 - it tells its link alone
            await asyncio.sleep(0.001)


def put_away(directory: DataDirectory, restored: Restored) -> None:
    """Wait for the disk processes to end, and let go of the directory."""
    for link in (restored.log, restored.tables):
        link._socket.close()
    restored.close()
    directory.lock.close()


def wal_of(path: Path) -> SegmentPlace:
    """Return the write-ahead log of a data directory."""
    return SegmentPlace(path / "wal", Kind.WAL, WANTED.cluster, WANTED.member)


def entries_on_disk(path: Path) -> Sequence[list[bytes]]:
    """Return the entries of each frame of the log, as they are in its files right now."""
    keyring = Keyring.open((path / "keyring").read_bytes(), KEK)
    place = wal_of(path)
    frames = [
        frame for segment in list_segments(place) for frame in frames_of(place, keyring, segment)
    ]
    return [decode_frame(frame.text, frame.count).entries for frame in frames]


def value_of(state: State, key: bytes) -> bytes | None:
    """Return a key's value in an applied state, or None if it has none."""
    space = state.store.space(DEFAULT_TENANT)
    body = state.store.range(space, kv_pb2.RangeRequest(key=key))
    kvs = kv_pb2.RangeResponse.FromString(body).kvs
    return kvs[0].value if kvs else None
