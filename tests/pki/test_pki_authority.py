"""The authority: it issues what its profiles give, never more, and never loses what it issued."""

import json
import stat
import threading
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from kvsecure.pki.authority import HOSTS_MAX, Authority, AuthorityError, create_authority
from kvsecure.pki.certificates import (
    certificate_der,
    certificates_of,
    key_of,
    same_key,
)
from kvsecure.pki.identity import Identity, Kind, identity_of
from kvsecure.pki.profiles import ProfileError, ProfileName

_DAY = timedelta(days=1)
_LEAVES = (ProfileName.SERVER, ProfileName.PEER, ProfileName.CLIENT)


class Clock(Protocol):
    """A clock that stands still until it is set."""

    moment: datetime

    def __call__(self) -> datetime:
        """Tell the time."""


def _certificate(pem: bytes) -> x509.Certificate:
    return certificates_of(pem)[0]


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_create_authority_makes_a_confined_root(authority: Authority, clock: Clock) -> None:
    """The root signs leaves only, for ten years, and names nobody outside its cluster."""
    certificate = _certificate(authority.trust_pem)
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    permitted = extensions.get_extension_for_class(x509.NameConstraints)

    assert (
        constraints.value.ca,
        constraints.value.path_length,
        constraints.critical,
    ) == (True, 0, True)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert permitted.critical
    assert [name.value for name in permitted.value.permitted_subtrees or []] == [
        "c1.kvsecure",
        ".c1.kvsecure",
    ]
    assert clock.moment + 3650 * _DAY == certificate.not_valid_after_utc
    certificate.verify_directly_issued_by(certificate)


def test_create_authority_keeps_its_key_to_itself(
    authority: Authority, authority_directory: Path
) -> None:
    """The key is 0600, its directory 0700, and the profiles are there to be tightened."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority_directory.iterdir()}

    assert stat.S_IMODE(authority_directory.stat().st_mode) == 0o700
    assert modes == {
        "authority.json": 0o644,
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "issued.jsonl": 0o600,
        "profiles": 0o700,
    }
    assert {f"{name.value}.yaml" for name in _LEAVES} == {
        path.name for path in (authority_directory / "profiles").iterdir()
    }
    assert authority.cluster == "c1"


def test_create_authority_never_overwrites(authority: Authority, authority_directory: Path) -> None:
    """A second attempt fails and changes nothing; so does one over any part of an authority."""
    before = (authority_directory / "ca.key").read_bytes()

    for left in ("ca.crt", "authority.json", "issued.jsonl"):
        with pytest.raises(AuthorityError, match="never overwritten"):
            create_authority(authority_directory, "c2")
        (authority_directory / left).unlink()

    assert before == (authority_directory / "ca.key").read_bytes()
    assert not (authority_directory / "ca.crt").exists()


def test_create_authority_at_the_same_time_makes_one(tmp_path: Path) -> None:
    """Of several that start at once exactly one succeeds, and what is there then goes together."""
    outcomes: list[object] = []
    barrier = threading.Barrier(4)

    def create() -> None:
        barrier.wait()
        try:
            outcomes.append(create_authority(tmp_path / "a", "c1"))
        except AuthorityError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(isinstance(outcome, Authority) for outcome in outcomes) == 1
    Authority.open(tmp_path / "a").issue(ProfileName.CLIENT, "alice")


@pytest.mark.parametrize("cluster", ["", "C1", "a.b", "-a", "a_b", "a/b", "a" * 64, "a\n", "*"])
def test_create_authority_refuses_what_is_no_label(tmp_path: Path, cluster: str) -> None:
    """A cluster's name is one label of a host name."""
    with pytest.raises(AuthorityError, match="cannot name a cluster"):
        create_authority(tmp_path / "a", cluster)

    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("profile", _LEAVES)
def test_issue_gives_every_leaf_its_extensions(authority: Authority, profile: ProfileName) -> None:
    """Constraints and usage are critical, keys are identified, the signature is the authority's."""
    issued = authority.issue(profile, "n1", hosts=() if profile is ProfileName.CLIENT else ["h1"])
    certificate = _certificate(issued.certificate_pem)
    ca = _certificate(authority.trust_pem)
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)

    assert constraints.critical
    assert not constraints.value.ca
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert (
        ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        == extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    )
    assert (
        x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
        == extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )
    certificate.verify_directly_issued_by(ca)
    assert same_key(certificate, key_of(issued.private_key))
    assert issued.serial == certificate.serial_number
    assert issued.chain_pem == b""


