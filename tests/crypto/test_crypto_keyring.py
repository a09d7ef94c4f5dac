"""The keyring: it opens with its key and whole, or it says why not."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring, KeyringError, SealedRoot
from kvsecure.model.ids import ClusterId
from kvsecure.model.secret import Secret

_KEK = KeyEncryptionKey(Secret(bytes(32)), "file")
_CLUSTER = ClusterId(0xC0FFEE)
_RING = Keyring.create(_KEK, _CLUSTER)
_CONTENT = _RING.file_content()


def _keys_of(ring: Keyring) -> tuple[Secret, Secret]:
    return ring.root_key(purpose="x"), ring.data_key(ring.current_term, purpose="x")


def test_keyring_opens_to_the_same_keys() -> None:
    """What was created is what is opened, and is written to the same bytes again."""
    opened = Keyring.open(_CONTENT, _KEK)

    assert _keys_of(opened) == _keys_of(_RING)
    assert (opened.cluster_id, opened.current_term) == (_CLUSTER, 1)
    assert opened.file_content() == _CONTENT


def test_keyring_is_another_one_each_time() -> None:
    """Two keyrings of the same cluster under the same key have no key in common."""
    other = Keyring.create(_KEK, _CLUSTER)

    assert _keys_of(other)[0] != _keys_of(_RING)[0]
    assert _keys_of(other)[1] != _keys_of(_RING)[1]


def test_keyring_file_holds_no_key_in_the_clear() -> None:
    """Root key and data keys are in the file only wrapped, in no encoding."""
    for key in (_RING._root, _RING._seed, *_RING._terms.values(), Secret(bytes(32))):
        raw = key.reveal()
        for form in (raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()):
            assert form not in _CONTENT


def test_keyring_with_another_key_names_both() -> None:
    """The wrong key-encryption key is told by its id and that of the right one."""
    other = KeyEncryptionKey(Secret(bytes(31) + b"\1"), "file")

    with pytest.raises(KeyringError, match=f"{_KEK.key_id}.*{other.key_id}: give the right key"):
        Keyring.open(_CONTENT, other)


@given(at=st.integers(0, len(_CONTENT) - 1), change=st.integers(1, 255))
def test_keyring_with_any_changed_byte_gives_the_same_keys_or_none(at: int, change: int) -> None:
    """A file with a changed byte is refused, or the byte said nothing about the keys."""
    changed = _CONTENT[:at] + bytes((_CONTENT[at] ^ change,)) + _CONTENT[at + 1 :]

    try:
        opened = Keyring.open(changed, _KEK)
    except KeyringError:
        return
    assert opened.cluster_id == _CLUSTER
    assert opened.root_key(purpose="x") == _RING.root_key(purpose="x")
    assert opened.data_key(1, purpose="x") == _RING.data_key(1, purpose="x")


@pytest.mark.parametrize("length", range(0, len(_CONTENT) - 2, 3))
def test_keyring_that_was_cut_is_damaged(length: int) -> None:
    """A file that ends early, anywhere, is told to be damaged."""
    with pytest.raises(KeyringError, match="is damaged; restore it from a backup"):
        Keyring.open(_CONTENT[:length], _KEK)


@given(content=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_a_damaged_keyring(content: bytes) -> None:
    """No bytes whatever fail in another way than by saying that the file is damaged."""
    with pytest.raises(KeyringError):
        Keyring.open(content, _KEK)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"format":1,"cluster_id":"1","kek":{},"root":"","terms":[]}',
        json.dumps(json.loads(_CONTENT) | {"terms": []}).encode(),
        _CONTENT.replace(b'"term": 1', b'"term": 1e999'),
        _CONTENT.replace(b'"term": 1', b'"term": -1'),
        _CONTENT.replace(b'"c0ffee"', b'"-c0ffee"'),
    ],
    ids=["deep", "empty", "no terms", "infinite", "negative", "negative cluster"],
)
def test_keyring_of_a_strange_form_is_refused(content: bytes) -> None:
    """JSON that no keyring ever was is refused like any other damage."""
    with pytest.raises(KeyringError, match="damaged"):
        Keyring.open(content, _KEK)


def test_keyring_of_the_future_is_refused_by_its_number() -> None:
    """A format that is not known is named."""
    with pytest.raises(KeyringError, match="format 3 is not known here"):
        Keyring.open(_CONTENT.replace(b'"format": 2', b'"format": 3'), _KEK)


def test_wrapped_keys_open_only_where_they_belong() -> None:
    """Keys of another cluster, or a data key under another number, do not open."""
    fields = json.loads(_CONTENT)
    other = json.loads(Keyring.create(_KEK, ClusterId(5)).file_content())
    moved = json.loads(_CONTENT)
    moved["terms"][0]["term"] = 2

    for bent in (fields | {"root": other["root"]}, fields | {"cluster_id": "5"}, moved):
        with pytest.raises(KeyringError, match="does not open: the keyring file is damaged"):
            Keyring.open(json.dumps(bent).encode(), _KEK)


def test_data_key_that_is_not_there_is_named() -> None:
    """A term that was retired, or never was, is told by its number."""
    with pytest.raises(KeyringError, match="term 7 is not in the keyring"):
        _RING.data_key(7, purpose="x")


def test_key_file_is_read_as_it_is_written() -> None:
    """A new key file opens, spaces around it do not matter, and no two are the same."""
    content = KeyEncryptionKey.new_file_content()

    key = KeyEncryptionKey.from_file_content(content)
    spaced = KeyEncryptionKey.from_file_content(Secret(b" \n" + content.reveal() + b"\r\n"))

    assert key.key_id == spaced.key_id
    assert key.key_id != KeyEncryptionKey.from_file_content(key.new_file_content()).key_id
    assert Keyring.open(Keyring.create(key, _CLUSTER).file_content(), spaced).cluster_id == _CLUSTER


@pytest.mark.parametrize(
    "content", [b"", b"short", b"!" * 44, base64.b64encode(bytes(31)), base64.b64encode(bytes(33))]
)
def test_key_file_of_another_form_is_refused(content: bytes) -> None:
    """Anything but 32 bytes in base64 is refused, and not shown."""
    with pytest.raises(KeyringError, match="32") as caught:
        KeyEncryptionKey.from_file_content(Secret(content))

    assert not content or content.decode() not in str(caught.value)


def test_sealed_root_opens_with_the_key_that_wraps_the_keyring_and_no_other() -> None:
    """What a backup carries gives the keys that the keyring gives, after a round as texts."""
    kek = KeyEncryptionKey(Secret(bytes(range(32))), "file")
    keyring = Keyring.create(kek, ClusterId(7))
    sealed = SealedRoot.of_fields(keyring.sealed_root.fields())

    assert sealed == keyring.sealed_root
    ours = keyring.root_key(purpose="backup").reveal()
    assert sealed.root_key(kek, purpose="backup").reveal() == ours
    other = KeyEncryptionKey(Secret(bytes(32)), "file")
    with pytest.raises(KeyringError, match="give the right key"):
        sealed.root_key(other, purpose="backup")
    moved = SealedRoot.of_fields({**sealed.fields(), "cluster_id": "8"})
    with pytest.raises(KeyringError, match="does not open"):
        moved.root_key(kek, purpose="backup")


@pytest.mark.parametrize("missing", ["cluster_id", "kek_id", "kek_provider", "wrapped"])
def test_sealed_root_that_is_damaged_is_refused(missing: str) -> None:
    """Fields that are missing or of no form are an error of keys, and no other."""
    kek = KeyEncryptionKey(Secret(bytes(range(32))), "file")
    fields = Keyring.create(kek, ClusterId(7)).sealed_root.fields()
    del fields[missing]

    with pytest.raises(KeyringError):
        SealedRoot.of_fields(fields)
