"""Joining a cluster: by a token, with keys that stay here.

Owns: `kvsecurepb.Joining`, and the first connection, which trusts nobody.
Never: sends anything of a token before the other end has been certified by the authority that the
    token names.
Follows: docs/adr/0025-join-tokens.md.
"""

import base64
import binascii
import hmac
import http.client
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from kvsecure.client.connection import Connection
from kvsecure.client.settings import Endpoint
from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret
from kvsecure.pki.certificates import (
    CertificateError,
    certificate_pem,
    certificates_of,
    check_authorities,
    trust_fingerprint,
)
from kvsecure.proto import joining_pb2

__all__ = [
    "Admitted",
    "Joining",
    "NewToken",
    "NobodyAnswers",
    "UntrustedCluster",
    "fetch_authority",
]

_SERVICE: Final = "/kvsecurepb.Joining"
_AUTHORITY_PATH: Final = "/v3/kvsecure/joining/authority"
_ANSWER_BYTES_MAX: Final = 64 * 1024
# Somebody is added by consensus, which may have to find a leader first.
_REDEEM_S: Final = 20.0


@final
class UntrustedCluster(Exception):
    """Whoever answers has not shown the authority that the token names."""


@final
class NobodyAnswers(Exception):
    """The member that the token names cannot be reached, or does not answer."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that was made; `expires_s` in seconds since 1970."""

    text: Secret
    expires_s: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What a newcomer is told.

    Attributes:
        cluster_name: The trust domain of certificates.
        cluster_token: As of `--initial-cluster-token`.
        members: Peer URLs by name, the newcomer included.
        heartbeat_ms: The pace of all members.
        election_ms: Likewise.
        server_certificate: In PEM, for clients to see.
        peer_certificate: In PEM, for other members to see.
    """

    cluster_name: str
    cluster_token: str
    members: tuple[tuple[str, tuple[str, ...]], ...]
    heartbeat_ms: int
    election_ms: int
    server_certificate: bytes
    peer_certificate: bytes


def fetch_authority(token: JoinToken, *, timeout_s: float) -> bytes:
    """Return the certificates of the token's cluster, in PEM, from the member that it names.

    The connection proves nothing, and nothing of the token is sent over it: what comes back has the
    token's fingerprint, or is not taken.

    Raises:
        NobodyAnswers: Perhaps it will a little later.
        UntrustedCluster: Somebody else answers.
    """
    endpoint = Endpoint.parse(token.address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    connection = http.client.HTTPSConnection(
        endpoint.host, endpoint.port, timeout=timeout_s, context=context
    )
    try:
        connection.request(
            "POST", _AUTHORITY_PATH, body=b"{}", headers={"Content-Type": "application/json"}
        )
        content = connection.getresponse().read(_ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise NobodyAnswers(f"no answer from {endpoint}: {_words(error)}") from None
    finally:
        connection.close()
    return _checked(content, token)


def _words(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else ""
    return text or type(error).__name__


def _checked(content: bytes, token: JoinToken) -> bytes:
    try:
        answer = json.loads(content)
        if "error" in answer:
            raise UntrustedCluster(f"{token.address} says: {answer['error']!a}")
        certificates = certificates_of(base64.b64decode(answer["certificates"], validate=True))
        check_authorities(certificates)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error, CertificateError):
        raise UntrustedCluster(
            f"{token.address} does not say who its authority is: is it a member of the cluster?"
        ) from None
    if not hmac.compare_digest(trust_fingerprint(certificates), token.fingerprint):
        raise UntrustedCluster(
            f"{token.address} has another authority than the token says: it is not the member that "
            "made the token, or somebody is in between"
        )
    return b"".join(map(certificate_pem, certificates))


@final
class Joining:
    """Tokens. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_token(self, ttl_s: int = 0) -> NewToken:
        """Make a token that is good for so many seconds, an hour for 0; administrators only."""
        answer = self._connection.call(
            f"{_SERVICE}/TokenAdd",
            joining_pb2.JoinTokenAddRequest(ttl_s=ttl_s),
            joining_pb2.JoinTokenAddResponse,
        )
        return NewToken(text=Secret.of_text(answer.token), expires_s=answer.expires_s)

    def redeem(
        self,
        token: JoinToken,
        *,
        name: str,
        peer_urls: Sequence[str],
        hosts: Sequence[str],
        server_request: bytes,
        peer_request: bytes,
    ) -> Admitted:
        """Become a member; the token is used up.

        Args:
            token: Whose authority the connection trusts, and no other.
            name: Of the member.
            peer_urls: Where other members will reach it.
            hosts: Where clients will.
            server_request: For the certificate that clients see; see `kvsecure.pki.requests`.
            peer_request: For the one that members see.
        """
        request = joining_pb2.JoinRedeemRequest(
            token_id=token.token_id,
            secret=token.secret.reveal(),
            name=name,
            peer_urls=peer_urls,
            hosts=hosts,
            server_request=server_request,
            peer_request=peer_request,
        )
        answer = self._connection.call(
            f"{_SERVICE}/Redeem", request, joining_pb2.JoinRedeemResponse, timeout_s=_REDEEM_S
        )
        return Admitted(
            cluster_name=answer.cluster_name,
            cluster_token=answer.cluster_token,
            members=tuple((each.name, tuple(each.peer_urls)) for each in answer.members),
            heartbeat_ms=answer.heartbeat_ms,
            election_ms=answer.election_ms,
            server_certificate=answer.server_certificate,
            peer_certificate=answer.peer_certificate,
        )
