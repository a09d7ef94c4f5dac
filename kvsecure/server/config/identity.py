"""Member and cluster ids as etcd computes them.

Owns: the two functions, for members that are there at first start.
Never: looks at a host name's addresses: the URLs are hashed as they are written.
Follows: etcd's membership: SHA-1 is a way to spread names over 64 bits here, no protection.
"""

import hashlib
from collections.abc import Iterable, Sequence

from kvsecure.model.ids import ClusterId, MemberId

__all__ = ["cluster_id_of", "member_id_of"]


def member_id_of(peer_urls: Sequence[str], token: str) -> MemberId:
    """Return the id of a first member.

    Args:
        peer_urls: Its peer URLs, in any order.
        token: The cluster's token.
    """
    text = "".join(sorted(peer_urls)) + token
    return MemberId(_first_64_bits(text.encode()))


def cluster_id_of(members: Iterable[MemberId]) -> ClusterId:
    """Return the id of the cluster that starts with these members, in any order."""
    return ClusterId(
        _first_64_bits(b"".join(member.to_bytes(8, "big") for member in sorted(members)))
    )


def _first_64_bits(content: bytes) -> int:
    digest = hashlib.sha1(content, usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big")
