"""Tokens: what a log-in gives, and what a request shows instead of a password.

Owns: minting and verifying; a token says who and which session, never what may be done.
Never: trusts a header of the token for the algorithm, or a key that the token names by place.
Follows: RFC 7519, RFC 8725 (one algorithm, from configuration), RFC 8037 (EdDSA), RFC 8705 section
    3.1 for binding to a client certificate.
"""

import base64
from collections.abc import Callable
from typing import Final, NamedTuple, final

import jwt

from kvsecure.crypto.signing import SigningKey, VerifyingKey
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import ClusterId, TenantId
from kvsecure.model.limits import TOKEN_BYTES_MAX
from kvsecure.model.secret import Secret

__all__ = ["Claims", "TokenMint"]

_TYPE: Final = "kvs-at+jwt"
_LEEWAY_S: Final = 0
_DIGEST_BYTES: Final = 32


class Claims(NamedTuple):
    """What a verified token says."""

    tenant: TenantId
    user: str
    # Number of the user, which is never used again, and the epochs that end sessions when raised.
    user_id: int
    tenant_epoch: int
    user_epoch: int
    session: str
    expires_s: int
    # SHA-256 of the client certificate it is bound to, or empty.
    certificate: bytes
    # Of the key that it is signed with; whoever mints needs none.
    key_id: str = ""


@final
class TokenMint:
    """Mints the tokens of one member, and verifies those of every member of its cluster."""

    __slots__ = ("_audience", "_find", "_key", "_ttl_s")

    def __init__(
        self,
        key: SigningKey,
        cluster: ClusterId,
        ttl_s: int,
        find: Callable[[str], VerifyingKey | None],
    ) -> None:
        """Make a mint.

        Args:
            key: What this member signs with.
            cluster: Whose tokens they are.
            ttl_s: How long they are good for.
            find: Gives the key of an id if tokens may be signed with it, the member's own included.
        """
        self._key = key
        self._find = find
        self._audience = f"{cluster:x}"
        self._ttl_s = ttl_s

    @property
    def ttl_s(self) -> int:
        """How long a token is good for."""
        return self._ttl_s

    def knows(self, claims: Claims) -> bool:
        """Tell whether the key that a verified token was signed with is still good."""
        return self._find(claims.key_id) is not None

    def mint(self, claims: Claims, now_s: int) -> Secret:
        """Return a token for a session that begins now."""
        payload: dict[str, object] = {
            "iss": self._audience,
            "aud": self._audience,
            "sub": f"{claims.tenant}/{claims.user}",
            "ten": claims.tenant,
            "usr": claims.user,
            "uid": claims.user_id,
            "tep": claims.tenant_epoch,
            "uep": claims.user_epoch,
            "sid": claims.session,
            "jti": claims.session,
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + self._ttl_s,
        }
        if claims.certificate:
            payload["cnf"] = {"x5t#S256": _base64(claims.certificate)}
        headers = {"typ": _TYPE, "kid": self._key.public.key_id}
        token = jwt.encode(payload, self._key.native, algorithm="EdDSA", headers=headers)
        return Secret.of_text(token)

    def verify(self, token: bytes, now_s: int) -> Claims:
        """Return what a token says, if a member of this cluster minted it and it is good now.

        Raises:
            Refused: It is not (INVALID_AUTH_TOKEN, whatever the reason).
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise Refused(Failure.INVALID_AUTH_TOKEN)
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            key = self._find(key_id) if isinstance(key_id, str) else None
            if key is None or header.get("typ") != _TYPE:
                raise Refused(Failure.INVALID_AUTH_TOKEN)
            payload = jwt.decode(
                token,
                key.native,
                algorithms=["EdDSA"],
                audience=self._audience,
                issuer=self._audience,
                leeway=_LEEWAY_S,
                options={
                    "require": ["exp", "iat", "nbf", "iss", "aud", "sub", "jti"],
                    "strict_aud": True,
                    # Checked below against the member's own clock, which tests can turn.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            claims = Claims(
                tenant=TenantId(int(payload["ten"])),
                user=str(payload["usr"]),
                user_id=int(payload["uid"]),
                tenant_epoch=int(payload["tep"]),
                user_epoch=int(payload["uep"]),
                session=str(payload["sid"]),
                expires_s=int(payload["exp"]),
                certificate=_bound_certificate(payload),
                key_id=key.key_id,
            )
            not_before_s = int(payload["nbf"])
        except (
            jwt.PyJWTError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            # What nests too deeply, and numbers without end.
            RecursionError,
            OverflowError,
        ):
            raise Refused(Failure.INVALID_AUTH_TOKEN) from None
        # A clock that was set back by a minute must not end every session.
        if claims.expires_s <= now_s or not_before_s > now_s + 60:
            raise Refused(Failure.INVALID_AUTH_TOKEN)
        return claims


def _bound_certificate(payload: dict[str, object]) -> bytes:
    confirmation = payload.get("cnf")
    if confirmation is None:
        return b""
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise ValueError("a confirmation of a kind not known here")
    encoded = str(confirmation["x5t#S256"])
    digest = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if len(digest) != _DIGEST_BYTES:
        raise ValueError("a confirmation that is no digest")
    return digest


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
