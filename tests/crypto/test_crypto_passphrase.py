"""Passphrases: the same one gives the same key, and what is stored says nothing of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.crypto.passphrase import stretch, stretch_new
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret

_PASSPHRASE = Secret(b"harbour maple violet")
_NEW = stretch_new(_PASSPHRASE)


def test_passphrase_gives_its_key_again() -> None:
    """With the parameters that are stored, the passphrase opens what it has wrapped."""
    ring = Keyring.create(_NEW, ClusterId(7))

    opened = Keyring.open(ring.file_content(), stretch(_PASSPHRASE, ring.kek.parameters))

    assert opened.data_key(1, purpose="x") == ring.data_key(1, purpose="x")
    assert _PASSPHRASE.reveal() not in ring.file_content()


def test_passphrase_is_stretched_with_a_new_salt_each_time() -> None:
    """Nobody sees from two keyrings that they have the same passphrase."""
    assert stretch_new(_PASSPHRASE).key_id != _NEW.key_id


def test_passphrase_that_is_wrong_gives_another_key() -> None:
    """One other letter is another key."""
    assert stretch(Secret(b"harbour maple violeT"), _NEW.parameters).key_id != _NEW.key_id


@pytest.mark.parametrize("text", [b"", b"fourteen chars", b"\xff" * 20, "\u00e4".encode() * 14])
def test_passphrase_that_is_short_or_no_text_is_refused(text: bytes) -> None:
    """It is counted in characters, and not shown."""
    with pytest.raises(KeyringError, match="passphrase") as caught:
        stretch_new(Secret(text))

    assert not text or repr(text)[2:-1] not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "argon2d"},
        {"algorithm": "scrypt"},
        {"salt": "AAAA"},
        {"salt": "!"},
        {"lanes": "0"},
        {"lanes": "65"},
        {"memory_kib": "4194305"},
        {"memory_kib": "-1"},
        {"memory_kib": "31"},
        {"passes": "0"},
        {"passes": "65"},
        {"passes": "many"},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused_before_they_cost_anything(
    change: dict[str, str],
) -> None:
    """Whoever can change the keyring file cannot make a start take all memory."""
    with pytest.raises(KeyringError, match="does not say how its passphrase is stretched"):
        stretch(_PASSPHRASE, dict(_NEW.parameters) | change)


@settings(max_examples=20, deadline=None)
@given(
    parameters=st.dictionaries(
        st.sampled_from(["algorithm", "salt", "lanes", "memory_kib", "passes", "other"]),
        st.text(max_size=8),
    )
)
def test_any_parameters_are_refused_in_the_same_way(parameters: dict[str, str]) -> None:
    """Nothing that a file may say fails in another way."""
    with pytest.raises(KeyringError, match="restore it from a backup"):
        stretch(_PASSPHRASE, parameters)
