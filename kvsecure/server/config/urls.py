"""URLs as etcd's flags take them, and addresses to listen on.

Owns: the syntax of a URL list, and what may be listened on.
Never: resolves a name: who we are must not depend on an answer from the network.
Follows: etcd's types.NewURLs and its checks of bind addresses, with their texts.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

from kvsecure.server.config.outcome import ConfigError

__all__ = ["Endpoint", "Scheme", "endpoints", "parse_urls"]

_SCHEMES: Final = frozenset({"http", "https", "unix", "unixs"})
_PORT_MAX: Final = 65_535
_URLS_MAX: Final = 64


class Scheme(Enum):
    """What is spoken on a listener."""

    HTTP = "http"
    HTTPS = "https"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address to listen on.

    Attributes:
        host: An IP address without brackets, or localhost.
        port: 0 lets the operating system choose.
    """

    scheme: Scheme
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """The endpoint as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme.value}://{host}:{self.port}"


def parse_urls(text: str) -> tuple[str, ...]:
    """Return the URLs of a comma-separated list, each once, sorted; nothing for an empty text.

    Raises:
        ValueError: One of them is not a URL that etcd would take; the text is etcd's.
    """
    if not text.strip():
        return ()
    urls = {_checked(part.strip()) for part in text.split(",")}
    if len(urls) > _URLS_MAX:
        raise ValueError(f"at most {_URLS_MAX} URLs")
    return tuple(sorted(urls))


def endpoints(urls: Sequence[str]) -> tuple[Endpoint, ...]:
    """Return what to listen on for checked URLs.

    Raises:
        ConfigError: A URL cannot be listened on.
    """
    return tuple(_endpoint(url) for url in urls)


def _checked(url: str) -> str:
    parts = _split(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"URL scheme must be http, https, unix, or unixs: {_shown(url)}")
    if parts.scheme in {"unix", "unixs"}:
        return url
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"URL must be scheme, host and port only: {_shown(url)}")
    host, port = _host_and_port(parts.netloc, url)
    if parts.path:
        raise ValueError(f"URL must not contain a path: {url}")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}"


def _split(url: str) -> SplitResult:
    # urlsplit silently drops tabs and line ends; a URL with them is not the one that was written.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("URL must be printable ASCII without spaces")
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError(f"not a URL: {_shown(url)}") from None


def _shown(url: str) -> str:
    """Return the URL without what may be a password."""
    scheme, separator, rest = url.rpartition("@")
    return f"{scheme.partition('://')[0]}://...@{rest}" if separator else rest


def _host_and_port(netloc: str, url: str) -> tuple[str, int]:
    host, separator, port = netloc.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or "]" in port or (":" in host and not bracketed):
        raise ValueError(f'URL address does not have the form "host:port": {url}')
    if not port.isdecimal() or int(port[:8]) > _PORT_MAX:
        raise ValueError(f"URL port is not a number from 0 to {_PORT_MAX}: {url}")
    return (host[1:-1] if bracketed else host), int(port)


def _endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    if parts.scheme in {"unix", "unixs"}:
        raise ConfigError(f"unix sockets are not in this release: {url}")
    host = parts.hostname or ""
    if host != "localhost":
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError(f"expected IP in URL for binding ({url})") from None
        if "%" in host:
            raise ConfigError(f"addresses with a zone cannot be listened on ({url})")
        host = str(address)
    return Endpoint(scheme=Scheme(parts.scheme), host=host, port=parts.port or 0)
