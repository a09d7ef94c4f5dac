"""etcdserverpb.Auth.

Owns: the shape checks of its requests, and keeping passwords out of everything behind it.
Never: decides; hashes nothing itself.
Follows: etcd-surface sections 1.8 and 3.
Keeps: a command that enters the log has a verifier and no password (GHSA-528j-9r78-wffx).
"""

import base64
import binascii
from collections.abc import Callable

from google.protobuf.message import Message

from kvsecure.api.services import Services
from kvsecure.api.shape import check_name, check_permission
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.secret import Secret
from kvsecure.proto.auth_pb2 import (
    AuthenticateRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
)
from kvsecure.proto.authstore_pb2 import UserAddOptions
from kvsecure.security.asking import Asking

__all__ = [
    "authenticate",
    "change_password",
    "grant_permission",
    "read",
    "read_stale",
    "role_add",
    "submit",
    "user_add",
]


def submit(services: Services, asking: Asking, request: Message, content: bytes) -> None:
    """Take a request that is fine as it is through the log."""
    services.gate.submit(asking, request, content)


def read(services: Services, asking: Asking, request: Message, _: bytes) -> None:
    """Answer from the state."""
    services.gate.read(asking, request)


def read_stale(services: Services, asking: Asking, request: Message, _: bytes) -> None:
    """Answer from the state as far as this member has it."""
    services.gate.read(asking, request, stale=True)


def authenticate(
    services: Services, asking: Asking, request: AuthenticateRequest, _: bytes
) -> None:
    """Turn a password into a token."""
    services.spawn(services.gate.log_in(asking, request))


def user_add(services: Services, asking: Asking, request: AuthUserAddRequest, _: bytes) -> None:
    """Add a user, with a password, a verifier that is known here, or neither."""
    check_name(request.name)
    if request.options.no_password:
        command = AuthUserAddRequest(name=request.name, options=UserAddOptions(no_password=True))
        services.gate.submit(asking, command, command.SerializeToString())
        return

    def rebuild(verifier: str) -> AuthUserAddRequest:
        return AuthUserAddRequest(name=request.name, hashedPassword=verifier)

    _with_verifier(services, asking, request, rebuild)


def change_password(
    services: Services, asking: Asking, request: AuthUserChangePasswordRequest, _: bytes
) -> None:
    """Give a user another password."""

    def rebuild(verifier: str) -> AuthUserChangePasswordRequest:
        return AuthUserChangePasswordRequest(name=request.name, hashedPassword=verifier)

    _with_verifier(services, asking, request, rebuild)


def role_add(services: Services, asking: Asking, request: AuthRoleAddRequest, raw: bytes) -> None:
    """Add a role."""
    check_name(request.name)
    services.gate.submit(asking, request, raw)


def grant_permission(
    services: Services, asking: Asking, request: AuthRoleGrantPermissionRequest, content: bytes
) -> None:
    """Let a role do something with a range of keys."""
    if not request.HasField("perm"):
        raise Refused(Failure.PERMISSION_NOT_GIVEN)
    check_permission(request.perm)
    services.gate.submit(asking, request, content)


def _with_verifier(
    services: Services,
    asking: Asking,
    request: AuthUserAddRequest | AuthUserChangePasswordRequest,
    rebuild: Callable[[str], Message],
) -> None:
    if request.hashedPassword and not request.password:
        # etcd's clients may bring a bcrypt verifier, in base64.
        command = rebuild(services.gate.known_verifier(_verifier_of(request.hashedPassword)))
        services.gate.submit(asking, command, command.SerializeToString())
        return
    password = Secret.of_text(request.password)
    services.spawn(
        services.gate.submit_with_password(asking, request, password, request.name, rebuild)
    )


def _verifier_of(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        raise Refused(Failure.PASSWORD_REJECTED, "hashedPassword is not base64") from None
