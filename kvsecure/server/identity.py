"""Whom a client certificate names, as the security room wants to know it.

Owns: choosing between the two ways of naming a user.
Never: checks a signature; the TLS library has.
Follows: design D7; etcd's way, the common name, only where it was asked for.
"""

from typing import Final, final

from kvsecure.pki.identity import IdentityError, Kind, Leaf, Reason, fingerprint_of
from kvsecure.security.session import CertificateUser

__all__ = ["IdentityOf", "fingerprint_of"]

_DEFAULT_TENANT: Final = "default"


@final
class IdentityOf:
    """Reads the certificates of one trust domain."""

    __slots__ = ("_by_common_name", "_trust_domain")

    def __init__(self, trust_domain: str, *, by_common_name: bool) -> None:
        self._trust_domain = trust_domain
        self._by_common_name = by_common_name

    def __call__(self, certificate: bytes) -> CertificateUser | None:
        """Return the user that a certificate (DER) names, or None if it names nobody here."""
        leaf = self._leaf(certificate)
        if leaf is None:
            return None
        try:
            identity = leaf.identity(self._trust_domain)
        except IdentityError as error:
            # One that has a URI and is refused for it does not get in by its common name instead.
            return self._common_name(leaf) if error.reason is Reason.NO_URI else None
        if identity.kind is not Kind.USER or identity.tenant is None:
            # A member's certificate is for the links between members.
            return None
        return CertificateUser(identity.tenant, identity.name)

    def _leaf(self, certificate: bytes) -> Leaf | None:
        try:
            return Leaf(certificate)
        except IdentityError:
            return None

    def _common_name(self, leaf: Leaf) -> CertificateUser | None:
        name = leaf.common_name if self._by_common_name else None
        return CertificateUser(_DEFAULT_TENANT, name) if name else None
