"""The roster: which members there are, and who may speak as which of them.

    PeerIdentity   who we are
    PeerAddress    another member: its name, and where it listens

Owns: the one rule that ties a member's id to the name in a certificate.
Never: touches a certificate or a socket.
Follows: docs/pki.md, identities.
Keeps: a member is the one that its certificate names, whatever it says of itself; a member whose
    name is not known yet may be any node of the cluster that is no other member.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

from kvsecure.pki.identity import Identity, Kind
from kvsecure.server.peers.hello import Hello, Refusal, Welcome

__all__ = ["PeerAddress", "PeerIdentity", "Roster"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """Who a member is to the others.

    Attributes:
        trust_domain: The label of the cluster in certificates.
        cluster_id: Of 64 bits.
        member_id: Of 64 bits.
        name: As the member's certificate has it.
    """

    trust_domain: str
    cluster_id: int
    member_id: int
    name: str

    @property
    def certified(self) -> Identity:
        """Whom the member's certificate has to name.

        Raises:
            IdentityError: The name or the trust domain cannot stand in a certificate.
        """
        return Identity(kind=Kind.NODE, cluster=self.trust_domain, tenant=None, name=self.name)


@final
class PeerAddress(NamedTuple):
    """Another member.

    Attributes:
        name: As its certificate has it; empty for a member that was added and has not started.
        urls: Where it listens for peers; tried one after another.
    """

    name: str
    urls: tuple[str, ...]


@final
class Roster:
    """The members of one cluster, as one of them knows them."""

    __slots__ = ("own", "peers", "removed")

    def __init__(self, own: PeerIdentity) -> None:
        self.own = own
        self.peers: dict[int, PeerAddress] = {}
        self.removed: frozenset[int] = frozenset()

    def set(self, peers: Mapping[int, PeerAddress], removed: frozenset[int]) -> None:
        """Replace who is a member, and who was one; we are in neither."""
        own = self.own.member_id
        self.peers = {member: address for member, address in peers.items() if member != own}
        self.removed = removed - {own}

    def doubt_of_hello(self, hello: Hello, certified: str | None) -> Refusal | None:
        """Tell why a hello is refused, if it is.

        Args:
            hello: What was said.
            certified: The name in the speaker's certificate; None in plaintext.
        """
        if hello.cluster_id != self.own.cluster_id:
            return Refusal.CLUSTER
        if hello.recipient != self.own.member_id:
            return Refusal.RECIPIENT
        return self.doubt(hello.sender, hello.name, certified)

    @staticmethod
    def doubt_of_name(name: str, certified: str | None) -> Refusal | None:
        """Tell why nobody may call itself so, if it is like that: a question knows no ids yet.

        Args:
            name: What the speaker calls itself.
            certified: The name in its certificate; None in plaintext.
        """
        return None if certified is None or name == certified else Refusal.NAME

    def doubt_of_welcome(
        self, welcome: Welcome, member: int, certified: str | None
    ) -> Refusal | None:
        """Tell why a welcome is refused, if it is; see `doubt_of_hello`.

        Args:
            welcome: What was said.
            member: Who was asked for.
            certified: The name in the speaker's certificate; None in plaintext.
        """
        if welcome.cluster_id != self.own.cluster_id:
            return Refusal.CLUSTER
        if welcome.member_id != member:
            return Refusal.RECIPIENT
        return self.doubt(member, welcome.name, certified)

    def doubt(self, member: int, name: str, certified: str | None) -> Refusal | None:
        """Tell why somebody may not speak as a member, if so.

        Args:
            member: The id that is claimed.
            name: The name that is claimed.
            certified: The name in the certificate; None in plaintext.
        """
        if certified is not None and name != certified:
            return Refusal.NAME
        if member in self.removed:
            return Refusal.REMOVED
        address = self.peers.get(member)
        if address is None:
            return Refusal.STRANGER
        if address.name:
            return None if name == address.name else Refusal.NAME
        taken = {self.own.name, *(other.name for other in self.peers.values())}
        return Refusal.NAME if name in taken else None
