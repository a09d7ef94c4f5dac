"""Standing: what becomes of a chain that was good once."""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from pki.signer import DAY, NOW, Signed, Signer

from kvsecure.pki.certificates import CertificateError
from kvsecure.pki.files import write_public
from kvsecure.pki.handshake import Alert, LivingHandshake
from kvsecure.pki.revocation import lists_of
from kvsecure.pki.standing import Standing, Trust, chain_of
from kvsecure.pki.trust import ServerTls, client_context, server_credentials

_ROOT = Signer.root()
_OTHER = Signer.root("other")
_LEAF = _ROOT.leaf()


def _standing(
    signed: Signed,
    anchors: Sequence[Signer],
    lists: bytes | None = None,
    *,
    after: timedelta = timedelta(),
) -> Standing:
    trust = Trust(
        [each.certificate for each in anchors], None if lists is None else lists_of(lists)
    )
    return trust.judge(chain_of(signed.chain), NOW + after).standing


# --- dates and anchors ------------------------------------------------------------------------


def test_chain_is_good_while_its_anchor_is_trusted() -> None:
    """It is good below its authority, and untrusted without it."""
    assert _standing(_LEAF, [_OTHER, _ROOT]) is Standing.GOOD
    assert _standing(_LEAF, [_OTHER]) is Standing.UNTRUSTED
    assert _standing(_LEAF, [Signer.root()]) is Standing.UNTRUSTED


def test_chain_ends_with_its_leaf() -> None:
    """To the second of its end it is good, and the verdict tells when that is."""
    trust = Trust([_ROOT.certificate])
    chain = chain_of(_LEAF.chain)

    before = trust.judge(chain, NOW + DAY)
    after = trust.judge(chain, NOW + DAY + timedelta(seconds=1))

    assert before == (Standing.GOOD, (NOW + DAY).timestamp())
    assert after.standing is Standing.EXPIRED


def test_chain_ends_with_its_authority() -> None:
    """A leaf that was made to live longer than its authority does not."""
    leaf = _ROOT.leaf(ends=200 * DAY)

    assert _standing(leaf, [_ROOT], after=150 * DAY) is Standing.EXPIRED


def test_authority_that_was_renewed_is_the_same() -> None:
    """A new certificate for the old name and key keeps the connections of the old one."""
    leaf = _ROOT.leaf(ends=200 * DAY)

    assert _standing(leaf, [_ROOT.renewed()], after=150 * DAY) is Standing.GOOD
    assert _standing(leaf, [_ROOT.renewed(ends=-DAY)]) is Standing.EXPIRED


def test_authority_that_was_narrowed_is_another() -> None:
    """If it may sign less than before, those below it have to shake hands again."""
    assert _standing(_LEAF, [_ROOT.renewed(path_length=0)]) is Standing.UNTRUSTED


def test_authority_in_the_middle_may_be_the_anchor() -> None:
    """Trust may stop at a tenant's own authority, or begin at the root above it."""
    middle = _ROOT.below("middle")
    leaf = middle.leaf()

    assert _standing(leaf, [middle]) is Standing.GOOD
    assert _standing(leaf, [_ROOT]) is Standing.GOOD
    assert _standing(leaf, [_ROOT.below("middle")]) is Standing.UNTRUSTED


def test_leaf_that_is_trusted_by_itself_is_good() -> None:
    """A bundle may name a single certificate, and it must be the very same."""
    alone = Trust([_LEAF.certificate])

    assert alone.judge(chain_of(_LEAF.chain), NOW).standing is Standing.GOOD
    assert alone.judge(chain_of(_ROOT.leaf().chain), NOW).standing is Standing.UNTRUSTED


def test_damaged_chain_is_an_error() -> None:
    """What cannot be read has no standing."""
    with pytest.raises(CertificateError):
        chain_of([_LEAF.chain[0][:-20]])


# --- revocation -------------------------------------------------------------------------------


def test_revocation_goes_by_issuer_and_serial() -> None:
    """The same serial number of another issuer is another certificate."""
    ours, theirs = _ROOT.leaf(serial=77), _OTHER.leaf(serial=77)
    lists = _ROOT.crl(77) + _OTHER.crl()

    assert _standing(ours, [_ROOT, _OTHER], lists) is Standing.REVOKED
    assert _standing(theirs, [_ROOT, _OTHER], lists) is Standing.GOOD


def test_list_that_is_overdue_leaves_nobody_sure() -> None:
    """Who is not in it may be revoked by now; who is in it is."""
    late = _ROOT.crl(_LEAF.serial, begins=-3 * DAY, ends=-DAY)

    assert _standing(_ROOT.leaf(), [_ROOT], late) is Standing.UNCHECKED
    assert _standing(_LEAF, [_ROOT], late) is Standing.REVOKED
    assert _standing(_LEAF, [_ROOT], _ROOT.crl(begins=DAY, ends=2 * DAY)) is Standing.UNCHECKED


def test_list_that_is_missing_leaves_nobody_sure() -> None:
    """Taking an issuer's list away does not bring back what was revoked."""
    assert _standing(_LEAF, [_ROOT, _OTHER], _OTHER.crl()) is Standing.UNCHECKED


@pytest.mark.parametrize("standing", list(Standing))
def test_connections_are_lost_by_what_is_known(standing: Standing) -> None:
    """An open connection ends for what is known against it, not for a list that is late."""
    assert standing.is_lost is (standing not in {Standing.GOOD, Standing.UNCHECKED})


