"""The keys that a member's data is sealed under; for administrators of the cluster.

Owns: `kvsecurepb.Crypto`.
Never: sees a key.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Self, final

from kvsecure.client.connection import Connection
from kvsecure.proto import crypto_pb2

__all__ = ["Crypto", "CryptoStatus", "KeyTerm", "Reencryption", "Rotated", "State"]

_SERVICE: Final = "/kvsecurepb.Crypto"


class State(Enum):
    """How sealing anew stands."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reencryption:
    """How far the tables are sealed anew.

    Attributes:
        state: Whether it was ever begun, and how it ended.
        term: The data key that everything is to be under.
        row_count: How many rows were sealed anew.
        rows_per_second: Its pace.
        why: Why it failed.
    """

    state: State
    term: int
    row_count: int
    rows_per_second: int
    why: str

    @classmethod
    def of(cls, message: crypto_pb2.CryptoProgress) -> Self:
        """Return the value of a message."""
        return cls(
            state=State(crypto_pb2.CryptoProgress.State.Name(message.state).lower()),
            term=message.term,
            row_count=message.rows,
            rows_per_second=message.rows_per_second,
            why=message.why,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerm:
    """A data key, and what is sealed under it; rows are 0 where they were not counted.

    Attributes:
        term: Its number.
        made_s: When it was made, in seconds since 1970; 0 if that is not known.
        is_current: Everything new is sealed under it.
        is_retired: It is destroyed, but for what opens its segments of the audit trail.
        record_rows: Rows of keys' records.
        index_rows: Blocks of the index.
        state_rows: Rows of accounts, leases and the like.
        log_segments: Files of the write-ahead log.
        audit_segments: Files of the audit trail.
    """

    term: int
    made_s: int
    is_current: bool
    is_retired: bool
    record_rows: int
    index_rows: int
    state_rows: int
    log_segments: int
    audit_segments: int

    @property
    def in_use_count(self) -> int:
        """How much is under it that keeps it from being retired."""
        return self.record_rows + self.index_rows + self.state_rows + self.log_segments


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """The keys after a rotation.

    Attributes:
        term: The newest data key.
        provider: Where the key-encryption key comes from.
        kek_id: Tells it apart.
    """

    term: int
    provider: str
    kek_id: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CryptoStatus:
    """A member's keys.

    Attributes:
        provider: Where the key-encryption key comes from.
        kek_id: Tells key-encryption keys apart.
        kms_key_id: The plugin's own name for its key; empty without a plugin.
        terms: The data keys, oldest first.
        progress: How far the tables are sealed anew.
        is_counted: Whether rows were counted.
    """

    provider: str
    kek_id: str
    kms_key_id: str
    terms: tuple[KeyTerm, ...]
    progress: Reencryption
    is_counted: bool


@final
class Crypto:
    """A member's keys. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def status(self, *, count: bool) -> CryptoStatus:
        """Return the keys, and if it is to be counted what is sealed under which."""
        answer = self._connection.call(
            f"{_SERVICE}/Status",
            crypto_pb2.CryptoStatusRequest(count=count),
            crypto_pb2.CryptoStatusResponse,
        )
        return CryptoStatus(
            provider=answer.provider,
            kek_id=answer.kek_id,
            kms_key_id=answer.kms_key_id,
            terms=tuple(
                KeyTerm(
                    term=term.term,
                    made_s=term.made_s,
                    is_current=term.current,
                    is_retired=term.retired,
                    record_rows=term.record_rows,
                    index_rows=term.index_rows,
                    state_rows=term.state_rows,
                    log_segments=term.log_segments,
                    audit_segments=term.audit_segments,
                )
                for term in answer.terms
            ),
            progress=Reencryption.of(answer.progress),
            is_counted=answer.counted,
        )

    def rotate(self, *, kek: bool = False) -> Rotated:
        """Make a new data key, or wrap all of them under another key-encryption key."""
        answer = self._connection.call(
            f"{_SERVICE}/Rotate",
            crypto_pb2.CryptoRotateRequest(kek=kek),
            crypto_pb2.CryptoRotateResponse,
        )
        return Rotated(term=answer.term, provider=answer.provider, kek_id=answer.kek_id)

    def reencrypt(self, rows_per_second: int) -> Reencryption:
        """Begin to seal under the newest data key what is under older ones."""
        answer = self._connection.call(
            f"{_SERVICE}/Reencrypt",
            crypto_pb2.CryptoReencryptRequest(rows_per_second=rows_per_second),
            crypto_pb2.CryptoReencryptResponse,
        )
        return Reencryption.of(answer.progress)

    def retire(self, term: int) -> None:
        """Destroy a data key under which nothing is sealed any more."""
        self._connection.call(
            f"{_SERVICE}/Retire",
            crypto_pb2.CryptoRetireRequest(term=term),
            crypto_pb2.CryptoRetireResponse,
        )
