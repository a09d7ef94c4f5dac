"""Every bound in one place, with its unit and its reason.

Owns: numbers that stop something from growing.
Never: behaviour. An operator's flag may replace a default; the hard ceilings stay.
"""

from typing import Final

from kvsecure.model.errors import invariant

__all__ = [
    "AUDIT_SEGMENT_BYTES_MAX",
    "AUDIT_TAIL_RECORDS_MAX",
    "AUTH_NAME_BYTES_MAX",
    "CONNECTIONS_MAX",
    "CONNECTIONS_PER_LOCAL_SOURCE_MAX",
    "CONNECTIONS_PER_SOURCE_MAX",
    "GATEWAY_HELD_BYTES_MAX",
    "GRPC_OVERHEAD_BYTES",
    "HANDSHAKES_MAX",
    "HANDSHAKES_PER_LOCAL_SOURCE_MAX",
    "HANDSHAKES_PER_SOURCE_MAX",
    "HEADER_LIST_BYTES_MAX",
    "HISTORY_BYTES_MAX",
    "HISTORY_VERSIONS_MAX",
    "LEARNERS_MAX",
    "LEASE_CHECKPOINTS_MAX",
    "LEASE_CHECKPOINT_BATCHES_MAX",
    "LEASE_CHECKPOINT_EVERY_S",
    "LEASE_EXPIRY_BATCH_MAX",
    "LEASE_EXPIRY_RETRY_S",
    "LEASE_OF_QUEUES_TTL_S",
    "LEASE_TTL_S_MAX",
    "LEASE_TTL_S_MIN",
    "LOG_KEPT_BYTES_MAX",
    "LOG_KEPT_ENTRIES_MAX",
    "LONG_RANGES_WAITING_MAX",
    "MEMBERS_MAX",
    "PASSWORD_BYTES_MAX",
    "PASSWORD_CHARACTERS_MIN",
    "PASSWORD_QUEUE_MAX",
    "PEER_BATCH_BYTES",
    "PEER_BULK_HELD_BYTES_MAX",
    "PEER_BULK_STALL_S_MAX",
    "PEER_CONNECTIONS_MAX",
    "PEER_CONNECTIONS_PER_LOCAL_SOURCE_MAX",
    "PEER_CONNECTIONS_PER_SOURCE_MAX",
    "PEER_DIAL_S_MAX",
    "PEER_HANDSHAKES_MAX",
    "PEER_HANDSHAKES_PER_LOCAL_SOURCE_MAX",
    "PEER_HANDSHAKES_PER_SOURCE_MAX",
    "PEER_HELLO_BYTES_MAX",
    "PEER_HELLO_S_MAX",
    "PEER_MEMBERS_BYTES_MAX",
    "PEER_MESSAGE_BYTES_MAX",
    "PEER_PIECE_BYTES_MAX",
    "PEER_QUEUE_BYTES_MAX",
    "PEER_QUEUE_MESSAGES_MAX",
    "PEER_SHARE_BYTES",
    "PEER_UNSENT_BYTES_MAX",
    "PEER_URLS_MAX",
    "PEER_URL_BYTES_MAX",
    "PROPOSALS_PENDING_MAX",
    "QUEUE_KEYS_AT_ONCE",
    "QUEUE_KEYS_PER_STEP",
    "QUOTA_BYTES_DEFAULT",
    "RECORD_CACHE_BYTES_MAX",
    "REQUEST_BODY_S_MAX",
    "REQUEST_BYTES_MAX_DEFAULT",
    "REQUEST_TIMEOUT_S",
    "RETENTION_FOR_S_MAX",
    "RETENTION_POLICIES_MAX",
    "RETENTION_PREFIX_BYTES_MAX",
    "RETENTION_VERSIONS_MAX",
    "STREAMS_PER_CONNECTION_MAX",
    "STREAM_UNSENT_BYTES_MAX",
    "TLS_HANDSHAKE_S_MAX",
    "TOKEN_BYTES_MAX",
    "TXN_DEPTH_MAX",
    "TXN_OPS_MAX_DEFAULT",
    "UNFLUSHED_BYTES_MAX",
    "UNREAD_BYTES_MAX",
    "UNSENT_BYTES_MAX",
    "UNSENT_BYTES_MAX_CROWDED",
    "WAL_SEGMENT_BYTES_MAX",
    "WATCHES_PER_STREAM_MAX",
    "WATCH_KEYS_PER_SLICE",
    "WATCH_MISSED_BYTES_MAX",
    "WATCH_QUEUE_BYTES_MAX",
    "WATCH_ROOM_BYTES_MAX",
]

