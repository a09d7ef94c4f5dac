"""Callers of locks and elections on the bench, which wait, go away, and come back.

Owns: the caller's side of a call whose answer may be long in coming.
Never: replaces a part of the queues, the gate or the hub.
"""

from collections.abc import Callable
from typing import Any, Final, final

from api.watching import Bench
from google.protobuf.message import Message

from kvsecure.api.methods import METHODS
from kvsecure.core.watch import Watcher
from kvsecure.model.answer import Answer
from kvsecure.model.errors import Code, Refused
from kvsecure.proto import election_pb2, kv_pb2, lease_pb2, lock_pb2
from kvsecure.security.session import Peer

__all__ = ["Caller", "Queue"]

_ANSWERS: Final[dict[type[Message], type[Message]]] = {
    lock_pb2.LockRequest: lock_pb2.LockResponse,
    lock_pb2.UnlockRequest: lock_pb2.UnlockResponse,
    election_pb2.CampaignRequest: election_pb2.CampaignResponse,
    election_pb2.ProclaimRequest: election_pb2.ProclaimResponse,
    election_pb2.LeaderRequest: election_pb2.LeaderResponse,
    election_pb2.ResignRequest: election_pb2.ResignResponse,
}


@final
class Caller:
    """One call, and what came of it."""

    def __init__(self, peer: Peer, token: bytes, response: type[Message]) -> None:
        self.peer = peer
        self.token = token
        self.answer: Any = None
        self.revision = 0
        self.refused: Refused | None = None
        self._response = response
        self._gone: Callable[[Code], None] | None = None

    def succeed(self, answer: Answer) -> None:
        """Take the answer."""
        assert self.is_waiting
        self.answer = self._response.FromString(answer.body)
        self.revision = answer.revision

    def fail(self, refused: Refused) -> None:
        """Take the refusal."""
        assert self.is_waiting
        self.refused = refused

    def when_gone(self, act: Callable[[Code], None]) -> None:
        """Remember who wants to know."""
        self._gone = act

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has come yet."""
        return self.answer is None and self.refused is None

    @property
    def why(self) -> str:
        """The name of the failure, or nothing."""
        return self.refused.failure.name if self.refused else ""

    def leave(self, code: Code = Code.CANCELLED) -> None:
        """Go away."""
        assert self._gone is not None
        self._gone(code)


@final
class Queue:
    """The bench, with what is done to queues on it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.world = bench.world

    def grant(self, *leases: int) -> None:
        """Grant leases of a minute."""
        for lease in leases:
            self.world.system(lease_pb2.LeaseGrantRequest(ID=lease, TTL=60))
        self.bench.end_turn()

    def begin(
        self, path: str, request: Message, user: str = "root", *, peer: Peer | None = None
    ) -> Caller:
        """Make a call, and leave its turn open."""
        caller = Caller(peer or self.world.peer(user), b"", _ANSWERS[type(request)])
        method = METHODS[path]
        assert method.unary is not None
        try:
            method.unary(self.bench.services, caller, request, request.SerializeToString())
        except Refused as refused:
            self.world.gate.reject(caller, request, refused)
        return caller

    def call(self, path: str, request: Message, user: str = "root") -> Caller:
        """Make a call, and end its turn."""
        caller = self.begin(path, request, user)
        self.settle()
        return caller

    def lock(self, lease: int = 0, name: bytes = b"l", user: str = "root") -> Caller:
        """Ask for a lock."""
        request = lock_pb2.LockRequest(name=name, lease=lease)
        return self.call("/v3lockpb.Lock/Lock", request, user)

    def unlock(self, key: bytes) -> Caller:
        """Release a lock."""
        return self.call("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=key))

    def campaign(self, lease: int, value: bytes = b"v", name: bytes = b"e") -> Caller:
        """Stand for an election."""
        request = election_pb2.CampaignRequest(name=name, lease=lease, value=value)
        return self.call("/v3electionpb.Election/Campaign", request)

    def delete(self, *keys: bytes) -> None:
        """Delete keys, each at a revision of its own."""
        self.bench.write(*(kv_pb2.DeleteRangeRequest(key=key) for key in keys))
        self.settle()

    def revoke(self, lease: int) -> None:
        """End a lease."""
        self.bench.write(lease_pb2.LeaseRevokeRequest(ID=lease))
        self.settle()

    def settle(self) -> None:
        """End turns until nothing more is asked for: what is carried out wakes others."""
        for _ in range(4):
            self.bench.end_turn()

    def places(self, name: bytes = b"l") -> list[bytes]:
        """Return the places of a queue."""
        space = self.world.state.store.space(self.world.state.accounts.tenant_named("default").id)
        return [key for key in space.index.live if key.startswith(name + b"/")]

    @property
    def watchers(self) -> list[Watcher]:
        """The watchers that the hub has of the default tenant."""
        tenant = self.world.state.accounts.tenant_named("default").id
        return self.world.state.hub.watchers_of(self.world.state.store.space(tenant))

    @property
    def watcher_count(self) -> int:
        """How many they are."""
        return len(self.watchers)
