"""The configuration of a server: checked, complete, and never changed afterwards.

Owns: what the rest of the server may know about how it was configured.
Never: holds a secret: files with secrets are named here and read where they are needed.
Keeps: every value has been checked; nobody downstream checks it again.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import final

from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.server.config.urls import Endpoint

__all__ = [
    "ClientCertMode",
    "ClientIdentity",
    "Cluster",
    "ClusterState",
    "Compaction",
    "Compat",
    "Discovery",
    "KeepPeriod",
    "KeepRevisions",
    "KekProvider",
    "KekSettings",
    "Limits",
    "Listen",
    "LogFormat",
    "LogLevel",
    "Logging",
    "Member",
    "MetricsDetail",
    "PeerTls",
    "Peers",
    "PolicyFile",
    "PolicyName",
    "Security",
    "ServerConfig",
    "SrvDiscovery",
    "TlsVersion",
    "TokenDiscovery",
]


class Compat(Enum):
    """Whose permissiveness applies."""

    NONE = ""
    ETCD = "etcd"


class ClusterState(Enum):
    """Whether the cluster is to be made; with a data directory that has state it says nothing."""

    NEW = "new"
    EXISTING = "existing"


class ClientCertMode(Enum):
    """Whether clients show certificates."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    OFF = "off"


class ClientIdentity(Enum):
    """Where a client certificate names its user; the common name only with Compat.ETCD."""

    URI = "uri"
    COMMON_NAME = "cn"


class TlsVersion(Enum):
    """The oldest TLS version that is spoken."""

    TLS_1_2 = "TLS1.2"
    TLS_1_3 = "TLS1.3"


class PolicyName(Enum):
    """Policy bundles that need no file."""

    DEFAULT = "default"
    NONE = "none"


class MetricsDetail(Enum):
    """Whether methods are timed in histograms."""

    BASIC = "basic"
    EXTENSIVE = "extensive"


class KekProvider(Enum):
    """Where the key-encryption key comes from."""

    FILE = "file"
    ENV = "env"
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of a provider, not a secret
    KMS = "kms"


