"""kvsecurepb.Joining: how machines become members by tokens.

Owns: the shape checks of its requests.
Never: decides whether a token is good.
Keeps: nothing of a secret leaves here but to whom it is compared by.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from google.protobuf.message import Message

from kvsecure.api.services import Services
from kvsecure.api.shape import check_peer_urls
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Failure, Refused
from kvsecure.model.join_token import ID_BYTES, SECRET_BYTES
from kvsecure.proto.joining_pb2 import (
    JoinAuthorityRequest,
    JoinRedeemRequest,
    JoinTokenAddRequest,
)
from kvsecure.security.asking import Asking

__all__ = ["authority", "redeem", "token_add"]

_HOSTS_MAX: Final = 16
_HOST_CHARACTERS_MAX: Final = 253
_NAME_CHARACTERS_MAX: Final = 128
_REQUEST_BYTES_MAX: Final = 4096


def token_add(services: Services, asking: Asking, request: JoinTokenAddRequest, _: bytes) -> None:
    """Make a token."""
    _perform(services, asking, request, lambda: services.admission.add_token(request.ttl_s))


def authority(services: Services, asking: Asking, request: JoinAuthorityRequest, _: bytes) -> None:
    """Say who this cluster's authority is: to anybody, and so at the price of a read."""
    ended = services.gate.admit_work(asking, request)
    if ended is None:
        return
    try:
        answer = services.admission.authority()
    except Refused as refused:
        ended(refused.code)
        asking.fail(refused)
        return
    ended(Code.OK)
    revision = services.gate.engine.state.store.revision
    asking.succeed(Answer(revision, answer.SerializeToString()))


def redeem(services: Services, asking: Asking, request: JoinRedeemRequest, _: bytes) -> None:
    """Make who has a token a member."""
    if len(request.token_id) != 2 * ID_BYTES or len(request.secret) != SECRET_BYTES:
        raise Refused(Failure.JOIN_TOKEN_REJECTED)
    check_peer_urls(request.peer_urls)
    if len(request.name) > _NAME_CHARACTERS_MAX or not request.name.isprintable():
        raise Refused(Failure.JOIN_REJECTED, "a member has a name that certificates can carry")
    if not 0 < len(request.hosts) <= _HOSTS_MAX or any(
        not 0 < len(host) <= _HOST_CHARACTERS_MAX for host in request.hosts
    ):
        raise Refused(Failure.JOIN_REJECTED, f"a member has 1 to {_HOSTS_MAX} hosts")
    if max(len(request.server_request), len(request.peer_request)) > _REQUEST_BYTES_MAX:
        raise Refused(Failure.JOIN_REJECTED, "a request for a certificate is too large")
    source = asking.peer.ip
    _perform(services, asking, request, lambda: services.admission.redeem(request, source))


def _perform(
    services: Services, asking: Asking, request: Message, act: Callable[[], Awaitable[Message]]
) -> None:
    services.spawn(services.gate.perform(asking, request, act))
