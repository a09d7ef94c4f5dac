"""Comparison: what the applied state comes to at one index of the log, for members to compare.

    accounts, leases, members ...     their digest, made when the index is applied
    versions of keys                  through which revision they count, and whether they still can

Owns: which parts of the state all members have to have alike, and the one form of their digest.
Never: asks anybody, or judges.
Follows: docs/adr/0026-comparing-members.md.
Keeps: two members that applied the same log have the same mark at the same index, however their
    states came to be there; what is a member's own, as deadlines and what is due to be stored, is
    in no digest.
"""

import struct
from collections.abc import Generator, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Final

from kvsecure.core.accounts import Tenant
from kvsecure.core.mark import Mark
from kvsecure.core.state import State
from kvsecure.model.ids import Index

__all__ = ["COMPARISON_FORM", "is_history_of", "is_long", "mark_in_steps"]

# Of a digest; members compare nothing that they do not make alike.
COMPARISON_FORM: Final = 1

# In one step: one to two milliseconds.
_ROWS_AT_ONCE: Final = 1_000
_DIGEST_BYTES: Final = 16
_SUM_MASK: Final = (1 << 8 * _DIGEST_BYTES) - 1
_WHOLE: Final = struct.Struct(">QqqIQ")
_LEASE: Final = struct.Struct(">cIqqq")
_ALARM: Final = struct.Struct(">cQi")
_COUNTED: Final = struct.Struct(">cIQ")
_POLICY: Final = struct.Struct(">cIIq")
_MEMBER: Final = struct.Struct(">cQ")
_ACCOUNT: Final = struct.Struct(">cI")


def is_long(state: State) -> bool:
    """Tell whether the digest is more than the work of one step."""
    leases = sum(len(space.leases) for space in state.store.spaces())
    accounts = sum(len(each.users) + len(each.roles) for each in state.accounts.tenants())
    return leases + accounts > _ROWS_AT_ONCE


def mark_in_steps(state: State) -> Generator[None, None, Mark]:
    """Make the mark of the entry that is being applied; the state must not change meanwhile.

    Parts are digested one by one, and their digests added up: no order is made for them.
    """
    total = count = 0
    rows = _rows(state)
    while taken := list(islice(rows, _ROWS_AT_ONCE)):
        if count:
            yield
        count += len(taken)
        for row in taken:
            total += int.from_bytes(blake2b(row, digest_size=_DIGEST_BYTES).digest(), "big")
    store = state.store
    whole = _WHOLE.pack(
        COMPARISON_FORM, store.revision, store.compacted, state.accounts.next_tenant_id, count
    )
    summed = (total & _SUM_MASK).to_bytes(_DIGEST_BYTES, "big")
    return Mark(
        index=Index(state.index + 1),
        digest=blake2b(whole + summed, digest_size=_DIGEST_BYTES).digest(),
        revision=store.revision,
        compacted=store.compacted,
        erasures=store.erasures,
    )


def is_history_of(state: State, mark: Mark) -> bool:
    """Tell whether no version through the mark's revision has been given up since it was made."""
    store = state.store
    return (store.compacted, store.erasures) == (mark.compacted, mark.erasures)


def _rows(state: State) -> Iterator[bytes]:
    """Yield every part as bytes that no other part has."""
    for tenant in state.accounts.tenants():
        yield from _account_rows(tenant)
    for space in state.store.spaces():
        yield _COUNTED.pack(b"k", space.tenant, len(space.index.live))
        for prefix, policy in space.retention.items():
            yield _POLICY.pack(b"p", space.tenant, policy.versions, policy.for_s) + prefix
        for lease, ttl_s, remaining_s in space.leases.stored():
            yield _LEASE.pack(b"l", space.tenant, lease, ttl_s, remaining_s)
    for member, alarm in state.alarms:
        yield _ALARM.pack(b"a", member, alarm)
    members = state.members
    for record in members:
        yield b"m" + record.SerializeToString(deterministic=True)
    for removed in members.removed:
        yield _MEMBER.pack(b"x", removed)
    for member, key in members.keys.items():
        yield _MEMBER.pack(b"s", member) + key
    for head in state.heads:
        yield b"h" + head.SerializeToString(deterministic=True)


def _account_rows(tenant: Tenant) -> Iterator[bytes]:
    yield _ACCOUNT.pack(b"t", tenant.id) + tenant.record.SerializeToString(deterministic=True)
    for user in tenant.users.values():
        yield _ACCOUNT.pack(b"u", tenant.id) + user.SerializeToString(deterministic=True)
    for role in tenant.roles.values():
        yield _ACCOUNT.pack(b"r", tenant.id) + role.SerializeToString(deterministic=True)
