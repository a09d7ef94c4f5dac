"""Epochs: what the rows of the tables are sealed under, and how a row says so.

    row := version, epoch, number, sealed value        epoch := term of the data key, salt

Owns: the head of a row, the numbers and salts of epochs, and opening a row.
Never: draws a key; seals.
Follows: docs/adr/0006-sealing.md: a writer draws an epoch of its own, so that no number is used
    twice under one key.
"""

import struct
from collections.abc import Callable
from typing import Final, final

import lmdb

from kvsecure.crypto.sealing import Opener, Tampered, derive_key
from kvsecure.model.secret import Secret

__all__ = ["ROW_HEAD", "ROW_VERSION", "DamagedRow", "Epochs", "begin_epoch", "put_epoch"]

# Version, epoch and number.
ROW_HEAD: Final = struct.Struct(">BIQ")
ROW_VERSION: Final = 1


@final
class DamagedRow(Exception):
    """A row does not open: it was changed, moved, or is of another store."""


@final
class Epochs:
    """The keys of what was sealed, by the epoch that a row names."""

    __slots__ = ("_data_key", "_meta", "_openers", "_terms")

    def __init__(self, meta: lmdb._Database, data_key: Callable[[int], Secret | None]) -> None:
        """Know no epoch yet.

        Args:
            meta: Where their salts are.
            data_key: Gives the data key of a term, as far as it is known.
        """
        self._meta = meta
        self._data_key = data_key
        self._openers: dict[int, Opener] = {}
        self._terms: dict[int, int] = {}

    def open(
        self, transaction: lmdb.Transaction, name: str, sealed: bytes, bound_to: bytes
    ) -> bytes:
        """Return a row's value.

        Raises:
            DamagedRow: It does not open.
        """
        if len(sealed) < ROW_HEAD.size or sealed[0] != ROW_VERSION:
            raise DamagedRow(f"a row of {name} has no form known here")
        _, epoch, number = ROW_HEAD.unpack_from(sealed)
        opener = self._openers.get(epoch) or self._opener_of(transaction, epoch)
        try:
            return opener.open(number, sealed[ROW_HEAD.size :], bound_to)
        except Tampered:
            raise DamagedRow(f"a row of {name} does not open") from None

    def term_of(self, transaction: lmdb.Transaction, sealed: bytes) -> int:
        """Return the data key that a row is sealed under.

        Raises:
            DamagedRow: It has no form known here.
        """
        if len(sealed) < ROW_HEAD.size or sealed[0] != ROW_VERSION:
            raise DamagedRow("a row has no form known here")
        epoch = int.from_bytes(sealed[1:5], "big")
        term = self._terms.get(epoch)
        if term is None:
            term, _ = self._stored(transaction, epoch)
            self._terms[epoch] = term
        return term

    def forget(self) -> None:
        """Let go of the keys."""
        self._openers.clear()

    def _opener_of(self, transaction: lmdb.Transaction, epoch: int) -> Opener:
        term, salt = self._stored(transaction, epoch)
        data_key = self._data_key(term)
        if data_key is None:
            raise DamagedRow(f"data key term {term} is not in the keyring")
        opener = Opener(derive_key(data_key, purpose="table-epoch", salt=salt))
        self._openers[epoch] = opener
        return opener

    def _stored(self, transaction: lmdb.Transaction, epoch: int) -> tuple[int, bytes]:
        """Return an epoch's term and salt.

        Raises:
            DamagedRow: There is no such epoch.
        """
        stored = transaction.get(_epoch_key(epoch), db=self._meta)
        if stored is None:
            raise DamagedRow(f"sealing epoch {epoch} is not known")
        return int.from_bytes(stored[:4], "big"), bytes(stored[4:])


def _epoch_key(epoch: int) -> bytes:
    return b"epoch/" + epoch.to_bytes(4, "big")


def begin_epoch(transaction: lmdb.Transaction, meta: lmdb._Database, term: int, salt: bytes) -> int:
    """Store a new epoch's salt and return its number."""
    cursor = transaction.cursor(db=meta)
    last = 0
    if cursor.set_range(b"epoch/"):
        for key in cursor.iternext(keys=True, values=False):
            if bytes(key).startswith(b"epoch/"):
                last = int.from_bytes(key[6:], "big")
    transaction.put(_epoch_key(last + 1), term.to_bytes(4, "big") + salt, db=meta)
    return last + 1


def put_epoch(
    transaction: lmdb.Transaction, meta: lmdb._Database, epoch: int, term: int, salt: bytes
) -> None:
    """Store an epoch under the number that it has."""
    transaction.put(_epoch_key(epoch), term.to_bytes(4, "big") + salt, db=meta)
