"""URLs as etcd's flags take them, and addresses to listen on.

Owns: the syntax of a URL list, and what may be listened on.
Never: resolves a name: who we are must not depend on an answer from the network.
Follows: etcd's types.NewURLs and its checks of bind addresses, with their texts; a unix socket's
    file is what stands behind the slashes, as in `unix://localhost:1` and `unix:///run/kv.sock`.
"""

import ipaddress
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

from kvsecure.server.config.outcome import ConfigError

__all__ = ["Endpoint", "Scheme", "endpoints", "parse_urls"]

_SCHEMES: Final = frozenset({"http", "https", "unix", "unixs"})
_PORT_MAX: Final = 65_535
_URLS_MAX: Final = 64
# What Linux has room for, without the zero at the end.
_SOCKET_PATH_BYTES_MAX: Final = 107


class Scheme(Enum):
    """What is spoken on a listener, and over what."""

    HTTP = "http"
    HTTPS = "https"
    UNIX = "unix"
    UNIXS = "unixs"

    @property
    def is_secure(self) -> bool:
        """Whether it is TLS."""
        return self in {Scheme.HTTPS, Scheme.UNIXS}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address to listen on.

    Attributes:
        host: An IP address without brackets, or localhost; empty for a unix socket.
        port: 0 lets the operating system choose; 0 for a unix socket.
        path: The file of a unix socket, and otherwise None.
    """

    scheme: Scheme
    host: str
    port: int
    path: Path | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.path is not None or self.host == "localhost":
            return True
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def address(self) -> tuple[str, int]:
        """What no two listeners can have; a port of the system's choice is another each time."""
        return (str(self.path), 0) if self.path is not None else (self.host, self.port)

    @property
    def url(self) -> str:
        """The endpoint as a URL."""
        if self.path is not None:
            return f"{self.scheme.value}://{self.path}"
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
        return f"{parts.scheme}://{_socket_path(parts, url)}"
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"URL must be scheme, host and port only: {_shown(url)}")
    host, port = _host_and_port(parts.netloc, url)
    if parts.path:
        raise ValueError(f"URL must not contain a path: {url}")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}"


def _socket_path(parts: SplitResult, url: str) -> str:
    """Return the file that the URL of a unix socket names."""
    if any(sign in url for sign in "@?#%\\"):
        raise ValueError(f"URL of a unix socket must be a path only: {_shown(url)}")
    path = parts.netloc + parts.path
    if "://" not in url or not path or path.endswith("/"):
        raise ValueError(f"URL of a unix socket must name a file: {url}")
    path = posixpath.normpath(path)
    if len(path) > _SOCKET_PATH_BYTES_MAX:
        raise ValueError(
            f"the path of a unix socket may have {_SOCKET_PATH_BYTES_MAX} bytes: {url}"
        )
    return path


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
    scheme = Scheme(parts.scheme)
    if scheme in {Scheme.UNIX, Scheme.UNIXS}:
        return Endpoint(scheme=scheme, host="", port=0, path=Path(parts.netloc + parts.path))
    host = parts.hostname or ""
    if host != "localhost":
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError(f"expected IP in URL for binding ({url})") from None
        if "%" in host:
            raise ConfigError(f"addresses with a zone cannot be listened on ({url})")
        host = str(address)
    return Endpoint(scheme=scheme, host=host, port=parts.port or 0)
