"""The table's rows that etcd has not: sealing, first start, certificates, and the switches.

Owns: names, defaults and help of kvsecure's own section, and of help, version and the file.
Never: reads a value; has a flag that carries a secret: every secret is named by its file.
"""

from typing import Final

from kvsecure.model import limits
from kvsecure.server.config.discovery_flags import DISCOVERY_OWN_FLAGS
from kvsecure.server.config.flag import Bounds, Flag, Kind, Section, honoured
from kvsecure.server.config.kek_flags import KEK_FLAGS

__all__ = ["CLIENT_VARIABLES", "OWN_FLAGS"]

_K: Final = Section.KVSECURE

OWN_FLAGS: Final[tuple[Flag, ...]] = (
    *KEK_FLAGS,
    *DISCOVERY_OWN_FLAGS,
    honoured(
        _K,
        "initial-root-password-file",
        Kind.PATH,
        "",
        "At the first start, make the user root with the password in this file, and switch "
        "authentication on before the first connection. Unused afterwards.",
    ),
    honoured(
        _K,
        "initial-policy",
        Kind.TEXT,
        "default",
        "At the first start, apply a policy bundle: default, none, or a file (./default for a "
        "file of that name).",
    ),
    honoured(
        _K,
        "cluster-name",
        Kind.TEXT,
        "kvsecure",
        "The trust domain of certificates: the name that `kvsecure pki init --cluster` was given.",
    ),
    honoured(
        _K,
        "authority-dir",
        Kind.PATH,
        "",
        "The directory of the cluster's authority, which `kvsecure cluster init` makes: with it "
        "this member makes join tokens, and gives certificates to those who bring one.",
    ),
    honoured(
        _K,
        "client-cert-mode",
        Kind.CHOICE,
        "",
        "Whether clients must, may or do not show a certificate. Without it: required when "
        "--trusted-ca-file or --client-cert-auth is given, otherwise off.",
        choices=("required", "optional", "off"),
    ),
    honoured(
        _K,
        "client-identity",
        Kind.CHOICE,
        "uri",
        "Where a client certificate names its user: in its URI, or, as etcd has it, in its common "
        "name. cn needs --compat etcd.",
        choices=("uri", "cn"),
    ),
    honoured(
        _K,
        "allow-insecure-listeners",
        Kind.SWITCH,
        "false",
        "Allow http listeners beyond loopback: passwords, tokens and secrets then cross the "
        "network readable.",
    ),
    honoured(
        _K,
        "max-connections-per-source",
        Kind.UNSIGNED,
        str(limits.CONNECTIONS_PER_SOURCE_MAX),
        "Connections from one IPv4 address, or from one IPv6 network of 64 bits; of "
        f"{limits.CONNECTIONS_MAX} in all.",
        bounds=Bounds(1, limits.CONNECTIONS_MAX),
    ),
    honoured(
        _K,
        "max-connections-per-local-source",
        Kind.UNSIGNED,
        str(limits.CONNECTIONS_PER_LOCAL_SOURCE_MAX),
        "Connections from one loopback address, or over unix sockets from one user: a proxy on "
        "this machine brings everybody's.",
        bounds=Bounds(1, limits.CONNECTIONS_MAX),
    ),
    honoured(
        _K,
        "compat",
        Kind.CHOICE,
        "",
        "etcd: be as permissive as etcd where unchanged drop-in use needs it. Weaker, and loud "
        "about it.",
        choices=("", "etcd"),
    ),
    honoured(
        Section.MEMBER,
        "config-file",
        Kind.PATH,
        "",
        "Read everything from this YAML file; all other flags and variables are then ignored.",
    ),
    honoured(Section.MEMBER, "version", Kind.SWITCH, "false", "Print the version and exit."),
)

# The command line client's variables share the prefix, and so do those that may hold a key;
# the server has nothing to say about them here.
CLIENT_VARIABLES: Final = frozenset(
    f"KVSECURE_{name}"
    for name in (
        "CACERT",
        "CERT",
        "CONTEXT",
        "DISCOVERY_SRV",
        "DISCOVERY_SRV_NAME",
        "ENDPOINT",
        "ENDPOINTS",
        "HOME",
        "JOIN_TOKEN",
        "KEK",
        "KEK_PREVIOUS",
        "KEY",
        "PASSWORD_FILE",
        "TENANT",
        "TIMEOUT",
        "USER",
    )
)
