"""v3lockpb.Lock.

Owns: choosing the lease of a lock without one, and the shape checks of its requests.
Never: decides, waits or names keys.
Follows: etcd-surface section 1.9.
"""

from typing import Final

from kvsecure.access.queues import entering, unlocking
from kvsecure.api.lease import random_lease
from kvsecure.api.queue_calls import WithoutBody, check_size
from kvsecure.api.services import Services
from kvsecure.api.shape import check_delete
from kvsecure.proto.encode import bytes_field
from kvsecure.proto.lock_pb2 import LockRequest, UnlockRequest
from kvsecure.security.asking import Asking, PatientAsking

__all__ = ["lock", "unlock"]

# Field key of v3lockpb.LockResponse.
_KEY: Final = b"\x12"


def lock(services: Services, asking: PatientAsking, request: LockRequest, _: bytes) -> None:
    """Wait until the lock is the caller's, under a lease of ours if it names none."""
    is_without = not request.lease
    if is_without:
        request = LockRequest(name=request.name, lease=random_lease(services.random_bytes(8)))
    check_size(services, entering(request))
    services.queues.enter(asking, request, _held, grant=is_without)


def unlock(services: Services, asking: Asking, request: UnlockRequest, _: bytes) -> None:
    """Release a lock; that there is none is as good."""
    deletion = unlocking(request)
    check_delete(deletion)
    content = deletion.SerializeToString()
    services.gate.submit(WithoutBody(asking), deletion, content, request)


def _held(key: bytes, _: int) -> bytes:
    return bytes_field(_KEY, key)
