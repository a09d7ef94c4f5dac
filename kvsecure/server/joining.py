"""Joining: what a member without a data directory learns of the others before it makes one.

Owns: what members tell newcomers, whom a newcomer asks, and holding the answer against its flags.
Never: makes a directory, or changes who the members are: whoever adds a member does that first.
Follows: etcd's checks of a member that joins, with their texts; docs/adr/0022-joining.md.
Keeps: a member that was started once and has lost its directory does not start under the same id:
    what it has voted for and acknowledged is forgotten.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from google.protobuf.message import DecodeError

from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.proto import cluster_pb2
from kvsecure.server.config.model import ServerConfig
from kvsecure.server.config.urls import parse_urls
from kvsecure.server.credentials import Credentials
from kvsecure.server.peers import PeerAddress, Told, Unanswered, ask_member
from kvsecure.storage.files import StorageError
from kvsecure.telemetry.log import log

__all__ = [
    "Joined",
    "KnownMember",
    "ask_members",
    "decode_members",
    "encode_members",
    "join",
    "refuse_second_founding",
]

# A cluster that is being started may take a moment; whoever starts us tries again anyway.
_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.5
_NAME_CHARACTERS_MAX: Final = 128

_log = log("joining")


@final
class KnownMember(NamedTuple):
    """A member as others know it.

    Attributes:
        name: Empty for one that was added and has not started.
        peer_urls: Where it listens for members; sorted.
        client_urls: Empty for one that has not started.
    """

    member: MemberId
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @property
    def is_started(self) -> bool:
        """Whether it has ever told the others that it is there."""
        return bool(self.client_urls)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The cluster that a member belongs to, and which of its members it is."""

    cluster: ClusterId
    member: MemberId
    members: tuple[KnownMember, ...]

    @property
    def own(self) -> KnownMember:
        """This member, as the others know it."""
        return next(each for each in self.members if each.member == self.member)

    @property
    def peers(self) -> Mapping[int, PeerAddress]:
        """The other members, for the links, until the log tells who they are."""
        return {
            each.member: PeerAddress(each.name, each.peer_urls)
            for each in self.members
            if each.member != self.member
        }


class _NotMembers(ValueError):
    """An answer is no list of members."""


# --- what is told -------------------------------------------------------------------------------


def encode_members(members: Iterable[KnownMember]) -> bytes:
    """Return what a newcomer is told."""
    response = cluster_pb2.MemberListResponse()
    for each in sorted(members):
        response.members.add(
            ID=each.member,
            name=each.name,
            peerURLs=each.peer_urls,
            clientURLs=each.client_urls,
            isLearner=each.is_learner,
        )
    return response.SerializeToString(deterministic=True)


def decode_members(content: bytes) -> tuple[KnownMember, ...]:
    """Return what a newcomer was told, by id.

    Raises:
        ValueError: It is no list of members.
    """
    try:
        response = cluster_pb2.MemberListResponse.FromString(content)
    except DecodeError:
        raise _NotMembers("it is no list of members") from None
    if not 0 < len(response.members) <= MEMBERS_MAX:
        raise _NotMembers(f"a cluster has 1 to {MEMBERS_MAX} members")
    members = tuple(sorted(_known(each) for each in response.members))
    urls = [url for each in members for url in each.peer_urls]
    if len({each.member for each in members}) < len(members) or len(set(urls)) < len(urls):
        raise _NotMembers("two members are one")
    return members


def _known(member: cluster_pb2.Member) -> KnownMember:
    if not member.ID or len(member.name) > _NAME_CHARACTERS_MAX or not member.name.isprintable():
        raise _NotMembers("a member has no id, or no name that one can have")
    peer_urls, client_urls = parse_urls(",".join(member.peerURLs)), tuple(member.clientURLs)
    if not peer_urls or not all(url.isprintable() for url in client_urls):
        raise _NotMembers("a member has no address, or none that one can have")
    return KnownMember(MemberId(member.ID), member.name, peer_urls, client_urls, member.isLearner)


# --- asking -------------------------------------------------------------------------------------


