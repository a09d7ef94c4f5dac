"""The links to other members: the rules between their URLs, their certificates and the network.

Owns: whether this member listens for others at all, and that members are believed by certificate.
Never: opens a socket or a file.
Follows: etcd's flags of the same names; differs: plaintext is for loopback only, without exception,
    because whoever reaches such a listener could speak as any member; and a cluster of one that is
    told nothing about peers listens on nothing.
"""

import ipaddress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kvsecure.server.config.model import Cluster, Listen, Peers, PeerTls
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings
from kvsecure.server.config.urls import Endpoint, endpoints

__all__ = ["build_peers", "check_peer_url"]

_ELECTION_HEARTBEATS_MIN: Final = 5
_BELIEVED: Final = (
    "whoever reaches it could speak as any member: use https with --peer-cert-file, "
    "--peer-key-file and --peer-trusted-ca-file"
)


def build_peers(
    settings: Settings, name: str, cluster: Cluster, listen: Listen, warnings: list[str]
) -> Peers:
    """Return how this member and the others reach each other.

    Raises:
        ConfigError: An address cannot or must not be used, something is missing, or two flags
            contradict each other.
    """
    heartbeat_ms, election_ms = _pace(settings)
    tls = _tls(settings)
    several = len(cluster.members) > 1 or cluster.discovery is not None
    found: tuple[Endpoint, ...] = ()
    alone = "" if several else "; or leave --listen-peer-urls out: there is no other member"
    if settings.given("listen-peer-urls") or several or tls is not None:
        found = _endpoints(settings, tls, listen)
        for endpoint in found:
            _check_listened(endpoint, tls, alone)
        for url in (url for _, urls in cluster.members for url in urls):
            check_peer_url(url, tls)
        if tls is None:
            shown = ",".join(endpoint.url for endpoint in found)
            warnings.append(
                f"peers are spoken with in plaintext on {shown}: every process of this machine "
                "can speak as any member"
            )
    return Peers(
        listen=found,
        advertise_urls=dict(cluster.members)[name],
        tls=tls,
        heartbeat_ms=heartbeat_ms,
        election_ms=election_ms,
        authority_dir=_authority_dir(settings, tls),
    )


def _pace(settings: Settings) -> tuple[int, int]:
    heartbeat_ms = settings.number("heartbeat-interval")
    election_ms = settings.number("election-timeout")
    if election_ms < _ELECTION_HEARTBEATS_MIN * heartbeat_ms:
        raise ConfigError(
            f"--election-timeout[{election_ms}ms] should be at least as "
            f"{_ELECTION_HEARTBEATS_MIN} times as --heartbeat-interval[{heartbeat_ms}ms]"
        )
    return heartbeat_ms, election_ms


def _tls(settings: Settings) -> PeerTls | None:
    cert_file, key_file = settings.path("peer-cert-file"), settings.path("peer-key-file")
    trusted_ca_file = settings.path("peer-trusted-ca-file")
    crl_file = settings.path("peer-crl-file")
    if (cert_file is None) is not (key_file is None):
        raise ConfigError("--peer-cert-file and --peer-key-file must be given together")
    if cert_file is None or key_file is None:
        for flag in ("peer-trusted-ca-file", "peer-crl-file"):
            if settings.text(flag):
                raise ConfigError(
                    f"--{flag} is of no use without --peer-cert-file and --peer-key-file"
                )
        if settings.switch("peer-client-cert-auth"):
            raise ConfigError(
                "--peer-client-cert-auth needs --peer-cert-file, --peer-key-file and "
                "--peer-trusted-ca-file"
            )
        return None
    if trusted_ca_file is None:
        raise ConfigError("--peer-cert-file needs --peer-trusted-ca-file: who may issue members'?")
    return PeerTls(
        cert_file=cert_file, key_file=key_file, trusted_ca_file=trusted_ca_file, crl_file=crl_file
    )


def _authority_dir(settings: Settings, tls: PeerTls | None) -> Path | None:
    path = settings.path("authority-dir")
    if path is not None and tls is None:
        raise ConfigError(
            "--authority-dir is of no use without --peer-cert-file: whom it certifies would find "
            "nobody to show the certificate to"
        )
    return path


def _endpoints(settings: Settings, tls: PeerTls | None, listen: Listen) -> tuple[Endpoint, ...]:
    urls = settings.parts("listen-peer-urls")
    if not settings.given("listen-peer-urls"):
        urls = ("http://localhost:2380" if tls is None else "https://localhost:2380",)
    if not urls:
        raise ConfigError("--listen-peer-urls must name at least one URL")
    found = endpoints(urls)
    taken = {endpoint.address for endpoint in listen.everything if endpoint.port}
    for endpoint in found:
        if endpoint.address in taken:
            raise ConfigError(f"two listeners cannot share one address: {endpoint.url}")
        if endpoint.port:
            taken.add(endpoint.address)
    return found


def _check_listened(endpoint: Endpoint, tls: PeerTls | None, alone: str) -> None:
    """Refuse to listen where nobody should be heard; to one that is alone there is a way out."""
    if endpoint.path is not None:
        raise ConfigError(f"members listen on http or https: {endpoint.url}")
    if endpoint.scheme.is_secure and tls is None:
        where = endpoint.url.partition("://")[2]
        raise ConfigError(
            f"cannot listen on TLS for {where}: KeyFile and CertFile are not presented"
        )
    if not endpoint.scheme.is_secure and tls is not None:
        raise ConfigError(
            f"members that have certificates do not listen in plaintext: {endpoint.url} in "
            "--listen-peer-urls must be https"
        )
    if not endpoint.scheme.is_secure and not endpoint.loopback:
        raise ConfigError(
            f"{endpoint.url} would be readable on the network, and {_BELIEVED}{alone}"
        )


def check_peer_url(url: str, tls: PeerTls | None) -> None:
    """Refuse what no member would ever be reached by.

    Args:
        url: Of any first member.
        tls: How members are believed; None for plaintext, which is spoken over loopback only.

    Raises:
        ConfigError: It is that.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ConfigError(f"members are reached by http or https: {url}")
    if tls is not None and parts.scheme == "http":
        raise ConfigError(
            f"members that have certificates do not dial in plaintext: {url} must be https"
        )
    if tls is None and parts.scheme == "https":
        raise ConfigError(
            f"{url} needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file"
        )
    if tls is None and not _may_be_loopback(parts.hostname or ""):
        raise ConfigError(f"{url} is on another machine, and {_BELIEVED}")


def _may_be_loopback(host: str) -> bool:
    """Tell whether a host may be this machine; a name is judged when it is dialled."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
