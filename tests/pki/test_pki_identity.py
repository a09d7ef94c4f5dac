"""Identities: one spelling each, and everything else is refused with its reason."""

import hashlib
import warnings
from collections.abc import Callable
from typing import Literal

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from kvsecure.pki.authority import Authority
from kvsecure.pki.certificates import certificate_der, certificates_of
from kvsecure.pki.identity import (
    Identity,
    IdentityError,
    Kind,
    Leaf,
    Reason,
    common_name_of,
    fingerprint_of,
    identity_of,
    identity_of_uri,
    issuer_hash,
    serial_of,
    uri_of,
)
from kvsecure.pki.profiles import ProfileName

Forge = Callable[..., bytes]

_ALICE = "spiffe://acme.c1.kvsecure/user/alice"
_NODE = "spiffe://c1.kvsecure/node/m1"
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

_labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
_names = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True).filter(
    lambda name: name not in {".", ".."}
)
_identities = st.one_of(
    st.builds(Identity, kind=st.just(Kind.USER), cluster=_labels, tenant=_labels, name=_names),
    st.builds(Identity, kind=st.just(Kind.NODE), cluster=_labels, tenant=st.none(), name=_names),
)


@given(identity=_identities)
@example(identity=Identity(kind=Kind.USER, cluster="c" * 63, tenant="t" * 63, name="n" * 128))
def test_uri_of_is_the_inverse_of_identity_of_uri(identity: Identity) -> None:
    """Every identity, the longest one too, comes back from its own URI."""
    assert identity == identity_of_uri(uri_of(identity))


@given(uri=st.one_of(st.text(), st.from_regex(r"spiffe://[a-z.]*kvsecure/(user|node)/.*")))
def test_identity_of_uri_accepts_one_spelling_only(uri: str) -> None:
    """Any text gives an identity that is spelt exactly so, or an IdentityError."""
    try:
        identity = identity_of_uri(uri)
    except IdentityError:
        return

    assert uri == uri_of(identity)


@given(uri=st.just(_ALICE), place=st.integers(0, len(_ALICE)), mark=st.characters())
def test_identity_of_uri_is_not_changed_by_an_added_character(
    uri: str, place: int, mark: str
) -> None:
    """No character can be slipped in without being refused or naming somebody else."""
    altered = uri[:place] + mark + uri[place:]

    try:
        identity = identity_of_uri(altered)
    except IdentityError:
        return

    assert identity != identity_of_uri(uri)


_REFUSED = {
    "": Reason.WRONG_SCHEME,
    "alice": Reason.WRONG_SCHEME,
    "https://acme.c1.kvsecure/user/alice": Reason.WRONG_SCHEME,
    "SPIFFE://acme.c1.kvsecure/user/alice": Reason.WRONG_SCHEME,
    " spiffe://acme.c1.kvsecure/user/alice": Reason.WRONG_SCHEME,
    "spiffe://acme.c1.kvsecure/user/alice\n": Reason.BAD_CHARACTERS,
    "spiffe://acme.c1.kvsecure/user/al\0ice": Reason.BAD_CHARACTERS,
    "spiffe://acme.c1.kvsecure/user/alic\u00e9": Reason.BAD_CHARACTERS,
    "spiffe://acme.c1.kvsecure/user/" + "a" * 300: Reason.BAD_CHARACTERS,
    "spiffe://*.c1.kvsecure/user/alice": Reason.WILDCARD,
    "spiffe://acme.c1.kvsecure/user/*": Reason.WILDCARD,
    "spiffe://root@acme.c1.kvsecure/user/alice": Reason.USERINFO,
    "spiffe://root:x@acme.c1.kvsecure/user/alice": Reason.USERINFO,
    "spiffe://acme.c1.kvsecure:443/user/alice": Reason.PORT,
    "spiffe://acme.c1.kvsecure:/user/alice": Reason.PORT,
    "spiffe://acme.c1.kvsecure/user/alice?tenant=globex": Reason.QUERY,
    "spiffe://acme.c1.kvsecure/user/alice#": Reason.FRAGMENT,
    "spiffe://acme.c1.kvsecure/user/al%69ce": Reason.PERCENT_ESCAPE,
    "spiffe://Acme.c1.kvsecure/user/alice": Reason.UPPERCASE_HOST,
    "spiffe://acme.c1.KVSECURE/user/alice": Reason.UPPERCASE_HOST,
    "spiffe://acme.c1.kvsecure.example.org/user/alice": Reason.FOREIGN_TRUST_DOMAIN,
    "spiffe://acme.c1.notkvsecure/user/alice": Reason.FOREIGN_TRUST_DOMAIN,
    "spiffe://acme.c1.kvsecure./user/alice": Reason.FOREIGN_TRUST_DOMAIN,
    "spiffe://kvsecure/node/m1": Reason.FOREIGN_TRUST_DOMAIN,
    "spiffe://x.acme.c1.kvsecure/user/alice": Reason.FOREIGN_TRUST_DOMAIN,
    "spiffe:///user/alice": Reason.FOREIGN_TRUST_DOMAIN,
    "spiffe://-acme.c1.kvsecure/user/alice": Reason.BAD_LABEL,
    "spiffe://acme-.c1.kvsecure/user/alice": Reason.BAD_LABEL,
    "spiffe://.c1.kvsecure/user/alice": Reason.BAD_LABEL,
    "spiffe://a_b.c1.kvsecure/user/alice": Reason.BAD_LABEL,
    "spiffe://" + "a" * 64 + ".c1.kvsecure/user/alice": Reason.BAD_LABEL,
    "spiffe://acme.c1.kvsecure": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user/": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure//alice": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user//alice": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user/alice/": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user/alice/admin": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user/.": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/user/..": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/../alice": Reason.BAD_SEGMENTS,
    "spiffe://acme.c1.kvsecure/User/alice": Reason.WRONG_KIND,
    "spiffe://acme.c1.kvsecure/role/alice": Reason.WRONG_KIND,
    "spiffe://acme.c1.kvsecure/node/m1": Reason.WRONG_KIND,
    "spiffe://c1.kvsecure/user/alice": Reason.WRONG_KIND,
    "spiffe://acme.c1.kvsecure/user/al:ice": Reason.BAD_NAME,
    "spiffe://acme.c1.kvsecure/user/al ice": Reason.BAD_NAME,
    "spiffe://acme.c1.kvsecure/user/al\\ice": Reason.BAD_NAME,
    "spiffe://acme.c1.kvsecure/user/" + "a" * 129: Reason.BAD_NAME,
}


