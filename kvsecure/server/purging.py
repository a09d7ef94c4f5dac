"""Getting rid of the bytes of destroyed keys: rows, log segments, and what pages keep behind.

Owns: the order of things, how often, and taking note of the end.
Never: decides what is destroyed; reads a row.
Follows: docs/adr/0012-versions.md.
Keeps: a destruction is taken for done only once nothing of it is in a file of this member; until
    then its row says so, and a start goes on with it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from kvsecure.core.scans import Scans
from kvsecure.model.errors import Refused
from kvsecure.security.gate import Gate
from kvsecure.server.datadir import DataDirectory
from kvsecure.storage.files import StorageError, sync_directory
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import list_segments
from kvsecure.telemetry.log import log

__all__ = ["Purging"]

_STEP_S_MAX: Final = 120.0
_LOOK_EVERY_S: Final = 0.02
_RETRY_S: Final = 5.0
# Whoever destroys again and again has the tables written anew for a fifth of the time at most.
_REST: Final = 4.0

_log: Final = log("purge")


@final
class Purging:
    """What one member does about destroyed keys."""

    def __init__(
        self,
        directory: DataDirectory,
        gate: Gate,
        scans: Scans,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """Do nothing yet.

        Args:
            directory: Whose bytes they are.
            gate: Where the engine and the audit trail are.
            scans: Has the tables written anew.
            spawn: Runs a coroutine within the server's task group.
        """
        self._directory = directory
        self._gate = gate
        self._scans = scans
        self._spawn = spawn
        self._is_running = False
        self._next_s = 0.0

    def look(self) -> None:
        """Begin if there is something to do; called now and then."""
        store = self._gate.engine.state.store
        if store.destructions and not self._is_running and time.monotonic() >= self._next_s:
            self._is_running = True
            self._spawn(self._run())

    async def _run(self) -> None:
        store = self._gate.engine.state.store
        pending = tuple(store.destructions.values())
        begun_s = time.monotonic()
        rest_s = _RETRY_S
        try:
            await self._drop_rows()
            await self._drop_log()
            await self._scans.defragment(afresh=True)
        except (Refused, OSError, StorageError) as error:
            if not store.destruction_stalled:
                _log.warning("bytes of destroyed keys are still on the disk", error=str(error))
            store.destruction_stalled = True
        else:
            store.end_destructions(pending)
            store.destruction_stalled = False
            self._gate.events.note("destroyed", keys=len(pending))
            self._gate.schedule()
            rest_s = _REST * (time.monotonic() - begun_s)
        finally:
            self._is_running = False
            self._next_s = time.monotonic() + rest_s

    async def _drop_rows(self) -> None:
        """Wait until the tables have neither the records nor rows of the index that name them.

        Raises:
            TimeoutError: They still do.
        """
        done = asyncio.Event()
        async with asyncio.timeout(_STEP_S_MAX):
            self._gate.engine.slicing.when_done(done.set)
            await done.wait()

    async def _drop_log(self) -> None:
        """Have the segments go that there are now; the tables are past what is in them.

        Raises:
            Refused: The log takes nothing now.
            TimeoutError: They are still there.
            OSError: The disk fails.
            StorageError: What is in the log's directory is not what is to be there.
        """
        engine, keyring = self._gate.engine, self._directory.keyring
        place = self._directory.place(Kind.WAL)
        old = [segment.path for segment in await asyncio.to_thread(list_segments, place)]
        term = keyring.current_term
        engine.rekey(term, place.root_key(keyring, term))
        index = engine.cut_log()
        async with asyncio.timeout(_STEP_S_MAX):
            while engine.state.index < index:  # noqa: ASYNC110 - nobody waits for an empty entry
                await asyncio.sleep(_LOOK_EVERY_S)
            flushed = asyncio.Event()
            engine.flushing.when_done(flushed.set)
            await flushed.wait()
            while any(path.exists() for path in old):  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(_LOOK_EVERY_S)
        # A power failure must not bring them back.
        await asyncio.to_thread(sync_directory, place.directory, place.disk)
