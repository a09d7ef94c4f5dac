"""etcdserverpb.KV.

Owns: the shape checks of its requests, and which door of the gate each takes.
Never: decides.
Follows: etcd-surface section 1.3.
"""

from collections.abc import Sequence

from kvsecure.api.learning import has_vote
from kvsecure.api.services import Services
from kvsecure.api.shape import check_delete, check_put, check_range, check_txn, plain_puts
from kvsecure.model.burst import GetBurst, PutBurst
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.kv_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from kvsecure.security.asking import Asking
from kvsecure.security.bursts import Getting, Putting

__all__ = ["compact", "delete_range", "gets", "put", "puts", "range_", "txn"]


def range_(services: Services, asking: Asking, request: RangeRequest, _: bytes) -> None:
    """Answer with the versions of a range of keys."""
    check_range(request)
    if request.range_end:
        services.ranges.read(asking, request)
    else:
        services.gate.read(asking, request, stale=request.serializable)


def put(services: Services, asking: Asking, request: PutRequest, content: bytes) -> None:
    """Give a key a value."""
    check_put(request)
    _check_size(services, content)
    services.gate.submit(asking, request, content)


def gets(services: Services, asking: Getting, keys: list[bytes], bytes_max: int) -> int:
    """Answer a burst of plain gets; return how many, from the first on, were taken."""
    if not has_vote(services):
        return 0
    return services.gate.bursts.get(asking, GetBurst(keys), bytes_max)


def puts(
    services: Services,
    asking: Putting,
    pairs: list[tuple[bytes, bytes]],
    requests: Sequence[bytes],
) -> bool:
    """Carry out a burst of plain puts; return whether it was taken."""
    if max(map(len, requests)) > services.request_bytes_max or not has_vote(services):
        return False
    return services.gate.bursts.put(asking, PutBurst(pairs), requests)


def delete_range(
    services: Services, asking: Asking, request: DeleteRangeRequest, content: bytes
) -> None:
    """Delete a range of keys."""
    check_delete(request)
    services.gate.submit(asking, request, content)


def txn(services: Services, asking: Asking, request: TxnRequest, content: bytes) -> None:
    """Run a transaction."""
    plain = plain_puts(request, services.txn_ops_max)
    if plain is not None:
        _check_size(services, content)
        if not services.gate.bursts.transact(asking, plain, content):
            services.gate.submit(asking, request, content)
        return
    check_txn(request, services.txn_ops_max)
    _check_size(services, content)
    services.gate.transact(asking, request, content)


def compact(services: Services, asking: Asking, request: CompactionRequest, content: bytes) -> None:
    """Forget the past before a revision."""
    services.gate.submit(asking, request, content)


def _check_size(services: Services, content: bytes) -> None:
    if len(content) > services.request_bytes_max:
        raise Refused(Failure.REQUEST_TOO_LARGE)
