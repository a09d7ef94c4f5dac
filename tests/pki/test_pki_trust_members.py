"""TLS of members: one set of files, for the connections they take and for those they open."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kvsecure.model.errors import Broken
from kvsecure.pki.authority import Authority, Issued
from kvsecure.pki.identity import Identity, Kind
from kvsecure.pki.profiles import ProfileName
from kvsecure.pki.trust import (
    MEMBER_ALPN,
    ClientCertificates,
    MinimumVersion,
    ServerTls,
    TrustError,
    server_credentials,
)

_Store = Callable[[str, Issued], tuple[Path, Path]]


def _tls(authority: Authority, store: _Store, trusted: Path, name: str = "m1") -> ServerTls:
    cert, key = store(name, authority.issue(ProfileName.PEER, name))
    member = Identity(kind=Kind.NODE, cluster="c1", tenant=None, name=name)
    return ServerTls(cert_file=cert, key_file=key, trusted_ca_file=trusted, member=member)


def test_members_shake_hands_whichever_of_them_dials(
    authority: Authority, store: _Store, trusted: Path, handshake: Callable[..., tuple]
) -> None:
    """In TLS 1.3, in their own protocol, and each of them knows the other's chain."""
    first = server_credentials(_tls(authority, store, trusted, "m1"))
    second = server_credentials(_tls(authority, store, trusted, "m2"))
    assert first.dialing is not None

    there, here = handshake(second.context, first.dialing, "localhost")

    assert there.version() == here.version() == "TLSv1.3"
    assert (there.selected_alpn_protocol(),) == (here.selected_alpn_protocol(),) == MEMBER_ALPN
    assert len(there.verified_chain()) == len(here.verified_chain()) == 2


def test_server_of_clients_dials_nobody(authority: Authority, store: _Store, trusted: Path) -> None:
    """Only a member's credentials have a context for that."""
    tls = replace(_tls(authority, store, trusted), member=None)

    assert server_credentials(tls).dialing is None


@pytest.mark.parametrize(
    ("profile", "name", "words"),
    [
        (ProfileName.PEER, "m2", r"node/m2, not of spiffe://c1.kvsecure/node/m1"),
        (ProfileName.SERVER, "m1", "is not a member's certificate"),
    ],
)
def test_certificate_of_somebody_else_is_refused(
    authority: Authority, store: _Store, trusted: Path, profile: ProfileName, name: str, words: str
) -> None:
    """Before any other member would refuse it, with words that say whose it is."""
    hosts = ("localhost",) if profile is ProfileName.SERVER else ()
    cert, key = store("other", authority.issue(profile, name, hosts=hosts))
    tls = replace(_tls(authority, store, trusted), cert_file=cert, key_file=key)

    with pytest.raises(TrustError, match=words):
        server_credentials(tls)


@pytest.mark.parametrize(
    "weaker",
    [
        {"minimum": MinimumVersion.TLS1_2},
        {"client_certificates": ClientCertificates.OPTIONAL},
        {"client_certificates": ClientCertificates.OFF},
    ],
)
def test_members_do_not_settle_for_less(
    authority: Authority, store: _Store, trusted: Path, weaker: dict[str, object]
) -> None:
    """TLS 1.3 with certificates on both sides is not a setting."""
    tls = replace(_tls(authority, store, trusted), **weaker)  # type: ignore[arg-type]  # its own fields

    with pytest.raises(Broken):
        server_credentials(tls)
