"""Sealing: what was sealed opens, nothing else does, and no number is used twice."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.crypto.sealing import (
    KEY_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    Opener,
    Sealer,
    Tampered,
    derive_key,
    fresh_key,
    fresh_salt,
    read_unverified,
)
from kvsecure.model.secret import Secret

_KEY = Secret(bytes(range(32)))


@given(texts=st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=20)), max_size=6))
def test_sealed_texts_open_under_their_numbers(texts: list[tuple[bytes, bytes]]) -> None:
    """Each text opens with the number that it was sealed under and what it was bound to."""
    sealer, opener = Sealer(_KEY), Opener(_KEY)

    sealed = [(sealer.count, sealer.seal(text, bound_to)) for text, bound_to in texts]

    assert [number for number, _ in sealed] == list(range(len(texts)))
    for (number, content), (text, bound_to) in zip(sealed, texts, strict=True):
        assert len(content) == len(text) + TAG_BYTES
        assert opener.open(number, content, bound_to) == text


def test_sealed_text_with_any_change_does_not_open() -> None:
    """Every changed bit, every cut, another number, key or binding is found."""
    sealed = Sealer(_KEY).seal(b"text", b"bound")
    opener = Opener(_KEY)
    changed = [
        sealed[:at] + bytes((sealed[at] ^ (1 << bit),)) + sealed[at + 1 :]
        for at in range(len(sealed))
        for bit in range(8)
    ]

    for content in [*changed, *(sealed[:length] for length in range(len(sealed))), sealed + b"x"]:
        with pytest.raises(Tampered):
            opener.open(0, content, b"bound")
    for opener_of, number, bound_to in [
        (opener, 1, b"bound"),
        (opener, 0, b"bounD"),
        (opener, 0, b""),
        (Opener(fresh_key()), 0, b"bound"),
    ]:
        with pytest.raises(Tampered):
            opener_of.open(number, sealed, bound_to)
    assert opener.open(0, sealed, b"bound") == b"text"


def test_equal_texts_do_not_look_equal() -> None:
    """Two texts that are the same are sealed to bytes that have nothing in common."""
    sealer = Sealer(_KEY)

    first, second = (sealer.seal(bytes(64), b"") for _ in range(2))

    assert first[:16] != second[:16]
    assert first[-TAG_BYTES:] != second[-TAG_BYTES:]


def test_keys_differ_by_root_purpose_and_salt() -> None:
    """Whatever differs in what a key is derived from gives another key; the same gives the same."""
    keys = {
        derive_key(root, purpose=purpose, salt=salt).reveal()
        for root in (_KEY, Secret(bytes(32)))
        for purpose in ("a", "b", "a/b")
        for salt in (b"", b"\1", bytes(31) + b"\1")
    }

    assert len(keys) == 2 * 3 * 3
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert derive_key(_KEY, purpose="a") == derive_key(_KEY, purpose="a", salt=b"")


def test_derived_keys_are_those_that_old_data_was_sealed_with() -> None:
    """Derivation is part of the format on disk, so its results are pinned."""
    key = derive_key(_KEY, purpose="wal", salt=bytes(32))

    # HKDF-SHA256 as RFC 5869 says it, in one block.
    extracted = hmac.digest(bytes(32), _KEY.reveal(), "sha256")
    assert key.reveal() == hmac.digest(extracted, b"kvsecure/v1/wal\1", "sha256")


def test_salts_and_keys_are_fresh() -> None:
    """No two salts or keys are the same, and both have their full length."""
    salts = {fresh_salt() for _ in range(100)}
    keys = {fresh_key().reveal() for _ in range(100)}

    assert len(salts) == len(keys) == 100
    assert {len(salt) for salt in salts} == {SALT_BYTES}
    assert {len(key) for key in keys} == {KEY_BYTES}


@given(text=st.binary(max_size=100), at=st.integers(0, 99))
def test_reading_unverified_shows_where_a_text_is_damaged(text: bytes, at: int) -> None:
    """A damaged text is read but for the bytes that were changed."""
    sealer = Sealer(_KEY)
    sealer.seal(b"before", b"")
    sealed = bytearray(sealer.seal(text, b""))
    assert read_unverified(_KEY, 1, bytes(sealed)) == text

    if at < len(text):
        sealed[at] ^= 0xFF

    found = read_unverified(_KEY, 1, bytes(sealed))
    assert [i for i in range(len(text)) if found[i] != text[i]] == ([at] if at < len(text) else [])
