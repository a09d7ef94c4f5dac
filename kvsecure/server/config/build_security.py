"""Keys, certificates and identities: the rules between their flags.

Owns: which combinations would promise more than they give, and are refused.
Never: opens a file; whether a key is safe is found out where it is read.
Follows: etcd's client-cert-auth and auth-token; differs: no authority, no client certificates.
"""

from pathlib import Path
from typing import Final

from kvsecure.server.config.build_kek import build_kek, build_previous_kek
from kvsecure.server.config.durations import SECOND_NS, format_duration, parse_duration
from kvsecure.server.config.flag import Bounds
from kvsecure.server.config.model import (
    ClientCertMode,
    ClientIdentity,
    Compat,
    Listen,
    PolicyFile,
    PolicyName,
    Security,
    TlsVersion,
)
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings
from kvsecure.server.config.table import FLAGS

__all__ = ["build_security"]

_OWN_KEYS: Final = (
    "--auth-token: tokens are signed with EdDSA by a key that the server makes and keeps sealed; "
    "of etcd's options only ttl can be given"
)


def build_security(
    settings: Settings, listen: Listen, compat: Compat, warnings: list[str]
) -> Security:
    """Return keys, certificates and identities.

    Raises:
        ConfigError: Something is missing, or two flags contradict each other.
    """
    kek = build_kek(settings, warnings)
    mode = _client_certificates(settings, listen, warnings)
    identity = ClientIdentity(settings.text("client-identity"))
    if identity is ClientIdentity.COMMON_NAME:
        if compat is not Compat.ETCD:
            raise ConfigError("--client-identity cn needs --compat etcd")
        warnings.append(
            "--client-identity cn: whoever can have a certificate issued chooses its common name, "
            "and with it the user"
        )
    tls_minimum = TlsVersion(settings.text("tls-min-version"))
    if tls_minimum is TlsVersion.TLS_1_2:
        warnings.append("--tls-min-version TLS1.2: clients may speak an older TLS than 1.3")
    return Security(
        kek=kek,
        previous_kek=build_previous_kek(settings, warnings),
        cert_file=settings.path("cert-file"),
        key_file=settings.path("key-file"),
        trusted_ca_file=settings.path("trusted-ca-file"),
        client_crl_file=_revocation_lists(settings, mode),
        client_certificates=mode,
        client_identity=identity,
        tls_minimum=tls_minimum,
        token_ttl_s=_token_ttl_s(settings, warnings),
        initial_root_password_file=settings.path("initial-root-password-file"),
        initial_policy=_policy(settings.text("initial-policy")),
    )


def _client_certificates(settings: Settings, listen: Listen, warnings: list[str]) -> ClientCertMode:
    text = settings.text("client-cert-mode")
    authority = bool(settings.text("trusted-ca-file"))
    demanded = settings.switch("client-cert-auth")
    if text:
        mode = ClientCertMode(text)
    else:
        mode = ClientCertMode.REQUIRED if authority or demanded else ClientCertMode.OFF
    if demanded and mode is not ClientCertMode.REQUIRED:
        raise ConfigError(
            f"--client-cert-auth requires client certificates, --client-cert-mode {mode.value} "
            "does not"
        )
    if mode is ClientCertMode.OFF:
        if authority:
            raise ConfigError(
                "--trusted-ca-file is of no use with --client-cert-mode off; leave one of them out"
            )
        return mode
    if not authority:
        raise ConfigError("client certificates need --trusted-ca-file: who may issue them?")
    plain = [endpoint for endpoint in listen.client if not endpoint.scheme.is_secure]
    if len(plain) == len(listen.client):
        raise ConfigError("client certificates need an https URL in --listen-client-urls")
    warnings.extend(
        f"the scheme of client url {endpoint.url} is {endpoint.scheme.value} while client "
        "certificates are asked for: nobody can show one there"
        for endpoint in plain
    )
    return mode


def _revocation_lists(settings: Settings, mode: ClientCertMode) -> Path | None:
    path = settings.path("client-crl-file")
    if path is not None and mode is ClientCertMode.OFF:
        raise ConfigError("--client-crl-file is of no use without client certificates")
    return path


def _token_ttl_s(settings: Settings, warnings: list[str]) -> int:
    ttl_s = settings.number("auth-token-ttl")
    kind, *options = (part.strip() for part in settings.text("auth-token").split(","))
    if kind not in {"jwt", "simple"}:
        raise ConfigError("auth: invalid auth options: --auth-token is jwt, or jwt,ttl=DURATION")
    if kind == "simple":
        if options:
            raise ConfigError(_OWN_KEYS)
        warnings.append("--auth-token simple: tokens are signed EdDSA JWTs here, always")
    for option in options:
        name, _, text = option.partition("=")
        if name != "ttl" or len(options) > 1:
            raise ConfigError(_OWN_KEYS)
        in_option_s = _whole_seconds(text)
        if settings.given("auth-token-ttl") and in_option_s != ttl_s:
            raise ConfigError("--auth-token and --auth-token-ttl name different lifetimes")
        ttl_s = in_option_s
    return ttl_s


def _whole_seconds(text: str) -> int:
    bounds = FLAGS["auth-token-ttl"].bounds or Bounds(1, 1)
    try:
        seconds, rest_ns = divmod(parse_duration(text), SECOND_NS)
    except ValueError as reason:
        raise ConfigError(f"--auth-token: ttl: {reason}") from None
    if rest_ns or not bounds.minimum <= seconds <= bounds.maximum:
        raise ConfigError(
            "--auth-token: ttl must be whole seconds between "
            f"{format_duration(bounds.minimum * SECOND_NS)} and "
            f"{format_duration(bounds.maximum * SECOND_NS)}"
        )
    return seconds


def _policy(text: str) -> PolicyName | PolicyFile:
    if text in {policy.value for policy in PolicyName}:
        return PolicyName(text)
    if not text:
        raise ConfigError("--initial-policy is default, none, or a file")
    return PolicyFile(path=Path(text))
