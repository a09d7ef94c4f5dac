"""Revocation lists: what is read from a file, and what is refused."""

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from pki.signer import DAY, NOW, Signer

from kvsecure.pki.revocation import ListError, lists_of, lists_pem

_ROOT = Signer.root()


def _public(signer: Signer) -> bytes:
    return signer.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_list_holds_its_serials_and_dates() -> None:
    """What is in a list is revoked, what is not is not, and its dates are its own."""
    (found,) = lists_of(_ROOT.crl(5, 7, begins=-2 * DAY, ends=3 * DAY))

    assert 5 in found
    assert 7 in found
    assert 6 not in found
    assert len(found) == 2
    assert (found.this_update, found.next_update) == (NOW - 2 * DAY, NOW + 3 * DAY)


@pytest.mark.parametrize(("offset", "is_fresh"), [(-2, False), (0, True), (1, True), (2, False)])
def test_list_is_fresh_between_its_dates(offset: int, *, is_fresh: bool) -> None:
    """Before it begins, and once the next one is due, a list is not to be relied on."""
    (found,) = lists_of(_ROOT.crl())

    assert found.is_fresh(NOW + offset * DAY) is is_fresh


def test_list_is_signed_by_its_issuer_alone() -> None:
    """Another authority of the same name is another one."""
    (found,) = lists_of(_ROOT.crl())

    assert found.is_signed_by(_public(_ROOT))
    assert not found.is_signed_by(_public(Signer.root()))
    assert not found.is_signed_by(b"no key")


def test_lists_are_read_from_pem_and_der() -> None:
    """A file has several lists in PEM or one in DER, as etcd takes it."""
    other = Signer.root("other")
    pem = _ROOT.crl(1) + b"a remark\n" + other.crl(2)
    der = x509.load_pem_x509_crl(_ROOT.crl(3)).public_bytes(serialization.Encoding.DER)

    first, second = lists_of(pem)
    (only,) = lists_of(der)

    assert (1 in first, 2 in second, 3 in only) == (True, True, True)
    assert [each.issuer for each in lists_of(lists_pem((first, second)))] == [
        first.issuer,
        second.issuer,
    ]


@pytest.mark.parametrize(
    "cut", [slice(0, 0), slice(0, 10), slice(0, 100), slice(0, -30), slice(40, None)]
)
def test_list_that_is_cut_off_is_refused(cut: slice) -> None:
    """Half a file is no file."""
    with pytest.raises(ListError):
        lists_of(_ROOT.crl(1)[cut])


def test_second_list_that_is_cut_off_is_refused() -> None:
    """A file whose first list is whole is refused if the second one is not."""
    with pytest.raises(ListError, match="cut off"):
        lists_of(_ROOT.crl(1) + _ROOT.crl(2)[:150])


@pytest.mark.parametrize(
    "critical",
    [
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(
            full_name=None,
            relative_name=None,
            only_contains_user_certs=True,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        ),
    ],
)
def test_list_that_is_not_whole_is_refused(critical: x509.ExtensionType) -> None:
    """Whoever is not in a list of changes, or of a part, may be revoked all the same."""
    with pytest.raises(ListError, match="not a whole list"):
        lists_of(_ROOT.crl(1, critical=critical))


@given(st.binary(max_size=600))
def test_any_bytes_are_lists_or_an_error(content: bytes) -> None:
    """Nothing else comes out of a file than lists or the one error."""
    with contextlib.suppress(ListError):
        assert lists_of(content)


@given(st.integers(0, 300), st.integers(0, 255))
def test_damaged_list_is_never_signed(place: int, value: int) -> None:
    """Whatever byte is changed, the result is no list, or not the issuer's, or the same."""
    der = bytearray(x509.load_pem_x509_crl(_ROOT.crl(1)).public_bytes(serialization.Encoding.DER))
    changed = der[place % len(der)] != value
    der[place % len(der)] = value

    try:
        (found,) = lists_of(bytes(der))
    except ListError:
        assert changed
        return

    assert found.is_signed_by(_public(_ROOT)) is not changed
