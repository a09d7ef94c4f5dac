"""How the first members are found, as flags say it."""

from pathlib import Path

import pytest
from server.command_line import configured, refused

from kvsecure.server.config.model import SrvDiscovery, TokenDiscovery

_SRV = "--discovery-srv=example.test"
_TOKEN = ("--discovery-token=blue", "--discovery-endpoints=https://10.0.0.9:2379")
_LISTEN = "--listen-peer-urls=http://127.0.0.1:2380"


def test_discovery_by_records_is_etcds() -> None:
    """The services are etcd's, with the name behind a dash; the others are not known yet."""
    config = configured(_SRV, "--discovery-srv-name=blue", _LISTEN)

    assert config.cluster.discovery == SrvDiscovery(
        domain="example.test",
        services=(("https", "etcd-server-ssl-blue"), ("http", "etcd-server-blue")),
    )
    assert config.cluster.members == (("default", ("http://localhost:2380",)),)
    assert config.peers.listen_urls == ("http://127.0.0.1:2380",)


def test_discovery_by_token_is_etcds() -> None:
    """Times and files are as given; an endpoint without a scheme is TLS, and probes are few."""
    config = configured(
        "--discovery-token=blue",
        "--discovery-endpoints=10.0.0.9:2379,http://127.0.0.1:2379,10.0.0.9:2379",
        "--discovery-dial-timeout=1s",
        "--discovery-request-timeout=3s",
        "--discovery-keepalive-time=2s",
        "--discovery-keepalive-timeout=4s",
        "--discovery-cacert=ca",
        "--discovery-cert=c",
        "--discovery-key=k",
        "--discovery-user=meet",
        "--discovery-password-file=p",
    )

    assert config.cluster.discovery == TokenDiscovery(
        token="blue",
        endpoints=("https://10.0.0.9:2379", "http://127.0.0.1:2379"),
        user="meet",
        password_file=Path("p"),
        ca_file=Path("ca"),
        cert_file=Path("c"),
        key_file=Path("k"),
        dial_ns_max=1_000_000_000,
        request_ns_max=3_000_000_000,
        keepalive_ns=10_000_000_000,
        keepalive_ns_max=4_000_000_000,
    )
    # What is not discovered yet, and what a restart without these flags has to go with.
    assert config.cluster.token == "etcd-cluster"


def test_discovery_over_plaintext_between_machines_has_to_be_allowed() -> None:
    """With the switch, and nobody who logs in, an endpoint may be http."""
    plain = ("--discovery-token=blue", "--discovery-endpoints=http://10.0.0.9:2379")

    config = configured(*plain, "--discovery-insecure-transport")

    assert isinstance(config.cluster.discovery, TokenDiscovery)
    assert "--discovery-insecure-transport" in refused(*plain)
    assert "would be readable on the way" in refused(
        *plain,
        "--discovery-insecure-transport",
        "--discovery-user=meet",
        "--discovery-password-file=p",
    )


@pytest.mark.parametrize(
    "flags",
    [
        (_SRV, *_TOKEN),
        (_SRV, "--initial-cluster=default=http://localhost:2380"),
        (*_TOKEN, "--initial-cluster=default=http://localhost:2380"),
    ],
)
def test_discovery_is_one_of_several_ways(flags: tuple[str, ...]) -> None:
    """Two answers to one question are refused, in etcd's words."""
    assert refused(*flags) == (
        "multiple discovery or bootstrap flags are set. Choose one of "
        '"initial-cluster", "discovery", "discovery-endpoints" or "discovery-srv"'
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (_TOKEN[:1], "both --discovery-token and --discovery-endpoints must be set"),
        (_TOKEN[1:], "both --discovery-token and --discovery-endpoints must be set"),
        (
            ("--discovery-srv-name=blue",),
            "--discovery-srv-name is of no use without --discovery-srv",
        ),
        (
            (_SRV, "--discovery-cacert=ca"),
            "--discovery-cacert is of no use without --discovery-token and --discovery-endpoints",
        ),
        (("--discovery-srv=a b",), "--discovery-srv must be a DNS domain"),
        (
            (_SRV, "--discovery-srv-name=a.b"),
            "--discovery-srv-name must have 1 to 40 letters, digits, dashes or underscores",
        ),
        (
            ("--discovery-token=a/b", _TOKEN[1]),
            ("--discovery-token must have 1 to 128 letters, digits, dots, dashes or underscores"),
        ),
        (
            (_TOKEN[0], "--discovery-endpoints=unix:///run/etcd"),
            "--discovery-endpoints are reached by http or https: unix:///run/etcd",
        ),
        (
            (_TOKEN[0], "--discovery-endpoints=https://a"),
            ('--discovery-endpoints: URL address does not have the form "host:port": https://a'),
        ),
        (
            (*_TOKEN, "--discovery-user=meet"),
            "--discovery-user and --discovery-password-file must be given together",
        ),
        (
            (*_TOKEN, "--discovery-user=meet:hunter2"),
            (
                "--discovery-user takes a name alone: others on this machine can see a password "
                "there; give --discovery-password-file"
            ),
        ),
        (
            (*_TOKEN, "--discovery-cert=c"),
            "--discovery-cert and --discovery-key must be given together",
        ),
        (
            (*_TOKEN, "--initial-cluster-state=existing"),
            (
                "--discovery-token is for a cluster that is to be made; with "
                "--initial-cluster-state existing name the members in --initial-cluster"
            ),
        ),
        (
            (*_TOKEN, "--discovery-insecure-skip-tls-verify"),
            (
                "--discovery-insecure-skip-tls-verify: certificates that nobody verifies are not "
                "supported: give --discovery-cacert"
            ),
        ),
        (
            (*_TOKEN, "--discovery-fallback=proxy"),
            (
                "--discovery-fallback: a member whose discovery fails ends, as etcd's does with "
                "exit: there is no v2 proxy that it could become"
            ),
        ),
        (
            ("--discovery=https://discovery.test/x",),
            (
                "--discovery: etcd's first discovery service speaks its v2 API, which is not "
                "here: use --discovery-token and --discovery-endpoints, or --discovery-srv"
            ),
        ),
    ],
)
def test_discovery_that_cannot_be_is_refused(flags: tuple[str, ...], text: str) -> None:
    """What is missing, contradictory or of no use is an error, and no password is repeated."""
    assert refused(*flags) == text
