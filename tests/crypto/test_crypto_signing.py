"""Signatures: Ed25519, derived keys, ids that name them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.crypto.sealing import Tampered
from kvsecure.crypto.signing import SigningKey, VerifyingKey
from kvsecure.model.secret import Secret

_KEY = SigningKey(Secret(bytes(range(32))))


@given(text=st.binary(max_size=200))
def test_signature_verifies_with_the_public_half(text: bytes) -> None:
    """Whoever has the 32 public bytes can check a signature of 64."""
    signature = _KEY.sign(text)

    VerifyingKey(_KEY.public.raw).verify(signature, text)

    assert (len(signature), len(_KEY.public.raw)) == (64, 32)


def test_signature_with_any_change_does_not_verify() -> None:
    """Every changed bit, another text, another key or another length is found."""
    signature = _KEY.sign(b"text")
    public = _KEY.public
    bent = [
        signature[:at] + bytes((signature[at] ^ (1 << at % 8),)) + signature[at + 1 :]
        for at in range(64)
    ]

    for wrong in [*bent, signature[:-1], signature + b"\0", b""]:
        with pytest.raises(Tampered):
            public.verify(wrong, b"text")
    for verifier, text in [(public, b"texT"), (SigningKey(Secret(bytes(32))).public, b"text")]:
        with pytest.raises(Tampered):
            verifier.verify(signature, text)


def test_key_follows_from_its_seed() -> None:
    """The same seed is the same key, as RFC 8032 has it, and another seed another key."""
    # RFC 8032 section 7.1, test 1.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey(Secret(seed))

    assert key.public.raw.hex() == (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    assert key.sign(b"") == SigningKey(Secret(seed)).sign(b"")
    assert key.public.key_id != _KEY.public.key_id


def test_key_id_is_the_thumbprint() -> None:
    """The id of a public key is its JWK thumbprint: RFC 8037, appendix A.3."""
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

    assert VerifyingKey(raw).key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
