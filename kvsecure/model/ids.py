"""Numbers that must not be mixed up.

Owns: one distinct type for each number that identifies or orders something.
Never: arithmetic beyond what the type means.
"""

from typing import Final, NewType

__all__ = [
    "DEFAULT_TENANT",
    "FIRST_NAMED_TENANT",
    "REVISION_EMPTY",
    "SYSTEM_TENANT",
    "ClusterId",
    "Index",
    "LeaseId",
    "MemberId",
    "Revision",
    "TenantId",
    "Term",
]

ClusterId = NewType("ClusterId", int)
MemberId = NewType("MemberId", int)
TenantId = NewType("TenantId", int)
LeaseId = NewType("LeaseId", int)
# Position in the Raft log, and the election it was written in (Raft section 5.1).
Index = NewType("Index", int)
Term = NewType("Term", int)
# The store's one logical clock; an empty store is at 1 and the first write makes it 2 (etcd).
Revision = NewType("Revision", int)

REVISION_EMPTY: Final = Revision(1)

# Cluster operations are decided against the system tenant; it holds no keys of applications.
SYSTEM_TENANT: Final = TenantId(0)
# Users outside any named tenant live here, so that a plain etcd client never notices tenants.
DEFAULT_TENANT: Final = TenantId(1)
FIRST_NAMED_TENANT: Final = TenantId(16)
