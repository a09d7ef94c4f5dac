"""The configuration of those who say little, and its limits and logs."""

from pathlib import Path

import pytest
from server.command_line import configured, refused

from kvsecure.model import limits
from kvsecure.server.config import ConfigError, load
from kvsecure.server.config.model import (
    ClientCertMode,
    ClientIdentity,
    ClusterState,
    Compat,
    KeepPeriod,
    KeepRevisions,
    LogLevel,
    PolicyName,
    TlsVersion,
)

HOUR_NS = 3_600_000_000_000


def test_config_without_flags_but_the_key_is_secure_and_local() -> None:
    """The defaults are loopback, TLS 1.3, ten-minute tokens and no compatibility."""
    config = configured()

    assert config.warnings == ()
    assert [endpoint.url for endpoint in config.listen.client] == ["http://localhost:2379"]
    assert config.member.data_dir == Path("default.kvsecure")
    assert config.security.tls_minimum is TlsVersion.TLS_1_3
    assert config.security.client_certificates is ClientCertMode.OFF
    assert config.security.client_identity is ClientIdentity.URI
    assert config.security.token_ttl_s == 600
    assert config.security.initial_policy is PolicyName.DEFAULT
    assert config.limits.streams_per_connection_max == limits.STREAMS_PER_CONNECTION_MAX
    assert config.limits.quota_bytes == limits.QUOTA_BYTES_DEFAULT
    assert config.limits.compaction is None
    assert config.cluster.state is ClusterState.NEW
    assert config.compat is Compat.NONE


def test_config_without_a_key_file_is_refused_with_the_way_to_make_one() -> None:
    """Nothing is ever stored unsealed."""
    with pytest.raises(ConfigError, match=r"--kek-file is required: .*umask 077"):
        load([], {})


def test_config_says_what_was_given() -> None:
    """What was set is there for the log, in the table's order, as an operator would write it."""
    config = configured("--warning-apply-duration=1500ms", "--name=a", "--client-cert-auth=false")

    assert config.given == (
        ("name", "a"),
        ("client-cert-auth", "false"),
        ("warning-apply-duration", "1.5s"),
        ("kek-file", "/run/kek"),
    )


@pytest.mark.parametrize(
    ("flags", "compaction"),
    [
        (("--auto-compaction-retention=0",), None),
        (("--auto-compaction-retention=2",), KeepPeriod(retention_ns=2 * HOUR_NS)),
        (("--auto-compaction-retention=30m",), KeepPeriod(retention_ns=HOUR_NS // 2)),
        (
            ("--auto-compaction-mode=revision", "--auto-compaction-retention=1000"),
            KeepRevisions(count=1000),
        ),
        (("--auto-compaction-mode=revision", "--auto-compaction-retention=0"), None),
    ],
)
def test_compaction_is_a_period_or_a_count(
    flags: tuple[str, ...], compaction: KeepPeriod | KeepRevisions | None
) -> None:
    """A bare number is hours, or revisions; zero never compacts."""
    assert configured(*flags).limits.compaction == compaction


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--auto-compaction-retention=-1h",), "must be between 0 and 10 years"),
        (("--auto-compaction-retention=999999999",), "must be between 0 and 10 years"),
        (
            ("--auto-compaction-retention=abc",),
            'error parsing CompactionRetention: time: invalid duration "abc"',
        ),
        (
            ("--auto-compaction-mode=revision", "--auto-compaction-retention=1h"),
            "in revision mode it is a number of revisions",
        ),
        (("--auto-compaction-mode=frob",), 'unknown auto-compaction-mode "frob"'),
    ],
)
def test_compaction_that_makes_no_sense_is_refused(flags: tuple[str, ...], reason: str) -> None:
    """A negative period, and a duration for a count, are accepted by etcd and not by us."""
    assert reason in refused(*flags)


def test_quota_cannot_be_switched_off() -> None:
    """A negative quota is unlimited in etcd and an error here."""
    assert "--quota-backend-bytes must be between 0 and" in refused("--quota-backend-bytes=-1")


@pytest.mark.parametrize(
    "flag",
    [
        "--quota-backend-bytes=9000000000",
        "--max-request-bytes=11000000",
        "--max-concurrent-streams=4294967295",
    ],
)
def test_limit_above_the_advised_one_is_warned_about(flag: str) -> None:
    """What etcd warns about, and what etcd leaves open, is taken with a warning."""
    (warning,) = configured(flag).warnings

    assert "above the advised" in warning


def test_log_options_are_put_together() -> None:
    """Outputs are taken once; etcd's three worst levels are one."""
    config = configured("--log-outputs=default,stderr,/var/log/kv.log", "--log-level=panic")

    assert config.logging.outputs == ("stderr", "/var/log/kv.log")
    assert config.logging.level is LogLevel.FATAL
