"""Rotation: new keys above and below, what stays the same, and what a retired key still opens."""

import base64
import json

import pytest

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring, KeyringError
from kvsecure.crypto.sealing import derive_key
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret

_KEK = KeyEncryptionKey(Secret(bytes(32)), "file")
_OTHER_KEK = KeyEncryptionKey(Secret(bytes(31) + b"\1"), "env")
_PURPOSES = ("table", "wal", "audit")


def _ring() -> Keyring:
    return Keyring.create(_KEK, ClusterId(7), now_s=100)


def _reopened(ring: Keyring, kek: KeyEncryptionKey = _KEK) -> Keyring:
    return Keyring.open(ring.file_content(), kek)


def test_rotation_adds_a_data_key_and_keeps_the_others() -> None:
    """What was sealed still opens, what is new has a key of its own, and signing keys stay."""
    ring = _ring()

    rotated = _reopened(ring.rotated(_KEK, now_s=200))

    assert rotated.current_term == 2
    assert [tuple(term) for term in rotated.terms] == [(1, 100, False), (2, 200, False)]
    for purpose in _PURPOSES:
        assert rotated.data_key(1, purpose=purpose) == ring.data_key(1, purpose=purpose)
        assert rotated.data_key(2, purpose=purpose) != ring.data_key(1, purpose=purpose)
    assert rotated.root_key(purpose="x") == ring.root_key(purpose="x")


@pytest.mark.parametrize("kek", [_KEK, _OTHER_KEK], ids=["rotated", "rewrapped"])
def test_every_rotation_has_a_new_root_key(kek: KeyEncryptionKey) -> None:
    """Whoever knew the root key opens nothing of a keyring that was rotated since."""
    ring = _ring()

    new = ring.rotated(kek, now_s=0) if kek is _KEK else ring.rewrapped(kek)

    assert new._root != ring._root
    old_blobs = {term["wrapped"] for term in json.loads(ring.file_content())["terms"]}
    assert all(term["wrapped"] not in old_blobs for term in json.loads(new.file_content())["terms"])


def test_rewrapped_keyring_opens_with_the_new_key_alone() -> None:
    """Data keys stay, and the key before is of no more use."""
    ring = _ring()
    new = ring.rewrapped(_OTHER_KEK)

    assert _reopened(new, _OTHER_KEK).data_key(1, purpose="x") == ring.data_key(1, purpose="x")
    assert _reopened(new, _OTHER_KEK).kek.provider == "env"
    with pytest.raises(KeyringError, match="give the right key"):
        _reopened(new)


def test_retired_key_opens_the_audit_trail_and_nothing_else() -> None:
    """What is left of a data key is what was derived from it for one purpose, and says no more."""
    ring = _ring().rotated(_KEK, now_s=0)
    seed, audit = ring._terms[1], ring.data_key(1, purpose="audit")

    for retired in (ring.without(1), _reopened(ring.without(1))):
        assert retired.data_key(1, purpose="audit") == audit
        for purpose in ("table", "wal", "x"):
            with pytest.raises(KeyringError, match="term 1 was retired"):
                retired.data_key(1, purpose=purpose)
        assert [term.is_retired for term in retired.terms] == [True, False]
        held = [retired._root, retired._seed, *retired._terms.values(), *retired._retired.values()]
        assert seed not in held
    assert derive_key(audit, purpose="table") != ring.data_key(1, purpose="table")


def test_retired_key_stays_retired_through_rotations() -> None:
    """Its number is never used again, and its audit key goes along."""
    ring = _ring().rotated(_KEK, now_s=0)
    audit = ring.data_key(1, purpose="audit")

    later = _reopened(ring.without(1).rotated(_KEK, now_s=0).rewrapped(_OTHER_KEK), _OTHER_KEK)

    assert [tuple(term)[::2] for term in later.terms] == [(1, True), (2, False), (3, False)]
    assert later.data_key(1, purpose="audit") == audit


@pytest.mark.parametrize(
    ("term", "why"),
    [
        (2, "everything new is sealed under"),
        (3, "term 3 is not in the keyring"),
        (0, "term 0 is not in the keyring"),
    ],
)
def test_key_that_cannot_be_retired_is_told(term: int, why: str) -> None:
    """The current key, and one that never was, are refused."""
    with pytest.raises(KeyringError, match=why):
        _ring().rotated(_KEK, now_s=0).without(term)


def test_key_is_retired_once() -> None:
    """A second time is refused."""
    with pytest.raises(KeyringError, match="retired already"):
        _ring().rotated(_KEK, now_s=0).without(1).without(1)


def test_whoever_shares_a_keyring_sees_it_change() -> None:
    """Who was given the keyring before has the new keys too."""
    shared = ring = _ring()

    ring.become(ring.rotated(_KEK, now_s=5))

    assert shared.current_term == 2
    assert _reopened(shared).data_key(2, purpose="x") == shared.data_key(2, purpose="x")


def test_retired_key_does_not_open_under_another_number() -> None:
    """A retired key that was moved to another number is damage."""
    fields = json.loads(_ring().rotated(_KEK, now_s=0).without(1).file_content())
    fields["retired"][0]["term"] = 3

    with pytest.raises(KeyringError, match="does not open"):
        Keyring.open(json.dumps(fields).encode(), _KEK)


def test_keyring_of_the_first_format_is_opened_and_rotated() -> None:
    """Before there was a seed, signing keys came from the root key: they stay what they were."""
    ring = _ring()
    fields = json.loads(ring.file_content())
    old = {
        "format": 1,
        "cluster_id": fields["cluster_id"],
        "kek": {"provider": "file", "id": fields["kek"]["id"]},
        "root": fields["root"],
        "terms": [{"term": 1, "wrapped": fields["terms"][0]["wrapped"]}],
    }

    opened = Keyring.open(json.dumps(old).encode(), _KEK)
    rotated = _reopened(opened.rotated(_KEK, now_s=9))

    assert opened.root_key(purpose="x") == derive_key(ring._root, purpose="x")
    assert rotated.root_key(purpose="x") == opened.root_key(purpose="x")
    assert rotated.data_key(1, purpose="x") == ring.data_key(1, purpose="x")
    assert [tuple(term) for term in rotated.terms] == [(1, 0, False), (2, 9, False)]
    assert json.loads(opened.file_content())["format"] == 1
    assert base64.b64encode(ring._root.reveal()) not in rotated.file_content()