# --- requests -----------------------------------------------------------------------------------
# etcd's --max-request-bytes; every client sizes its own limits after it.
REQUEST_BYTES_MAX_DEFAULT: Final = 1_572_864
# etcd lets a gRPC message be this much larger than the request limit before gRPC refuses it.
GRPC_OVERHEAD_BYTES: Final = 512 * 1024
TXN_OPS_MAX_DEFAULT: Final = 128
# Every level of nesting costs an operation of the level above, so the operation limit bounds depth
# too; this one bounds it where an operator raised that limit.
TXN_DEPTH_MAX: Final = 64
# etcd: 5 s plus two election timeouts of 1 s.
REQUEST_TIMEOUT_S: Final = 7.0
# etcd answers "too many requests" when 5,000 entries are committed and not applied.
PROPOSALS_PENDING_MAX: Final = 5_000
# Ranges of one connection that are read in steps, behind the one that is being read: nobody can
# tell whether who asked still waits.
LONG_RANGES_WAITING_MAX: Final = 100

# --- leases -------------------------------------------------------------------------------------
# etcd: ceil(3 * election ticks / 2 * heartbeat) with its default timing.
LEASE_TTL_S_MIN: Final = 2
LEASE_TTL_S_MAX: Final = 9_000_000_000
# etcd revokes at most 1,000 leases a second, in two scans.
LEASE_EXPIRY_BATCH_MAX: Final = 500
LEASE_EXPIRY_RETRY_S: Final = 3
# etcd's sessions: of a lock or a campaign without a lease.
LEASE_OF_QUEUES_TTL_S: Final = 60
# etcd's: how often it is noted how long a lease has to live, and for how many at once.
LEASE_CHECKPOINT_EVERY_S: Final = 300
LEASE_CHECKPOINTS_MAX: Final = 1_000
# Of each scan: 8,000 leases a second are noted, each batch in a millisecond or two.
LEASE_CHECKPOINT_BATCHES_MAX: Final = 4

# --- names and passwords ------------------------------------------------------------------------
AUTH_NAME_BYTES_MAX: Final = 256
# NIST SP 800-63B-4 for passwords that are the only factor.
PASSWORD_CHARACTERS_MIN: Final = 15
# Long enough for any passphrase, short enough that hashing it is never the attack.
PASSWORD_BYTES_MAX: Final = 1_024
# Hashing one takes about 25 ms of a core; a longer queue is a flood, not a log-in.
PASSWORD_QUEUE_MAX: Final = 256
# Our tokens have about 500 bytes.
TOKEN_BYTES_MAX: Final = 4_096

# --- connections and streams --------------------------------------------------------------------
CONNECTIONS_MAX: Final = 10_000
# A tenth: it takes many addresses to keep everybody else out, and no client needs as many.
CONNECTIONS_PER_SOURCE_MAX: Final = 1_000
# All clients of a machine, or of a proxy on it, look like one there; what they cannot have is kept
# for everybody else.
CONNECTIONS_PER_LOCAL_SOURCE_MAX: Final = 9_000
# Those whose handshake is not over: after a restart everybody comes at once, and a handshake costs
# a millisecond or two, so that so many are dealt with well within their deadline.
HANDSHAKES_MAX: Final = 2_000
HANDSHAKES_PER_SOURCE_MAX: Final = 500
HANDSHAKES_PER_LOCAL_SOURCE_MAX: Final = 1_800
# RFC 9113 section 6.5.2 advises at least 100; etcd leaves it open, which lets one peer hold all.
STREAMS_PER_CONNECTION_MAX: Final = 4_096
# gRPC's own default for metadata is 8 KiB soft and 16 KiB hard.
HEADER_LIST_BYTES_MAX: Final = 16 * 1024
# Bytes queued towards one peer before its connection is no longer read from.
UNSENT_BYTES_MAX: Final = 8 * 1024 * 1024
# What all peers together may leave unread before each of them is held to much less.
UNREAD_BYTES_MAX: Final = 256 * 1024 * 1024
UNSENT_BYTES_MAX_CROWDED: Final = 64 * 1024
# Bytes queued on one stream before its producer has to wait.
STREAM_UNSENT_BYTES_MAX: Final = 1024 * 1024
# A JSON request that takes longer to come keeps others from being held.
REQUEST_BODY_S_MAX: Final = 60
# Parts of JSON requests of all connections together; a message in base64 is a third longer.
GATEWAY_HELD_BYTES_MAX: Final = 64 * 1024 * 1024
# etcd since 3.7.1, after a listener without it could be exhausted (GHSA-6vch-q96h-7gc3).
TLS_HANDSHAKE_S_MAX: Final = 10.0

# --- versions -----------------------------------------------------------------------------------
# A page of a key's history: reading and opening so many records takes a few milliseconds. It ends
# behind the version with which it has so many bytes.
HISTORY_VERSIONS_MAX: Final = 256
HISTORY_BYTES_MAX: Final = 1024 * 1024

# Of a tenant; each compaction has a copy of all of them.
RETENTION_POLICIES_MAX: Final = 256
RETENTION_PREFIX_BYTES_MAX: Final = 1_024
RETENTION_VERSIONS_MAX: Final = 1_000_000
# A hundred years.
RETENTION_FOR_S_MAX: Final = 3_153_600_000