@pytest.mark.parametrize("uri", _REFUSED)
def test_identity_of_uri_names_the_reason(uri: str) -> None:
    """What is not one of our URIs is refused, each for its own reason."""
    with pytest.raises(IdentityError) as caught:
        identity_of_uri(uri)

    assert _REFUSED[uri] is caught.value.reason
    assert _REFUSED[uri].value == str(caught.value)


def test_reasons_of_uris_are_all_tested() -> None:
    """Every reason that the spelling of a URI can give has a case above."""
    of_certificates = {
        Reason.MALFORMED,
        Reason.AUTHORITY,
        Reason.NO_URI,
        Reason.SEVERAL_URIS,
        Reason.WRONG_USAGE,
        Reason.FOREIGN_CLUSTER,
    }

    assert set(Reason) == of_certificates | set(_REFUSED.values())


def test_identity_cannot_be_made_with_a_bad_part() -> None:
    """A value that would not come back from its URI cannot exist."""
    good = {"kind": Kind.USER, "cluster": "c1", "tenant": "acme", "name": "alice"}

    for part in (
        {"tenant": None},
        {"kind": Kind.NODE},
        {"cluster": "c1.acme"},
        {"tenant": "ac/me"},
        {"name": ".."},
        {"name": "a/b"},
        {"name": ""},
    ):
        with pytest.raises(IdentityError):
            Identity(**{**good, **part})


def test_identity_of_reads_users_and_nodes(forge: Forge) -> None:
    """A user's URI with client usage and a node's with both give their identities."""
    user = identity_of(forge([_ALICE]))
    node = identity_of(forge([_NODE], usages=_BOTH, dns=["m1.internal"]))

    assert Identity(kind=Kind.USER, cluster="c1", tenant="acme", name="alice") == user
    assert Identity(kind=Kind.NODE, cluster="c1", tenant=None, name="m1") == node


def test_identity_of_refuses_several_uris(forge: Forge) -> None:
    """Two URIs are refused even when they are equal or one of them is not ours (X509-SVID 2)."""
    for second in (_ALICE, "spiffe://acme.c1.kvsecure/user/root", "https://example.org/"):
        with pytest.raises(IdentityError) as caught:
            identity_of(forge([_ALICE, second]))

        assert caught.value.reason is Reason.SEVERAL_URIS


def test_identity_of_never_falls_back_to_the_common_name(forge: Forge) -> None:
    """Without a URI there is no identity, whatever the subject or the DNS names say."""
    for der in (forge(common_names=["root"]), forge(common_names=["root"], dns=["root"])):
        with pytest.raises(IdentityError) as caught:
            identity_of(der)

        assert caught.value.reason is Reason.NO_URI