async def ask_members(
    config: ServerConfig, credentials: Credentials | None, *, patience_s: float = _PATIENCE_S
) -> tuple[Told, ...]:
    """Ask the other members in --initial-cluster who the members are; return what they told.

    All are asked at once, and again until one has told or the time is over.

    Args:
        config: Names them, and us.
        credentials: Those of a member; None for plaintext, which is spoken over loopback only.
        patience_s: Seconds until the last round begins; with 0 there is one.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + patience_s
    urls = [
        url for name, urls in config.cluster.members if name != config.member.name for url in urls
    ]
    while urls:
        asked = (_ask(config, credentials, url) for url in urls)
        told = tuple(each for each in await asyncio.gather(*asked) if each is not None)
        if told or loop.time() + _PAUSE_S > end_s:
            return told
        # Members that are being started, or a network that is: nothing says when they are there.
        await asyncio.sleep(_PAUSE_S)
    return ()


async def _ask(config: ServerConfig, credentials: Credentials | None, url: str) -> Told | None:
    try:
        return await ask_member(
            url,
            name=config.member.name,
            trust_domain=config.cluster.name,
            credentials=credentials,
        )
    except Unanswered as error:
        _log.info("a member has not told who the members are", url=url, error=str(error))
        return None


async def join(
    config: ServerConfig, credentials: Credentials | None, *, patience_s: float = _PATIENCE_S
) -> Joined:
    """Return which member of which cluster this is: for --initial-cluster-state existing.

    One member may not have heard yet that we were added: an answer of another one will do.

    Args:
        config: Of a member without a data directory.
        credentials: See `ask_members`.
        patience_s: See `ask_members`.

    Raises:
        StorageError: Nobody has told, or what was told does not go with the flags; in the words of
            etcd where it has them.
    """
    told = await ask_members(config, credentials, patience_s=patience_s)
    failure = (
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the "
        "given URLs"
    )
    for each in told:
        try:
            return _joined(config, each)
        except ValueError as error:
            failure = str(error)
    raise StorageError(failure)


async def refuse_second_founding(
    config: ServerConfig, credentials: Credentials | None, *, patience_s: float = 0.0
) -> None:
    """Refuse to found a cluster in which this member was before: --initial-cluster-state new.

    At a true first start nobody answers, or nobody has heard of us.

    Args:
        config: Of a member without a data directory.
        credentials: See `ask_members`.
        patience_s: See `ask_members`.

    Raises:
        StorageError: The others know this member as one that was started.
    """
    for each in await ask_members(config, credentials, patience_s=patience_s):
        try:
            members = decode_members(each.content)
        except ValueError:
            continue
        if each.cluster_id != config.cluster.cluster_id:
            continue
        if any(known.member == config.member.member_id and known.is_started for known in members):
            raise StorageError(_bootstrapped(config.member.member_id))


# --- judging ------------------------------------------------------------------------------------


def _joined(config: ServerConfig, told: Told) -> Joined:
    """Hold what was told against the flags.

    Raises:
        ValueError: They do not go together; the text is for the operator.
    """
    try:
        members = decode_members(told.content)
    except ValueError as error:
        raise ValueError(f"cannot fetch cluster info from member {told.name}: {error}") from None
    listed = {frozenset(urls): name for name, urls in config.cluster.members}
    shown = _shown(told.cluster_id, members)
    if len(members) != len(listed):
        raise ValueError(f"error validating peerURLs {shown}: member count is unequal")
    for each in members:
        if frozenset(each.peer_urls) not in listed:
            raise ValueError(
                f"error validating peerURLs {shown}: PeerURLs: no match found for existing member "
                f"({each.member:x}, [{' '.join(each.peer_urls)}])"
            )
    # As many on either side, and each of theirs is one of ours: we are among them.
    own = next(each for each in members if listed[frozenset(each.peer_urls)] == config.member.name)
    if own.is_started:
        raise ValueError(_bootstrapped(own.member))
    if own.name and own.name != config.member.name:
        raise ValueError(
            f"member {own.member:x} was added as {own.name}, and this is {config.member.name}"
        )
    return Joined(cluster=ClusterId(told.cluster_id), member=own.member, members=members)


def _bootstrapped(member: MemberId) -> str:
    return (
        f"member {member:x} has already been bootstrapped, and its data directory is not here: "
        "give the right --data-dir, or remove the member from the cluster and add it again"
    )


def _shown(cluster_id: int, members: Sequence[KnownMember]) -> str:
    each = (f"{known.member:x}=[{' '.join(known.peer_urls)}]" for known in members)
    return f"{{ClusterID:{cluster_id:x} Members:[{' '.join(each)}]}}"
