"""Certificates for keys that stay where they were made."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.pki.authority import Authority, AuthorityError, create_authority
from kvsecure.pki.certificates import CertificateError, certificates_of, key_of, same_key
from kvsecure.pki.identity import Identity, Kind, identity_of
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.requests import new_private_key, request_of, requested_key


@pytest.fixture
def prod(tmp_path: Path) -> Authority:
    """A new authority."""
    return create_authority(tmp_path / "prod", "prod")


def test_certificate_is_of_the_key_that_asked(prod: Authority) -> None:
    """A member's certificate names it, and is of the key that stayed with it."""
    key = new_private_key()

    pem = prod.certify(ProfileName.PEER, "m2", request_of(key))

    (made,) = certificates_of(pem)
    assert same_key(made, key_of(key))
    assert identity_of(made.public_bytes(serialization.Encoding.DER)) == Identity(
        kind=Kind.NODE, cluster="prod", tenant=None, name="m2"
    )
    assert [each.subject for each in prod.issued().records] == ["spiffe://prod.kvsecure/node/m2"]


def test_names_in_a_request_do_not_count(prod: Authority) -> None:
    """Whoever asks for a name in the request itself does not get it."""
    key = ec.generate_private_key(ec.SECP256R1())
    uri = x509.UniformResourceIdentifier("spiffe://default.prod.kvsecure/user/root")
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
        .public_bytes(serialization.Encoding.DER)
    )

    pem = prod.certify(ProfileName.SERVER, "m2", request, ["10.0.0.2"])

    (made,) = certificates_of(pem)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["10.0.0.2"]
    assert made.subject.rfc4514_string() == "CN=m2"
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_request_of_somebody_elses_key_is_refused(prod: Authority) -> None:
    """A request that its own key has not signed gets nothing."""
    request = bytearray(request_of(new_private_key()))
    request[-1] ^= 1

    with pytest.raises(CertificateError):
        prod.certify(ProfileName.PEER, "m2", bytes(request))

    assert prod.issued().records == ()


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65_537, 2_048), ec.generate_private_key(ec.SECP384R1())],
    ids=["rsa", "p384"],
)
def test_keys_of_other_kinds_are_refused(key: rsa.RSAPrivateKey) -> None:
    """Keys are of the kinds that profiles have."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))

    with pytest.raises(CertificateError, match="neither EC P-256 nor Ed25519"):
        requested_key(request.sign(key, SHA256()).public_bytes(serialization.Encoding.DER))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error(content: bytes) -> None:
    """Nothing but CertificateError comes of what is no request."""
    with pytest.raises(CertificateError):
        requested_key(content)


@pytest.mark.parametrize(
    ("profile", "name", "hosts"),
    [
        (ProfileName.PEER, "..", ()),
        (ProfileName.PEER, "a/b", ()),
        (ProfileName.SERVER, "m2", ("not a host",)),
        (ProfileName.AUTHORITY, "m2", ()),
    ],
)
def test_checking_refuses_what_making_would(
    prod: Authority, profile: ProfileName, name: str, hosts: tuple[str, ...]
) -> None:
    """What cannot be certified is found out before anything is made."""
    request = request_of(new_private_key())

    for act in (prod.check_certifiable, prod.certify):
        with pytest.raises(AuthorityError):
            act(profile, name, request, hosts)

    assert prod.issued().records == ()


def test_fingerprint_is_that_of_the_certificate(prod: Authority) -> None:
    """An authority that signs itself has the fingerprint that other tools show."""
    (own,) = certificates_of(prod.trust_pem)

    assert prod.fingerprint == own.fingerprint(SHA256())
