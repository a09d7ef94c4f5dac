"""kvsecurepb.Versions: what keys were, and how long that is kept.

Owns: the shape checks of its requests, and which door of the gate each takes.
Never: decides.
Follows: docs/adr/0012-versions.md.
"""

from kvsecure.api.services import Services
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import (
    RETENTION_FOR_S_MAX,
    RETENTION_PREFIX_BYTES_MAX,
    RETENTION_VERSIONS_MAX,
)
from kvsecure.proto.version_pb2 import DestroyRequest, HistoryRequest, RetentionSetRequest
from kvsecure.security.asking import Asking

__all__ = ["destroy", "history", "retention_set"]


def history(services: Services, asking: Asking, request: HistoryRequest, _: bytes) -> None:
    """Answer with the versions of a key."""
    _check_key(request.key)
    services.gate.read(asking, request)


def destroy(services: Services, asking: Asking, request: DestroyRequest, content: bytes) -> None:
    """Forget every version of a key for good."""
    _check_key(request.key)
    services.gate.submit(asking, request, content)


def retention_set(
    services: Services, asking: Asking, request: RetentionSetRequest, content: bytes
) -> None:
    """Have compactions keep versions of the keys under a prefix."""
    if not request.keep_versions and not request.keep_for_s:
        raise Refused(Failure.RETENTION_REJECTED, "it keeps nothing")
    if len(request.prefix) > RETENTION_PREFIX_BYTES_MAX:
        raise Refused(
            Failure.RETENTION_REJECTED, f"a prefix of more than {RETENTION_PREFIX_BYTES_MAX} bytes"
        )
    if request.keep_versions > RETENTION_VERSIONS_MAX or request.keep_for_s > RETENTION_FOR_S_MAX:
        raise Refused(
            Failure.RETENTION_REJECTED,
            f"at most {RETENTION_VERSIONS_MAX} versions, and {RETENTION_FOR_S_MAX} seconds",
        )
    services.gate.submit(asking, request, content)


def _check_key(key: bytes) -> None:
    if not key:
        raise Refused(Failure.EMPTY_KEY)
