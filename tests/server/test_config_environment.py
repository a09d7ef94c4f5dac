"""Configuration from ETCD_* and KVSECURE_* variables."""

import pytest

from kvsecure.server.config import ConfigError, ServerConfig, load


def configured(environ: dict[str, str], *arguments: str) -> ServerConfig:
    """Return the configuration of an environment that has a key file."""
    config = load(arguments, {"KVSECURE_KEK_FILE": "/run/kek"} | environ)
    assert isinstance(config, ServerConfig)
    return config


def test_variable_sets_its_flag() -> None:
    """ETCD_ and the name in upper case with underscores is etcd's flag, KVSECURE_ ours."""
    config = configured({"ETCD_MAX_TXN_OPS": "7", "KVSECURE_CLUSTER_NAME": "prod"})

    assert config.limits.txn_ops_max == 7
    assert config.cluster.name == "prod"


def test_variable_that_is_empty_is_not_set() -> None:
    """An empty variable neither sets its flag nor conflicts with it."""
    config = configured({"ETCD_NAME": ""}, "--name=a")

    assert config.member.name == "a"


def test_variable_and_flag_for_one_option_are_an_error() -> None:
    """Nobody can tell which one was meant; the text is etcd's."""
    with pytest.raises(ConfigError) as caught:
        configured({"ETCD_NAME": "a"}, "--name=a")

    assert str(caught.value) == (
        'conflicting environment variable "ETCD_NAME" is shadowed by corresponding command-line '
        "flag (either unset environment variable or disable flag)"
    )
    assert caught.value.status == 1


def test_variable_under_its_old_name_conflicts_with_the_new_flag() -> None:
    """An old spelling is the same option."""
    with pytest.raises(ConfigError, match="is shadowed by corresponding command-line flag"):
        configured(
            {"ETCD_EXPERIMENTAL_MAX_LEARNERS": "1"},
            "--max-learners=1",
        )


def test_variable_under_two_names_is_an_error() -> None:
    """The old and the new name are one option."""
    with pytest.raises(ConfigError, match="is set under two names"):
        configured({"ETCD_EXPERIMENTAL_MAX_LEARNERS": "1", "ETCD_MAX_LEARNERS": "1"})


def test_variable_with_a_bad_value_is_an_error_of_status_one() -> None:
    """The text is etcd's, and names the variable."""
    with pytest.raises(ConfigError) as caught:
        configured({"ETCD_SNAPSHOT_COUNT": "abc"})

    assert str(caught.value) == 'invalid value "abc" for ETCD_SNAPSHOT_COUNT: parse error'
    assert caught.value.status == 1


def test_variable_that_nobody_knows_is_warned_about_without_its_value() -> None:
    """A misspelt variable is named; what it holds may be a secret."""
    config = configured({"ETCD_FROB": "hunter2", "KVSECURE_CLIENT_CERT_MOD": "required"})

    assert config.warnings == (
        "unrecognized environment variable: ETCD_FROB",
        "unrecognized environment variable: KVSECURE_CLIENT_CERT_MOD",
    )


@pytest.mark.parametrize("name", ["ETCD_UNSUPPORTED_ARCH", "KVSECURE_HOME", "ETCDCTL_API", "HOME"])
def test_variable_of_others_is_not_mentioned(name: str) -> None:
    """The client's variables and those of etcd's harness are no misspellings."""
    config = configured({name: "x"})

    assert config.warnings == ()


def test_variable_for_version_does_not_exist() -> None:
    """Container images set ETCD_VERSION to a version; that must not stop the server."""
    config = configured({"ETCD_VERSION": "v3.5.21"})

    assert config.warnings == ("unrecognized environment variable: ETCD_VERSION",)


def test_variable_of_a_rejected_flag_is_rejected() -> None:
    """The table decides, not the source; and the value is not repeated."""
    with pytest.raises(ConfigError) as caught:
        configured({"ETCD_DISCOVERY_PASSWORD": "hunter2"})

    assert str(caught.value) == (
        "--discovery-password: others on this machine can see it there: give "
        "--discovery-password-file"
    )
