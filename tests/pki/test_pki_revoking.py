"""Revoking: an authority takes certificates back, and everybody else understands its list."""

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from pki.conftest import Clock

from kvsecure.pki.authority import Authority, AuthorityError
from kvsecure.pki.certificates import certificates_of
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.revocation import lists_of
from kvsecure.pki.revoking import LIST_TTL_MAX, revocation_list, revoke, revoked_by

_WEEK = timedelta(days=7)


def test_revoke_takes_back_one_serial(authority: Authority) -> None:
    """Only what was named is revoked, and saying it again adds nothing."""
    first = authority.issue(ProfileName.CLIENT, "alice")
    authority.issue(ProfileName.CLIENT, "alice")

    done = revoke(authority, f"{first.serial:040X}")
    again = revoke(authority, f"{first.serial:040x}")

    assert [record.serial for record in done] == [first.serial]
    assert again == ()
    assert [each.serial for each in revoked_by(authority)] == [first.serial]


def test_revoke_takes_back_all_of_a_name(authority: Authority) -> None:
    """Whoever lost a key may have several certificates."""
    serials = [authority.issue(ProfileName.CLIENT, "alice").serial for _ in range(3)]
    authority.issue(ProfileName.CLIENT, "bob")

    revoke(authority, "alice")

    assert [each.serial for each in revoked_by(authority)] == serials


def test_revoke_asks_which_of_several(authority: Authority) -> None:
    """A name that two tenants have is nobody's; the URI is one's."""
    authority.issue(ProfileName.CLIENT, "alice", "acme")
    other = authority.issue(ProfileName.CLIENT, "alice", "zeta")

    with pytest.raises(AuthorityError, match="may be each of"):
        revoke(authority, "alice")
    revoke(authority, "spiffe://zeta.c1.kvsecure/user/alice")

    assert [each.serial for each in revoked_by(authority)] == [other.serial]


def test_revoke_knows_only_what_was_issued(authority: Authority, clock: Clock) -> None:
    """A typing error is not taken for a success, and what has ended need not be revoked."""
    authority.issue(ProfileName.CLIENT, "alice", ttl=timedelta(hours=1))
    clock.moment += timedelta(hours=2)

    with pytest.raises(AuthorityError, match="no certificate of alcie"):
        revoke(authority, "alcie")
    with pytest.raises(AuthorityError, match="ended already"):
        revoke(authority, "alice")


def test_revocation_list_names_what_was_revoked(authority: Authority, clock: Clock) -> None:
    """The list is the authority's own, holds the serials, and lasts as long as it was told to."""
    alice = authority.issue(ProfileName.CLIENT, "alice")
    bob = authority.issue(ProfileName.CLIENT, "bob")
    revoke(authority, "alice")

    (found,) = lists_of(revocation_list(authority, _WEEK))

    assert alice.serial in found
    assert bob.serial not in found
    assert found.next_update == clock.moment + _WEEK
    signer = certificates_of(authority.trust_pem)[0]
    crl = x509.load_pem_x509_crl(revocation_list(authority, _WEEK))
    assert crl.is_signature_valid(signer.public_key())
    named = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    known = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert named.key_identifier == known.digest


def test_revocation_lists_are_numbered_upwards(authority: Authority, clock: Clock) -> None:
    """Of two lists anybody can tell which is the later one."""
    numbers = []
    for _ in range(2):
        crl = x509.load_pem_x509_crl(revocation_list(authority, _WEEK))
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
        clock.moment += timedelta(seconds=1)

    assert numbers[0] < numbers[1]


@pytest.mark.parametrize("ttl", [timedelta(), -_WEEK, LIST_TTL_MAX + timedelta(seconds=1)])
def test_revocation_list_lasts_for_a_bounded_time(authority: Authority, ttl: timedelta) -> None:
    """A list that lasts for ever would be worth stealing the next one for."""
    with pytest.raises(AuthorityError, match="at most 90d"):
        revocation_list(authority, ttl)


def test_damaged_record_of_revocations_makes_no_list(
    authority: Authority, authority_directory: Path
) -> None:
    """A list that leaves out what nobody can read any more would bring it back."""
    authority.issue(ProfileName.CLIENT, "alice")
    revoke(authority, "alice")
    with (authority_directory / "revoked.jsonl").open("ab") as sink:
        sink.write(b"torn")

    with pytest.raises(AuthorityError, match="line 2 cannot be read"):
        revocation_list(authority, _WEEK)
    with pytest.raises(AuthorityError, match="line 2 cannot be read"):
        revoke(authority, "alice")


def test_openssl_understands_the_list(
    authority: Authority, authority_directory: Path, tmp_path: Path
) -> None:
    """Another implementation verifies the signature, and finds who is revoked and who is not."""
    for name in ("alice", "bob"):
        issued = authority.issue(ProfileName.CLIENT, name)
        (tmp_path / f"{name}.crt").write_bytes(issued.certificate_pem)
    revoke(authority, "alice")
    (tmp_path / "clients.crl").write_bytes(revocation_list(authority, _WEEK))

    def verify(name: str) -> str:
        command = ["openssl", "verify", "-x509_strict", "-crl_check", "-purpose", "sslclient"]
        command += ["-CAfile", str(authority_directory / "ca.crt")]
        command += ["-CRLfile", str(tmp_path / "clients.crl"), str(tmp_path / f"{name}.crt")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr

    assert verify("bob").endswith("bob.crt: OK\n")
    assert "certificate revoked" in verify("alice")
