"""Scans: the member's end of the scanning process, one at a time.

Owns: bringing the tables to a state that a scan can judge, starting the process, and what it says.
Never: blocks the loop; whatever takes long is done in the process.
Keeps: while the process fixes what it reads, the index and the tables say the same: everything that
    was applied is flushed, and no compaction is half-way.
"""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from kvsecure.core import side_process
from kvsecure.core.engine import Engine
from kvsecure.core.scan import Damage
from kvsecure.core.scanner import Tell
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import ClusterId, Index, Term
from kvsecure.model.secret import Secret

__all__ = ["Backup", "Place", "Scan", "Scans", "StateSent", "Surveyed"]

# How many may wait for their turn.
_WAITING_MAX: Final = 8
# How many backups may be on their way to whoever asked for them.
_BACKUPS_MAX: Final = 4
# A compaction of a large store takes some seconds, and everything has to be flushed.
_QUIET_S_MAX: Final = 120.0
_JOB_S_MAX: Final = 3_600.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the tables are, and what opens them."""

    directory: Path
    cluster: ClusterId
    size_bytes_max: int
    # The tables' key of each term that the keyring has.
    keys: Callable[[], Mapping[int, Secret]]
    # What a backup needs besides: where it is made, its header and its keys, fresh each time.
    backup: Callable[[], Mapping[str, Any]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """The hashes of everything."""

    # Of the versions through a revision; what had been compacted when they were hashed.
    versions_hash: bytes
    through: int
    compacted: int
    # Of everything.
    hash: bytes
    version_count: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made."""

    size_bytes: int
    revision: int
    sha256: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StateSent:
    """Of which state the pieces are that follow."""

    index: Index
    # Of the entry at the index.
    term: Term
    # In force there; empty if the tables are from before they said so.
    configuration: bytes


