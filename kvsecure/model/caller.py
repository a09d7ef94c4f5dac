"""Who makes a request, as far as the state machine needs to know.

Owns: the identity that travels with a command into the log.
Never: carries how it was proved or what it may do; rights are looked up where they are decided.
Keeps: a caller is made by authentication or by the member itself, nowhere else.
"""

from enum import IntEnum
from typing import NamedTuple

from kvsecure.model.ids import TenantId

__all__ = ["Caller", "Origin"]


class Origin(IntEnum):
    """What kind of caller it is."""

    # A user of the tenant.
    USER = 1
    # Nobody in particular, while the tenant's authentication is off.
    ANYBODY = 2
    # The member itself: expiring leases, founding a cluster. Never from the network.
    SYSTEM = 3


class Caller(NamedTuple):
    """A caller, and the state of the accounts at which it was allowed to go on."""

    tenant: TenantId
    origin: Origin
    user: str
    law_revision: int
