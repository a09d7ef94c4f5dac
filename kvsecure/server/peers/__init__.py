"""The links between the members of a cluster: docs/adr/0021-peer-links.md."""

from kvsecure.server.peers.asking import Told, Unanswered, ask_member
from kvsecure.server.peers.bulk import BulkFailed
from kvsecure.server.peers.links import PeerLinks
from kvsecure.server.peers.roster import PeerAddress, PeerIdentity
from kvsecure.server.peers.timing import LinkTiming

__all__ = [
    "BulkFailed",
    "LinkTiming",
    "PeerAddress",
    "PeerIdentity",
    "PeerLinks",
    "Told",
    "Unanswered",
    "ask_member",
]