def test_issue_server_names_hosts_and_nobody(authority: Authority) -> None:
    """A server gets the hosts it was given and no URI; without any it gets the local ones."""
    given = authority.issue(ProfileName.SERVER, "db1", hosts=["DB1.internal", "10.0.0.5", "::1"])
    local = authority.issue(ProfileName.SERVER, "db1")

    names = _names(_certificate(given.certificate_pem))
    assert names.get_values_for_type(x509.DNSName) == ["db1.internal"]
    assert [ip_address("10.0.0.5"), ip_address("::1")] == names.get_values_for_type(x509.IPAddress)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == []
    assert given.identity is None
    names = _names(_certificate(local.certificate_pem))
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [ip_address("127.0.0.1"), ip_address("::1")] == names.get_values_for_type(x509.IPAddress)
    usages = _certificate(given.certificate_pem).extensions.get_extension_for_class(
        x509.ExtendedKeyUsage
    )
    assert list(usages.value) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_issue_peer_names_one_member(authority: Authority) -> None:
    """A peer's identity is the member, and its hosts are beside it."""
    issued = authority.issue(ProfileName.PEER, "m1", hosts=["m1.internal"])
    certificate = _certificate(issued.certificate_pem)

    expected = Identity(kind=Kind.NODE, cluster="c1", tenant=None, name="m1")
    assert expected == issued.identity == identity_of(certificate_der(certificate))
    assert _names(certificate).get_values_for_type(x509.DNSName) == ["m1.internal"]


@pytest.mark.parametrize(("tenant", "label"), [(None, "default"), ("acme", "acme")])
def test_issue_client_names_one_user(authority: Authority, tenant: str | None, label: str) -> None:
    """A client's identity is the user in the tenant, and it names nothing else."""
    issued = authority.issue(ProfileName.CLIENT, "alice", tenant)
    certificate = _certificate(issued.certificate_pem)

    expected = Identity(kind=Kind.USER, cluster="c1", tenant=label, name="alice")
    assert expected == issued.identity == identity_of(certificate_der(certificate))
    assert [f"spiffe://{label}.c1.kvsecure/user/alice"] == [
        name.value for name in _names(certificate)
    ]


@pytest.mark.parametrize(
    ("profile", "name", "tenant", "hosts", "fault"),
    [
        (ProfileName.AUTHORITY, "ca2", None, [], "signs no authorities"),
        (ProfileName.CLIENT, "alice", None, ["h1"], "does not allow the host h1"),
        (ProfileName.CLIENT, "alice", None, ["10.0.0.1"], "does not allow the host 10.0.0.1"),
        (ProfileName.CLIENT, "alice", "a.b", [], "label"),
        (ProfileName.CLIENT, "a/b", None, [], "name"),
        (ProfileName.CLIENT, "..", None, [], "segments"),
        (ProfileName.SERVER, "db1", "acme", ["h1"], "of no tenant"),
        (ProfileName.SERVER, "db 1", None, ["h1"], "cannot be a name"),
        (ProfileName.SERVER, "db1", None, ["*.internal"], "wildcard"),
        (ProfileName.SERVER, "db1", None, ["h"] * (HOSTS_MAX + 1), "at most 64 hosts"),
        (ProfileName.PEER, "m1", "acme", ["h1"], "of no tenant"),
        (ProfileName.PEER, "*", None, ["h1"], "name"),
    ],
)
def test_issue_refuses_what_the_profile_does_not_give(
    authority: Authority,
    profile: ProfileName,
    name: str,
    tenant: str | None,
    hosts: list[str],
    fault: str,
) -> None:
    """Nothing that is asked for widens a profile, and what was refused is not in the index."""
    with pytest.raises(AuthorityError, match=fault.replace(".", r"\.")):
        authority.issue(profile, name, tenant, hosts)

    assert authority.issued().records == ()


