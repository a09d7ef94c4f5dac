"""How a client reaches the service and who it is there.

Owns: the settings of a connection, their defaults, and which of them cannot work together.
Never: opens a file or a socket.
Keeps: a password or token never goes in clear text to another machine.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self, final

from kvsecure.client.errors import SettingsError
from kvsecure.model.limits import GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX_DEFAULT
from kvsecure.model.secret import Secret

__all__ = ["ENDPOINT_DEFAULT", "Endpoint", "Settings", "Tls"]

ENDPOINT_DEFAULT: Final = "127.0.0.1:2379"
_PORT_DEFAULT: Final = 2379
_DEFAULT_TENANT_LABEL: Final = "default"

_ENDPOINT: Final = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of one member.

    Attributes:
        host: Name or IP address, an IPv6 one without brackets.
        port: 1 to 65535.
        plaintext: Whether the connection goes without TLS.
    """

    host: str
    port: int
    plaintext: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host`, `host:port`, `https://host:port` or `http://host:port`.

        The connection uses TLS unless the text says `http://`; the port is 2379 unless given.

        Raises:
            SettingsError: It is none of these.
        """
        match = _ENDPOINT.fullmatch(text)
        if match is None or match["scheme"] not in {None, "http", "https"}:
            raise SettingsError(f"not an endpoint: {text!r} (like 127.0.0.1:2379)")
        port = int(match["port"] or _PORT_DEFAULT)
        if not 0 < port < 65_536:
            raise SettingsError(f"not a port: {port} in {text!r}")
        if match["six"] is not None and not _is_address(match["six"]):
            raise SettingsError(f"not an IPv6 address: {text!r}")
        host = match["six"] or match["host"]
        return cls(host=host, port=port, plaintext=match["scheme"] == "http")

    @property
    def target(self) -> str:
        """Host and port, as they are dialled."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the connection stays on this machine."""
        if _is_address(self.host):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def __str__(self) -> str:
        return f"http://{self.target}" if self.plaintext else self.target


# What may stand in a header field; anything else the transport would refuse, quoting it.
_TOKEN: Final = re.compile(rb"[!-~]+")


def _is_text(secret: Secret) -> bool:
    try:
        secret.reveal_text()
    except UnicodeDecodeError:
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files of TLS; each is a path, or empty.

    Attributes:
        ca_file: Certificates of the authorities that may vouch for the server; empty for the ones
            the gRPC library brings.
        certificate_file: This client's certificate, with the chain to its authority.
        key_file: The certificate's private key; only its owner may be able to read it.
    """

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise SettingsError("a client certificate and its key go together: give both or none")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a connection needs to know.

    Attributes:
        endpoints: The members, tried in this order.
        tls: The files of TLS, for endpoints that use it.
        user: Who logs in with the password.
        tenant: The tenant the user belongs to; empty or `default` for the default tenant.
        password: Logs in before the first call, and again whenever the token is refused.
        token: A token from an earlier log-in.
        timeout_s: Bound of one call in seconds, with all that is tried on its behalf.
        reach_s: How long, within `timeout_s`, a call keeps trying while no member is reachable.
        connect_timeout_s: Bound of one attempt to connect in seconds.
        keepalive_s: Seconds without traffic before a connection with open streams is probed;
            servers refuse less than 5.
        keepalive_timeout_s: Seconds the probe may take before the connection counts as broken.
        send_bytes_max: Largest request; the default is what servers accept by default.
        receive_bytes_max: Largest answer; -1 for no bound but the protocol's.
    """

    endpoints: tuple[Endpoint, ...]
    tls: Tls = field(default_factory=Tls)
    user: str = ""
    tenant: str = ""
    password: Secret | None = None
    token: Secret | None = None
    timeout_s: float = 5.0
    reach_s: float = 5.0
    connect_timeout_s: float = 2.0
    keepalive_s: float = 10.0
    keepalive_timeout_s: float = 6.0
    send_bytes_max: int = REQUEST_BYTES_MAX_DEFAULT + GRPC_OVERHEAD_BYTES
    receive_bytes_max: int = -1

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise SettingsError("no endpoint to connect to")
        if self.password is not None and not self.user:
            raise SettingsError("a password without a user: name the user who logs in")
        for name in ("timeout_s", "connect_timeout_s", "keepalive_s", "keepalive_timeout_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be more than 0 seconds")
        if self.token is not None and not _TOKEN.fullmatch(self.token.reveal()):
            raise SettingsError("the token is not one that a server gave: it has other characters")
        if self.password is not None and not _is_text(self.password):
            raise SettingsError("the password is not text in UTF-8")
        if self.password is None and self.token is None:
            return
        for endpoint in self.endpoints:
            if endpoint.plaintext and not endpoint.is_loopback:
                raise SettingsError(
                    f"{endpoint} has no TLS: a password or token would cross the network in clear"
                )

    @classmethod
    def parse_endpoints(cls, texts: Iterable[str]) -> tuple[Endpoint, ...]:
        """Read endpoints; one text may hold several, separated by commas.

        Raises:
            SettingsError: One of them is not an endpoint.
        """
        parts = (part.strip() for text in texts for part in text.split(","))
        return tuple(Endpoint.parse(part) for part in parts if part)

    @property
    def login_name(self) -> str:
        """The name that goes into a log-in: `tenant/user` in a named tenant."""
        if self.tenant and self.tenant != _DEFAULT_TENANT_LABEL:
            return f"{self.tenant}/{self.user}"
        return self.user
