"""The one TLS policy: which versions, ciphers and certificates every listener and client takes.

Owns: making `ssl` contexts, and refusing what would only fail at the first handshake.
Never: leaves a choice of cipher, ticket or renegotiation to a caller, or asks at a terminal.
Follows: RFC 9325 (TLS 1.2 with ECDHE and AEAD only); RFC 9113 section 9.2 (HTTP/2 over TLS).
Keeps: the certificate and the key that were checked are the ones that are used, because a file is
    read once and OpenSSL gets what was read.
"""

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple, final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from kvsecure.model.errors import invariant
from kvsecure.model.secret import Secret
from kvsecure.pki.certificates import (
    CertificateError,
    certificate_der,
    certificate_pem,
    certificates_of,
    key_of,
    key_pem,
    same_key,
)
from kvsecure.pki.files import UnsafeFile, read_private, read_public
from kvsecure.pki.handshake import LivingContext
from kvsecure.pki.identity import UNREADABLE, Identity, IdentityError, Leaf, uri_of
from kvsecure.pki.revocation import ListError, RevocationList, lists_of, lists_pem
from kvsecure.pki.standing import NO_TRUST, Trust

__all__ = [
    "ALPN",
    "MEMBER_ALPN",
    "ClientCertificates",
    "ClientTls",
    "MinimumVersion",
    "ServerCredentials",
    "ServerTls",
    "TrustError",
    "client_context",
    "server_context",
    "server_credentials",
]

ALPN: Final = ("h2", "http/1.1")
# What members speak with each other, and nobody else does.
MEMBER_ALPN: Final = ("kvsecure-peer",)

# Ephemeral keys and authenticated encryption only; TLS 1.3 knows nothing else. Level 2 demands 112
# bits of strength of every key and signature.
_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"


_USAGE_NAMES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
}


@final
class TrustError(Exception):
    """TLS cannot be set up; the text names the file and what is wrong with it."""


