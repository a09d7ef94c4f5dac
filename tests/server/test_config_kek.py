"""Where the key-encryption key comes from: one provider, with its own flags and no other's."""

from pathlib import Path

import pytest

from kvsecure.server.config import ConfigError, ServerConfig, load
from kvsecure.server.config.model import KekProvider, KekSettings


def _configured(*arguments: str) -> ServerConfig:
    config = load(arguments, {})
    assert isinstance(config, ServerConfig)
    return config


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (("--kek-file=/k",), {"provider": KekProvider.FILE, "file": Path("/k")}),
        (("--kek-provider=env",), {"provider": KekProvider.ENV}),
        (("--kek-provider=env", "--kek-env=A"), {"provider": KekProvider.ENV, "variable": "A"}),
        (("--kek-provider=passphrase",), {"provider": KekProvider.PASSPHRASE}),
        (
            ("--kek-provider=passphrase", "--kek-passphrase-file=/dev/fd/3"),
            {"provider": KekProvider.PASSPHRASE, "passphrase_file": Path("/dev/fd/3")},
        ),
        (
            ("--kek-provider=kms", "--kek-kms-socket=/run/kms.sock"),
            {"provider": KekProvider.KMS, "kms_socket": Path("/run/kms.sock")},
        ),
    ],
    ids=str,
)
def test_provider_is_named_with_what_it_needs(
    flags: tuple[str, ...], settings: dict[str, object]
) -> None:
    """Each provider has its flags, and the file is the one that needs no naming."""
    expected = {"variable": "KVSECURE_KEK"} | settings

    assert _configured(*flags).security.kek == KekSettings(**expected)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--kek-provider=kms",), "--kek-provider kms needs --kek-kms-socket FILE"),
        (("--kek-provider=env", "--kek-file=/k"), "--kek-file is of no use with"),
        (("--kek-file=/k", "--kek-env=A"), "--kek-env is of no use with --kek-provider file"),
        (("--kek-file=/k", "--kek-passphrase-file=/p"), "--kek-passphrase-file is of no use"),
        (("--kek-file=/k", "--kek-kms-socket=/s"), "--kek-kms-socket is of no use"),
        (("--kek-provider=env", "--kek-env="), "the name of a variable, not a key"),
        (("--kek-provider=vault",), "must be one of file, env, passphrase, kms"),
    ],
    ids=str,
)
def test_flags_that_do_not_go_together_are_refused(flags: tuple[str, ...], why: str) -> None:
    """What would be ignored, and what is missing, is told before anything is opened."""
    with pytest.raises(ConfigError, match=why):
        _configured(*flags)


def test_key_in_the_place_of_a_name_is_refused_and_not_shown() -> None:
    """Whoever takes --kek-env for the key itself does not read it in a log."""
    key = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U="

    with pytest.raises(ConfigError, match="the name of a variable") as caught:
        _configured("--kek-provider=env", f"--kek-env={key}")

    assert key not in str(caught.value)


def test_key_in_the_environment_is_warned_about() -> None:
    """The weakest provider says that it is."""
    (warning,) = _configured("--kek-provider=env").warnings

    assert "--kek-provider env: root of this machine" in warning


def test_key_before_is_named_with_what_it_needs() -> None:
    """A keyring that is still wrapped by the key before is opened with that."""
    assert _configured("--kek-file=/k").security.previous_kek is None
    security = _configured(
        "--kek-file=/k", "--kek-previous-provider=file", "--kek-previous-file=/old"
    ).security

    assert security.previous_kek == KekSettings(
        prefix="kek-previous", file=Path("/old"), variable="KVSECURE_KEK_PREVIOUS"
    )


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--kek-previous-file=/old",), "--kek-previous-file needs --kek-previous-provider"),
        (("--kek-previous-provider=file",), "--kek-previous-provider file needs"),
        (("--kek-previous-provider=kms",), "--kek-previous-provider kms needs"),
        (
            ("--kek-previous-provider=env", "--kek-previous-file=/old"),
            "--kek-previous-file is of no use",
        ),
    ],
    ids=str,
)
def test_key_before_that_is_named_by_halves_is_refused(flags: tuple[str, ...], why: str) -> None:
    """The rules are those of the key that there is now."""
    with pytest.raises(ConfigError, match=why):
        _configured("--kek-file=/k", *flags)