@final
class Scan:
    """One run of the process, which has fixed what it reads."""

    def __init__(self, reader: asyncio.StreamReader, compacted: int) -> None:
        self._reader = reader
        # Through which revision what it reads is compacted.
        self.compacted = compacted

    async def hear(self) -> tuple[Tell, bytes]:
        """Return what the process says next.

        Raises:
            Damage: That the tables are not whole.
            OSError: That it could not be done, or nothing: it has ended.
        """
        kind, body = await side_process.hear(self._reader)
        if kind == Tell.DAMAGED:
            raise Damage(body.decode(errors="replace"))
        if kind == Tell.FAILED:
            raise OSError(body.decode(errors="replace"))
        return Tell(kind), body

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what was made, until the process says that it is done.

        Raises:
            Damage: That the tables are not whole.
            OSError: That it could not be done, or nothing: it has ended.
        """
        while True:
            kind, body = await self.hear()
            if kind is not Tell.PIECE:
                return
            yield body


@final
class Scans:
    """Runs scans, and whatever else must have the tables' files to itself, one after the other."""

    def __init__(self, engine: Engine, place: Place) -> None:
        self._engine = engine
        self._place = place
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._backups = 0

    async def survey(self, through: int | None = None) -> Surveyed:
        """Read, check and hash everything.

        Args:
            through: The revision through which versions count; None for all there are now.

        Raises:
            Refused: Too many wait for this, or it took too long.
            Damage: The tables are not whole.
            OSError: It could not be done.
        """
        through = self._engine.state.store.revision if through is None else through
        async with asyncio.timeout(_JOB_S_MAX), self._scanning({"through": through}) as scan:
            _, body = await scan.hear()
        said = json.loads(body)
        return Surveyed(
            versions_hash=bytes.fromhex(said["versions_hash"]),
            through=through,
            compacted=scan.compacted,
            hash=bytes.fromhex(said["hash"]),
            version_count=int(said["version_count"]),
        )

    async def defragment(self, *, afresh: bool = False) -> None:
        """Give the tables' free pages back to the file system; reads and writes go on.

        Args:
            afresh: Leave nothing behind of rows that are gone by now.

        Raises:
            Refused: Too many wait for this.
            OSError: It could not be done; the tables are as they were.
        """
        async with self._alone():
            done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
            self._engine.care.defragment(done.set_result, afresh=afresh)
            # It does not end because whoever waits for it goes.
            failed = await asyncio.shield(done)
        if failed is not None:
            raise failed

    async def back_up(self) -> AsyncGenerator[Backup | bytes, None]:
        """Make a backup of this moment: what it is, and then its pieces.

        The tables are let go of before the first piece: whoever takes them slowly holds up nobody.

        Raises:
            Refused: Too many are being made or taken.
            Damage: The tables are not whole.
            OSError: It could not be made.
        """
        if self._backups >= _BACKUPS_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)
        self._backups += 1
        try:
            with contextlib.ExitStack() as behind:
                async with self._alone(), asyncio.timeout(_JOB_S_MAX):
                    scan = await self._open(self._place.backup(), behind)
                    _, body = await scan.hear()
                said = json.loads(body)
                yield Backup(
                    size_bytes=int(said["size_bytes"]),
                    revision=int(said["revision"]),
                    sha256=str(said["sha256"]),
                )
                async for piece in scan.pieces():
                    yield piece
        finally:
            self._backups -= 1

    @contextlib.asynccontextmanager
    async def stream(self) -> AsyncIterator[tuple[StateSent, AsyncIterator[bytes]]]:
        """Read the whole state at one moment: which one it is, and its pieces.

        Everything that is applied when this is asked for is in it. The tables are read while the
        pieces are taken: until then their pages are not used again.

        Raises:
            Refused: Too many wait for this, or the tables did not come to rest.
            Damage: The tables are not whole.
            OSError: It could not be done, or took too long.
        """
        with contextlib.ExitStack() as behind:
            async with asyncio.timeout(_JOB_S_MAX), self._alone():
                scan = await self._open({}, behind)
            _, body = await scan.hear()
            said = json.loads(body)
            state = StateSent(
                index=Index(said["index"]),
                term=Term(said["term"]),
                configuration=bytes.fromhex(said["configuration"]),
            )
            yield state, scan.pieces()

    @contextlib.asynccontextmanager
    async def _scanning(self, job: Mapping[str, Any]) -> AsyncIterator[Scan]:
        """Run a process for a job; it is gone afterwards."""
        async with self._alone():
            with contextlib.ExitStack() as behind:
                yield await self._open(job, behind)

    async def _open(self, job: Mapping[str, Any], behind: contextlib.ExitStack) -> Scan:
        """Start a process for a job, and wait until it has fixed what it reads.

        Raises:
            Refused: The tables did not come to rest.
            OSError: It could not be started.
        """
        release, compacted = await self._rest()
        with contextlib.ExitStack() as opening:
            opening.callback(release)
            reader, writer = await side_process.start("kvsecure.core.scanner", behind)
            writer.write(self._settings(job))
            scan = Scan(reader, compacted)
            await asyncio.wait_for(scan.hear(), _QUIET_S_MAX)
        return scan

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if self._waiting >= _WAITING_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1

    async def _rest(self) -> tuple[Callable[[], None], int]:
        """Wait until no compaction is under way and the tables hold all that is applied.

        Returns:
            What lets compactions go on, and through which revision the tables are compacted.

        Raises:
            Refused: It took too long.
        """
        engine = self._engine
        rested, flushed = asyncio.Event(), asyncio.Event()
        held: list[Callable[[], None]] = []
        compacted = 0

        def scrubbed() -> None:
            # At this very moment: the next compaction may come before whoever waits is told.
            nonlocal compacted
            if not given_up:
                held.append(engine.slicing.hold())
                compacted = engine.state.store.compacted
                rested.set()

        given_up = False
        engine.slicing.when_done(scrubbed)
        try:
            async with asyncio.timeout(_QUIET_S_MAX):
                await rested.wait()
                engine.flushing.when_done(flushed.set)
                await flushed.wait()
        except BaseException as error:
            given_up = True
            for release in held:
                release()
            if isinstance(error, TimeoutError):
                raise Refused(Failure.TIMEOUT) from None
            raise
        return held[0], compacted

    def _settings(self, job: Mapping[str, Any]) -> bytes:
        place = self._place
        settings = {
            **job,
            "directory": str(place.directory),
            "cluster": place.cluster,
            "size_bytes_max": place.size_bytes_max,
            "keys": {
                str(term): base64.b64encode(key.reveal()).decode()
                for term, key in place.keys().items()
            },
        }
        text = json.dumps(settings).encode()
        return struct.pack(">I", len(text)) + text
