"""etcdserverpb.Cluster: who is a member.

Owns: the shape checks of its requests.
Never: decides who may ask, or whether a change is a good idea.
"""

from kvsecure.api.services import Services
from kvsecure.api.shape import check_peer_urls
from kvsecure.proto.cluster_pb2 import (
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
)
from kvsecure.security.asking import Asking

__all__ = ["member_add", "member_list", "member_promote", "member_remove", "member_update"]


def member_add(services: Services, asking: Asking, request: MemberAddRequest, _: bytes) -> None:
    """Make somebody a member."""
    check_peer_urls(request.peerURLs)
    services.membership.add(asking, request)


def member_remove(
    services: Services, asking: Asking, request: MemberRemoveRequest, _: bytes
) -> None:
    """Make somebody a member no more."""
    services.membership.remove(asking, request)


def member_update(
    services: Services, asking: Asking, request: MemberUpdateRequest, _: bytes
) -> None:
    """Say where other members reach a member."""
    check_peer_urls(request.peerURLs)
    services.membership.update(asking, request)


def member_promote(
    services: Services, asking: Asking, request: MemberPromoteRequest, _: bytes
) -> None:
    """Let a learner vote."""
    services.membership.promote(asking, request)


def member_list(services: Services, asking: Asking, request: MemberListRequest, _: bytes) -> None:
    """Say who is a member, as far as the cluster or only this member knows."""
    services.gate.read(asking, request, stale=not request.linearizable)
