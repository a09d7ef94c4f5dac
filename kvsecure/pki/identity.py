"""Identities in certificates: who a certificate says its holder is.

    spiffe://<tenant>.<cluster>.kvsecure/user/<name>     a person or an application
    spiffe://<cluster>.kvsecure/node/<member>            a member of the cluster

Owns: the grammar of names, labels and identity URIs, and reading them from a certificate.
Never: checks signatures or dates (the TLS library has), looks a name up in DNS, or takes the common
    name for an identity; `common_name` exists for the switch that asks for etcd's way.
Follows: SPIFFE X509-SVID section 2 (exactly one URI); RFC 5280 section 4.2.1.10: name constraints
    see the host of a URI and not its path, hence the tenant is in the host.
Keeps: `uri_of` and `identity_of_uri` are inverse; any bytes give an identity or IdentityError.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

__all__ = [
    "DEFAULT_TENANT_LABEL",
    "UNREADABLE",
    "URI_TEMPLATES",
    "Identity",
    "IdentityError",
    "Kind",
    "Leaf",
    "Reason",
    "common_name_of",
    "fingerprint_of",
    "identity_of",
    "identity_of_uri",
    "is_label",
    "is_name",
    "issuer_hash",
    "serial_of",
    "uri_of",
]

# Users outside any named tenant.
DEFAULT_TENANT_LABEL: Final = "default"

# What the X.509 library raises over bytes that are no certificate, or one with damaged parts. Over
# some of these it only warns, and an interpreter may be told to raise its warnings.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    Warning,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_SCHEME: Final = "spiffe://"
_ROOT_LABEL: Final = "kvsecure"
# The longest valid URI has 9 + 63 + 1 + 63 + 9 + 6 + 128 characters.
_URI_CHARACTERS_MAX: Final = 279
# `fullmatch` throughout: `$` would let a trailing newline pass.
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DOTS: Final = frozenset({".", ".."})


class Kind(Enum):
    """What an identity is of; the value is the first segment of its URI's path."""

    USER = "user"
    NODE = "node"


URI_TEMPLATES: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.USER: "spiffe://{tenant}.{cluster}.kvsecure/user/{name}",
        Kind.NODE: "spiffe://{cluster}.kvsecure/node/{name}",
    }
)

# Exactly these: a user's certificate that can also serve is the "one certificate for everything".
_USAGES: Final[Mapping[Kind, frozenset[ObjectIdentifier]]] = MappingProxyType(
    {
        Kind.USER: frozenset({ExtendedKeyUsageOID.CLIENT_AUTH}),
        Kind.NODE: frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}),
    }
)


class Reason(Enum):
    """Why a certificate gives no identity; the value is the sentence for people."""

    MALFORMED = "it is not a certificate that can be read"
    AUTHORITY = "it is an authority's certificate, which is nobody's identity"
    NO_URI = "it has no URI among its names"
    SEVERAL_URIS = "it has several URIs among its names, so it is not clear who it is"
    WRONG_USAGE = "its extended key usage is not that of its kind of identity"
    WRONG_SCHEME = "its URI does not begin with spiffe://"
    BAD_CHARACTERS = "its URI is too long or has characters that no identity has"
    WILDCARD = "its URI has a wildcard"
    USERINFO = "its URI has a user part before the host"
    PORT = "its URI has a port"
    QUERY = "its URI has a query"
    FRAGMENT = "its URI has a fragment"
    PERCENT_ESCAPE = "its URI has percent escapes"
    UPPERCASE_HOST = "the host of its URI has capital letters"
    FOREIGN_TRUST_DOMAIN = "the host of its URI is not of a kvsecure cluster"
    FOREIGN_CLUSTER = "it is of another cluster"
    BAD_LABEL = "a cluster or tenant label is not 1 to 63 of a-z, 0-9 and inner hyphens"
    BAD_SEGMENTS = "the path of its URI has empty, dot, missing or surplus segments"
    WRONG_KIND = "its URI is neither <tenant>.<cluster>/user/<name> nor <cluster>/node/<member>"
    BAD_NAME = "a name is not 1 to 128 of A-Z, a-z, 0-9, dot, underscore and hyphen"


@final
class IdentityError(Exception):
    """A certificate, URI or name gives no identity."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the holder of a certificate is; `tenant` is None for a node and only for a node.

    Raises:
        IdentityError: A label or name is not one, or the tenant does not go with the kind.
    """

    kind: Kind
    cluster: str
    tenant: str | None
    name: str

    def __post_init__(self) -> None:
        if (self.tenant is None) is not (self.kind is Kind.NODE):
            raise IdentityError(Reason.WRONG_KIND)
        labels = (self.cluster,) if self.tenant is None else (self.tenant, self.cluster)
        if not all(map(is_label, labels)):
            raise IdentityError(Reason.BAD_LABEL)
        if self.name in _DOTS:
            raise IdentityError(Reason.BAD_SEGMENTS)
        if not is_name(self.name):
            raise IdentityError(Reason.BAD_NAME)


