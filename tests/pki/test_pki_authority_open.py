"""Opening an authority: what does not go together is refused, and a chain is brought along."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from kvsecure.pki.authority import Authority, AuthorityError, create_authority
from kvsecure.pki.certificates import (
    certificate_pem,
    certificates_of,
)
from kvsecure.pki.profiles import ProfileName

_DAY = timedelta(days=1)
OfflineRoot = Callable[[x509.Certificate], tuple[x509.Certificate, x509.Certificate]]


def _certificate(pem: bytes) -> x509.Certificate:
    return certificates_of(pem)[0]


def test_open_refuses_an_exposed_key(authority: Authority, authority_directory: Path) -> None:
    """The authority's own key is held to the rules of all keys."""
    (authority_directory / "ca.key").chmod(0o640)

    with pytest.raises(AuthorityError, match="chmod 600"):
        Authority.open(authority_directory)


def test_open_says_that_there_is_none(tmp_path: Path) -> None:
    """An empty or missing directory is answered with the command that helps."""
    with pytest.raises(AuthorityError, match="kvsecure pki init"):
        Authority.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("authority.json", b"", "states no cluster"),
        ("authority.json", b"[]", "states no cluster"),
        ("authority.json", b'{"format": 9, "cluster": "c1"}', "format 9"),
        ("authority.json", b'{"format": 1, "cluster": "C.1"}', "not a label"),
        ("authority.json", b'{"format": 1, "cluster": ["c1"]}', "not a label"),
        ("ca.crt", b"garbage", "no certificate"),
        ("ca.key", b"garbage", "no private key"),
    ],
)
def test_open_refuses_damaged_files(
    authority: Authority, authority_directory: Path, file: str, content: bytes, fault: str
) -> None:
    """Bad bytes are an AuthorityError, whichever file they are in, and are not quoted."""
    (authority_directory / file).write_bytes(content)

    with pytest.raises(AuthorityError, match=fault) as caught:
        Authority.open(authority_directory)

    assert "garbage" not in str(caught.value)


def test_open_refuses_the_key_of_another(
    authority: Authority, authority_directory: Path, tmp_path: Path
) -> None:
    """A certificate and a key that do not go together are found at once."""
    create_authority(tmp_path / "other", "c1")
    (tmp_path / "other" / "ca.key").rename(authority_directory / "ca.key")

    with pytest.raises(AuthorityError, match="not the key of"):
        Authority.open(authority_directory)


def test_open_refuses_a_leaf_in_place_of_the_authority(
    authority: Authority, authority_directory: Path
) -> None:
    """A certificate that may not sign is not an authority, even with its key beside it."""
    issued = authority.issue(ProfileName.CLIENT, "alice")
    (authority_directory / "ca.crt").write_bytes(issued.certificate_pem)
    (authority_directory / "ca.key").write_bytes(issued.private_key.reveal())

    with pytest.raises(AuthorityError, match="may not sign"):
        Authority.open(authority_directory)


def test_authority_below_an_offline_root_brings_its_chain(
    authority: Authority, authority_directory: Path, offline_root: OfflineRoot
) -> None:
    """Certificates come with the authorities below the root, and end before the first of them."""
    below, root = offline_root(_certificate(authority.trust_pem))
    chain = certificate_pem(below) + certificate_pem(root)
    (authority_directory / "ca.crt").write_bytes(chain)

    opened = Authority.open(authority_directory)
    issued = opened.issue(ProfileName.CLIENT, "alice")

    assert certificate_pem(below) == issued.chain_pem
    assert chain == opened.trust_pem
    assert below.not_valid_after_utc == opened.not_after
    with pytest.raises(AuthorityError, match="ends before that"):
        opened.issue(ProfileName.CLIENT, "alice", ttl=101 * _DAY)


def test_open_refuses_a_chain_that_is_none(
    authority: Authority, authority_directory: Path, offline_root: OfflineRoot
) -> None:
    """The certificates of `ca.crt` have signed each other, lowest first."""
    below, _ = offline_root(_certificate(authority.trust_pem))
    _, stranger = offline_root(_certificate(authority.trust_pem))
    content = certificate_pem(below) + certificate_pem(stranger)
    (authority_directory / "ca.crt").write_bytes(content)

    with pytest.raises(AuthorityError, match="not signed by the next"):
        Authority.open(authority_directory)
