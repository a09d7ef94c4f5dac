"""Sealing the tables anew: row by row under the newest data key, while the member serves.

Owns: the way through the tables, its pace, and how far it has come, which is stored with the rows.
Never: opens a row; the table process does, with the keys that it is given for this.
Follows: docs/adr/0014-rotation.md.
Keeps: what is stored of how far it has come is true after any crash, because it is written in the
    transaction that it speaks of; whatever it says, the counts that `run` is given decide.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

from kvsecure.core.engine import Engine
from kvsecure.core.mvcc.index import POSITION_BYTES, is_tombstone
from kvsecure.core.mvcc.records import decode_index_block
from kvsecure.crypto.keyring import Keyring
from kvsecure.proto.crypto_pb2 import CryptoProgress
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.files import StorageError
from kvsecure.storage.rows import NO_SCOPE, Row, Table
from kvsecure.storage.tables import TableReader
from kvsecure.telemetry.log import log

__all__ = ["Resealing"]

_ROWS_PER_BATCH_MAX: Final = 500
# A block of the index has up to 4,096 rows of its own.
_BLOCKS_PER_BATCH: Final = 4
_BATCHES_PER_S: Final = 10
_LOOKED_AT_PER_SLICE: Final = 2_000
_ROUNDS_MAX: Final = 5
_RETRY_S: Final = 1.0

_log: Final = log("keys")


@final
class Resealing:
    """One member's tables, on their way to the newest data key."""

    def __init__(self, keyring: Keyring, engine: Engine, reader: TableReader) -> None:
        self._keyring = keyring
        self._engine = engine
        self._reader = reader
        self._is_running = False
        # Records up to this position are sealed anew.
        self._after = b""
        self.progress = CryptoProgress()
        self._load(reader.progress())

    async def begin(self, rows_per_second: int) -> CryptoProgress:
        """Take note on the disk that it is to be done; `run` does it.

        Raises:
            OSError: The note could not be written.
        """
        progress, term = self.progress, self._keyring.current_term
        if progress.state != CryptoProgress.RUNNING or progress.term != term:
            self._after = b""
            self.progress = progress = CryptoProgress(state=CryptoProgress.RUNNING, term=term)
        progress.rows_per_second = rows_per_second
        await self._engine.care.reseal([], self._note())
        return progress

    async def run(self, left: Callable[[], Awaitable[str]]) -> bool:
        """Do what was begun, from where it stands; return whether there was anything to do.

        Args:
            left: Says what is still under an older data key; nothing if nothing is.
        """
        if self._is_running or self.progress.state != CryptoProgress.RUNNING:
            return False
        self._is_running = True
        try:
            why = await self._rounds(left)
        except (StorageError, DamagedRow) as error:
            why = str(error)
        finally:
            self._is_running = False
            # Nobody needs them any more.
            self._engine.care.give_keys({})
        self.progress.state = CryptoProgress.FAILED if why else CryptoProgress.DONE
        self.progress.why = why
        await self._reseal([])
        return True

    async def wait_written(self) -> None:
        """Wait until the tables hold everything that was sent to them by now.

        Raises:
            OSError: The disk is full, or fails.
        """
        await self._engine.care.reseal([], self._note())

    def give_keys(self) -> None:
        """Give the table process the keys of what it finds, also of what it sealed a moment ago."""
        if self._is_running:
            keyring = self._keyring
            self._engine.care.give_keys(
                {
                    term: keyring.data_key(term, purpose="table")
                    for term, _, is_retired in keyring.terms
                    if not is_retired
                }
            )

    async def _rounds(self, left: Callable[[], Awaitable[str]]) -> str:
        """Go through the tables until nothing is left; return what is, if it will not go.

        A compaction may merge blocks of the index behind a way through them, and another rotation
        make what is new old.
        """
        found = ""
        for _ in range(_ROUNDS_MAX):
            self.progress.term = self._keyring.current_term
            self.give_keys()
            await self._records()
            await self._others(Table.INDEX, _BLOCKS_PER_BATCH)
            await self._others(Table.STATE, _ROWS_PER_BATCH_MAX)
            found = await left()
            if not found:
                return ""
            self._after = b""
            await asyncio.sleep(_RETRY_S)
        return f"there is still something under older terms: {found}"

    async def _records(self) -> None:
        """Seal the records anew, in the order of their positions; the index says whose they are."""
        found = self._reader.next(Table.INDEX, b"", NO_SCOPE)
        while found is not None:
            place, block = found
            rows = [
                Row(Table.RECORDS, head[:POSITION_BYTES], tenant, None)
                for tenant, head, _, _ in decode_index_block(block)
                if not is_tombstone(head) and head[:POSITION_BYTES] > self._after
            ]
            await self._in_batches(rows)
            found = self._reader.next(Table.INDEX, place + b"\0", NO_SCOPE)
            await asyncio.sleep(0)

    async def _in_batches(self, rows: Sequence[Row]) -> None:
        done = 0
        while done < len(rows):
            rate = self.progress.rows_per_second
            size = max(1, min(rate // _BATCHES_PER_S, _ROWS_PER_BATCH_MAX))
            batch = rows[done : done + size]
            begun_s = time.monotonic()
            self._after = max(self._after, batch[-1].key)
            await self._reseal(batch)
            done += len(batch)
            took_s = time.monotonic() - begun_s
            await asyncio.sleep(max(len(batch) / rate - took_s, 0))

    async def _others(self, table: Table, size: int) -> None:
        """Seal the rows of a table anew that belong to no tenant."""
        start = b""
        while True:
            found = self._reader.terms(table, start, _LOOKED_AT_PER_SLICE)
            old = [
                Row(table, key, NO_SCOPE, None)
                for key, term in found
                if term != self._keyring.current_term
            ]
            for at in range(0, len(old), size):
                await self._reseal(old[at : at + size])
                await asyncio.sleep(1 / _BATCHES_PER_S / 10)
            if len(found) < _LOOKED_AT_PER_SLICE:
                return
            start = found[-1][0] + b"\0"
            await asyncio.sleep(0)

    async def _reseal(self, rows: Sequence[Row]) -> None:
        """Seal rows anew, and store how far it has come; a full disk is waited out.

        Raises:
            StorageError: A row does not open.
        """
        is_waiting = False
        while True:
            try:
                self.progress.rows += await self._engine.care.reseal(rows, self._note())
            except OSError as error:
                if not is_waiting:
                    _log.warning("sealing the tables anew waits", error=str(error))
                is_waiting = True
                await asyncio.sleep(_RETRY_S)
            else:
                return

    # --- what is stored -------------------------------------------------------------------------

    def _note(self) -> bytes:
        progress = self.progress
        return json.dumps(
            {
                "after": self._after.hex(),
                "rate": progress.rows_per_second,
                "rows": progress.rows,
                "state": int(progress.state),
                "term": progress.term,
                "why": progress.why,
            }
        ).encode()

    def _load(self, note: bytes) -> None:
        """Take up what a run before this one stored; what cannot be read was never begun."""
        if not note:
            return
        try:
            fields = json.loads(note)
            self.progress = CryptoProgress(
                state=CryptoProgress.State.Name(int(fields["state"])),
                term=int(fields["term"]),
                rows=int(fields["rows"]),
                rows_per_second=max(1, int(fields["rate"])),
                why=str(fields["why"]),
            )
            self._after = bytes.fromhex(fields["after"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            _log.error("how far the tables are sealed anew cannot be read: begin again")
            self.progress, self._after = CryptoProgress(), b""
