"""The authority of one cluster: who gets a certificate, and for how long.

    <directory>/ca.crt             its certificate; below it, if another authority signed it, those
    <directory>/ca.key             its key, 0600
    <directory>/authority.json     the cluster it is of
    <directory>/profiles/*.yaml    what it issues; may be tightened, never widened
    <directory>/issued.jsonl       what it issued
    <directory>/revoked.jsonl      what it took back, see revoking.py

Owns: the directory of an authority, and the rules by which it issues.
Never: overwrites an authority, signs what a profile does not give, or lets a key leave except in
    `Issued`, once.
Keeps: no certificate outlives its issuer; what was issued was read back and checked, and is in the
    index, before anybody gets it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kvsecure.model.errors import invariant
from kvsecure.model.secret import Secret
from kvsecure.pki import index
from kvsecure.pki.certificates import (
    CertificateError,
    PrivateKey,
    PublicKey,
    Validity,
    authority_key_identifier,
    certificate_der,
    certificate_pem,
    certificates_of,
    check_authorities,
    key_of,
    key_pem,
    make_authority,
    make_leaf,
    new_key,
    same_key,
    signature_hash,
    trust_fingerprint,
)
from kvsecure.pki.files import (
    Existing,
    UnsafeFile,
    ensure_directory,
    read_private,
    read_public,
    write_private,
    write_public,
)
from kvsecure.pki.hosts import Host, HostError, parse_host
from kvsecure.pki.identity import (
    DEFAULT_TENANT_LABEL,
    Identity,
    IdentityError,
    Kind,
    identity_of,
    is_label,
    is_name,
    uri_of,
)
from kvsecure.pki.profiles import (
    Profile,
    ProfileName,
    duration_text,
    load_profile,
    shipped_profile,
    shipped_profile_path,
)
from kvsecure.pki.requests import requested_key

__all__ = ["HOSTS_MAX", "Authority", "AuthorityError", "Issued", "create_authority", "utc_now"]

# A certificate travels in every handshake; with more names than this it is one for everything.
HOSTS_MAX: Final = 64

_FORMAT: Final = 1
# So that a machine whose clock is a little behind accepts a certificate that was just made.
_BACKDATED: Final = timedelta(minutes=5)

_ISSUED_PROFILES: Final = (ProfileName.SERVER, ProfileName.PEER, ProfileName.CLIENT)

Clock = Callable[[], datetime]


@final
class AuthorityError(Exception):
    """An authority cannot be made or used, or refuses to issue; the text says why."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new certificate with its key.

    A server sends `certificate_pem` followed by `chain_pem`. The chain holds the authorities
    between the certificate and the root; it is empty when the authority is the root itself.
    `identity` is None for a certificate that only names hosts.
    """

    certificate_pem: bytes
    chain_pem: bytes
    private_key: Secret
    serial: int
    not_after: datetime
    identity: Identity | None


def utc_now() -> datetime:
    """Return the time of day in UTC."""
    return datetime.now(UTC)


def create_authority(directory: Path, cluster: str, clock: Clock = utc_now) -> "Authority":
    """Make the authority of a cluster.

    Args:
        directory: Where it will live; made with mode 0700 if it is not there.
        cluster: The label of the cluster's trust domain, `<cluster>.kvsecure`.
        clock: Tells the time in UTC.

    Raises:
        AuthorityError: There is one already, the label is none, or a file cannot be written.
    """
    if not is_label(cluster):
        raise AuthorityError(
            f"{cluster!r} cannot name a cluster: use 1 to 63 of a-z, 0-9 and inner hyphens"
        )
    profile = shipped_profile(ProfileName.AUTHORITY)
    key = new_key(profile.key_type)
    now = clock().replace(microsecond=0)
    validity = Validity(not_before=now - _BACKDATED, not_after=now + profile.ttl_default)
    certificate = make_authority(profile, cluster=cluster, key=key, validity=validity)
    record = json.dumps({"format": _FORMAT, "cluster": cluster}).encode() + b"\n"
    try:
        ensure_directory(directory / "profiles")
        # The key first: of two that start at once, only one gets past it. The certificate last: an
        # authority that has one is complete.
        write_private(directory / "ca.key", key_pem(key), Existing.REFUSE)
        for name in _ISSUED_PROFILES:
            content = read_public(shipped_profile_path(name))
            write_public(directory / "profiles" / f"{name.value}.yaml", content, Existing.REFUSE)
        write_private(directory / "issued.jsonl", b"", Existing.REFUSE)
        write_public(directory / "authority.json", record, Existing.REFUSE)
        write_public(directory / "ca.crt", certificate_pem(certificate), Existing.REFUSE)
    except FileExistsError:
        raise AuthorityError(
            f"{directory} holds an authority already, or a part of one: it is never overwritten"
        ) from None
    except OSError as error:
        raise AuthorityError(f"{directory} cannot be written: {error}") from None
    return Authority.open(directory, clock)


@final
class Authority:
    """An authority, opened: it can issue."""

    __slots__ = ("_certificates", "_clock", "_key", "cluster", "directory")

    def __init__(
        self,
        *,
        directory: Path,
        cluster: str,
        certificates: Sequence[x509.Certificate],
        key: PrivateKey,
        clock: Clock,
    ) -> None:
        self.directory = directory
        self._certificates = tuple(certificates)
        self._key = key
        self._clock = clock
        self.cluster = cluster

    @classmethod
    def open(cls, directory: Path, clock: Clock = utc_now) -> Self:
        """Open the authority in a directory.

        Raises:
            AuthorityError: There is none, its files do not go together, or its key is exposed.
        """
        try:
            cluster = _cluster_of(read_public(directory / "authority.json"))
            certificates = certificates_of(read_public(directory / "ca.crt"))
            key = key_of(read_private(directory / "ca.key"))
            if not same_key(certificates[0], key):
                raise AuthorityError(f"{directory}: ca.key is not the key of ca.crt")
            check_authorities(certificates)
        except FileNotFoundError as error:
            raise AuthorityError(
                f"{directory} holds no authority (no {Path(error.filename).name}): "
                "make one with `kvsecure pki init`"
            ) from None
        except (OSError, UnsafeFile) as error:
            raise AuthorityError(str(error)) from None
        except CertificateError as error:
            raise AuthorityError(f"{directory}: {error}") from None
        return cls(
            directory=directory, cluster=cluster, certificates=certificates, key=key, clock=clock
        )

    @property
    def trust_pem(self) -> bytes:
        """What those who shall trust this authority need: the content of `ca.crt`."""
        return b"".join(map(certificate_pem, self._certificates))

    @property
    def fingerprint(self) -> bytes:
        """What a join token says of it; see `trust_fingerprint`."""
        return trust_fingerprint(self._certificates)

    @property
    def not_after(self) -> datetime:
        """The last moment it is valid, in UTC; nothing it issues lives longer."""
        return min(one.not_valid_after_utc for one in self._certificates)

    def now(self) -> datetime:
        """Return the time of day in UTC, in whole seconds."""
        return self._clock().replace(microsecond=0)

    def sign_list(
        self, builder: x509.CertificateRevocationListBuilder
    ) -> x509.CertificateRevocationList:
        """Sign a revocation list as this authority."""
        named = builder.issuer_name(self._certificates[0].subject).add_extension(
            authority_key_identifier(self._certificates[0]), critical=False
        )
        return named.sign(self._key, signature_hash(self._key))

    def issued(self) -> index.Index:
        """Return what it has issued.

        Raises:
            AuthorityError: The index cannot be read.
        """
        try:
            return index.read(self.directory / "issued.jsonl")
        except OSError as error:
            raise AuthorityError(f"the index cannot be read: {error}") from None

    def issue(
        self,
        profile: ProfileName,
        name: str,
        tenant: str | None = None,
        hosts: Sequence[str] = (),
        ttl: timedelta | None = None,
    ) -> Issued:
        """Make a key and a certificate for it.

        Args:
            profile: Which sort; `AUTHORITY` is refused.
            name: User, member, or what to call the server.
            tenant: The user's tenant, the default one if None; only users have one.
            hosts: DNS names and addresses, at most `HOSTS_MAX`; none means the profile's.
            ttl: Lifetime, at most the profile's maximum; None means the profile's default, cut
                short where the authority itself ends.

        Raises:
            AuthorityError: The profile or the authority does not allow it.
            ProfileError: The authority's copy of the profile cannot be used.
        """
        rules = self._rules(profile)
        identity = self._identity(rules, name, tenant)
        key = new_key(rules.key_type)
        certificate = self._make(rules, name, identity, hosts, ttl, key.public_key())
        return Issued(
            certificate_pem=certificate_pem(certificate),
            chain_pem=self._chain_pem,
            private_key=key_pem(key),
            serial=certificate.serial_number,
            not_after=certificate.not_valid_after_utc,
            identity=identity,
        )

    def certify(
        self, profile: ProfileName, name: str, request: bytes, hosts: Sequence[str] = ()
    ) -> bytes:
        """Make a certificate for a key that stays with who asks; return it with its chain, in PEM.

        Args:
            profile: Of a server or of a member.
            name: The member, or what to call the server.
            request: Proves that who asks has the key; nothing else in it counts.
            hosts: DNS names and addresses, at most `HOSTS_MAX`; none means the profile's.

        Raises:
            AuthorityError: The profile or the authority does not allow it.
            ProfileError: The authority's copy of the profile cannot be used.
            CertificateError: The request does not prove it, or the key is of no kind that is used.
        """
        public = requested_key(request)
        rules = self._rules(profile)
        identity = self._identity(rules, name, None)
        certificate = self._make(rules, name, identity, hosts, None, public)
        return certificate_pem(certificate) + self._chain_pem

    def check_certifiable(
        self, profile: ProfileName, name: str, request: bytes, hosts: Sequence[str] = ()
    ) -> None:
        """Check what `certify` checks, and make nothing; it raises the same."""
        requested_key(request)
        rules = self._rules(profile)
        self._identity(rules, name, None)
        _hosts(rules, hosts)
        self._validity(rules, None)

    @property
    def _chain_pem(self) -> bytes:
        return b"".join(
            certificate_pem(one) for one in self._certificates if one.subject != one.issuer
        )

    def _rules(self, profile: ProfileName) -> Profile:
        if profile not in _ISSUED_PROFILES:
            raise AuthorityError("an authority of this kind signs no authorities")
        return load_profile(profile, self.directory / "profiles" / f"{profile.value}.yaml")

    def _make(
        self,
        rules: Profile,
        name: str,
        identity: Identity | None,
        hosts: Sequence[str],
        ttl: timedelta | None,
        public: PublicKey,
    ) -> x509.Certificate:
        """Make, check and record a certificate."""
        named = _hosts(rules, hosts)
        if identity is None and not named:
            raise AuthorityError(f"a certificate for {name} would name nothing: give a host")
        certificate = make_leaf(
            rules,
            name=name,
            identity=identity,
            hosts=named,
            public=public,
            validity=self._validity(rules, ttl),
            authority=self._certificates[0],
            authority_key=self._key,
        )
        self._check_issued(certificate_pem(certificate), identity)
        self._record(rules.name, name, certificate, identity)
        return certificate

    def _identity(self, rules: Profile, name: str, tenant: str | None) -> Identity | None:
        if tenant is not None and rules.uri is not Kind.USER:
            raise AuthorityError(f"a {rules.name.value} certificate is of no tenant")
        if rules.uri is None:
            if not is_name(name):
                raise AuthorityError(
                    f"{name!r} cannot be a name: use 1 to 128 of A-Z a-z 0-9 . _ -"
                )
            return None
        owner = (tenant or DEFAULT_TENANT_LABEL) if rules.uri is Kind.USER else None
        try:
            return Identity(kind=rules.uri, cluster=self.cluster, tenant=owner, name=name)
        except IdentityError as error:
            raise AuthorityError(f"{name!r} of {owner or self.cluster!r}: {error}") from None

    def _validity(self, rules: Profile, ttl: timedelta | None) -> Validity:
        now = self.now()
        if now >= self.not_after:
            raise AuthorityError(f"the authority has expired, at {self.not_after:%Y-%m-%d %H:%M}Z")
        if ttl is None:
            end = min(now + rules.ttl_default, self.not_after)
        elif not timedelta() < ttl <= rules.ttl_max:
            raise AuthorityError(
                f"the profile {rules.name.value} gives at most {duration_text(rules.ttl_max)}"
            )
        else:
            end = now + ttl
        if end > self.not_after:
            raise AuthorityError(
                f"the authority itself ends before that, at {self.not_after:%Y-%m-%d %H:%M}Z"
            )
        start = max(one.not_valid_before_utc for one in self._certificates)
        return Validity(not_before=max(now - _BACKDATED, start), not_after=end)

    def _check_issued(self, pem: bytes, identity: Identity | None) -> None:
        """Read back what was made, with the eyes of those who will be shown it."""
        made = certificates_of(pem)[0]
        authority = self._certificates[0]
        try:
            made.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError):
            raise AuthorityError("the authority's signature does not verify") from None
        invariant(made.not_valid_after_utc <= self.not_after, "no certificate outlives its issuer")
        if identity is None:
            return
        try:
            read_back = identity_of(certificate_der(made), self.cluster)
        except IdentityError as error:
            raise AuthorityError(
                f"the profile makes a certificate that no server would accept: {error}"
            ) from None
        invariant(read_back == identity, "a certificate says what it was made to say")

    def _record(
        self,
        profile: ProfileName,
        name: str,
        certificate: x509.Certificate,
        identity: Identity | None,
    ) -> None:
        record = index.IssuedRecord(
            serial=certificate.serial_number,
            profile=profile,
            name=name,
            subject=name if identity is None else uri_of(identity),
            not_after=certificate.not_valid_after_utc,
        )
        try:
            index.append(self.directory / "issued.jsonl", record)
        except OSError as error:
            raise AuthorityError(f"the index cannot be written: {error}") from None


def _cluster_of(content: bytes) -> str:
    try:
        fields = json.loads(content)
        if fields["format"] != _FORMAT:
            raise AuthorityError(f"authority.json has format {fields['format']!r}, unknown here")
        cluster = fields["cluster"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuthorityError("authority.json is damaged: it states no cluster") from None
    if not isinstance(cluster, str) or not is_label(cluster):
        raise AuthorityError("authority.json is damaged: its cluster is not a label")
    return cluster


def _hosts(rules: Profile, texts: Sequence[str]) -> tuple[Host, ...]:
    if len(texts) > HOSTS_MAX:
        raise AuthorityError(f"a certificate names at most {HOSTS_MAX} hosts")
    try:
        asked = tuple(dict.fromkeys(parse_host(text) for text in texts))
    except HostError as error:
        raise AuthorityError(str(error)) from None
    for host in asked:
        if not rules.admits(host):
            raise AuthorityError(f"the profile {rules.name.value} does not allow the host {host}")
    return asked or rules.hosts_default
