"""The table's rows about TLS, browsers and authentication.

Owns: names, defaults, bounds and help of the sections Security and Authentication.
Never: reads a value; touches a key or a certificate.
Follows: etcd's flags of the same names; differs: TLS 1.3 by default, no self-signed mode.
"""

from typing import Final

from kvsecure.server.config.flag import (
    Bounds,
    Flag,
    Kind,
    Section,
    accepted,
    honoured,
    rejected,
)

__all__ = ["SECURITY_FLAGS"]

_S: Final = Section.SECURITY
_A: Final = Section.AUTH

_SELF_SIGNED: Final = (
    "certificates that nobody verifies are not supported; make real ones with `kvsecure pki init`"
)
_BY_URI: Final = "members are matched by the URI in their certificates, never by "
_ONE_PEER_CERTIFICATE: Final = (
    "a member shows the certificate in --peer-cert-file whichever side dials"
)

SECURITY_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(
        _S,
        "cert-file",
        Kind.PATH,
        "",
        "The server's certificate in PEM, the issuers after it. Required for https.",
    ),
    honoured(
        _S,
        "key-file",
        Kind.PATH,
        "",
        "The private key of --cert-file, readable by its owner only.",
    ),
    honoured(
        _S,
        "client-cert-auth",
        Kind.SWITCH,
        "false",
        "Require client certificates: the same as --client-cert-mode required.",
    ),
    honoured(
        _S,
        "trusted-ca-file",
        Kind.PATH,
        "",
        "The authorities that client certificates must come from, in PEM.",
    ),
    accepted(_S, "client-cert-file", Kind.PATH, "", "the server never dials itself"),
    accepted(_S, "client-key-file", Kind.PATH, "", "the server never dials itself"),
    honoured(
        _S,
        "client-crl-file",
        Kind.PATH,
        "",
        "Revocation lists in PEM or DER; the issuer of every client certificate needs a fresh one.",
    ),
    rejected(
        _S,
        "client-cert-allowed-hostname",
        Kind.LIST,
        "",
        "client certificates are matched by their URI identity, never by host name",
    ),
    rejected(
        _S,
        "client-cert-allowed-cn",
        Kind.LIST,
        "",
        "client certificates are matched by their URI identity, never by an allowed common name",
    ),
    rejected(_S, "auto-tls", Kind.SWITCH, "false", _SELF_SIGNED),
    rejected(_S, "peer-auto-tls", Kind.SWITCH, "false", _SELF_SIGNED),
    honoured(
        _S,
        "peer-cert-file",
        Kind.PATH,
        "",
        "This member's certificate in PEM, the issuers after it: one of `kvsecure pki issue peer` "
        "for --name. Shown to other members, whichever side dials.",
    ),
    honoured(
        _S,
        "peer-key-file",
        Kind.PATH,
        "",
        "The private key of --peer-cert-file, readable by its owner only.",
    ),
    honoured(
        _S,
        "peer-trusted-ca-file",
        Kind.PATH,
        "",
        "The authorities that members' certificates must come from, in PEM.",
    ),
    honoured(
        _S,
        "peer-crl-file",
        Kind.PATH,
        "",
        "Revocation lists in PEM or DER; the issuer of every member's certificate needs a fresh "
        "one.",
    ),
    honoured(
        _S,
        "peer-client-cert-auth",
        Kind.SWITCH,
        "false",
        "Members that have certificates always show them to each other, with or without it; "
        "it is an error where there are none.",
    ),
    rejected(_S, "peer-client-cert-file", Kind.PATH, "", _ONE_PEER_CERTIFICATE),
    rejected(_S, "peer-client-key-file", Kind.PATH, "", _ONE_PEER_CERTIFICATE),
    rejected(_S, "peer-cert-allowed-cn", Kind.LIST, "", _BY_URI + "an allowed common name"),
    rejected(_S, "peer-cert-allowed-hostname", Kind.LIST, "", _BY_URI + "host name"),
    accepted(
        _S,
        "peer-skip-client-san-verification",
        Kind.SWITCH,
        "false",
        _BY_URI + "where they connect from",
    ),
    accepted(
        _S, "self-signed-cert-validity", Kind.UNSIGNED, "1", "no self-signed certificate is made"
    ),
    rejected(
        _S,
        "cipher-suites",
        Kind.LIST,
        "",
        "cipher suites cannot be configured: TLS 1.3 brings its own, and TLS 1.2 is limited to "
        "ECDHE with authenticated encryption",
    ),
    honoured(
        _S,
        "tls-min-version",
        Kind.CHOICE,
        "TLS1.3",
        "The oldest TLS version that is spoken.",
        choices=("TLS1.2", "TLS1.3"),
    ),
    honoured(
        _S,
        "tls-max-version",
        Kind.CHOICE,
        "TLS1.3",
        "The newest TLS version that is spoken; TLS 1.3 cannot be switched off.",
        choices=("TLS1.3",),
    ),
    accepted(
        _S,
        "cors",
        Kind.LIST,
        "",
        "no cross-origin header is ever sent, and requests of web pages are refused",
    ),
    accepted(
        _S,
        "host-whitelist",
        Kind.LIST,
        "",
        "host names of requests are not checked; plaintext listeners are for loopback only",
    ),
    honoured(
        _A,
        "auth-token",
        Kind.TEXT,
        "jwt",
        "jwt, or jwt,ttl=DURATION. Tokens are always signed with EdDSA by a key of the server's "
        "own; simple is accepted with a warning and means the same.",
    ),
    honoured(
        _A,
        "auth-token-ttl",
        Kind.UNSIGNED,
        "600",
        "Seconds that a token is valid.",
        bounds=Bounds(1, 24 * 60 * 60),
    ),
    accepted(
        _A,
        "bcrypt-cost",
        Kind.UNSIGNED,
        "10",
        "passwords are hashed with argon2id",
        bounds=Bounds(4, 31),
    ),
)
