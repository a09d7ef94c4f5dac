"""kvsecurepb.Crypto: the keys that everything is sealed under.

Owns: the shape checks of their requests.
Never: decides, or sees a key.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from google.protobuf.message import Message

from kvsecure.api.services import Services
from kvsecure.proto.crypto_pb2 import (
    CryptoReencryptRequest,
    CryptoRetireRequest,
    CryptoRotateRequest,
    CryptoStatusRequest,
)
from kvsecure.security.asking import Asking

__all__ = ["reencrypt", "retire", "rotate", "status"]

_ROWS_PER_SECOND_DEFAULT: Final = 10_000
_ROWS_PER_SECOND_MAX: Final = 1_000_000


def status(services: Services, asking: Asking, request: CryptoStatusRequest, _: bytes) -> None:
    """Say which keys there are, and what is sealed under which."""
    _perform(services, asking, request, lambda: services.keys.status(count=request.count))


def rotate(services: Services, asking: Asking, request: CryptoRotateRequest, _: bytes) -> None:
    """Make a new data key, or wrap all of them under another key-encryption key."""
    _perform(
        services, asking, request, services.keys.rewrap if request.kek else services.keys.rotate
    )


def reencrypt(
    services: Services, asking: Asking, request: CryptoReencryptRequest, _: bytes
) -> None:
    """Begin to seal everything under the newest data key."""
    rate = request.rows_per_second or _ROWS_PER_SECOND_DEFAULT
    _perform(
        services, asking, request, lambda: services.keys.reencrypt(min(rate, _ROWS_PER_SECOND_MAX))
    )


def retire(services: Services, asking: Asking, request: CryptoRetireRequest, _: bytes) -> None:
    """Destroy a data key that nothing needs any more."""
    _perform(services, asking, request, lambda: services.keys.retire(request.term))


def _perform(
    services: Services, asking: Asking, request: Message, act: Callable[[], Awaitable[Message]]
) -> None:
    services.spawn(services.gate.perform(asking, request, act))
