"""The one TLS policy: which versions, ciphers and certificates every listener and client takes.

Owns: making `ssl` contexts, and refusing what would only fail at the first handshake.
Never: leaves a choice of cipher, ticket or renegotiation to a caller, or asks at a terminal.
Follows: RFC 9325 (TLS 1.2 with ECDHE and AEAD only); RFC 9113 section 9.2 (HTTP/2 over TLS).
Keeps: the certificate and the key that were checked are the ones that are used, because a file is
    read once and OpenSSL gets what was read.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

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
from kvsecure.pki.handshake import ServerContext
from kvsecure.pki.identity import UNREADABLE
from kvsecure.pki.revocation import ListError, RevocationList, lists_of, lists_pem
from kvsecure.pki.standing import NO_TRUST, Trust

__all__ = [
    "ALPN",
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
    """

    cert_file: Path
    key_file: Path
    trusted_ca_file: Path | None = None
    crl_file: Path | None = None
    client_certificates: ClientCertificates = ClientCertificates.REQUIRED
    minimum: MinimumVersion = MinimumVersion.TLS1_3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCredentials:
    """What was made of the files of a listener at one moment.

    `context` is for new connections, `trust` for those that are open already. `not_after` is the
    last moment that the server's own certificate is valid, in UTC.
    """

    context: ssl.SSLContext
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
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _apply_policy(context, tls.minimum, ALPN)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    # A resumed session skips the check of certificates. TLS 1.2 can also resume by session id, and
    # the ssl module cannot turn that off; who accepts connections refuses those.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    leaf = _present(context, tls.cert_file, tls.key_file, usage, moment=moment)
    trust = _trust_clients(context, tls, moment)
    return ServerCredentials(
        context=context,
        trust=trust,
        serial=leaf.serial_number,
        not_after=leaf.not_valid_after_utc,
    )


def _trust_clients(context: ssl.SSLContext, tls: ServerTls, moment: datetime) -> Trust:
    """Set up which client certificates are asked for and taken."""
    if tls.client_certificates is ClientCertificates.OFF:
        context.verify_mode = ssl.CERT_NONE
        return NO_TRUST
    if tls.trusted_ca_file is None:
        raise TrustError(
            "client certificates are asked for, but there is no trusted CA file to check them by"
        )
    anchors = _trust(context, tls.trusted_ca_file, moment)
    required = tls.client_certificates is ClientCertificates.REQUIRED
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    lists = None if tls.crl_file is None else _revoke(context, tls.crl_file)
    try:
        return Trust(anchors, lists)
    except CertificateError as error:
        raise TrustError(f"{tls.crl_file or tls.trusted_ca_file}: {error}") from None


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
        _trust(context, tls.trusted_ca_file, moment)
    if (tls.cert_file is None) is not (tls.key_file is None):
        raise TrustError(f"{tls.cert_file or tls.key_file}: a certificate and its key go together")
    if tls.cert_file is not None and tls.key_file is not None:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        _present(context, tls.cert_file, tls.key_file, usage, moment=moment)
    return context


def _apply_policy(context: ssl.SSLContext, minimum: MinimumVersion, alpn: tuple[str, ...]) -> None:
    tls13 = minimum is MinimumVersion.TLS1_3
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls13 else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))


def _present(
    context: ssl.SSLContext,
    cert_file: Path,
    key_file: Path,
    usage: ObjectIdentifier,
    *,
    moment: datetime,
) -> x509.Certificate:
    """Load the certificate and the key that this side shows; return the certificate."""
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
    content = b"".join(map(certificate_pem, chain)) + key_pem(key).reveal()
    with _in_memory(content) as path:
        try:
            context.load_cert_chain(path)
        except (ssl.SSLError, OSError) as error:
            raise TrustError(f"{cert_file}, {key_file}: OpenSSL refuses them: {error}") from None
    return chain[0]


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


def _trust(context: ssl.SSLContext, path: Path, moment: datetime) -> list[x509.Certificate]:
    """Trust every certificate of a bundle, and nothing else, as an anchor."""
    try:
        anchors = certificates_of(_read(path))
    except CertificateError as error:
        raise TrustError(f"{path}: {error}") from None
    # During a rotation an old one may have expired; that is no reason to refuse the new one.
    if all(moment > anchor.not_valid_after_utc for anchor in anchors):
        last = max(anchor.not_valid_after_utc for anchor in anchors)
        raise TrustError(f"{path} expired at {last:%Y-%m-%d %H:%M}Z")
    # What the operator lists is trusted as it is listed; a tenant's own authority need not bring
    # the root, which would let every other authority below that root in.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=b"".join(map(certificate_der, anchors)))
    except ssl.SSLError as error:
        raise TrustError(f"{path}: OpenSSL refuses it: {error}") from None
    return anchors


def _revoke(context: ssl.SSLContext, path: Path) -> tuple[RevocationList, ...]:
    """Refuse what the lists of a file hold, and whose issuer has no fresh list in it."""
    try:
        lists = lists_of(_read(path))
    except ListError as error:
        raise TrustError(f"{path}: {error}") from None
    with _in_memory(lists_pem(lists)) as source:
        try:
            context.load_verify_locations(cafile=source)
        except (ssl.SSLError, OSError) as error:
            raise TrustError(f"{path}: OpenSSL refuses it: {error}") from None
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return lists


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
