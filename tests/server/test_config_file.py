"""Configuration from a YAML file."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvsecure.server.config import ConfigError, ServerConfig, load
from kvsecure.server.config.model import PeerTls


def configured(directory: Path, text: str, *arguments: str, **environ: str) -> ServerConfig:
    """Return the configuration of a file."""
    path = directory / "kvsecure.yaml"
    path.write_text(f"kek-file: /run/kek\n{text}", encoding="utf-8")
    config = load(["--config-file", str(path), *arguments], environ)
    assert isinstance(config, ServerConfig)
    return config


def test_file_has_flag_names_as_keys(tmp_path: Path) -> None:
    """Texts, numbers, switches, lists and durations are set as their flags are."""
    config = configured(
        tmp_path,
        """
name: a
max-txn-ops: 7
client-cert-auth: false
log-outputs: [stdout, /var/log/kvsecure.log]
watch-progress-notify-interval: 30s
warning-apply-duration: 200000000
auto-compaction-retention: 5
discovery:
""",
    )

    assert config.member.name == "a"
    assert config.limits.txn_ops_max == 7
    assert config.logging.outputs == ("stdout", "/var/log/kvsecure.log")
    assert config.limits.watch_progress_interval_ns == 30_000_000_000
    assert config.limits.slow_apply_ns == 200_000_000


def test_file_groups_are_etcds(tmp_path: Path) -> None:
    """The TLS options may stand in the group that etcd's file has."""
    config = configured(
        tmp_path,
        """
client-transport-security:
  cert-file: server.crt
  key-file: server.key
  client-cert-auth: true
  trusted-ca-file: ca.crt
  auto-tls: false
peer-transport-security:
  cert-file: peer.crt
  key-file: peer.key
  client-cert-auth: true
  trusted-ca-file: peer-ca.crt
peer-crl-file: peers.crl
""",
    )

    assert config.security.cert_file == Path("server.crt")
    assert config.security.client_certificates.value == "required"
    assert config.listen.client[0].url == "https://localhost:2379"
    assert config.peers.tls == PeerTls(
        cert_file=Path("peer.crt"),
        key_file=Path("peer.key"),
        trusted_ca_file=Path("peer-ca.crt"),
        crl_file=Path("peers.crl"),
    )


def test_file_excludes_flags_and_variables_and_says_which(tmp_path: Path) -> None:
    """A file is all that counts; what was set elsewhere is listed in a warning."""
    config = configured(tmp_path, "name: a", "--name=b", "--max-txn-ops=3", ETCD_METRICS="basic")

    assert config.member.name == "a"
    assert config.limits.txn_ops_max == 128
    (warning,) = config.warnings
    assert warning.endswith("ignored: --name, --max-txn-ops, ETCD_METRICS")


def test_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """ETCD_CONFIG_FILE is --config-file."""
    path = tmp_path / "a.yaml"
    path.write_text("kek-file: k\nname: a\n", encoding="utf-8")

    config = load([], {"ETCD_CONFIG_FILE": str(path)})

    assert isinstance(config, ServerConfig)
    assert config.member.name == "a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nmae: a", "'nmae' is not a valid key"),
        ("client-transport-security: {cert: x}", "client-transport-security.cert"),
        ("client-transport-security: x", "is a group and has keys below it"),
        ("name: a\nname: b", "'name' stands here for the second time"),
        ("cert-file: a\nclient-transport-security: {cert-file: b}", "is set under two names"),
        ("max-txn-ops: '7'", "max-txn-ops: must be a whole number"),
        ("max-txn-ops: true", "max-txn-ops: must be a whole number"),
        ("max-txn-ops: -7", "max-txn-ops: value out of range"),
        ("client-cert-auth: 'true'", "client-cert-auth: must be true or false"),
        ("name: 7", "name: must be a text; put it in quotes"),
        ("log-outputs: [1]", "log-outputs: must be a text"),
        ("warning-apply-duration: 1.5", "must be a duration"),
        ("config-file: b.yaml", "'config-file' is not a valid key"),
        ("auto-tls: true", "--auto-tls: certificates that nobody verifies"),
        ("peer-transport-security: {cert-file: p}", "--peer-key-file must be given together"),
        ("peer-transport-security: {auto-tls: true}", "--peer-auto-tls: certificates that nobody"),
        ("name: [a", "not the YAML of a configuration"),
        ("name: !!python/object/apply:os.system [true]", "not the YAML of a configuration"),
        ("name: !!bool x", "not the YAML of a configuration"),
        ("? [a]\n: b", "not the YAML of a configuration"),
        ("- a", "not the YAML of a configuration"),
    ],
)
def test_file_with_a_mistake_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """An unknown or repeated key, a wrong type, a rejected option: exit status 1 and the reason."""
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)

    assert reason in str(caught.value)
    assert caught.value.status == 1


def test_file_that_is_a_list_is_refused(tmp_path: Path) -> None:
    """A configuration is a mapping."""
    path = tmp_path / "a.yaml"
    path.write_text("- a\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="is a mapping of flag names"):
        load(["--config-file", str(path)], {})


def test_file_that_cannot_be_opened_has_etcds_text(tmp_path: Path) -> None:
    """The text names the file and the system's reason."""
    with pytest.raises(ConfigError, match=r"open .*absent: No such file or directory"):
        load([f"--config-file={tmp_path}/absent"], {})


def test_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """A configuration has less than a mebibyte."""
    with pytest.raises(ConfigError, match="longer than 1048576 bytes"):
        configured(tmp_path, "#" * (1 << 20))


def test_file_of_old_keeps_working_with_warnings(tmp_path: Path) -> None:
    """Keys that etcd ignores are ignored; an old spelling sets the option; both are said."""
    config = configured(tmp_path, "snapshot: x\nexperimental-watch-progress-notify-interval: 30s\n")

    assert config.limits.watch_progress_interval_ns == 30_000_000_000
    ignored, renamed = config.warnings
    assert "'snapshot' is ignored" in ignored
    assert renamed.endswith("is called watch-progress-notify-interval now")


def test_file_in_compatibility_mode_may_have_unknown_keys(tmp_path: Path) -> None:
    """With `compat: etcd` an unknown key is a warning, as quiet as etcd would be and louder."""
    config = configured(tmp_path, "compat: etcd\nfrob: 1\n")

    assert any("'frob' is ignored" in warning for warning in config.warnings)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(alphabet="na:-[]{}&*!?<| \n'\"0.e", max_size=60))
def test_file_of_any_bytes_is_a_configuration_or_an_error(
    tmp_path: Path, content: bytes | str
) -> None:
    """No content of the file breaks the reading."""
    path = tmp_path / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    try:
        outcome = load(["--config-file", str(path)], {})
    except ConfigError:
        return

    assert isinstance(outcome, ServerConfig)
