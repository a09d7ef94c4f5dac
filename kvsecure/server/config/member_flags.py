"""The table's rows about this member: its name, its directory, its listeners, its limits.

Owns: names, defaults, bounds and help of the section Member.
Never: reads a value.
Follows: etcd's flags of the same names; differs where the help says so.
"""

from typing import Final

from kvsecure.model import limits
from kvsecure.server.config.durations import HOUR_NS
from kvsecure.server.config.flag import (
    Bounds,
    Flag,
    Kind,
    Section,
    accepted,
    honoured,
    rejected,
)

__all__ = ["MEMBER_FLAGS", "QUOTA_BYTES_ADVISED", "REQUEST_BYTES_ADVISED"]

_S: Final = Section.MEMBER

# etcd warns beyond these; so do we.
QUOTA_BYTES_ADVISED: Final = 8 * 1024 * 1024 * 1024
REQUEST_BYTES_ADVISED: Final = 10 * 1024 * 1024

_QUOTA_BYTES_MAX: Final = 1 << 40
# A request and what surrounds it must leave room in one segment of the log.
_REQUEST_BYTES_MAX: Final = limits.WAL_SEGMENT_BYTES_MAX // 2

_SILENCE: Final = "a peer that says nothing for three times --election-timeout is gone"

MEMBER_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(_S, "name", Kind.TEXT, "default", "Name of this member."),
    honoured(
        _S, "data-dir", Kind.PATH, "${name}.kvsecure", "Directory of everything that is stored."
    ),
    rejected(_S, "wal-dir", Kind.PATH, "", "a separate directory for the log is not supported"),
    accepted(
        _S,
        "snapshot-count",
        Kind.UNSIGNED,
        "10000",
        "log entries are let go with every flush of the tables",
    ),
    accepted(
        _S,
        "snapshot-catchup-entries",
        Kind.UNSIGNED,
        "5000",
        "a follower whose entries are gone is sent the tables instead",
    ),
    honoured(
        _S,
        "heartbeat-interval",
        Kind.UNSIGNED,
        "100",
        "Milliseconds between two signs of a leader's life: one tick of the consensus clock.",
        bounds=Bounds(1, 10_000),
    ),
    honoured(
        _S,
        "election-timeout",
        Kind.UNSIGNED,
        "1000",
        "Milliseconds without a leader before an election; at least 5 heartbeats, and the same for "
        "all members.",
        bounds=Bounds(5, 50_000),
    ),
    accepted(
        _S,
        "initial-election-tick-advance",
        Kind.SWITCH,
        "true",
        "a single member elects itself at once, and one of several waits its time",
    ),
    honoured(
        _S,
        "listen-peer-urls",
        Kind.URLS,
        "http://localhost:2380",
        "Where other members connect: https with an IP address or localhost; http for loopback "
        "only. Without it, https when --peer-cert-file is given, and nothing listens when "
        "--initial-cluster names no other member and there is no such file.",
    ),
    honoured(
        _S,
        "listen-client-urls",
        Kind.URLS,
        "http://localhost:2379",
        "Where clients connect: https or http with an IP address or localhost, unixs or unix with "
        "the path of a socket; both schemes of one address may be listed. http is for loopback "
        "only. Without it, https when --cert-file is given.",
    ),
    honoured(
        _S,
        "listen-client-http-urls",
        Kind.URLS,
        "",
        "Where plain HTTP requests are served instead of on --listen-client-urls.",
    ),
    accepted(_S, "max-wals", Kind.UNSIGNED, "5", "the server knows which files it needs"),
    rejected(
        _S,
        "memory-mlock",
        Kind.SWITCH,
        "false",
        "memory is not locked; switch swap off for the service instead (MemorySwapMax=0)",
    ),
    honoured(
        _S,
        "quota-backend-bytes",
        Kind.INTEGER,
        "0",
        f"Bytes of storage before writes are refused; 0 is {limits.QUOTA_BYTES_DEFAULT}. "
        "It cannot be switched off.",
        bounds=Bounds(0, _QUOTA_BYTES_MAX),
    ),
    accepted(_S, "backend-bbolt-freelist-type", Kind.TEXT, "map", "there is no bbolt here"),
    accepted(_S, "backend-batch-interval", Kind.DURATION, "0s", "the store sizes its own batches"),
    accepted(_S, "backend-batch-limit", Kind.INTEGER, "0", "the store sizes its own batches"),
    honoured(
        _S,
        "max-txn-ops",
        Kind.UNSIGNED,
        str(limits.TXN_OPS_MAX_DEFAULT),
        "Operations in one list of a transaction.",
        bounds=Bounds(1, 65_536),
    ),
    honoured(
        _S,
        "max-request-bytes",
        Kind.UNSIGNED,
        str(limits.REQUEST_BYTES_MAX_DEFAULT),
        "Bytes of one request.",
        bounds=Bounds(1_024, _REQUEST_BYTES_MAX),
    ),
    honoured(
        _S,
        "max-concurrent-streams",
        Kind.UNSIGNED,
        str(limits.STREAMS_PER_CONNECTION_MAX),
        "Open streams on one connection.",
        bounds=Bounds(1, (1 << 32) - 1),
    ),
    honoured(
        _S,
        "grpc-keepalive-min-time",
        Kind.DURATION,
        "5s",
        "A client that pings more often is disconnected.",
        bounds=Bounds(0, 24 * HOUR_NS),
    ),
    honoured(
        _S,
        "grpc-keepalive-interval",
        Kind.DURATION,
        "2h0m0s",
        "Silence after which the server pings a client; 0 never does.",
        bounds=Bounds(0, 24 * HOUR_NS),
    ),
    honoured(
        _S,
        "grpc-keepalive-timeout",
        Kind.DURATION,
        "20s",
        "Wait for the answer to such a ping before the connection is closed; 0 never closes it.",
        bounds=Bounds(0, HOUR_NS),
    ),
    rejected(
        _S,
        "socket-reuse-port",
        Kind.SWITCH,
        "false",
        "two processes must never answer on one port",
    ),
    accepted(
        _S,
        "socket-reuse-address",
        Kind.SWITCH,
        "false",
        "an address in TIME_WAIT can always be bound again",
    ),
    honoured(
        _S,
        "enable-grpc-gateway",
        Kind.SWITCH,
        "true",
        "Serve the calls of gRPC as JSON over HTTP/1.1 and HTTP/2 too.",
    ),
    accepted(_S, "raft-read-timeout", Kind.DURATION, "5s", _SILENCE),
    accepted(_S, "raft-write-timeout", Kind.DURATION, "5s", _SILENCE),
    honoured(
        _S,
        "feature-gates",
        Kind.LIST,
        "",
        "InitialCorruptCheck=true reads and checks everything stored before anything is served; "
        "etcd's other gates change nothing here, and unknown ones are errors.",
    ),
    accepted(_S, "max-learners", Kind.INTEGER, "1", "a cluster has one learner at a time"),
    accepted(
        _S,
        "bootstrap-defrag-threshold-megabytes",
        Kind.UNSIGNED,
        "0",
        "the store is never defragmented at start",
    ),
)