@pytest.mark.parametrize(
    ("uri", "usages"),
    [
        (_ALICE, None),
        (_ALICE, (ExtendedKeyUsageOID.SERVER_AUTH,)),
        (_ALICE, _BOTH),
        (_ALICE, (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
        (_ALICE, (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        (_NODE, None),
        (_NODE, (ExtendedKeyUsageOID.CLIENT_AUTH,)),
        (_NODE, (ExtendedKeyUsageOID.SERVER_AUTH,)),
    ],
)
def test_identity_of_demands_the_usage_of_its_kind(
    forge: Forge, uri: str, usages: tuple[x509.ObjectIdentifier, ...] | None
) -> None:
    """A client certificate is no peer's, a peer's no client's; one for everything is nobody's."""
    with pytest.raises(IdentityError) as caught:
        identity_of(forge([uri], usages=usages))

    assert caught.value.reason is Reason.WRONG_USAGE


def test_identity_of_refuses_an_authority(forge: Forge) -> None:
    """Who can sign certificates does not log in with the same one; no constraints are fine."""
    with pytest.raises(IdentityError) as caught:
        identity_of(forge([_ALICE], is_authority=True))

    assert caught.value.reason is Reason.AUTHORITY
    assert identity_of(forge([_ALICE], is_authority=None)).name == "alice"


def test_identity_of_refuses_another_cluster_when_told_its_own(forge: Forge) -> None:
    """Two clusters below one root do not take each other's users."""
    with pytest.raises(IdentityError) as caught:
        identity_of(forge([_ALICE]), "c2")

    assert caught.value.reason is Reason.FOREIGN_CLUSTER
    assert identity_of(forge([_ALICE]), "c1").cluster == "c1"


@given(der=st.binary(max_size=200))
def test_identity_of_is_total_over_any_bytes(der: bytes) -> None:
    """Random bytes are refused as malformed by every reader."""
    for read in (identity_of, common_name_of, serial_of, issuer_hash):
        with pytest.raises(IdentityError) as caught:
            read(der)

        assert caught.value.reason is Reason.MALFORMED


@pytest.fixture(scope="module")
def sample(forge: Forge) -> bytes:
    """Return one certificate with a bit of everything, so that a failure can be repeated."""
    return forge([_ALICE], dns=["a.example"], common_names=["alice"], issuer="authority")


_damage = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)


@given(damage=_damage, cut=st.integers(0, 10_000) | st.none())
def test_identity_of_is_total_over_damaged_certificates(
    sample: bytes, damage: list[tuple[int, int]], cut: int | None
) -> None:
    """A certificate with some bytes changed gives an identity or IdentityError, nothing else."""
    der = bytearray(sample)
    for place, byte in damage:
        der[place % len(der)] = byte
    damaged = bytes(der[: cut % len(der)] if cut is not None else der)

    try:
        leaf = Leaf(damaged)
        for part in ("common_name", "serial", "issuer_hash", "fingerprint", "not_after"):
            getattr(leaf, part)
        identity = leaf.identity()
    except IdentityError:
        return

    assert identity == identity_of_uri(uri_of(identity))


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("serial", [b"\x00", b"\xf9"])
def test_leaf_refuses_serials_that_are_not_positive(
    forge: Forge, serial: bytes, action: Literal["error", "ignore"]
) -> None:
    """Revocation goes by serials (RFC 5280, 4.1.2.2), however the library's warning is taken."""
    good = forge([_ALICE], serial=7)
    bad = good.replace(b"\x02\x01\x07", b"\x02\x01" + serial, 1)

    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(IdentityError) as caught:
            Leaf(bad)

    assert bad != good
    assert caught.value.reason is Reason.MALFORMED


def test_leaf_tells_what_revocation_and_audit_need(authority: Authority) -> None:
    """Serial, issuer, fingerprint and end are those of the certificate, from one parse."""
    issued = authority.issue(ProfileName.CLIENT, "alice", "acme")
    certificate = certificates_of(issued.certificate_pem)[0]
    der = certificate_der(certificate)

    leaf = Leaf(der)

    assert issued.identity == leaf.identity("c1")
    assert issued.serial == leaf.serial == serial_of(der)
    assert hashlib.sha256(der).digest() == leaf.fingerprint == fingerprint_of(der)
    assert hashlib.sha256(certificate.issuer.public_bytes()).digest() == issuer_hash(der)
    assert issued.not_after == leaf.not_after
    assert leaf.common_name == "alice" == common_name_of(der)


def test_issuer_hash_tells_issuers_apart(forge: Forge) -> None:
    """Equal serials of two issuers are two certificates."""
    one, two = forge(issuer="one"), forge(issuer="two")

    assert serial_of(one) == serial_of(two)
    assert issuer_hash(one) != issuer_hash(two)


@pytest.mark.parametrize(
    ("names", "expected"), [([], None), (["alice"], "alice"), (["alice", "root"], None)]
)
def test_common_name_of_refuses_to_choose(
    forge: Forge, names: list[str], expected: str | None
) -> None:
    """One common name is taken, none or several give nothing."""
    assert common_name_of(forge(common_names=names)) == expected


def test_certificates_of_long_names_have_no_common_name(authority: Authority) -> None:
    """A name that X.509 has no room for is left out, never cut to somebody else's."""
    issued = authority.issue(ProfileName.CLIENT, "n" * 65)
    certificate = certificates_of(issued.certificate_pem)[0]

    assert common_name_of(certificate_der(certificate)) is None
    assert not certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