class LogLevel(Enum):
    """What is not worth a line; etcd's dpanic, panic and fatal are one."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    FATAL = "fatal"


class LogFormat(Enum):
    """How a line of the log looks."""

    JSON = "json"
    CONSOLE = "console"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """This member."""

    name: str
    member_id: MemberId
    data_dir: Path
    advertise_client_urls: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SrvDiscovery:
    """SRV records name the first members.

    Attributes:
        domain: Whose records.
        services: With the scheme that each stands for.
    """

    domain: str
    services: tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDiscovery:
    """The first members find each other in another cluster's store (etcd's v3 discovery).

    Attributes:
        token: Under which name there.
        endpoints: URLs of that cluster; https, or http where that is allowed.
        user: Who logs in; empty for nobody.
        password_file: Present when there is a user.
        ca_file: Whose certificates the endpoints have; None for the system's authorities.
        cert_file: This member's certificate there, as is key_file its key.
        dial_ns_max: How long a connection may take.
        request_ns_max: How long a request may take.
        keepalive_ns: How long the other end may be silent before it is probed.
        keepalive_ns_max: How long a probe may take.
    """

    token: str
    endpoints: tuple[str, ...]
    user: str
    password_file: Path | None
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None
    dial_ns_max: int
    request_ns_max: int
    keepalive_ns: int
    keepalive_ns_max: int


Discovery = SrvDiscovery | TokenDiscovery


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cluster as it is at first start.

    Attributes:
        name: The trust domain of certificates.
        token: Feeds the ids.
        members: Peer URLs by member name, sorted by name; this member is one of them, and the only
            one that is known where the others have to be discovered.
        discovery: How the others are found, if no flag names them.
        strict_reconfig_check: Whether changes of the members that could cost the majority are
            refused.
        stands_alone: Whether this member, at this start, removes all others.
    """

    name: str
    cluster_id: ClusterId
    token: str
    state: ClusterState
    members: tuple[tuple[str, tuple[str, ...]], ...]
    discovery: Discovery | None
    strict_reconfig_check: bool
    stands_alone: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTls:
    """TLS of the links between members, whichever side dials.

    Attributes:
        cert_file: This member's certificate, as is key_file its key.
        trusted_ca_file: Whose certificates members have.
        crl_file: Without it nobody is revoked.
    """

    cert_file: Path
    key_file: Path
    trusted_ca_file: Path
    crl_file: Path | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """How this member and the others reach each other, and how patient they are.

    Attributes:
        listen: Where others connect; empty for a member that is alone and is told nothing else.
        advertise_urls: Where others find this member, at first start.
        tls: None for plaintext, which is spoken over loopback only.
        heartbeat_ms: One tick of the consensus clock, and how often a leader says that it is there.
        election_ms: How long without a leader before an election, at least; 5 ticks or more.
        authority_dir: The authority that newcomers have their certificates from, if it is here.
    """

    listen: tuple[Endpoint, ...]
    advertise_urls: tuple[str, ...]
    tls: PeerTls | None
    heartbeat_ms: int
    election_ms: int
    authority_dir: Path | None

    @property
    def listen_urls(self) -> tuple[str, ...]:
        """Where others connect, as URLs."""
        return tuple(endpoint.url for endpoint in self.listen)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the server listens.

    Attributes:
        client: At least one.
        client_http: When there are any, plain HTTP requests are served here and not on client.
        metrics: Metrics and health only.
        gateway: Whether calls are served as JSON where plain HTTP is.
    """

    client: tuple[Endpoint, ...]
    client_http: tuple[Endpoint, ...]
    metrics: tuple[Endpoint, ...]
    gateway: bool

    @property
    def everything(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return self.client + self.client_http + self.metrics


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A policy bundle in a file."""

    path: Path


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KekSettings:
    """Where a key-encryption key comes from.

    Attributes:
        prefix: What the flags begin with that name it, for error texts.
        file: Present for the provider file.
        variable: For the provider env.
        passphrase_file: For the provider passphrase; without it somebody is asked.
        kms_socket: Present for the provider kms.
    """

    prefix: str = "kek"
    provider: KekProvider = KekProvider.FILE
    file: Path | None = None
    variable: str = ""
    passphrase_file: Path | None = None
    kms_socket: Path | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Keys, certificates, identities.

    Attributes:
        previous_kek: Where the key came from that the keyring may still be wrapped with.
        cert_file: Present when a listener is https, as is key_file.
        trusted_ca_file: Present unless client certificates are off.
        client_crl_file: Only together with it.
        initial_root_password_file: Only for the first start.
        initial_policy: Only for the first start.
    """

    kek: KekSettings
    previous_kek: KekSettings | None
    cert_file: Path | None
    key_file: Path | None
    trusted_ca_file: Path | None
    client_crl_file: Path | None
    client_certificates: ClientCertMode
    client_identity: ClientIdentity
    tls_minimum: TlsVersion
    token_ttl_s: int
    initial_root_password_file: Path | None
    initial_policy: PolicyName | PolicyFile


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPeriod:
    """Compact what is older."""

    retention_ns: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRevisions:
    """Compact all but the newest revisions."""

    count: int


Compaction = KeepPeriod | KeepRevisions | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds, and the rhythm of periodic work.

    Attributes:
        keepalive_interval_ns: 0 never pings.
        keepalive_timeout_ns: 0 never closes a connection for a missing answer.
        compaction: None never compacts.
        corrupt_check_ns: How often everything stored is checked; 0 never does.
        corrupt_check_at_start: Whether that is done before anything is served.
    """

    quota_bytes: int
    txn_ops_max: int
    request_bytes_max: int
    streams_per_connection_max: int
    connections_per_source_max: int
    connections_per_local_source_max: int
    compaction: Compaction
    watch_progress_interval_ns: int
    slow_apply_ns: int
    keepalive_min_time_ns: int
    keepalive_interval_ns: int
    keepalive_timeout_ns: int
    corrupt_check_ns: int
    corrupt_check_at_start: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """What the server tells about itself.

    Attributes:
        outputs: `stderr`, `stdout`, or the path of a file; at least one, each once.
    """

    level: LogLevel
    format: LogFormat
    outputs: tuple[str, ...]
    metrics: MetricsDetail


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything.

    Attributes:
        warnings: For the log, before anything else: what was accepted and does nothing, and what
            is weaker than it should be.
        given: What was set and where, by flag name, for the log; file names and numbers only.
    """

    member: Member
    cluster: Cluster
    peers: Peers
    listen: Listen
    security: Security
    limits: Limits
    logging: Logging
    compat: Compat
    warnings: tuple[str, ...]
    given: tuple[tuple[str, str], ...]
