"""The table's rows for what etcd itself has dropped, and the old spellings of what it kept.

Owns: flags that old command lines and files still carry.
Never: gives one of them a meaning that etcd never had.
Follows: etcd's change logs from 2.x to 3.8.
"""

from typing import Final

from kvsecure.server.config.flag import Flag, Kind, Section, accepted, honoured, rejected
from kvsecure.server.config.observing_flags import NOT_COMPARED

__all__ = ["LEGACY_FLAGS", "OLD_SPELLINGS", "REMOVED_FLAGS"]

_R: Final = Section.REMOVED
_NO_V2: Final = "etcd's v2 API is not served"
_NO_CHECKPOINT: Final = "the remaining times of long leases are always checkpointed"

REMOVED_FLAGS: Final[tuple[Flag, ...]] = (
    accepted(_R, "max-snapshots", Kind.UNSIGNED, "5", "old snapshots go by themselves"),
    accepted(_R, "enable-v2", Kind.SWITCH, "false", _NO_V2),
    accepted(_R, "v2-deprecation", Kind.TEXT, "not-yet", _NO_V2),
    accepted(_R, "experimental-enable-v2v3", Kind.TEXT, "", _NO_V2),
    rejected(
        _R, "proxy", Kind.TEXT, "off", "etcd's v2 proxy is not supported; start a server instead"
    ),
    *(
        accepted(_R, name, Kind.UNSIGNED, default, "etcd's v2 proxy is not supported")
        for name, default in (
            ("proxy-failure-wait", "5000"),
            ("proxy-refresh-interval", "30000"),
            ("proxy-dial-timeout", "1000"),
            ("proxy-write-timeout", "5000"),
            ("proxy-read-timeout", "0"),
        )
    ),
    honoured(
        _R,
        "experimental-initial-corrupt-check",
        Kind.SWITCH,
        "false",
        "Read and check everything stored before anything is served; damage raises the CORRUPT "
        "alarm.",
    ),
    *(
        accepted(_R, f"experimental-{name}", Kind.SWITCH, default, why)
        for name, default, why in (
            ("compact-hash-check-enabled", "false", NOT_COMPARED),
            ("enable-lease-checkpoint", "false", _NO_CHECKPOINT),
            ("enable-lease-checkpoint-persist", "false", _NO_CHECKPOINT),
            ("stop-grpc-service-on-defrag", "false", "the service never stops for it"),
            ("txn-mode-write-with-shared-buffer", "true", "there is no such buffer here"),
            (
                "set-member-localaddr",
                "false",
                "the system chooses where a connection to a peer comes from",
            ),
        )
    ),
)

# etcd registers these as switches that do nothing, so that ancient command lines still start.
LEGACY_FLAGS: Final = frozenset(
    {
        "cluster-active-size",
        "cluster-remove-delay",
        "cluster-sync-interval",
        "config",
        "force",
        "max-result-buffer",
        "max-retry-attempts",
        "peer-election-timeout",
        "peer-heartbeat-interval",
        "retry-interval",
        "snapshot",
        "test.coverprofile",
        "test.outputdir",
        "v",
        "vv",
    }
)

# Options that lost their prefix when they stopped being experiments: the old name means the new.
OLD_SPELLINGS: Final = {
    f"experimental-{name}": name
    for name in (
        "bootstrap-defrag-threshold-megabytes",
        "compact-hash-check-time",
        "compaction-batch-limit",
        "compaction-sleep-interval",
        "corrupt-check-time",
        "distributed-tracing-address",
        "distributed-tracing-instance-id",
        "distributed-tracing-sampling-rate",
        "distributed-tracing-service-name",
        "downgrade-check-time",
        "enable-distributed-tracing",
        "max-learners",
        "memory-mlock",
        "peer-skip-client-san-verification",
        "snapshot-catchup-entries",
        "warning-apply-duration",
        "warning-unary-request-duration",
        "watch-progress-notify-interval",
    )
}
