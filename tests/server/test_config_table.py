"""The table of flags, and what it alone decides."""

import pytest

from kvsecure.server.config import ConfigError, ServerConfig, load
from kvsecure.server.config.flag import Flag, Kind, Status
from kvsecure.server.config.table import FLAGS, VARIABLES
from kvsecure.server.config.values import default_of

KEK = ("--kek-file=/run/kek",)
# For every kind a value that is nobody's default.
OTHER = {
    Kind.TEXT: "zzz",
    Kind.PATH: "zzz",
    Kind.UNSIGNED: "17",
    Kind.INTEGER: "17",
    Kind.DURATION: "17s",
    Kind.URLS: "http://127.0.0.1:17",
    Kind.LIST: "zzz",
}


def other_than_default(flag: Flag) -> str:
    """Return a value that a flag does not have by itself."""
    if flag.kind is Kind.SWITCH:
        return "false" if flag.default == "true" else "true"
    return "InitialCorruptCheck=true" if flag.name == "feature-gates" else OTHER[flag.kind]


@pytest.mark.parametrize("flag", FLAGS.values(), ids=lambda flag: flag.name)
def test_table_row_has_a_default_of_its_kind(flag: Flag) -> None:
    """Every default can be read, lies within the bounds, and every row says something."""
    value = default_of(flag)

    assert flag.help
    if flag.bounds is not None:
        assert isinstance(value, int)
        assert flag.bounds.minimum <= value <= flag.bounds.maximum


@pytest.mark.parametrize(
    "flag",
    [flag for flag in FLAGS.values() if flag.status is Status.REJECTED],
    ids=lambda flag: flag.name,
)
def test_table_rejected_flag_is_an_error_that_says_why(flag: Flag) -> None:
    """What is not in this release is refused, and the value is not repeated."""
    with pytest.raises(ConfigError) as caught:
        load([*KEK, f"--{flag.name}={other_than_default(flag)}"], {})

    assert str(caught.value) == f"--{flag.name}: {flag.help}"
    assert caught.value.status == 1


@pytest.mark.parametrize(
    "flag",
    [flag for flag in FLAGS.values() if flag.status is Status.ACCEPTED],
    ids=lambda flag: flag.name,
)
def test_table_accepted_flag_is_a_warning_that_says_why(flag: Flag) -> None:
    """What has no effect is never accepted in silence."""
    config = load([*KEK, f"--{flag.name}={other_than_default(flag)}"], {})

    assert isinstance(config, ServerConfig)
    assert config.warnings == (f"--{flag.name} has no effect: {flag.help}",)


@pytest.mark.parametrize(
    "flag",
    [flag for flag in FLAGS.values() if flag.status is not Status.HONOURED],
    ids=lambda flag: flag.name,
)
def test_table_default_given_by_hand_changes_nothing(flag: Flag) -> None:
    """Programs pass many defaults; they are no request for anything."""
    config = load([*KEK, f"--{flag.name}={flag.default}"], {})

    assert isinstance(config, ServerConfig)
    assert config.warnings == ()


@pytest.mark.parametrize(
    "flag",
    [
        flag
        for flag in FLAGS.values()
        if flag.bounds is not None and flag.bounds.maximum < (1 << 63) - 1
    ],
    ids=lambda flag: flag.name,
)
def test_table_number_beyond_its_bounds_is_refused(flag: Flag) -> None:
    """Every number has a largest value, and the error says what is allowed."""
    assert flag.bounds is not None
    unit = "ns" if flag.kind is Kind.DURATION else ""

    with pytest.raises(ConfigError) as caught:
        load([*KEK, f"--{flag.name}={flag.bounds.maximum + 1}{unit}"], {})

    assert f"--{flag.name}" in str(caught.value)
    assert caught.value.status == 1


def test_table_variables_belong_to_one_flag_each() -> None:
    """No two names have the same variable; help and version have none."""
    named = [flag.variable for flag in FLAGS.values() if flag.variable]

    assert len(set(named)) == len(named)
    assert set(named) <= VARIABLES.keys()
    assert not FLAGS["version"].variable


def test_table_has_no_flag_that_carries_a_secret() -> None:
    """A secret comes in a file; the one flag of etcd that is one itself is rejected."""
    secret = {
        flag.name
        for flag in FLAGS.values()
        if "password" in flag.name and not flag.name.endswith("-file")
    }

    assert secret == {"discovery-password"}
    assert FLAGS["discovery-password"].status is Status.REJECTED


@pytest.mark.parametrize("text", ["Frob=true", "InitialCorruptCheck", "InitialCorruptCheck=1"])
def test_table_unknown_feature_gate_is_an_error(text: str) -> None:
    """A gate that etcd does not have, or without a value, is refused as etcd refuses it."""
    with pytest.raises(ConfigError, match="--feature-gates"):
        load([*KEK, f"--feature-gates={text}"], {})
