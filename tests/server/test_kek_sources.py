"""The sources of the key-encryption key, each with its right key, a wrong one and none."""

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.kms import KmsPluginServer

from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.model.ids import ClusterId
from kvsecure.pki.files import write_private
from kvsecure.proto import kms_pb2
from kvsecure.server.config.model import KekProvider, KekSettings
from kvsecure.server.kek import kek_source

_VARIABLE = "KVSECURE_TEST_KEY"


def _key() -> bytes:
    return base64.b64encode(secrets.token_bytes(32))


def _reopened(content: bytes, settings: KekSettings) -> Keyring:
    return Keyring.open(content, kek_source(settings))


def _new(settings: KekSettings) -> bytes:
    """Return a keyring file that a source's new key has wrapped."""
    return Keyring.create(kek_source(settings).key_for(None), ClusterId(5)).file_content()


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[KmsPluginServer]:
    """A plugin that serves."""
    with KmsPluginServer(tmp_path / "kms.sock") as plugin:
        yield plugin


@pytest.fixture
def kms(plugin: KmsPluginServer) -> KekSettings:
    """The settings that lead to it."""
    return KekSettings(provider=KekProvider.KMS, kms_socket=plugin.socket)


def _file(path: Path) -> KekSettings:
    return KekSettings(file=path)


def _env() -> KekSettings:
    return KekSettings(provider=KekProvider.ENV, variable=_VARIABLE)


def _passphrase(path: Path) -> KekSettings:
    return KekSettings(provider=KekProvider.PASSPHRASE, passphrase_file=path)


# --- file ---------------------------------------------------------------------------------------


def test_key_file_opens_what_it_wrapped(tmp_path: Path) -> None:
    """A file is read anew each time, so that it may be replaced."""
    path = tmp_path / "kek"
    write_private(path, _key())
    content = _new(_file(path))

    assert _reopened(content, _file(path)).kek.provider == "file"
    write_private(path, _key())
    with pytest.raises(KeyringError, match="give the right key"):
        _reopened(content, _file(path))


def test_key_file_that_is_missing_or_exposed_is_told_by_its_flag(tmp_path: Path) -> None:
    """What is wrong with a file is said with the name of the flag."""
    path = tmp_path / "kek"
    with pytest.raises(KeyringError, match=r"--kek-file .*: No such file"):
        _new(_file(path))

    write_private(path, _key())
    path.chmod(0o644)

    with pytest.raises(KeyringError, match=r"--kek-file .*chmod 600"):
        _new(_file(path))


# --- environment --------------------------------------------------------------------------------


def test_variable_opens_what_it_wrapped_and_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first look the environment, and with it every child, is without the key."""
    key = _key().decode()
    monkeypatch.setenv(_VARIABLE, key)
    source = kek_source(_env())

    content = Keyring.create(source.key_for(None), ClusterId(5)).file_content()

    assert _VARIABLE not in os.environ
    assert Keyring.open(content, source).kek.provider == "env"
    monkeypatch.setenv(_VARIABLE, key)
    assert _reopened(content, _env()).cluster_id == 5


@pytest.mark.parametrize("content", ["", "short", "A" * 43])
def test_variable_without_a_key_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A variable that is not set, or no key, is named and not shown."""
    monkeypatch.setenv(_VARIABLE, content)

    with pytest.raises(KeyringError, match=f"--kek-env {_VARIABLE}: ") as caught:
        _new(_env())

    assert not content or content not in str(caught.value)


def test_variable_with_another_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key is told by its id."""
    monkeypatch.setenv(_VARIABLE, _key().decode())
    content = _new(_env())
    monkeypatch.setenv(_VARIABLE, _key().decode())

    with pytest.raises(KeyringError, match="give the right key"):
        _reopened(content, _env())


# --- passphrase ---------------------------------------------------------------------------------


def test_passphrase_file_opens_what_it_wrapped(tmp_path: Path) -> None:
    """The line's end is not part of a passphrase."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_private(first, b"harbour maple violet")
    write_private(second, b"harbour maple violet\n")

    content = _new(_passphrase(first))

    opened = _reopened(content, _passphrase(second))
    assert opened.kek.provider == "passphrase"
    assert opened.kek.parameters["algorithm"] == "argon2id"


def test_passphrase_comes_through_a_descriptor_once() -> None:
    """What comes through a pipe is kept for as long as the source is."""
    read, write = os.pipe()
    os.write(write, b"harbour maple violet\n")
    os.close(write)
    source = kek_source(_passphrase(Path(f"/dev/fd/{read}")))

    content = Keyring.create(source.key_for(None), ClusterId(5)).file_content()

    os.close(read)
    assert Keyring.open(content, source).cluster_id == 5


@pytest.mark.parametrize(
    ("mode", "text", "why"),
    [
        (0o600, b"harbour maple VIOLET", "the passphrase is not the one"),
        (0o644, b"harbour maple violet", "--kek-passphrase-file .*chmod 600"),
        (0, b"", "--kek-passphrase-file .*No such file"),
    ],
)
def test_passphrase_that_is_wrong_or_cannot_be_read_is_refused(
    tmp_path: Path, mode: int, text: bytes, why: str
) -> None:
    """A passphrase is not shown, whatever is wrong with it."""
    path = tmp_path / "passphrase"
    write_private(path, b"harbour maple violet")
    content = _new(_passphrase(path))
    path.unlink()
    if mode:
        write_private(path, text)
        path.chmod(mode)

    with pytest.raises(KeyringError, match=why) as caught:
        _reopened(content, _passphrase(path))

    assert not text or text.decode() not in str(caught.value)


