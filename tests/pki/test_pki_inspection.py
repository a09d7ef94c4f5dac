"""What is said about a certificate: by the rules of identity and trust, and total."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.certificates import (
    CertificateError,
    certificate_der,
    certificate_pem,
    certificates_of,
)
from kvsecure.pki.identity import Reason, fingerprint_of
from kvsecure.pki.inspection import Sort, inspect
from kvsecure.pki.profiles import ProfileName

Forge = Callable[..., bytes]
OfflineRoot = Callable[[x509.Certificate], tuple[x509.Certificate, x509.Certificate]]

_ALICE = "spiffe://acme.c1.kvsecure/user/alice"


@pytest.mark.parametrize(
    ("profile", "sort", "usages"),
    [
        (ProfileName.SERVER, Sort.SERVER, ("digital_signature", "server_auth")),
        (ProfileName.PEER, Sort.PEER, ("digital_signature", "server_auth", "client_auth")),
        (ProfileName.CLIENT, Sort.CLIENT, ("digital_signature", "client_auth")),
    ],
)
def test_inspect_finds_nothing_wrong_with_what_was_issued(
    authority: Authority, profile: ProfileName, sort: Sort, usages: tuple[str, ...]
) -> None:
    """Every profile's certificate is what it was meant to be, in PEM and in DER."""
    issued = authority.issue(profile, "n1")
    der = certificate_der(certificates_of(issued.certificate_pem)[0])
    now = datetime.now(UTC)

    finding = inspect(issued.certificate_pem, now)

    assert finding == inspect(der, now)
    assert finding.refusals == ()
    assert finding.sort is sort
    assert finding.usages == usages
    assert finding.identity == issued.identity
    assert finding.serial == issued.serial
    assert finding.fingerprint == fingerprint_of(der)
    assert finding.validity.not_after == issued.not_after


def test_inspect_names_all_hosts(authority: Authority) -> None:
    """Names are shown with their kind."""
    issued = authority.issue(ProfileName.PEER, "m1", hosts=["m1.internal", "::1"])

    finding = inspect(issued.certificate_pem, datetime.now(UTC))

    assert finding.names == ("dns:m1.internal", "ip:::1", "uri:spiffe://c1.kvsecure/node/m1")


def test_inspect_knows_an_authority(authority: Authority) -> None:
    """The authority's own certificate is nobody's identity and nothing is wrong with it."""
    finding = inspect(authority.trust_pem, datetime.now(UTC))

    assert finding.sort is Sort.AUTHORITY
    assert finding.identity is None
    assert finding.refusals == ()


@pytest.mark.parametrize(
    ("after", "refusals"),
    [
        (timedelta(days=89), ()),
        (timedelta(days=91), ("it has expired",)),
        (timedelta(days=-1), ("it is not valid yet",)),
    ],
)
def test_inspect_minds_the_dates(
    authority: Authority, after: timedelta, refusals: tuple[str, ...]
) -> None:
    """A certificate is refused before and after its time."""
    issued = authority.issue(ProfileName.CLIENT, "alice")

    assert inspect(issued.certificate_pem, datetime.now(UTC) + after).refusals == refusals


@pytest.mark.parametrize(
    ("uris", "usages", "reason"),
    [
        ([], (ExtendedKeyUsageOID.CLIENT_AUTH,), Reason.NO_URI),
        ([_ALICE, _ALICE], (ExtendedKeyUsageOID.CLIENT_AUTH,), Reason.SEVERAL_URIS),
        ([_ALICE + "/x"], (ExtendedKeyUsageOID.CLIENT_AUTH,), Reason.BAD_SEGMENTS),
        ([_ALICE], None, Reason.WRONG_USAGE),
        (
            [_ALICE],
            (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
            Reason.WRONG_USAGE,
        ),
    ],
)
def test_inspect_refuses_by_the_rules_of_identity(
    forge: Forge,
    uris: list[str],
    usages: tuple[x509.ObjectIdentifier, ...] | None,
    reason: Reason,
) -> None:
    """A certificate that gives no identity is refused, for that reason."""
    finding = inspect(forge(uris, usages=usages), datetime.now(UTC))

    assert finding.refusals == (reason.value,)
    assert finding.identity is None


def test_inspect_refuses_a_server_without_hosts(forge: Forge) -> None:
    """A server that names no host convinces no client."""
    der = forge(usages=(ExtendedKeyUsageOID.SERVER_AUTH,), common_names=["localhost"])

    assert "names no host" in inspect(der, datetime.now(UTC)).refusals[0]


def test_inspect_checks_the_chain_that_a_file_brings(
    authority: Authority,
    authority_directory: Path,
    tmp_path: Path,
    forge: Forge,
    offline_root: OfflineRoot,
) -> None:
    """What follows the certificate must be authorities that signed it; strangers are told."""
    below, root = offline_root(certificates_of(authority.trust_pem)[0])
    content = certificate_pem(below) + certificate_pem(root)
    (authority_directory / "ca.crt").write_bytes(content)
    issued = Authority.open(authority_directory).issue(ProfileName.CLIENT, "alice")
    stranger = create_authority(tmp_path / "stranger", "c1").trust_pem
    now = datetime.now(UTC)

    assert inspect(issued.certificate_pem + issued.chain_pem, now).refusals == ()
    assert inspect(content, now).refusals == ()
    assert inspect(issued.certificate_pem + stranger, now).refusals == (
        "the certificate that follows it in the file did not sign it",
    )
    assert "may not sign others" in (
        inspect(issued.certificate_pem + issued.certificate_pem, now).refusals[0]
        + inspect(certificate_pem(below) + issued.certificate_pem, now).refusals[0]
    )


@given(content=st.one_of(st.binary(), st.binary().map(lambda raw: b"-----BEGIN " + raw)))
def test_inspect_is_total(content: bytes) -> None:
    """Bytes that are no certificate are a CertificateError."""
    with pytest.raises(CertificateError):
        inspect(content, datetime.now(UTC))