class ClientCertificates(Enum):
    """What a listener asks of its clients."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    OFF = "off"


class MinimumVersion(Enum):
    """The lowest version of TLS that is spoken."""

    TLS1_2 = "TLS1.2"
    TLS1_3 = "TLS1.3"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """TLS of a listener.

    `cert_file` holds the certificate and the chain below the root. Every certificate in
    `trusted_ca_file` is trusted to sign clients, whether it is a root or not, and nothing else is.
    With a `crl_file`, the issuer of every client certificate must have a fresh list in it.

    With a `member`, it is TLS of the links between the members of a cluster, whichever side dials:
    TLS 1.3, and the certificate must be that member's.
    """

    cert_file: Path
    key_file: Path
    trusted_ca_file: Path | None = None
    crl_file: Path | None = None
    client_certificates: ClientCertificates = ClientCertificates.REQUIRED
    minimum: MinimumVersion = MinimumVersion.TLS1_3
    member: Identity | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCredentials:
    """What was made of the files of a listener at one moment.

    `context` is for new connections, `trust` for those that are open already. `not_after` is the
    last moment that the server's own certificate is valid, in UTC. `dialing` is for connections
    that a member opens to other ones; a server that is no member has none.
    """

    context: ssl.SSLContext
    dialing: ssl.SSLContext | None
    trust: Trust
    serial: int
    not_after: datetime


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """TLS of a client; without a `trusted_ca_file` the system's authorities are trusted.

    `cert_file` and `key_file` go together, and are left out by clients that have no certificate.
    """

    trusted_ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    minimum: MinimumVersion = MinimumVersion.TLS1_3
    alpn: tuple[str, ...] = ALPN


class _Shown(NamedTuple):
    """What a side shows: its certificate, PEM of the chain and the key, and whence they come."""

    leaf: x509.Certificate
    content: Secret
    files: str


def server_context(tls: ServerTls, now: datetime | None = None) -> ssl.SSLContext:
    """Return the context of a listener; see `server_credentials`.

    Raises:
        TrustError: A file is missing, exposed, damaged, expired, or does not go with the others.
    """
    return server_credentials(tls, now).context


def server_credentials(tls: ServerTls, now: datetime | None = None) -> ServerCredentials:
    """Return what a listener shows, and whom it trusts.

    It reads its files now; to take up new ones, call it again and give the new context to new
    connections. A revocation list that is overdue is taken, and lets nobody of its issuer in.

    Args:
        tls: What to serve with.
        now: The moment at which certificates must be valid, in UTC; None means this moment.

    Raises:
        TrustError: A file is missing, exposed, damaged, expired, or does not go with the others.
    """
    moment = now or datetime.now(UTC)
    # Not `create_default_context`, which writes session keys to a file that the environment names.
    context = LivingContext(ssl.PROTOCOL_TLS_SERVER)
    _apply_policy(context, tls.minimum, ALPN if tls.member is None else MEMBER_ALPN)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    # A resumed session skips the check of certificates. TLS 1.2 can also resume by session id, and
    # the ssl module cannot turn that off; who accepts connections refuses those.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    shown = _shown(tls.cert_file, tls.key_file, ExtendedKeyUsageOID.SERVER_AUTH, moment=moment)
    _present(context, shown)
    if tls.member is not None:
        _check_member(shown, tls, tls.member)
    anchors, lists = _trusted(tls, moment)
    _trust_clients(context, tls, anchors, lists)
    try:
        trust = Trust(anchors, lists) if anchors else NO_TRUST
    except CertificateError as error:
        raise TrustError(f"{tls.crl_file or tls.trusted_ca_file}: {error}") from None
    return ServerCredentials(
        context=context,
        dialing=None if tls.member is None else _dialing_context(shown, tls, anchors, lists),
        trust=trust,
        serial=shown.leaf.serial_number,
        not_after=shown.leaf.not_valid_after_utc,
    )


def _trusted(
    tls: ServerTls, moment: datetime
) -> tuple[list[x509.Certificate], tuple[RevocationList, ...] | None]:
    """Read whom a listener trusts, and what they have revoked."""
    if tls.client_certificates is ClientCertificates.OFF:
        return [], None
    if tls.trusted_ca_file is None:
        raise TrustError(
            "client certificates are asked for, but there is no trusted CA file to check them by"
        )
    anchors = _anchors(tls.trusted_ca_file, moment)
    return anchors, None if tls.crl_file is None else _lists(tls.crl_file)


def _trust_clients(
    context: ssl.SSLContext,
    tls: ServerTls,
    anchors: Sequence[x509.Certificate],
    lists: Sequence[RevocationList] | None,
) -> None:
    """Set up which client certificates are asked for and taken."""
    if tls.client_certificates is ClientCertificates.OFF:
        context.verify_mode = ssl.CERT_NONE
        return
    _trust(context, tls.trusted_ca_file, anchors)
    required = tls.client_certificates is ClientCertificates.REQUIRED
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    _revoke(context, tls.crl_file, lists)


def _check_member(shown: _Shown, tls: ServerTls, member: Identity) -> None:
    """Refuse what would only be refused by other members."""
    invariant(
        tls.minimum is MinimumVersion.TLS1_3
        and tls.client_certificates is ClientCertificates.REQUIRED,
        "members speak TLS 1.3, and know each other by their certificates",
    )
    try:
        identity = Leaf(certificate_der(shown.leaf)).identity(member.cluster)
    except IdentityError as error:
        raise TrustError(f"{tls.cert_file} is not a member's certificate: {error}") from None
    if identity != member:
        raise TrustError(
            f"{tls.cert_file} is the certificate of {uri_of(identity)}, not of {uri_of(member)}"
        )


def _dialing_context(
    shown: _Shown,
    tls: ServerTls,
    anchors: Sequence[x509.Certificate],
    lists: Sequence[RevocationList] | None,
) -> ssl.SSLContext:
    """Return the context by which a member opens connections to others.

    Who answers is known by the URI in its certificate: no host name is checked.
    """
    context = LivingContext(ssl.PROTOCOL_TLS_CLIENT)
    _apply_policy(context, MinimumVersion.TLS1_3, MEMBER_ALPN)
    context.check_hostname = False
    _present(context, shown)
    _trust(context, tls.trusted_ca_file, anchors)
    _revoke(context, tls.crl_file, lists)
    return context


def client_context(tls: ClientTls, now: datetime | None = None) -> ssl.SSLContext:
    """Return the context of a client; it checks the server's chain and its host name.

    Args:
        tls: Whom to trust and what to show.
        now: The moment at which certificates must be valid, in UTC; None means this moment.

    Raises:
        TrustError: A file is missing, exposed, damaged, expired, or does not go with the others.
    """
    moment = now or datetime.now(UTC)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _apply_policy(context, tls.minimum, tls.alpn)
    # A host is what the certificate names as one; the common name is for people.
    context.hostname_checks_common_name = False
    if tls.trusted_ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, tls.trusted_ca_file, _anchors(tls.trusted_ca_file, moment))
    if (tls.cert_file is None) is not (tls.key_file is None):
        raise TrustError(f"{tls.cert_file or tls.key_file}: a certificate and its key go together")
    if tls.cert_file is not None and tls.key_file is not None:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        _present(context, _shown(tls.cert_file, tls.key_file, usage, moment=moment))
    return context


def _apply_policy(context: ssl.SSLContext, minimum: MinimumVersion, alpn: tuple[str, ...]) -> None:
    tls13 = minimum is MinimumVersion.TLS1_3
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls13 else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))


def _shown(
    cert_file: Path,
    key_file: Path,
    usage: ObjectIdentifier,
    *,
    moment: datetime,
) -> _Shown:
    """Read the certificate and the key that a side shows."""
    try:
        chain = certificates_of(_read(cert_file))
    except CertificateError as error:
        raise TrustError(f"{cert_file}: {error}") from None
    _check_leaf(cert_file, chain[0], usage, moment)
    try:
        key = key_of(_read_key(key_file))
        is_pair = same_key(chain[0], key)
    except CertificateError as error:
        raise TrustError(f"{key_file}: {error}") from None
    if not is_pair:
        raise TrustError(f"{key_file} is not the key of the certificate in {cert_file}")
    content = Secret(b"".join(map(certificate_pem, chain)) + key_pem(key).reveal())
    return _Shown(chain[0], content, f"{cert_file}, {key_file}")


def _present(context: ssl.SSLContext, shown: _Shown) -> None:
    """Load the certificate and the key that this side shows."""
    with _in_memory(shown.content.reveal()) as path:
        try:
            context.load_cert_chain(path)
        except (ssl.SSLError, OSError) as error:
            raise TrustError(f"{shown.files}: OpenSSL refuses them: {error}") from None


def _check_leaf(
    path: Path, leaf: x509.Certificate, usage: ObjectIdentifier, moment: datetime
) -> None:
    if moment > leaf.not_valid_after_utc:
        raise TrustError(f"{path} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M}Z")
    if moment < leaf.not_valid_before_utc:
        raise TrustError(
            f"{path} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M}Z: "
            "is the clock of this machine right?"
        )
    try:
        usages = frozenset(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        # Without the extension it is for everything, which no certificate of a server should be.
        usages = frozenset() if usage == ExtendedKeyUsageOID.SERVER_AUTH else frozenset({usage})
    except UNREADABLE:
        raise TrustError(f"{path} has parts that cannot be read") from None
    if usage not in usages:
        raise TrustError(f"{path} lacks {_USAGE_NAMES[usage]} in its extended key usage")


def _anchors(path: Path, moment: datetime) -> list[x509.Certificate]:
    """Read a bundle of which every certificate, and nothing else, is an anchor."""
    try:
        anchors = certificates_of(_read(path))
    except CertificateError as error:
        raise TrustError(f"{path}: {error}") from None
    # During a rotation an old one may have expired; that is no reason to refuse the new one.
    if all(moment > anchor.not_valid_after_utc for anchor in anchors):
        last = max(anchor.not_valid_after_utc for anchor in anchors)
        raise TrustError(f"{path} expired at {last:%Y-%m-%d %H:%M}Z")
    return anchors


def _trust(context: ssl.SSLContext, path: Path | None, anchors: Sequence[x509.Certificate]) -> None:
    # What the operator lists is trusted as it is listed; a tenant's own authority need not bring
    # the root, which would let every other authority below that root in.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=b"".join(map(certificate_der, anchors)))
    except ssl.SSLError as error:
        raise TrustError(f"{path}: OpenSSL refuses it: {error}") from None


def _lists(path: Path) -> tuple[RevocationList, ...]:
    try:
        return lists_of(_read(path))
    except ListError as error:
        raise TrustError(f"{path}: {error}") from None


def _revoke(
    context: ssl.SSLContext, path: Path | None, lists: Sequence[RevocationList] | None
) -> None:
    """Refuse what the lists hold, and whose issuer has no fresh one; without lists, nobody."""
    if lists is None:
        return
    with _in_memory(lists_pem(lists)) as source:
        try:
            context.load_verify_locations(cafile=source)
        except (ssl.SSLError, OSError) as error:
            raise TrustError(f"{path}: OpenSSL refuses it: {error}") from None
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _read(path: Path) -> bytes:
    try:
        return read_public(path)
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror}") from None
    except UnsafeFile as error:
        raise TrustError(str(error)) from None


def _read_key(path: Path) -> Secret:
    try:
        return read_private(path)
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror}") from None
    except UnsafeFile as error:
        raise TrustError(str(error)) from None


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give OpenSSL, which only takes paths, the very bytes that were checked."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as sink:
            sink.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
