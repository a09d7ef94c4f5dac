"""The table's rows about the cluster: its first members, its token, its compaction.

Owns: names, defaults, bounds and help of the section Clustering.
Never: reads a value.
Follows: etcd's flags of the same names; those of discovery are in `discovery_flags`.
"""

from typing import Final

from kvsecure.server.config.discovery_flags import DISCOVERY_FLAGS
from kvsecure.server.config.flag import Flag, Kind, Section, accepted, honoured

__all__ = ["CLUSTER_FLAGS"]

_S: Final = Section.CLUSTERING

CLUSTER_FLAGS: Final[tuple[Flag, ...]] = (
    honoured(
        _S,
        "initial-advertise-peer-urls",
        Kind.URLS,
        "http://localhost:2380",
        "Where other members reach this one; the member's id is computed from it. Without it, "
        "https when --peer-cert-file is given.",
    ),
    honoured(
        _S,
        "initial-cluster",
        Kind.TEXT,
        "${name}=${initial-advertise-peer-urls}",
        "The members at first start, as NAME=URL,...; the same list for each of them.",
    ),
    honoured(
        _S,
        "initial-cluster-state",
        Kind.CHOICE,
        "new",
        "At a member's first start, whether the cluster is to be made, or exists and has this "
        "member added already.",
        choices=("new", "existing"),
    ),
    honoured(
        _S,
        "initial-cluster-token",
        Kind.TEXT,
        "etcd-cluster",
        "Tells clusters with equal URLs apart; ids are computed from it.",
    ),
    honoured(
        _S,
        "advertise-client-urls",
        Kind.URLS,
        "http://localhost:2379",
        "What clients are told to connect to; required with --listen-client-urls.",
    ),
    *DISCOVERY_FLAGS,
    honoured(
        _S,
        "strict-reconfig-check",
        Kind.SWITCH,
        "true",
        "Refuse a change of the members that could leave the cluster without a majority.",
    ),
    accepted(_S, "pre-vote", Kind.SWITCH, "true", "elections are always preceded by a pre-vote"),
    honoured(
        _S,
        "auto-compaction-mode",
        Kind.TEXT,
        "periodic",
        "Whether --auto-compaction-retention is a time (periodic) or a count (revision).",
    ),
    honoured(
        _S,
        "auto-compaction-retention",
        Kind.TEXT,
        "0",
        "History to keep: a duration, or hours without a unit; or a number of revisions. "
        "0 never compacts.",
    ),
)
