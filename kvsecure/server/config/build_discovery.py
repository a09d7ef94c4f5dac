"""Discovery as flags describe it: where a member learns who else is a first member.

Owns: the rules between the flags of discovery, and which of them go together with others.
Never: asks anybody; a directory that is there already needs no answer.
Follows: etcd's checks, with their texts; differs: a login and plaintext do not go together, and
    plaintext beyond loopback has to be allowed.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from kvsecure.model.host_names import host_name_of
from kvsecure.server.config.durations import SECOND_NS
from kvsecure.server.config.model import ClusterState, Discovery, SrvDiscovery, TokenDiscovery
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings
from kvsecure.server.config.urls import parse_urls
from kvsecure.server.config.values import default_of

__all__ = ["build_discovery"]

_CONFLICT: Final = (
    "multiple discovery or bootstrap flags are set. Choose one of "
    '"initial-cluster", "discovery", "discovery-endpoints" or "discovery-srv"'
)
# Part of a key; a slash would reach into another cluster's members.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_SERVICE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_KEEPALIVE_NS_MIN: Final = 10 * SECOND_NS
_ENDPOINTS_MAX: Final = 16
_SRV: Final = ("discovery-srv", "discovery-srv-name")


def build_discovery(settings: Settings, state: ClusterState) -> Discovery | None:
    """Return how the first members are found, or None if flags name them.

    Raises:
        ConfigError: The flags contradict each other, or something is missing.
    """
    domain, token = settings.text("discovery-srv"), settings.text("discovery-token")
    endpoints = settings.parts("discovery-endpoints")
    listed = settings.given("initial-cluster") and bool(settings.text("initial-cluster"))
    if sum((bool(domain), bool(token or endpoints), listed)) > 1:
        raise ConfigError(_CONFLICT)
    if bool(token) is not bool(endpoints):
        raise ConfigError("both --discovery-token and --discovery-endpoints must be set")
    _check_idle(settings, is_srv=bool(domain), is_token=bool(token))
    if domain:
        return _by_records(domain, settings.text("discovery-srv-name"))
    if not token:
        return None
    if state is ClusterState.EXISTING:
        raise ConfigError(
            "--discovery-token is for a cluster that is to be made; with --initial-cluster-state "
            "existing name the members in --initial-cluster"
        )
    return _by_token(settings, token, endpoints)


def _check_idle(settings: Settings, *, is_srv: bool, is_token: bool) -> None:
    """Refuse what would be forgotten in silence."""
    if settings.text("discovery-srv-name") and not is_srv:
        raise ConfigError("--discovery-srv-name is of no use without --discovery-srv")
    for flag, value, _ in settings.settings():
        if not flag.name.startswith("discovery-") or flag.name in _SRV or is_token:
            continue
        if value != default_of(flag) and value not in {"", ()}:
            raise ConfigError(
                f"--{flag.name} is of no use without --discovery-token and --discovery-endpoints"
            )


def _by_records(domain: str, service_name: str) -> SrvDiscovery:
    # The dot at the end matters to whoever resolves it.
    if host_name_of(domain) is None:
        raise ConfigError("--discovery-srv must be a DNS domain")
    if service_name and _SERVICE_NAME.fullmatch(service_name) is None:
        raise ConfigError(
            "--discovery-srv-name must have 1 to 40 letters, digits, dashes or underscores"
        )
    suffix = f"-{service_name}" if service_name else ""
    return SrvDiscovery(
        domain=domain,
        services=(("https", f"etcd-server-ssl{suffix}"), ("http", f"etcd-server{suffix}")),
    )


def _by_token(settings: Settings, token: str, endpoints: tuple[str, ...]) -> TokenDiscovery:
    if _TOKEN.fullmatch(token) is None or token in {".", ".."}:
        raise ConfigError(
            "--discovery-token must have 1 to 128 letters, digits, dots, dashes or underscores"
        )
    user, password_file = settings.text("discovery-user"), settings.path("discovery-password-file")
    if ":" in user:
        raise ConfigError(
            "--discovery-user takes a name alone: others on this machine can see a password "
            "there; give --discovery-password-file"
        )
    if bool(user) is not (password_file is not None):
        raise ConfigError("--discovery-user and --discovery-password-file must be given together")
    cert_file, key_file = settings.path("discovery-cert"), settings.path("discovery-key")
    if (cert_file is None) is not (key_file is None):
        raise ConfigError("--discovery-cert and --discovery-key must be given together")
    is_allowed = settings.switch("discovery-insecure-transport")
    return TokenDiscovery(
        token=token,
        endpoints=_endpoints(endpoints, is_plain_allowed=is_allowed, logs_in=bool(user)),
        user=user,
        password_file=password_file,
        ca_file=settings.path("discovery-cacert"),
        cert_file=cert_file,
        key_file=key_file,
        dial_ns_max=settings.number("discovery-dial-timeout"),
        request_ns_max=settings.number("discovery-request-timeout"),
        keepalive_ns=max(settings.number("discovery-keepalive-time"), _KEEPALIVE_NS_MIN),
        keepalive_ns_max=settings.number("discovery-keepalive-timeout"),
    )


def _endpoints(given: tuple[str, ...], *, is_plain_allowed: bool, logs_in: bool) -> tuple[str, ...]:
    if len(given) > _ENDPOINTS_MAX:
        raise ConfigError(f"--discovery-endpoints has more than {_ENDPOINTS_MAX} endpoints")
    found = []
    for endpoint in given:
        try:
            (url,) = parse_urls(endpoint if "://" in endpoint else f"https://{endpoint}")
        except ValueError as reason:
            raise ConfigError(f"--discovery-endpoints: {reason}") from None
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            raise ConfigError(f"--discovery-endpoints are reached by http or https: {url}")
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            if logs_in:
                raise ConfigError(
                    f"the password of --discovery-user would be readable on the way "
                    f"to {url}: use https"
                )
            if not is_plain_allowed:
                raise ConfigError(
                    f"whoever is on the way to {url} could decide who the first members are: use "
                    "https, or allow it with --discovery-insecure-transport"
                )
        found.append(url)
    return tuple(dict.fromkeys(found))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
