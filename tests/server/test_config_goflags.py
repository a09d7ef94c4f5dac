"""Go's flag syntax, as etcd's users and its test harness write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.server.config import ConfigError, Early, ServerConfig, load

KEK = ("--kek-file", "/run/kek")


def configured(*arguments: str) -> ServerConfig:
    """Return the configuration of a complete command line without an environment."""
    config = load([*KEK, *arguments], {})
    assert isinstance(config, ServerConfig)
    return config


@pytest.mark.parametrize(
    "arguments",
    [
        ("-name", "a"),
        ("--name", "a"),
        ("-name=a",),
        ("--name=a",),
        ("--name=b", "--name=a"),
        ("--name", "a", "--"),
    ],
)
def test_flag_value_may_be_written_in_every_way_go_takes(arguments: tuple[str, ...]) -> None:
    """One or two dashes, a value after `=` or as the next argument, the last of several wins."""
    config = configured(*arguments)

    assert config.member.name == "a"


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_flag_switch_is_true_in_all_of_gos_spellings(text: str) -> None:
    """A switch takes strconv.ParseBool's words for true."""
    config = configured(
        f"--client-cert-auth={text}",
        "--trusted-ca-file=ca",
        "--cert-file=c",
        "--key-file=k",
    )

    assert config.security.client_certificates.value == "required"


def test_flag_switch_alone_does_not_take_the_next_argument() -> None:
    """A bare switch means true, and what follows it is the next argument."""
    with pytest.raises(ConfigError, match="'false' is not a valid flag"):
        load([*KEK, "--client-cert-auth", "false"], {})


@pytest.mark.parametrize(
    ("text", "number"), [("0x10", 16), ("0b11", 3), ("0o17", 15), ("017", 15), ("1_000", 1000)]
)
def test_flag_number_may_be_a_go_literal(text: str, number: int) -> None:
    """Numbers take Go's prefixes and underscores, the old octal notation included."""
    config = configured(f"--max-txn-ops={text}")

    assert config.limits.txn_ops_max == number


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["-help"], ["--name", "x", "-h", "-?"]])
def test_flag_help_ends_the_reading(arguments: list[str]) -> None:
    """Help is answered where it is met, whatever follows."""
    outcome = load(arguments, {})

    assert isinstance(outcome, Early)
    assert outcome.text.startswith("Usage:")


def test_flag_version_prints_etcds_line_first() -> None:
    """The first line is the one that etcd's test harness parses."""
    outcome = load(["--version"], {})

    assert isinstance(outcome, Early)
    assert outcome.text.splitlines()[0] == "etcd Version: 3.5.21"
    assert outcome.text.splitlines()[1].startswith("kvsecure Version: ")


def test_flag_version_false_starts_the_server() -> None:
    """A version switch that is off asks for nothing."""
    config = configured("--version=false")

    assert config.member.name == "default"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--frob"], "flag provided but not defined: -frob"),
        (["-frob=1"], "flag provided but not defined: -frob"),
        (["---name"], "bad flag syntax: ---name"),
        (["-=x"], "bad flag syntax: -=x"),
        (["--name"], "flag needs an argument: -name"),
        (
            ["--client-cert-auth=maybe"],
            'invalid boolean value "maybe" for -client-cert-auth: parse error',
        ),
        (
            ["--max-txn-ops=-1"],
            'invalid value "-1" for flag -max-txn-ops: parse error',
        ),
        (
            ["--max-txn-ops=1__0"],
            'invalid value "1__0" for flag -max-txn-ops: parse error',
        ),
        (
            ["--max-txn-ops=\u0661"],
            'invalid value "\\u0661" for flag -max-txn-ops: parse error',
        ),
        (
            ["--snapshot-count=99999999999999999999"],
            'invalid value "99999999999999999999" for flag -snapshot-count: value out of range',
        ),
        (
            ["--grpc-keepalive-timeout=5"],
            'invalid value "5" for flag -grpc-keepalive-timeout: parse error',
        ),
        (
            ["--tls-min-version=TLS1.1"],
            'invalid value "TLS1.1" for flag -tls-min-version: must be one of TLS1.2, TLS1.3',
        ),
        (
            ["--name=a\x1b[2J"],
            'invalid value "..." for flag -name: contains a control character',
        ),
        (["--name=\udcff"], 'invalid value "..." for flag -name: not valid UTF-8'),
    ],
)
def test_flag_error_has_gos_text_and_status_two(arguments: list[str], text: str) -> None:
    """What Go's flag package would refuse is refused with its words and exit status 2."""
    with pytest.raises(ConfigError) as caught:
        load([*KEK, *arguments], {})

    assert str(caught.value) == text
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["extra"], "'extra' is not a valid flag"),
        (["--", "--name"], "'--name' is not a valid flag"),
        (["-"], "'-' is not a valid flag"),
        (["--snapshot", "x"], "'x' is not a valid flag"),
        (["gateway"], "'gateway' is not a valid flag: etcd's gateway is not in this release"),
        (["a\x1b"], "'a\\x1b' is not a valid flag"),
    ],
)
def test_argument_that_is_no_flag_is_refused(arguments: list[str], text: str) -> None:
    """Nothing but flags is taken, with etcd's text and exit status 1."""
    with pytest.raises(ConfigError) as caught:
        load([*KEK, *arguments], {})

    assert str(caught.value) == text
    assert caught.value.status == 1


def test_flag_of_old_is_ignored_with_a_warning() -> None:
    """The switches that etcd ignores are ignored, and said to be."""
    config = configured("--peer-heartbeat-interval", "--vv=3")

    assert config.warnings == (
        "--peer-heartbeat-interval is ignored: no such option any more",
        "--vv is ignored: no such option any more",
    )


def test_flag_with_its_experimental_name_means_the_flag() -> None:
    """An option's old name sets the option, and the warning says the new one."""
    config = configured("--experimental-watch-progress-notify-interval=30s")

    assert config.limits.watch_progress_interval_ns == 30_000_000_000
    (warning,) = config.warnings
    assert warning.endswith("is called --watch-progress-notify-interval now")


@given(st.lists(st.text(max_size=20) | st.sampled_from(["--name", "-h", "--", "=", "--x="])))
def test_command_line_of_any_texts_has_one_of_three_outcomes(arguments: list[str]) -> None:
    """Whatever the arguments, there is a configuration, a text, or a ConfigError of one line."""
    try:
        outcome = load(arguments, {})
    except ConfigError as error:
        outcome = Early(text=str(error))

    assert isinstance(outcome, ServerConfig) or outcome.text.replace("\n", "").isprintable()