# --- KMS ----------------------------------------------------------------------------------------


def test_plugin_wraps_a_key_and_unwraps_it(plugin: KmsPluginServer, kms: KekSettings) -> None:
    """What the plugin was given is not on the disk, and what it gave back is, annotations too."""
    content = _new(kms)
    made = list(plugin.calls)

    opened = _reopened(content, kms)

    assert made == ["Status", "Encrypt", "Decrypt"]
    assert plugin.calls == [*made, "Status", "Decrypt"]
    assert opened.kek.parameters["key_id"] == "key-1"
    (wrapped,) = plugin.plaintexts
    for form in (wrapped, base64.b64encode(wrapped), wrapped.hex().encode()):
        assert form not in content


def test_plugin_with_a_new_key_opens_what_the_old_one_wrapped(
    plugin: KmsPluginServer, kms: KekSettings
) -> None:
    """The id of the key that wrapped goes back with what it wrapped."""
    content = _new(kms)

    plugin.rotate("key-2")

    assert _reopened(content, kms).kek.parameters["key_id"] == "key-1"
    assert Keyring.open(_new(kms), kek_source(kms)).kek.parameters["key_id"] == "key-2"


def test_plugin_without_the_key_is_refused_in_its_words(
    plugin: KmsPluginServer, kms: KekSettings
) -> None:
    """A plugin's words are told without what would bend a log or a terminal."""
    content = _new(kms)
    plugin.forget()

    with pytest.raises(KeyringError, match=r"Decrypt fails: FAILED_PRECONDITION: no such\?key"):
        _reopened(content, kms)


def test_plugin_that_gives_another_key_is_refused(
    plugin: KmsPluginServer, kms: KekSettings
) -> None:
    """What comes back is checked against the id of what was wrapped."""
    content = _new(kms)
    plugin.answers["Decrypt"] = kms_pb2.DecryptResponse(plaintext=bytes(32))
    with pytest.raises(KeyringError, match="give the right key"):
        _reopened(content, kms)

    plugin.answers["Decrypt"] = kms_pb2.DecryptResponse(plaintext=b"short")

    with pytest.raises(KeyringError, match="has 32 bytes"):
        _reopened(content, kms)


def test_plugin_that_is_not_there_is_named_by_its_socket(
    plugin: KmsPluginServer, kms: KekSettings
) -> None:
    """No socket, a file in its place, and a socket nobody serves are told apart."""
    content = _new(kms)
    plugin.stop()
    with pytest.raises(KeyringError, match=r"kms\.sock: No such file"):
        _reopened(content, kms)

    plugin.socket.write_bytes(b"")

    with pytest.raises(KeyringError, match="is not a socket"):
        _reopened(content, kms)


def test_plugin_in_a_place_for_everybody_is_refused(
    plugin: KmsPluginServer, kms: KekSettings
) -> None:
    """Whoever could put a socket there could have the key."""
    plugin.socket.parent.chmod(0o777)

    with pytest.raises(KeyringError, match="could be anybody's"):
        _new(kms)


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (lambda plugin: setattr(plugin, "version", "v1"), "speaks version v1"),
        (lambda plugin: setattr(plugin, "health", "no\nroom"), r"not well: no\?room"),
        (lambda plugin: setattr(plugin, "key_id", ""), "does not name its key"),
    ],
)
def test_plugin_that_is_not_well_is_refused(
    plugin: KmsPluginServer, kms: KekSettings, bend: Callable[[KmsPluginServer], None], why: str
) -> None:
    """Nothing is given to a plugin whose status is not in order."""
    bend(plugin)

    with pytest.raises(KeyringError, match=why):
        _new(kms)

    assert plugin.calls == ["Status"]


@pytest.mark.parametrize(
    "answer",
    [
        {"ciphertext": b"", "key_id": "key-1"},
        {"ciphertext": b"c" * 1025, "key_id": "key-1"},
        {"ciphertext": b"c", "key_id": "key-2"},
        {"ciphertext": b"c", "key_id": "key-1", "annotations": {"a": b"a" * 32768}},
    ],
    ids=["nothing", "too much", "another key", "annotations"],
)
def test_plugin_that_wraps_in_a_strange_way_is_refused(
    plugin: KmsPluginServer, kms: KekSettings, answer: dict[str, object]
) -> None:
    """A key that might not come back seals nothing."""
    plugin.answers["Encrypt"] = kms_pb2.EncryptResponse(**answer)  # type: ignore[arg-type]  # by name

    with pytest.raises(KeyringError, match="not of the form that the interface wants"):
        _new(kms)


# --- all of them --------------------------------------------------------------------------------


def test_keyring_of_one_provider_is_not_tried_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kms: KekSettings
) -> None:
    """The provider that wrapped is named, and the wrong one is not asked for its key."""
    path = tmp_path / "kek"
    write_private(path, _key())
    content = _new(_file(path))
    monkeypatch.setenv(_VARIABLE, _key().decode())

    for other in (_env(), _passphrase(tmp_path / "missing"), kms):
        with pytest.raises(
            KeyringError, match=f"of provider file, and this is {other.provider.value}"
        ):
            _reopened(content, other)
    assert _VARIABLE in os.environ
    with pytest.raises(KeyringError, match="of provider kms, and this is file"):
        _reopened(_new(kms), _file(tmp_path / "missing"))
