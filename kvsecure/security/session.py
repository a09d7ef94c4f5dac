"""Sessions: who a connection's requests come from, with everything a request needs kept ready.

Owns: the peer of a connection, what a verified credential resolved to, and the parts of audit
    records and log entries that are the same for every request of a session.
Never: decides what the session may do; it holds the grants that the accounts compiled.
Keeps: a session is good for one law revision of its tenant; any change to accounts makes the next
    request resolve it again.
"""

from typing import NamedTuple, final

from kvsecure.access.grants import Grants
from kvsecure.core.accounts import Tenant
from kvsecure.core.apply import LeaseFacts
from kvsecure.core.entry import envelope
from kvsecure.core.mvcc.space import Space
from kvsecure.core.watch import Room
from kvsecure.model.caller import Caller
from kvsecure.security.canonical import canonical
from kvsecure.security.tokens import Claims

__all__ = ["CertificateUser", "Peer", "Session", "Via", "source_fragment"]


class CertificateUser(NamedTuple):
    """The user that a client certificate names."""

    tenant: str
    user: str


class Via(NamedTuple):
    """How a session was proved."""

    kind: str
    expires_ns: int
    # What the token said, where there was one.
    claims: Claims | None = None


@final
class Peer:
    """The other end of a connection, as TLS proved it."""

    __slots__ = ("fingerprint", "ip", "is_cut", "port", "sessions", "source", "user", "watching")

    def __init__(
        self, *, ip: str, port: int, tls: str, user: CertificateUser | None, fingerprint: bytes
    ) -> None:
        """Describe a connection.

        Args:
            ip: The remote address.
            port: The remote port.
            tls: Protocol version and cipher, or empty for a connection without TLS.
            user: Whom the client certificate names, if it names anybody.
            fingerprint: SHA-256 of the client certificate, empty if there is none.
        """
        self.ip = ip
        self.port = port
        self.user = user
        self.fingerprint = fingerprint
        self.source = source_fragment(ip, port, tls, fingerprint)
        # By token; the empty one is the certificate's, or nobody's.
        self.sessions: dict[bytes, Session] = {}
        self.is_cut = False
        # What is queued for all of its watches.
        self.watching = Room()

    def cut(self) -> None:
        """End every session: what TLS proved does not hold any more."""
        self.is_cut = True
        self.sessions.clear()


def source_fragment(ip: str, port: int, tls: str, fingerprint: bytes) -> bytes:
    """Return the `source` object of audit records."""
    source: dict[str, object] = {"ip": ip, "port": port}
    if tls:
        source["tls"] = tls
    if fingerprint:
        source["cert"] = fingerprint.hex()
    return canonical(source)


@final
class Session:
    """A resolved credential."""

    __slots__ = (
        "allowed",
        "caller",
        "denied",
        "envelope",
        "expires_ns",
        "facts",
        "grants",
        "law_revision",
        "space",
        "stage_denied",
        "stage_intent",
        "stage_outcome",
        "stage_read",
        "tenant",
        "via",
    )

    def __init__(
        self,
        tenant: Tenant,
        space: Space,
        caller: Caller,
        grants: Grants,
        via: Via,
        *,
        source: bytes,
        stream: bytes,
    ) -> None:
        self.tenant = tenant
        self.space = space
        self.caller = caller
        self.grants = grants
        self.via = via
        self.expires_ns = via.expires_ns
        self.law_revision = tenant.law_revision
        self.facts = LeaseFacts(space)
        self.envelope = envelope(caller)
        actor: dict[str, object] = {"user": caller.user, "via": via.kind}
        if via.claims is not None:
            actor["session"] = via.claims.session
        # A record is `head`, what was asked, `seq`, `source`, the stage, `rest` and the time.
        actor_json = canonical(actor)
        self.allowed = b'{"actor":%b,"decision":{"allow":true,"law":%d},"op":' % (
            actor_json,
            self.law_revision,
        )
        self.denied = b'{"actor":%b,"decision":{"allow":false,"law":%d,"reason":"' % (
            actor_json,
            self.law_revision,
        )
        tenant_json = canonical(tenant.name)
        rest = b'","stream":"%b","tenant":%b,"ts":"' % (stream, tenant_json)
        self.stage_read = b',"source":%b,"stage":"read%b' % (source, rest)
        self.stage_intent = b',"source":%b,"stage":"intent%b' % (source, rest)
        self.stage_denied = b',"source":%b,"stage":"denied%b' % (source, rest)
        self.stage_outcome = b',"stage":"outcome%b' % rest