def test_newest_list_counts() -> None:
    """Of two lists of one issuer the later one is right, in whatever order they come."""
    old = _ROOT.crl(_LEAF.serial, begins=-2 * DAY)

    assert _standing(_LEAF, [_ROOT], old + _ROOT.crl()) is Standing.GOOD
    assert _standing(_LEAF, [_ROOT], _ROOT.crl() + old) is Standing.GOOD


def test_list_that_somebody_else_signed_is_refused() -> None:
    """A list in the name of a trusted authority has to be that authority's."""
    with pytest.raises(CertificateError, match="not signed"):
        _standing(_LEAF, [_ROOT], Signer.root().crl())


def test_list_of_a_stranger_does_no_harm() -> None:
    """While authorities are exchanged, the file may still hold the list of one that is gone."""
    assert _standing(_LEAF, [_ROOT], _ROOT.crl() + _OTHER.crl(_LEAF.serial)) is Standing.GOOD


def test_authority_in_the_middle_can_be_revoked() -> None:
    """Its issuer need not have a list, but counts if it has one."""
    middle = _ROOT.below("middle")
    leaf = middle.leaf()

    assert _standing(leaf, [_ROOT], middle.crl()) is Standing.GOOD
    assert _standing(leaf, [_ROOT], middle.crl() + _ROOT.crl()) is Standing.GOOD
    assert _standing(leaf, [_ROOT], middle.crl() + _ROOT.crl(middle.serial)) is Standing.REVOKED
    assert (
        _standing(leaf, [_ROOT], middle.crl() + _ROOT.crl(begins=-2 * DAY, ends=-DAY))
        is Standing.UNCHECKED
    )
    assert _standing(leaf, [_ROOT], _ROOT.crl()) is Standing.UNCHECKED


# --- with TLS ---------------------------------------------------------------------------------


class _Case(NamedTuple):
    """What a server trusts, and what it is shown."""

    signed: Signed
    anchors: bytes
    lists: bytes | None
    expected: Standing


_MIDDLE = _ROOT.below("middle")
_CASES = {
    "good": _Case(_LEAF, _ROOT.pem, None, Standing.GOOD),
    "listed": _Case(_LEAF, _ROOT.pem, _ROOT.crl(5), Standing.GOOD),
    "revoked": _Case(_LEAF, _ROOT.pem, _ROOT.crl(_LEAF.serial), Standing.REVOKED),
    "overdue": _Case(_LEAF, _ROOT.pem, _ROOT.crl(begins=-2 * DAY, ends=-DAY), Standing.UNCHECKED),
    "early": _Case(_LEAF, _ROOT.pem, _ROOT.crl(begins=DAY, ends=2 * DAY), Standing.UNCHECKED),
    "missing": _Case(_LEAF, _ROOT.pem + _OTHER.pem, _OTHER.crl(), Standing.UNCHECKED),
    "same serial": _Case(
        _LEAF, _ROOT.pem + _OTHER.pem, _ROOT.crl() + _OTHER.crl(_LEAF.serial), Standing.GOOD
    ),
    "untrusted": _Case(_LEAF, _OTHER.pem, None, Standing.UNTRUSTED),
    "expired": _Case(_ROOT.leaf(ends=-DAY), _ROOT.pem, None, Standing.EXPIRED),
    "renewed": _Case(_LEAF, _ROOT.renewed().pem, None, Standing.GOOD),
    "middle": _Case(_MIDDLE.leaf(), _MIDDLE.pem, _MIDDLE.crl(), Standing.GOOD),
    "below the middle": _Case(_MIDDLE.leaf(), _ROOT.pem, _MIDDLE.crl(), Standing.GOOD),
    "no list below the middle": _Case(_MIDDLE.leaf(), _ROOT.pem, _ROOT.crl(), Standing.UNCHECKED),
}

Handshake = Callable[[ssl.SSLContext, ssl.SSLContext, str], tuple[ssl.SSLObject, ssl.SSLObject]]


@pytest.mark.parametrize("case", list(_CASES.values()), ids=list(_CASES))
def test_later_check_agrees_with_the_handshake(
    case: _Case, server: ServerTls, tmp_path: Path, handshake: Handshake
) -> None:
    """What a handshake would say now is what an open connection is judged by."""
    anchors, lists = tmp_path / "anchors.crt", tmp_path / "lists.crl"
    write_public(anchors, case.anchors)
    if case.lists is not None:
        write_public(lists, case.lists)
    trusting = replace(
        server, trusted_ca_file=anchors, crl_file=None if case.lists is None else lists
    )
    credentials = server_credentials(trusting)
    assert server.trusted_ca_file is not None
    client = client_context(replace(case.signed.tls(tmp_path, server.trusted_ca_file)), NOW - DAY)

    verdict = credentials.trust.judge(chain_of(case.signed.chain), NOW)

    assert verdict.standing is case.expected
    if verdict.standing is not Standing.GOOD:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            handshake(credentials.context, client, "localhost")
        assert isinstance(caught.value.__cause__, Alert)
        assert caught.value.__cause__.content
        return
    there, _ = handshake(credentials.context, client, "localhost")
    assert isinstance(there, LivingHandshake)
    verified = chain_of(there.verified_chain())
    assert verified[0] == chain_of(case.signed.chain)[0]
    assert credentials.trust.judge(verified, NOW).standing is Standing.GOOD


def test_client_without_a_certificate_has_no_chain(server: ServerTls, handshake: Handshake) -> None:
    """Nobody is verified by nothing."""
    off = replace(server, client_certificates=type(server.client_certificates).OFF)
    nobody = ssl.create_default_context(cafile=str(server.trusted_ca_file))

    there, _ = handshake(server_credentials(off).context, nobody, "localhost")

    assert isinstance(there, LivingHandshake)
    assert there.verified_chain() == []
