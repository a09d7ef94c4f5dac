"""The care of a member's keys while it serves: telling them, rotating, sealing anew, retiring.

Owns: the order of things: the keyring on the disk first, then whoever seals; the counts of what is
    sealed under which data key; one change at a time.
Never: hands out a key; retires one before nothing is found under it.
Follows: docs/adr/0014-rotation.md.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, final

from kvsecure.core.engine import Engine
from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.crypto_pb2 import (
    CryptoReencryptResponse,
    CryptoRetireResponse,
    CryptoRotateResponse,
    CryptoStatusResponse,
    CryptoTerm,
)
from kvsecure.security.audit import AuditTrail
from kvsecure.security.gate import Gate
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.resealing import Resealing
from kvsecure.storage.epochs import DamagedRow
from kvsecure.storage.files import StorageError, sync_directory
from kvsecure.storage.rows import Table
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import terms_of
from kvsecure.storage.tables import TableReader
from kvsecure.telemetry.log import log

__all__ = ["Sealing"]

_ROWS_PER_SLICE: Final = 2_000
_LOOK_EVERY_S: Final = 0.02
_SETTLE_S_MAX: Final = 10.0

_log: Final = log("keys")


@final
class Sealing:
    """The keys of one member."""

    def __init__(
        self,
        directory: DataDirectory,
        reader: TableReader,
        gate: Gate,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """Take the keys into care; `resume` goes on with what a run before this one left.

        Args:
            directory: Whose keyring it is.
            reader: Reads the tables.
            gate: Where the engine and the audit trail are.
            spawn: Runs a coroutine within the server's task group.
        """
        self._directory = directory
        self._reader = reader
        self._gate = gate
        self._spawn = spawn
        self._changing = asyncio.Lock()
        self._resealing = Resealing(directory.keyring, gate.engine, reader)

    @property
    def _keyring(self) -> Keyring:
        return self._directory.keyring

    @property
    def _engine(self) -> Engine:
        return self._gate.engine

    @property
    def _audit(self) -> AuditTrail:
        return self._gate.audit

    # --- telling --------------------------------------------------------------------------------

    async def status(self, *, count: bool) -> CryptoStatusResponse:
        """Say which keys there are, and if it is to be counted what is sealed under which."""
        keyring = self._keyring
        with _told():
            rows = {table: await self._rows(table) for table in Table} if count else {}
        logged, audited = await self._segments(Kind.WAL), await self._segments(Kind.AUDIT)

        def found(table: Table, term: int) -> int:
            return rows[table][term] if count else 0

        return CryptoStatusResponse(
            provider=keyring.kek.provider,
            kek_id=keyring.kek.key_id,
            kms_key_id=keyring.kek.parameters.get("key_id", ""),
            terms=[
                CryptoTerm(
                    term=term,
                    made_s=made_s,
                    current=term == keyring.current_term,
                    retired=is_retired,
                    record_rows=found(Table.RECORDS, term),
                    index_rows=found(Table.INDEX, term),
                    state_rows=found(Table.STATE, term),
                    log_segments=logged[term],
                    audit_segments=audited[term],
                )
                for term, made_s, is_retired in keyring.terms
            ],
            progress=self._resealing.progress,
            counted=count,
        )

    async def _rows(self, table: Table) -> Counter[int]:
        """Count a table's rows by data key, in slices.

        Nothing is sealed under an older data key than the newest, so what was counted stays true.

        Raises:
            DamagedRow: A row has no form known here.
        """
        found: Counter[int] = Counter()
        start = b""
        while True:
            rows = self._reader.terms(table, start, _ROWS_PER_SLICE)
            found.update(term for _, term in rows)
            if len(rows) < _ROWS_PER_SLICE:
                return found
            start = rows[-1][0] + b"\0"
            await asyncio.sleep(0)

    async def _segments(self, kind: Kind) -> Counter[int]:
        """Count the files of log or trail by data key; a trail may have thousands."""
        place = self._directory.place(kind)
        return await asyncio.to_thread(lambda: Counter(terms_of(place)))

    # --- changing -------------------------------------------------------------------------------

    async def rotate(self) -> CryptoRotateResponse:
        """Make a new data key, and a new root key, for everything that is written from now on."""
        async with self._changing:
            keyring, source = self._keyring, self._directory.kek
            with _told():
                kek = await asyncio.to_thread(source.key_for, keyring.kek)
                if kek.key_id != keyring.kek.key_id:
                    raise KeyringError(
                        "the key-encryption key is another one than that which wraps the keyring"
                    )
                await self._replace(keyring.rotated(kek, now_s=int(time.time())))
            term = keyring.current_term
            self._engine.rekey(
                term,
                keyring.data_key(term, purpose="wal"),
                keyring.data_key(term, purpose="table"),
            )
            self._resealing.give_keys()
            self._audit.use(keyring)
            # If the log takes nothing now, the next entry begins the segment.
            with contextlib.suppress(Refused):
                self._engine.cut_log()
        _log.info("there is a new data key", term=term)
        return self._rotated()

    async def rewrap(self) -> CryptoRotateResponse:
        """Wrap the keys under the key-encryption key that there is now."""
        async with self._changing:
            keyring = self._keyring
            with _told():
                kek = await asyncio.to_thread(self._directory.kek.key_for, None)
                if kek.key_id == keyring.kek.key_id:
                    raise KeyringError("the key-encryption key is the same as before")
                await self._replace(keyring.rewrapped(kek))
        _log.info("the keyring is wrapped by another key", kek_id=keyring.kek.key_id)
        return self._rotated()

    def _rotated(self) -> CryptoRotateResponse:
        keyring = self._keyring
        return CryptoRotateResponse(
            term=keyring.current_term, provider=keyring.kek.provider, kek_id=keyring.kek.key_id
        )

    async def reencrypt(self, rows_per_second: int) -> CryptoReencryptResponse:
        """Begin to seal under the newest data key what is under older ones."""
        with _told():
            progress = await self._resealing.begin(rows_per_second)
        self._spawn(self.resume())
        return CryptoReencryptResponse(progress=progress)

    async def resume(self) -> None:
        """Go on with what was begun, in this run or in one before, to its end."""

        async def left() -> str:
            try:
                await self._settle()
            except (KeyringError, OSError) as error:
                return str(error)
            return await self._left_under(None)

        if not await self._resealing.run(left):
            return
        progress = self._resealing.progress
        if progress.why:
            _log.error("not everything could be sealed anew", error=progress.why)
        else:
            _log.info("everything is sealed under the newest data key", term=progress.term)
        self._gate.events.note(
            "reencrypted", rows=progress.rows, term=progress.term, why=progress.why or "done"
        )
        self._gate.schedule()

    async def retire(self, term: int) -> CryptoRetireResponse:
        """Destroy a data key, once nothing but the audit trail is found under it."""
        async with self._changing:
            with _told():
                smaller = self._keyring.without(term)
                await self._settle()
                left = await self._left_under(term)
                if left:
                    raise KeyringError(
                        f"term {term} still seals {left}: run `kvsecure crypto reencrypt` first"
                    )
                # A power failure must not bring segments back that nothing could open any more.
                await asyncio.to_thread(sync_directory, self._directory.wal, self._directory.disk)
                await self._replace(smaller)
            self._reader.forget_keys()
        _log.info("a data key is retired", term=term)
        return CryptoRetireResponse()

    async def _replace(self, keyring: Keyring) -> None:
        """Put another keyring on the disk, and use it."""
        await asyncio.to_thread(self._directory.write_keyring, keyring)
        self._keyring.become(keyring)

    async def _settle(self) -> None:
        """Wait until nothing that was sealed under an older data key is on its way to the disk.

        Log and tables carry out in order what they are told, so whatever they were told before the
        newest data key is done when what is told now is done. The log's older segments are purged
        once the tables are past the entry that begins the next one.

        Raises:
            KeyringError: The log takes nothing now.
            OSError: The disk is full, or fails.
        """
        end_s = time.monotonic() + _SETTLE_S_MAX
        try:
            index = self._engine.cut_log()
        except Refused as refused:
            raise KeyringError(f"the log takes nothing now: {refused.text}") from None
        while self._engine.state.index < index or await self._logs_under_old():
            if time.monotonic() > end_s:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        if self._engine.state.index < index:
            raise KeyringError("the log takes nothing now")
        await self._resealing.wait_written()

    async def _logs_under_old(self) -> bool:
        segments = await self._segments(Kind.WAL)
        return any(term != self._keyring.current_term for term in segments)

    async def _left_under(self, term: int | None) -> str:
        """Say what is sealed under a term, or under any but the newest; nothing if nothing is."""
        current = self._keyring.current_term

        def counts(number: int) -> bool:
            return number != current if term is None else number == term

        left = []
        for table in Table:
            rows = sum(n for number, n in (await self._rows(table)).items() if counts(number))
            if rows:
                left.append(f"{rows} rows of {table.name.lower()}")
        logged = await self._segments(Kind.WAL)
        segments = sum(n for number, n in logged.items() if counts(number))
        if segments:
            left.append(f"{segments} segments of the log")
        return ", ".join(left)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell whoever asked why the keys could not be changed."""
    try:
        yield
    except (KeyringError, StorageError) as error:
        raise Refused(Failure.KEYS_UNCHANGED, str(error)) from None
    except DamagedRow as damage:
        raise Refused(Failure.CORRUPT) from damage
    except OSError as error:
        raise Refused(Failure.KEYS_UNCHANGED, error.strerror or "the disk fails") from None
