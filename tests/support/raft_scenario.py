"""Scenarios: what is done to a cluster and what is then seen, as text that can be read aloud.

    # A word on what this is about.
    > members 1 2 3
    > elect 1
    > show
    1 leads term 1, log 1..1, committed 1
    ...

A line that begins with `>` is done; what follows on it, up to the next, is what is seen.

Owns: the words of a scenario, and how a cluster looks in them.
Never: decides what should be seen; the scenario says so.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

from support.raft_cluster import Cluster

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kvsecure.core.raft.refusals import Refusal
from kvsecure.core.raft.status import Role
from kvsecure.model.ids import MemberId

__all__ = ["play"]

_ROLES: Final = {
    Role.LEADER: "leads",
    Role.CANDIDATE: "stands in",
    Role.PRE_CANDIDATE: "would stand after",
    Role.FOLLOWER: "follows in",
}


def play(text: str) -> str:
    """Do what a scenario says; return it with what was seen in place of what it expects."""
    stage, lines = _Stage(), []
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *stage.do(line[2:].split())]
        elif line.startswith("#") or not line:
            lines.append(line)
    stage.cluster.check_logs()
    return "\n".join(lines) + "\n"


@final
class _Stage:
    """One cluster, and the words that move it."""

    def __init__(self) -> None:
        self.cluster = Cluster(())

    def do(self, words: Sequence[str]) -> list[str]:
        """Do one line; return what is seen of it."""
        verb, *rest = words
        act: Callable[[Sequence[str]], list[str] | None] = getattr(self, f"_{verb}")
        try:
            return act(rest) or []
        except Refusal as refusal:
            why = f": {refusal}" if str(refusal) else ""
            return [f"refused, {type(refusal).__name__}{why}"]

    def _members(self, words: Sequence[str]) -> None:
        voters, learners = _split(words, "learners")
        self.cluster = Cluster(voters, learners)

    def _join(self, words: Sequence[str]) -> None:
        for member in map(int, words):
            self.cluster.start(member, configuration=Configuration(()))

    def _elect(self, words: Sequence[str]) -> None:
        self.cluster.elect(int(words[0]))

    def _tick(self, words: Sequence[str]) -> None:
        self.cluster.tick(int(words[0]), int(words[1]))

    def _silence(self, words: Sequence[str]) -> None:
        for member in map(int, words):
            self.cluster.silence(member)

    def _time(self, words: Sequence[str]) -> None:
        self.cluster.pass_time(int(words[0]))

    def _write(self, words: Sequence[str]) -> None:
        for member in map(int, words):
            self.cluster.persist(member)

    def _settle(self, _: Sequence[str]) -> None:
        self.cluster.settle()

    def _deliver(self, words: Sequence[str]) -> None:
        self.cluster.deliver(_chosen(words))

    def _lose(self, words: Sequence[str]) -> None:
        wanted = _chosen(words)
        self.cluster.wire = [message for message in self.cluster.wire if not wanted(message)]

    def _crash(self, words: Sequence[str]) -> None:
        for member in map(int, words):
            self.cluster.crash(member)

    def _start(self, words: Sequence[str]) -> None:
        for member in map(int, words):
            self.cluster.start(member)

    def _isolate(self, words: Sequence[str]) -> None:
        self.cluster.isolate(map(int, words))

    def _cut(self, words: Sequence[str]) -> None:
        self.cluster.cut.add((int(words[0]), int(words[1])))

    def _heal(self, _: Sequence[str]) -> None:
        self.cluster.heal()

    def _stick(self, words: Sequence[str]) -> None:
        self.cluster.stuck_disks |= set(map(int, words))

    def _free(self, words: Sequence[str]) -> None:
        self.cluster.stuck_disks -= set(map(int, words))

    def _propose(self, words: Sequence[str]) -> list[str]:
        return [f"entry {self.cluster.propose(int(words[0]), *words[1:])}"]

    def _change(self, words: Sequence[str]) -> list[str]:
        voters, learners = _split(words[1:], "learners")
        return [f"entry {self.cluster.change(int(words[0]), voters, learners)}"]

    def _transfer(self, words: Sequence[str]) -> None:
        self.cluster.node(int(words[0])).transfer(MemberId(int(words[1])))
        self.cluster.tick(int(words[0]), 0)

    def _read(self, words: Sequence[str]) -> None:
        self.cluster.read(int(words[0]), int(words[1]))

    def _reads(self, _: Sequence[str]) -> list[str]:
        return [
            f"{context} at {member} sees {seen}" for member, context, seen in self.cluster.reads
        ]

    def _compact(self, words: Sequence[str]) -> None:
        self.cluster.compact(int(words[0]))

    def _orders(self, _: Sequence[str]) -> list[str]:
        return [
            f"{sender} to {order.to}: snapshot at {order.index} of term {order.term}, "
            + _group(order.configuration)
            for sender, order in self.cluster.orders
        ]

    def _install(self, _: Sequence[str]) -> None:
        self.cluster.install()

    def _abort(self, _: Sequence[str]) -> None:
        orders, self.cluster.orders = self.cluster.orders, []
        for sender, order in orders:
            self.cluster.node(sender).report_snapshot(order.to, ok=False)
            self.cluster.tick(sender, 0)

    def _wire(self, words: Sequence[str]) -> list[str]:
        wanted = _chosen(words)
        return [
            f"{message.sender} to {message.to}: {_message(message)}"
            for message in self.cluster.wire
            if wanted(message)
        ]

    def _show(self, words: Sequence[str]) -> list[str]:
        return [self._one(member) for member in (map(int, words) if words else self._all())]

    def _who(self, words: Sequence[str]) -> list[str]:
        members = list(map(int, words)) if words else self._all()
        return [
            f"{member}: {_group(self.cluster.node(member).configuration)}" for member in members
        ]

    def _peers(self, words: Sequence[str]) -> list[str]:
        peers = self.cluster.node(int(words[0])).status().peers
        return [
            f"{member}: {peer.sending.value}, has {peer.match}, next {peer.next}"
            + (f", {peer.in_flight} in flight" if peer.in_flight else "")
            for member, peer in sorted(peers.items())
        ]

    def _all(self) -> list[int]:
        return sorted(self.cluster.running)

    def _one(self, member: int) -> str:
        node = self.cluster.node(member)
        log = node.log
        applied = b" ".join(entry[1:] for entry in self.cluster.applied(member)).decode()
        durable = "" if log.durable == log.last else f", durable {log.durable}"
        return (
            f"{member} {_ROLES[node.role]} term {node.term}, log {log.offset + 1}..{log.last}"
            f"{durable}, committed {log.committed}" + (f", applied {applied}" if applied else "")
        )


def _split(words: Sequence[str], word: str) -> tuple[list[int], list[int]]:
    place = words.index(word) if word in words else len(words)
    return [int(one) for one in words[:place]], [int(one) for one in words[place + 1 :]]


def _chosen(words: Sequence[str]) -> Callable[[Message], bool]:
    """Return what chooses messages: by kind, by `from N`, by `to N`, or all of them."""
    kinds = {word for word in words if word[0].isupper()}
    rest = [word for word in words if word not in kinds]
    ends = dict(zip(rest[::2], map(int, rest[1::2]), strict=True))

    def wanted(message: Message) -> bool:
        return (
            (not kinds or type(message).__name__ in kinds)
            and ends.get("from", message.sender) == message.sender
            and ends.get("to", message.to) == message.to
        )

    return wanted


def _group(configuration: Configuration) -> str:
    parts = []
    for name in ("voters", "outgoing", "learners", "learners_next"):
        members = getattr(configuration, name)
        if members:
            parts.append(f"{name.replace('_', ' ')} {' '.join(map(str, members))}")
    return ", ".join(parts) or "nobody"


def _message(message: Message) -> str:
    match message:
        case Append():
            count = len(message.entries)
            what = f"{count} of term {message.entry_term}" if count else "nothing"
            return (
                f"Append {what} after {message.prev_index} of term {message.prev_term}, "
                f"committed {message.committed}"
            )
        case AppendReply(is_rejected=True):
            return (
                f"AppendReply in term {message.term}, not after {message.through}, "
                f"try {message.hint_index} of term {message.hint_term}"
            )
        case AppendReply():
            return f"AppendReply has {message.through}"
        case PreVote() | Vote():
            kind = type(message).__name__
            return f"{kind} term {message.term}, log to {message.last_index}.{message.last_term}"
        case PreVoteReply() | VoteReply():
            said = "yes" if message.granted else "no"
            return f"{type(message).__name__} {said} in term {message.term}"
        case Heartbeat():
            return (
                f"Heartbeat in term {message.term}, committed {message.committed} "
                f"of term {message.committed_term}"
            )
        case HeartbeatReply() | TimeoutNow() | ReadIndex():
            return f"{type(message).__name__} in term {message.term}"
        case ReadIndexReply():
            return f"ReadIndexReply {message.read_index}"
