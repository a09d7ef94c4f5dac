"""etcdserverpb.Maintenance, as far as it is about the whole of the store or the cluster.

Owns: which of the member's long work each method is.
Never: does any of it, or decides who may ask.
"""

from kvsecure.api.services import Services
from kvsecure.proto.maintenance_pb2 import (
    DefragmentRequest,
    DowngradeRequest,
    HashKVRequest,
    HashRequest,
    MoveLeaderRequest,
)
from kvsecure.security.asking import Asking

__all__ = ["defragment", "downgrade", "hash_", "hash_kv", "move_leader"]


def hash_(services: Services, asking: Asking, request: HashRequest, _: bytes) -> None:
    """Hash everything that is stored."""
    services.upkeep.hash_all(asking, request)


def hash_kv(services: Services, asking: Asking, request: HashKVRequest, _: bytes) -> None:
    """Hash the versions of all keys."""
    services.upkeep.hash_versions(asking, request)


def defragment(services: Services, asking: Asking, request: DefragmentRequest, _: bytes) -> None:
    """Give free space back to the file system."""
    services.upkeep.defragment(asking, request)


def move_leader(services: Services, asking: Asking, request: MoveLeaderRequest, _: bytes) -> None:
    """Hand the leadership to another member."""
    services.upkeep.move_leader(asking, request)


def downgrade(services: Services, asking: Asking, request: DowngradeRequest, _: bytes) -> None:
    """Prepare for an older version."""
    services.upkeep.downgrade(asking, request)