# --- watches ------------------------------------------------------------------------------------
WATCHES_PER_STREAM_MAX: Final = 10_000
# A watcher that is further behind catches up from history instead of from a queue.
WATCH_QUEUE_BYTES_MAX: Final = 1024 * 1024
# The same for all watchers of one connection together: it may have thousands and read nothing.
WATCH_ROOM_BYTES_MAX: Final = 8 * 1024 * 1024
# Where and what the changes are that a watcher has missed: some 200,000 where keys are short. Who
# has missed more walks the keys again.
WATCH_MISSED_BYTES_MAX: Final = 16 * 1024 * 1024
# A millisecond or two of work, more where keys have many versions.
WATCH_KEYS_PER_SLICE: Final = 2_000

# --- locks and elections --------------------------------------------------------------------------
# Keys of a queue that are looked at in one step: a millisecond or so. So few are looked at at once.
QUEUE_KEYS_PER_STEP: Final = 2_000
QUEUE_KEYS_AT_ONCE: Final = 64

# --- disk ---------------------------------------------------------------------------------------
WAL_SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
# Two of them are read at each start.
AUDIT_SEGMENT_BYTES_MAX: Final = 32 * 1024 * 1024
AUDIT_TAIL_RECORDS_MAX: Final = 10_000
QUOTA_BYTES_DEFAULT: Final = 2 * 1024 * 1024 * 1024
RECORD_CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
# What may be in memory and in the log only; the tables are normally 200 ms behind.
UNFLUSHED_BYTES_MAX: Final = 512 * 1024 * 1024
# Of the log that the tables hold already, for members that are behind; who is further behind is
# sent a snapshot. Small entries are many before they are large together.
LOG_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
LOG_KEPT_ENTRIES_MAX: Final = 250_000

# --- links between members ----------------------------------------------------------------------
# An append carries at least one entry, and an entry fits into a segment of the log.
PEER_MESSAGE_BYTES_MAX: Final = WAL_SEGMENT_BYTES_MAX
# A hello is two names and a few numbers; nothing longer is kept for whoever has not said one.
PEER_HELLO_BYTES_MAX: Final = 1_024
# A member says hello with its first bytes.
PEER_HELLO_S_MAX: Final = 5.0
# Who all members are, for one that joins: dozens of them, with dozens of addresses each.
PEER_MEMBERS_BYTES_MAX: Final = 256 * 1024
# To connect and shake hands; then the next address has its turn.
PEER_DIAL_S_MAX: Final = 5.0
# What waits for one peer that reads slowly; consensus sends again what does not fit. As many
# messages as etcd lets wait. A single message always fits where nothing else waits.
PEER_QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
PEER_QUEUE_MESSAGES_MAX: Final = 4_096
# What goes into one write, and how much may be in a socket's buffer before more waits outside.
PEER_BATCH_BYTES: Final = 256 * 1024
PEER_UNSENT_BYTES_MAX: Final = 512 * 1024
# What is taken in from one connection before the others have their turn.
PEER_SHARE_BYTES: Final = 128 * 1024
# Of a bulk stream: a piece, what the receiver keeps before it stops reading, and how long either
# side waits for the other, or for its disk.
PEER_PIECE_BYTES_MAX: Final = 256 * 1024
PEER_BULK_HELD_BYTES_MAX: Final = 1024 * 1024
PEER_BULK_STALL_S_MAX: Final = 30.0
# Seven members and as many learners have 26 connections with one of them, bulk included; the rest
# is for those that are being replaced. Members may share an address, or one machine.
PEER_CONNECTIONS_MAX: Final = 256
PEER_CONNECTIONS_PER_SOURCE_MAX: Final = 64
PEER_CONNECTIONS_PER_LOCAL_SOURCE_MAX: Final = 192
PEER_HANDSHAKES_MAX: Final = 128
PEER_HANDSHAKES_PER_SOURCE_MAX: Final = 16
PEER_HANDSHAKES_PER_LOCAL_SOURCE_MAX: Final = 64
# A change may come from as many members and go to as many others (255 together in consensus).
MEMBERS_MAX: Final = 64
# As in etcd: each is one more to send everything to.
LEARNERS_MAX: Final = 1
# Of one member.
PEER_URLS_MAX: Final = 16
PEER_URL_BYTES_MAX: Final = 512

invariant(LEASE_TTL_S_MIN < LEASE_TTL_S_MAX, "some lease must be possible")
invariant(
    CONNECTIONS_PER_LOCAL_SOURCE_MAX < CONNECTIONS_MAX
    and HANDSHAKES_PER_LOCAL_SOURCE_MAX < HANDSHAKES_MAX,
    "no source has all places",
)
invariant(
    PEER_CONNECTIONS_PER_LOCAL_SOURCE_MAX < PEER_CONNECTIONS_MAX
    and PEER_HANDSHAKES_PER_LOCAL_SOURCE_MAX < PEER_HANDSHAKES_MAX,
    "no source has all places of the links between members",
)
invariant(PEER_PIECE_BYTES_MAX < PEER_MESSAGE_BYTES_MAX, "a piece is a frame like any other")
invariant(
    REQUEST_BYTES_MAX_DEFAULT + GRPC_OVERHEAD_BYTES < WAL_SEGMENT_BYTES_MAX,
    "a request must fit into one WAL segment",
)
