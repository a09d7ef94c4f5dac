"""Retention: which superseded versions a compaction leaves, and that rule's stored form.

    Policy       of a tenant and a prefix: keep N versions, keep for T; the longest prefix wins
    Keep         the same for one compaction: how many, and superseded after which revision
    Compaction   a revision, and what is kept of the time before it
    Destruction  a key, and the revision through which nothing is kept of it

Owns: turning policies into what one compaction keeps, and looking up what counts for a key.
Never: looks at versions; the index does. Reads no clock; times have become revisions here.
Follows: docs/adr/0012-versions.md.
Keeps: what a compaction keeps is fixed when it is applied, so that neither the pace of its slices
    nor a crash in between changes what comes of it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self, final

from kvsecure.model.ids import TenantId
from kvsecure.proto import state_pb2
from kvsecure.proto.state_pb2 import StoredCompaction

__all__ = ["Compaction", "Destruction", "Keep", "Keeps", "Policy"]

# A revision that nothing is superseded after.
_NEVER: Final = (1 << 63) - 1
_NAME_BYTES: Final = 16


class Policy(NamedTuple):
    """What a tenant wants to be kept of the keys under a prefix; 0 leaves one of the two out."""

    versions: int
    # After it was superseded, in seconds.
    for_s: int


class Keep(NamedTuple):
    """What one compaction keeps of a key, besides what etcd's does."""

    # The newest versions, of those that there were when it was applied.
    versions: int
    # Versions that were superseded or deleted after this revision.
    superseded_after: int
    # The newest revision that there was when it was applied.
    through: int

    @classmethod
    def of(cls, policy: Policy, *, expired: int, through: int) -> Self:
        """Return what a policy comes to.

        Args:
            policy: The policy.
            expired: What was superseded through this revision has been kept long enough.
            through: The newest revision.
        """
        return cls(policy.versions, expired if policy.for_s else _NEVER, through)


@final
class Keeps:
    """What is kept of one tenant's keys, by their prefixes."""

    __slots__ = ("_lengths", "table")

    def __init__(self, table: Mapping[bytes, Keep]) -> None:
        self.table = table
        self._lengths = sorted({len(prefix) for prefix in table}, reverse=True)

    def find(self, key: bytes) -> Keep | None:
        """Return what counts for a key: that of the longest prefix of it, None if there is none."""
        table = self.table
        for length in self._lengths:
            # Of a key that is shorter this is all of it, and nothing longer can be found.
            found = table.get(key[:length])
            if found is not None:
                return found
        return None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compaction:
    """A compaction, from when it was applied on."""

    revision: int
    # Of the tenants that have policies.
    keeps: Mapping[TenantId, Keeps] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return its stored form."""
        stored = StoredCompaction(revision=self.revision)
        for tenant, keeps in self.keeps.items():
            for prefix, (versions, superseded_after, through) in keeps.table.items():
                stored.kept.add(
                    tenant=tenant,
                    prefix=prefix,
                    versions=versions,
                    superseded_after=superseded_after,
                    through=through,
                )
        return stored.SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            DecodeError: It is not that.
        """
        stored = StoredCompaction.FromString(content)
        tables: dict[TenantId, dict[bytes, Keep]] = {}
        for kept in stored.kept:
            keep = Keep(kept.versions, kept.superseded_after, kept.through)
            tables.setdefault(TenantId(kept.tenant), {})[kept.prefix] = keep
        return cls(revision=stored.revision, keeps=_compiled(tables.items()))

    @classmethod
    def plain(cls, revision: int) -> Self:
        """Return one that keeps what etcd's does."""
        return cls(revision=revision)

    @classmethod
    def under(cls, revision: int, tables: Iterable[tuple[TenantId, Mapping[bytes, Keep]]]) -> Self:
        """Return one that keeps more."""
        return cls(revision=revision, keeps=_compiled(tables))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Destruction:
    """A key of which no version through a revision may be read, or found on the disk."""

    tenant: TenantId
    key: bytes
    through: int

    @property
    def name(self) -> bytes:
        """What tells it from others; a key may be too long for a row's."""
        digest = hashlib.sha256(self.key).digest()
        return self.tenant.to_bytes(4, "big") + digest[:_NAME_BYTES]

    def encode(self) -> bytes:
        """Return its stored form."""
        stored = state_pb2.Destruction(tenant=self.tenant, key=self.key, through=self.through)
        return stored.SerializeToString()

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            DecodeError: It is not that.
        """
        stored = state_pb2.Destruction.FromString(content)
        return cls(tenant=TenantId(stored.tenant), key=stored.key, through=stored.through)


def _compiled(
    tables: Iterable[tuple[TenantId, Mapping[bytes, Keep]]],
) -> dict[TenantId, Keeps]:
    return {tenant: Keeps(table) for tenant, table in tables if table}