def is_label(text: str) -> bool:
    """Tell whether a text can be the label of a cluster or a tenant."""
    return _LABEL.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a user or a member in a URI."""
    return _NAME.fullmatch(text) is not None and text not in _DOTS


def uri_of(identity: Identity) -> str:
    """Return the one URI that stands for the identity."""
    return URI_TEMPLATES[identity.kind].format(
        tenant=identity.tenant, cluster=identity.cluster, name=identity.name
    )


def identity_of_uri(uri: str) -> Identity:
    """Return the identity that a URI stands for.

    Nothing is normalised: every identity has one spelling, and any other spelling is refused.

    Raises:
        IdentityError: It stands for none.
    """
    _check_spelling(uri)
    host, _, path = uri.removeprefix(_SCHEME).partition("/")
    *labels, root = host.split(".")
    if root != _ROOT_LABEL or not 1 <= len(labels) <= 2:
        raise IdentityError(Reason.FOREIGN_TRUST_DOMAIN)
    segments = path.split("/")
    if len(segments) != 2 or "" in segments or _DOTS.intersection(segments):
        raise IdentityError(Reason.BAD_SEGMENTS)
    if segments[0] not in {Kind.USER.value, Kind.NODE.value}:
        raise IdentityError(Reason.WRONG_KIND)
    return Identity(
        kind=Kind(segments[0]),
        cluster=labels[-1],
        tenant=labels[0] if len(labels) == 2 else None,
        name=segments[1],
    )


def _check_spelling(uri: str) -> None:
    """Refuse what URIs may have and identities never do, each by its own reason."""
    if not uri.startswith(_SCHEME):
        raise IdentityError(Reason.WRONG_SCHEME)
    if len(uri) > _URI_CHARACTERS_MAX or not uri.isascii() or not uri.isprintable():
        raise IdentityError(Reason.BAD_CHARACTERS)
    for mark, reason in (
        ("%", Reason.PERCENT_ESCAPE),
        ("*", Reason.WILDCARD),
        ("?", Reason.QUERY),
        ("#", Reason.FRAGMENT),
        ("@", Reason.USERINFO),
    ):
        if mark in uri:
            raise IdentityError(reason)
    host = uri.removeprefix(_SCHEME).partition("/")[0]
    if ":" in host:
        raise IdentityError(Reason.PORT)
    if host != host.lower():
        raise IdentityError(Reason.UPPERCASE_HOST)


@final
class Leaf:
    """A certificate that a peer presented, parsed once.

    Make one for each connection; the module's functions are for those who need a single answer.
    """

    __slots__ = ("_certificate", "_der")

    def __init__(self, der: bytes) -> None:
        """Parse a certificate.

        Raises:
            IdentityError: The bytes are not a certificate.
        """
        self._der = der
        try:
            self._certificate = x509.load_der_x509_certificate(der)
        except UNREADABLE:
            raise IdentityError(Reason.MALFORMED) from None
        # RFC 5280 section 4.1.2.2; revocation goes by serial numbers.
        if self._certificate.serial_number <= 0:
            raise IdentityError(Reason.MALFORMED)

    def identity(self, cluster: str | None = None) -> Identity:
        """Return whose certificate it is.

        Args:
            cluster: The only cluster whose identities count; None leaves that to the caller.

        Raises:
            IdentityError: It is not the certificate of exactly one user or node.
        """
        try:
            extensions = self._certificate.extensions
            uris = _uris(extensions)
            usages = _usages(extensions)
            is_authority = _is_authority(extensions)
        except UNREADABLE:
            raise IdentityError(Reason.MALFORMED) from None
        if is_authority:
            raise IdentityError(Reason.AUTHORITY)
        if not uris:
            raise IdentityError(Reason.NO_URI)
        if len(uris) > 1:
            raise IdentityError(Reason.SEVERAL_URIS)
        identity = identity_of_uri(uris[0])
        if cluster is not None and identity.cluster != cluster:
            raise IdentityError(Reason.FOREIGN_CLUSTER)
        if usages != _USAGES[identity.kind]:
            raise IdentityError(Reason.WRONG_USAGE)
        return identity

    @property
    def common_name(self) -> str | None:
        """The subject's common name; None if there is none, several, or an empty one.

        It is an identity only for a server that was told to do as etcd does.
        """
        try:
            names = self._certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except UNREADABLE:
            return None
        value = names[0].value if len(names) == 1 else None
        return value if isinstance(value, str) and value else None

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate, 32 bytes."""
        return hashlib.sha256(self._der).digest()

    @property
    def serial(self) -> int:
        """The serial number; unique only together with `issuer_hash`."""
        return self._certificate.serial_number

    @property
    def issuer_hash(self) -> bytes:
        """SHA-256 of the issuer's name as encoded in DER, 32 bytes."""
        try:
            return hashlib.sha256(self._certificate.issuer.public_bytes()).digest()
        except UNREADABLE:
            raise IdentityError(Reason.MALFORMED) from None

    @property
    def not_after(self) -> datetime:
        """The last moment it is valid, in UTC."""
        return self._certificate.not_valid_after_utc


def identity_of(certificate_der: bytes, cluster: str | None = None) -> Identity:
    """Return whose certificate it is; see `Leaf.identity`.

    Raises:
        IdentityError: It is not the certificate of exactly one user or node.
    """
    return Leaf(certificate_der).identity(cluster)


def common_name_of(certificate_der: bytes) -> str | None:
    """Return the subject's common name; see `Leaf.common_name`.

    Raises:
        IdentityError: The bytes are not a certificate.
    """
    return Leaf(certificate_der).common_name


def fingerprint_of(certificate_der: bytes) -> bytes:
    """Return the SHA-256 of the certificate, 32 bytes; any bytes have one."""
    return hashlib.sha256(certificate_der).digest()


def serial_of(certificate_der: bytes) -> int:
    """Return the serial number; unique only together with `issuer_hash`.

    Raises:
        IdentityError: The bytes are not a certificate.
    """
    return Leaf(certificate_der).serial


def issuer_hash(certificate_der: bytes) -> bytes:
    """Return the SHA-256 of the issuer's name as encoded in DER, 32 bytes.

    Raises:
        IdentityError: The bytes are not a certificate.
    """
    return Leaf(certificate_der).issuer_hash


def _uris(extensions: x509.Extensions) -> list[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _usages(extensions: x509.Extensions) -> frozenset[ObjectIdentifier]:
    try:
        return frozenset(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return frozenset()


def _is_authority(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