def test_issue_keeps_to_the_lifetimes_of_the_profile(authority: Authority, clock: Clock) -> None:
    """90 days by default, up to 397 when asked for, and not a minute more."""
    longest = timedelta(days=397)

    assert clock.moment + 90 * _DAY == authority.issue(ProfileName.CLIENT, "a").not_after
    for ttl in (timedelta(minutes=1), longest):
        issued = authority.issue(ProfileName.CLIENT, "a", ttl=ttl)
        assert clock.moment + ttl == issued.not_after
        assert issued.not_after == _certificate(issued.certificate_pem).not_valid_after_utc
    for ttl in (timedelta(), timedelta(minutes=-1), longest + timedelta(minutes=1)):
        with pytest.raises(AuthorityError, match="at most 397d"):
            authority.issue(ProfileName.CLIENT, "a", ttl=ttl)


def test_issue_never_outlives_the_authority(authority: Authority, clock: Clock) -> None:
    """Near its end the default is cut short, a longer wish refused, and after it nothing issued."""
    clock.moment = authority.not_after - 10 * _DAY

    assert authority.not_after == authority.issue(ProfileName.CLIENT, "a").not_after
    with pytest.raises(AuthorityError, match="ends before that"):
        authority.issue(ProfileName.CLIENT, "a", ttl=11 * _DAY)
    clock.moment = authority.not_after
    with pytest.raises(AuthorityError, match="has expired"):
        authority.issue(ProfileName.CLIENT, "a")


def test_issue_reads_the_profile_of_the_directory(
    authority: Authority, authority_directory: Path, clock: Clock
) -> None:
    """A tightened profile counts from the next certificate on, and a widened one stops issuing."""
    path = authority_directory / "profiles" / "client.yaml"
    shipped = path.read_text()

    path.write_text(shipped.replace("90d", "1d").replace("ec-p256", "ed25519"))
    issued = authority.issue(ProfileName.CLIENT, "a")
    path.write_text(shipped.replace("397d", "4000d"))

    assert clock.moment + _DAY == issued.not_after
    assert isinstance(key_of(issued.private_key), Ed25519PrivateKey)
    with pytest.raises(ProfileError, match="wider"):
        authority.issue(ProfileName.CLIENT, "a")


def test_issue_refuses_to_make_what_no_server_accepts(
    authority: Authority, authority_directory: Path
) -> None:
    """A profile narrowed until it is useless is found out before a certificate is handed out."""
    path = authority_directory / "profiles" / "peer.yaml"
    path.write_text(path.read_text().replace("[server_auth, client_auth]", "[server_auth]"))

    with pytest.raises(AuthorityError, match="no server would accept"):
        authority.issue(ProfileName.PEER, "m1")

    assert authority.issued().records == ()


def test_issue_records_before_it_hands_out(authority: Authority, authority_directory: Path) -> None:
    """Every certificate is in the index, and without the index there is none."""
    client = authority.issue(ProfileName.CLIENT, "alice", "acme")
    server = authority.issue(ProfileName.SERVER, "db1")

    records = Authority.open(authority_directory).issued().records
    assert [client.serial, server.serial] == [record.serial for record in records]
    assert [record.subject for record in records] == ["spiffe://acme.c1.kvsecure/user/alice", "db1"]
    assert [client.not_after, server.not_after] == [record.not_after for record in records]
    (authority_directory / "issued.jsonl").unlink()
    (authority_directory / "issued.jsonl").mkdir()
    with pytest.raises(AuthorityError, match="the index cannot be written"):
        authority.issue(ProfileName.CLIENT, "alice")


def test_issue_gives_serials_that_cannot_be_guessed(authority: Authority) -> None:
    """Serials are random over the 159 bits that X.509 leaves of 20 bytes."""
    serials = [authority.issue(ProfileName.CLIENT, "a").serial for _ in range(50)]

    assert len(set(serials)) == 50
    assert max(serials).bit_length() <= 159
    assert max(serials).bit_length() >= 150


def test_authority_says_nothing_about_its_keys(authority: Authority) -> None:
    """Neither what was issued nor the index shows a private key when printed."""
    issued = authority.issue(ProfileName.CLIENT, "alice")

    shown = repr(issued) + repr(authority.issued()) + json.dumps(repr(authority))
    assert "PRIVATE" not in shown
    assert "<secret>" in shown
