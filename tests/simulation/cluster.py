"""A cluster: members, the network between them, and who sees all of it.

    Cluster     founds members, carries their messages, changes who they are

Owns: who there is, and what is handed from one to another.
Never: decides what goes wrong, or what is right.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, final

from simulation.clients import Clients, Reply, Request
from simulation.invariants import Invariants
from simulation.kernel import Kernel
from simulation.member import Member
from simulation.network import Network
from simulation.profile import Mishap, Profile

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import MemberId

__all__ = ["Cluster"]

_MEMBERS_MAX: Final = 9


@final
class Cluster:
    """Everything that is simulated."""

    def __init__(self, kernel: Kernel, profile: Profile, say: Callable[[str], None] | None) -> None:
        """Found a cluster and start it.

        Args:
            kernel: Time and chance.
            profile: What the run is like.
            say: Told what happens, in words; None if nobody listens.
        """
        self.kernel = kernel
        self.profile = profile
        self.counts: Counter[str] = Counter()
        self.members: dict[MemberId, Member] = {}
        self.founding = Configuration(tuple(map(MemberId, range(1, profile.voters + 1))))
        self.invariants = Invariants(self.founding)
        self.network = Network(kernel, self._deliver, profile.weathers[0])
        self._say = say
        self.clients = Clients(
            kernel,
            lambda: list(self.members),
            self._ask,
            count=profile.clients,
            lost=profile.client_lost,
            pause_us=profile.client_pause_us,
        )
        for member in self.founding.voters:
            self._found(member)

    @property
    def is_traced(self) -> bool:
        """Whether anybody listens."""
        return self._say is not None

    @property
    def leader(self) -> Member | None:
        """Whoever leads in the highest term, as far as it knows."""
        best: Member | None = None
        for member in self.members.values():
            node = member.node
            if node is None or node.role is not Role.LEADER:
                continue
            if best is None or best.node is None or node.term > best.node.term:
                best = member
        return best

    def say(self, text: str) -> None:
        """Tell whoever listens."""
        if self._say is not None:
            self._say(f"{self.kernel.now_us / 1_000_000:10.6f}  {text}")

    def send(self, sender: MemberId, receiver: MemberId, content: bytes) -> None:
        """Carry bytes to another member, perhaps; there may be nobody by this number."""
        if receiver in self.members:
            self.network.send(sender, receiver, content)

    def expiring(self, key: str, owner: str) -> None:
        """Take note that a member proposes that a lease ends."""
        self.clients.expiring(key, owner)

    def expired(self, owner: str) -> None:
        """Take note that somebody has applied that a lease ends."""
        self.clients.histories.expired_us.setdefault(owner, self.kernel.now_us)

    def next_serial(self) -> int:
        """Return a number that nothing else has."""
        return self.clients.next_serial()

    def reconfigure(self, mishap: Mishap) -> bool:
        """Change who the members are, or which of them leads; return whether it began."""
        leader = self.leader
        if leader is None or leader.node is None:
            return False
        node, chance = leader.node, self.kernel.chance
        current: Configuration = node.configuration
        voters, learners = set(current.voters), set(current.learners)
        match mishap:
            case Mishap.TRANSFER:
                to = chance.choice(list(self.members))
                return leader.try_to(lambda: node.transfer(to), f"hand over to {to}")
            case Mishap.ADD_LEARNER:
                if len(current.members) >= _MEMBERS_MAX:
                    return False
                learners.add(self._new(current))
            case Mishap.PROMOTE if learners:
                promoted = chance.choice(sorted(learners))
                learners.remove(promoted)
                voters.add(promoted)
            case Mishap.REMOVE if len(voters) + len(learners) > 1:
                going = chance.choice(sorted(voters | learners))
                voters.discard(going)
                learners.discard(going)
            case Mishap.REPLACE:
                self._replace(current, voters, learners)
            case _:
                return False
        if not voters:
            return False
        text = f"change to {sorted(voters)} with learners {sorted(learners)}"
        return leader.try_to(lambda: node.propose_change(voters, learners), text)

    def _replace(
        self, current: Configuration, voters: set[MemberId], learners: set[MemberId]
    ) -> None:
        """Change several at once: learners become voters, and voters go or become learners."""
        chance = self.kernel.chance
        going = chance.sample(sorted(voters), chance.randint(1, len(voters)))
        coming = set(learners)
        if len(coming) < len(going):
            coming |= {self._new(current) for _ in range(len(going) - len(coming))}
        voters.difference_update(going)
        voters.update(coming)
        learners.clear()
        if chance.random() < 0.5:
            learners.update(going[:1])

    def _new(self, current: Configuration) -> MemberId:
        """Return somebody who is no member: one that was, or never was, or is new."""
        outside = [member for member in self.members if member not in current.members]
        if outside and (self.kernel.chance.random() < 0.5 or len(self.members) >= _MEMBERS_MAX):
            return self.kernel.chance.choice(outside)
        member = MemberId(max(self.members) + 1)
        self._found(member)
        return member

    def _found(self, number: MemberId) -> None:
        member = Member(self, number)
        self.members[number] = member
        member.start()

    def _ask(self, number: int, request: Request, reply: Reply) -> None:
        self.members[MemberId(number)].ask(request, reply)

    def _deliver(self, receiver: int, sender: int, content: bytes, is_whole: bool) -> None:  # noqa: FBT001 - the network calls by position
        self.members[MemberId(receiver)].deliver(MemberId(sender), content, is_whole=is_whole)
