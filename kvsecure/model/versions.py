"""Versions: which etcd we sound like, and which of our own formats we speak.

Owns: the version numbers that clients read from the wire, from `/version` and from `--version`.
Never: decides anything; a client that checks a version must find the same one everywhere.
Follows: etcd's version rules: a cluster's version is the server's without its patch number.
"""

from typing import Final

from kvsecure.model.errors import invariant

__all__ = ["ETCD_CLUSTER_VERSION", "ETCD_CLUSTER_VERSION_SHORT", "ETCD_VERSION"]

# The level of etcd's API that this server speaks; etcd's own clients and test harness parse it.
ETCD_VERSION: Final = "3.5.21"
# What `/version` calls etcdcluster, and what the metric etcd_cluster_version carries.
ETCD_CLUSTER_VERSION: Final = "3.5.0"
ETCD_CLUSTER_VERSION_SHORT: Final = "3.5"

invariant(
    ETCD_VERSION.startswith(f"{ETCD_CLUSTER_VERSION_SHORT}.")
    and f"{ETCD_CLUSTER_VERSION_SHORT}.0" == ETCD_CLUSTER_VERSION,
    "the cluster's version follows from the server's",
)
