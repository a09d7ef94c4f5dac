"""kvsecurepb.Versions: what keys were.

Owns: the shape checks of its requests, and which door of the gate each takes.
Never: decides.
Follows: docs/adr/0012-versions.md.
"""

from kvsecure.api.services import Services
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto.version_pb2 import HistoryRequest, RevisionAtRequest
from kvsecure.security.gate import Asking

__all__ = ["history", "revision_at"]


def history(services: Services, asking: Asking, request: HistoryRequest, _: bytes) -> None:
    """Answer with the versions of a key."""
    _check_key(request.key)
    services.gate.read(asking, request)


def revision_at(services: Services, asking: Asking, request: RevisionAtRequest, _: bytes) -> None:
    """Answer with the revision of a time."""
    services.gate.read(asking, request)


def _check_key(key: bytes) -> None:
    if not key:
        raise Refused(Failure.EMPTY_KEY)
