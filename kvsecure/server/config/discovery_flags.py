"""The table's rows about discovery: who the first members are, where no flag names them.

Owns: names, defaults, bounds and help of etcd's flags for SRV records and for its v3 discovery.
Never: reads a value; has a flag that carries a password.
Follows: etcd's flags of the same names; differs: plaintext beyond loopback has to be asked for, a
    certificate is always verified, and a password comes in a file.
"""

from typing import Final

from kvsecure.server.config.durations import SECOND_NS
from kvsecure.server.config.flag import Bounds, Flag, Kind, Section, honoured, rejected

__all__ = ["DISCOVERY_FLAGS", "DISCOVERY_OWN_FLAGS"]

_S: Final = Section.CLUSTERING
_PATIENCE: Final = Bounds(SECOND_NS // 10, 3600 * SECOND_NS)
_NO_V2: Final = (
    "etcd's first discovery service speaks its v2 API, which is not here: use --discovery-token "
    "and --discovery-endpoints, or --discovery-srv"
)

DISCOVERY_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(
        _S,
        "discovery-srv",
        Kind.TEXT,
        "",
        "A DNS domain whose SRV records name the members at first start, in place of "
        "--initial-cluster: _etcd-server-ssl._tcp for https, _etcd-server._tcp for http.",
    ),
    honoured(
        _S,
        "discovery-srv-name",
        Kind.TEXT,
        "",
        "Tells clusters of one domain apart: the records are then those of _etcd-server-ssl-NAME "
        "and _etcd-server-NAME.",
    ),
    honoured(
        _S,
        "discovery-token",
        Kind.TEXT,
        "",
        "The cluster that this member finds its first companions for, in place of "
        "--initial-cluster: its name in the store at --discovery-endpoints. Ids are computed "
        "from it.",
    ),
    honoured(
        _S,
        "discovery-endpoints",
        Kind.LIST,
        "",
        "An etcd or a kvsecure where members meet at first start. TLS unless a URL says http.",
    ),
    honoured(
        _S,
        "discovery-dial-timeout",
        Kind.DURATION,
        "2s",
        "How long a connection to the discovery endpoints may take.",
        bounds=_PATIENCE,
    ),
    honoured(
        _S,
        "discovery-request-timeout",
        Kind.DURATION,
        "5s",
        "How long one request to them may take.",
        bounds=_PATIENCE,
    ),
    honoured(
        _S,
        "discovery-keepalive-time",
        Kind.DURATION,
        "2s",
        "How long they may be silent before they are asked for a sign of life; less than 10s "
        "counts as 10s, as in etcd, because servers refuse more than that.",
        bounds=_PATIENCE,
    ),
    honoured(
        _S,
        "discovery-keepalive-timeout",
        Kind.DURATION,
        "6s",
        "How long that sign may take.",
        bounds=_PATIENCE,
    ),
    honoured(
        _S,
        "discovery-insecure-transport",
        Kind.SWITCH,
        "false",
        "Allow http endpoints beyond loopback, without a user: whoever is on the way then decides "
        "who the first members are.",
    ),
    rejected(
        _S,
        "discovery-insecure-skip-tls-verify",
        Kind.SWITCH,
        "false",
        "certificates that nobody verifies are not supported: give --discovery-cacert",
    ),
    honoured(
        _S,
        "discovery-cert",
        Kind.PATH,
        "",
        "This member's certificate as a client of the discovery endpoints, in PEM.",
    ),
    honoured(
        _S,
        "discovery-key",
        Kind.PATH,
        "",
        "The private key of --discovery-cert, readable by its owner only.",
    ),
    honoured(
        _S,
        "discovery-cacert",
        Kind.PATH,
        "",
        "The authorities that the discovery endpoints' certificates must come from, in PEM; the "
        "system's if left out.",
    ),
    honoured(
        _S,
        "discovery-user",
        Kind.TEXT,
        "",
        "Who logs in at the discovery endpoints, with the password in --discovery-password-file.",
    ),
    rejected(
        _S,
        "discovery-password",
        Kind.TEXT,
        "",
        "others on this machine can see it there: give --discovery-password-file",
    ),
    *(rejected(_S, name, Kind.TEXT, "", _NO_V2) for name in ("discovery", "discovery-proxy")),
    rejected(
        _S,
        "discovery-fallback",
        Kind.TEXT,
        "exit",
        "a member whose discovery fails ends, as etcd's does with exit: there is no v2 proxy that "
        "it could become",
    ),
)

DISCOVERY_OWN_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(
        Section.KVSECURE,
        "discovery-password-file",
        Kind.PATH,
        "",
        "The password of --discovery-user. Read at the first start, unused afterwards.",
    ),
)
