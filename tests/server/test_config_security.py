"""Certificates, identities and tokens: no combination that promises more than it gives."""

from pathlib import Path

import pytest
from server.command_line import configured, refused

from kvsecure.server.config.model import (
    ClientCertMode,
    ClientIdentity,
    Compat,
    PolicyFile,
    PolicyName,
    TlsVersion,
)

TLS = ("--cert-file=server.crt", "--key-file=server.key")


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ((), ClientCertMode.OFF),
        (("--trusted-ca-file=ca",), ClientCertMode.REQUIRED),
        (("--trusted-ca-file=ca", "--client-cert-auth"), ClientCertMode.REQUIRED),
        (("--trusted-ca-file=ca", "--client-cert-mode=optional"), ClientCertMode.OPTIONAL),
        (("--client-cert-mode=off",), ClientCertMode.OFF),
        (("--client-cert-mode=",), ClientCertMode.OFF),
    ],
)
def test_client_certificates_follow_from_the_authority(
    flags: tuple[str, ...], mode: ClientCertMode
) -> None:
    """Naming an authority means that certificates are required, as in etcd."""
    assert configured(*TLS, *flags).security.client_certificates is mode


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((*TLS, "--client-cert-auth"), "client certificates need --trusted-ca-file"),
        ((*TLS, "--client-cert-mode=optional"), "client certificates need --trusted-ca-file"),
        (
            (*TLS, "--client-cert-mode=off", "--trusted-ca-file=ca"),
            "--trusted-ca-file is of no use with --client-cert-mode off",
        ),
        (
            (*TLS, "--client-cert-mode=optional", "--trusted-ca-file=ca", "--client-cert-auth"),
            "--client-cert-auth requires client certificates",
        ),
        (("--trusted-ca-file=ca",), "client certificates need an https URL"),
        ((*TLS, "--client-identity=cn"), "--client-identity cn needs --compat etcd"),
    ],
)
def test_client_certificates_that_would_not_be_checked_are_refused(
    flags: tuple[str, ...], reason: str
) -> None:
    """A combination that promises more than it gives does not start."""
    assert reason in refused(*flags)


def test_compatibility_is_loud() -> None:
    """Each weaker choice leaves a warning of its own."""
    config = configured(
        *TLS,
        "--trusted-ca-file=ca",
        "--compat=etcd",
        "--client-identity=cn",
        "--tls-min-version=TLS1.2",
    )

    assert config.compat is Compat.ETCD
    assert config.security.client_identity is ClientIdentity.COMMON_NAME
    assert config.security.tls_minimum is TlsVersion.TLS_1_2
    assert [warning.split(":")[0] for warning in config.warnings] == [
        "--compat etcd",
        "--client-identity cn",
        "--tls-min-version TLS1.2",
    ]


@pytest.mark.parametrize(
    ("flags", "ttl_s"),
    [
        (("--auth-token=jwt",), 600),
        (("--auth-token=jwt,ttl=10m",), 600),
        (("--auth-token=jwt,ttl=1h",), 3_600),
        (("--auth-token-ttl=5",), 5),
        (("--auth-token=jwt,ttl=5s", "--auth-token-ttl=5"), 5),
    ],
)
def test_token_lifetime_comes_from_either_flag(flags: tuple[str, ...], ttl_s: int) -> None:
    """The two ways of saying it in etcd mean the same here."""
    assert configured(*flags).security.token_ttl_s == ttl_s


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--auth-token=jwt,pub-key=a,priv-key=b,sign-method=RS256",), "only ttl can be given"),
        (("--auth-token=jwt,sign-method=none",), "only ttl can be given"),
        (("--auth-token=jwt,ttl=5s,ttl=6s",), "only ttl can be given"),
        (("--auth-token=simple,ttl=5s",), "only ttl can be given"),
        (("--auth-token=frob",), "auth: invalid auth options"),
        (("--auth-token=",), "auth: invalid auth options"),
        (("--auth-token=jwt,ttl=5",), "time: invalid duration"),
        (("--auth-token=jwt,ttl=1500ms",), "whole seconds between 1s and 24h0m0s"),
        (("--auth-token=jwt,ttl=0s",), "whole seconds between 1s and 24h0m0s"),
        (("--auth-token=jwt,ttl=6s", "--auth-token-ttl=5"), "different lifetimes"),
        (("--auth-token-ttl=0",), "--auth-token-ttl must be between 1 and 86400 (set to 0)"),
    ],
)
def test_token_options_that_we_do_not_have_are_refused(flags: tuple[str, ...], reason: str) -> None:
    """The server's own key signs; nothing of the operator's choice is silently ignored."""
    assert reason in refused(*flags)


def test_token_simple_is_accepted_with_a_warning() -> None:
    """The default of etcd is understood, and its users learn what they get instead."""
    config = configured("--auth-token=simple")

    assert config.warnings == ("--auth-token simple: tokens are signed EdDSA JWTs here, always",)


def test_policy_is_a_bundle_or_a_file() -> None:
    """Two bundles have names; everything else is a path."""
    assert configured("--initial-policy=none").security.initial_policy is PolicyName.NONE
    assert configured("--initial-policy=./default").security.initial_policy == PolicyFile(
        path=Path("./default")
    )
    assert "--initial-policy" in refused("--initial-policy=")


def test_revocation_lists_go_with_client_certificates() -> None:
    """A list is for client certificates; where nobody may show one it would promise too much."""
    listed = ("--client-crl-file=lists.crl",)

    security = configured(*TLS, "--trusted-ca-file=ca", *listed).security

    assert security.client_crl_file == Path("lists.crl")
    assert configured(*TLS).security.client_crl_file is None
    assert "--client-crl-file is of no use" in refused(*TLS, *listed)
