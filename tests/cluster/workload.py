"""Clients of a real cluster, each doing one thing at a time, and what all of them were told.

    Workload       threads that work on registers, lists, sets and locks until they are stopped
    Told           what they asked, when, and what came of it

Owns: what is asked of whom, and the form in which a thing is kept under keys.
Never: judges; `judging` does.
Keeps: no value is written twice, so each change in a history has one origin; what was not answered
    is never asked again.
"""

import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, final

import grpc
from cluster.crew import Crew
from cluster.members import RealCluster
from support.linearizability import UNANSWERED, Operation
from support.rpc import Client

from kvsecure.proto import kv_pb2, lease_pb2

__all__ = ["Lease", "Step", "Told", "Workload", "Write"]

_TIMEOUT_S: Final = 3.0
_TTL_S: Final = 2
# A thing has so many operations before the next of its kind begins: histories stay short.
_OPERATIONS_OF_A_KEY: Final = 40
_PAUSE_S_MAX: Final = 0.02
_AFTER_ERROR_S: Final = (0.05, 0.2)
_KINDS: Final = ("register", "register", "list", "set", "lock")
_NS: Final = 1_000_000_000


@final
class Write(NamedTuple):
    """One change of one key that was tried."""

    key: bytes
    # None for a deletion.
    value: bytes | None
    # Where it was acknowledged; 0 if it was not.
    revision: int


@final
class Step(NamedTuple):
    """An operation, and the change that it would be."""

    operation: Operation
    write: Write | None = None


@final
class Lease(NamedTuple):
    """How long the lease of a lock's owner lasts at least."""

    client: int
    key: str
    owner: str
    ends_at: int


@final
@dataclass
class Told:
    """What all clients were told."""

    steps: list[Step] = field(default_factory=list)
    leases: dict[str, Lease] = field(default_factory=dict)
    # When writes were acknowledged, in nanoseconds of the monotonic clock.
    acknowledged_at: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def longest_gap_s(self, begun: int, ended: int) -> float:
        """Return for how long at most nobody was acknowledged a write between two times."""
        times = sorted(at for at in self.acknowledged_at if begun <= at <= ended)
        return max(b - a for a, b in itertools.pairwise((begun, *times, ended))) / _NS


@final
class Workload(Crew):
    """Clients, two for each member to begin with."""

    def __init__(self, cluster: RealCluster, name: str, seed: int) -> None:
        """Prepare clients; none works yet.

        Args:
            cluster: Whom they ask.
            name: Unlike that of any other workload of this cluster.
            seed: Decides what they ask, though not when.
        """
        self.told = Told()
        self.errors: list[BaseException] = []
        self._cluster = cluster
        self._name = name
        self._names = [member.name for member in cluster.members]
        self._turns: Counter[str] = Counter()
        self._serial = itertools.count()
        count = 2 * len(self._names)
        super().__init__(
            self._run, [(number, random.Random(f"{seed}/{number}")) for number in range(count)]
        )

    def thing(self, kind: str) -> str:
        """Return the name of the thing of a kind whose turn it is."""
        turn = self._turns[kind]
        self._turns[kind] += 1
        return f"{kind}/{self._name}/{turn // _OPERATIONS_OF_A_KEY}"

    def serial(self) -> str:
        """Return a value that nobody has written."""
        return f"{self._name}-{next(self._serial)}"

    def _run(self, number: int, chance: random.Random) -> None:
        worker = _Worker(self, number, chance)
        at = number
        while not self.stop.is_set():
            name = self._names[at % len(self._names)]
            try:
                worker.work(self._cluster.client(name))
            except grpc.RpcError as error:
                self.told.counts["unanswered"] += 1
                self.told.counts[f"{error.code().name}: {error.details()}"[:100]] += 1
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    with contextlib.suppress(grpc.RpcError, TimeoutError):
                        self._cluster.log_in(name)
                at += 1
                self.stop.wait(chance.uniform(*_AFTER_ERROR_S))
            except BaseException as error:
                self.errors.append(error)
                raise
            else:
                self.stop.wait(chance.uniform(0, _PAUSE_S_MAX))


@final
class _Worker:
    """One client."""

    def __init__(self, work: Workload, number: int, chance: random.Random) -> None:
        self._work = work
        self._told = work.told
        self._number = number
        self._chance = chance
        # The lock it has: the thing, its owner, the lease.
        self._held: tuple[str, str, int] | None = None

    def work(self, client: Client) -> None:
        """Do one thing.

        Raises:
            grpc.RpcError: It was not answered; it is recorded all the same.
        """
        if self._held is not None:
            self._go_on_with_lock(client, *self._held)
            return
        kind = self._chance.choice(_KINDS)
        thing = self._work.thing(kind)
        {
            "register": self._register,
            "list": self._list,
            "set": self._set,
            "lock": self._lock,
        }[kind](client, thing)

    # --- what is done with each ------------------------------------------------------------------

    def _register(self, client: Client, thing: str) -> None:
        draw, key = self._chance.random(), thing.encode()
        if draw < 0.4:
            self._get(client, thing)
            return
        value = self._work.serial()
        write = Write(key, value.encode(), 0)
        if draw < 0.7:
            request = kv_pb2.PutRequest(key=key, value=write.value)
            self._do(thing, "put", (value,), write, lambda: _put(client, request))
            return
        old = self._get(client, thing)
        txn = kv_pb2.TxnRequest(
            compare=[_has(key, old)],
            success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=write.value))],
        )
        self._do(thing, "swap", (old, value), write, lambda: _txn(client, txn))

    def _list(self, client: Client, thing: str) -> None:
        key = thing.encode()
        called_at = time.monotonic_ns()
        kvs = client.kv.Range(kv_pb2.RangeRequest(key=key), timeout=_TIMEOUT_S).kvs
        before = tuple(kvs[0].value.decode().split()) if kvs else ()
        self._record(thing, "get", (), called_at, before)
        if self._chance.random() < 0.3:
            return
        value = self._work.serial()
        write = Write(key, " ".join((*before, value)).encode(), 0)
        there = kvs[0].mod_revision if kvs else 0
        txn = kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(key=key, target=kv_pb2.Compare.MOD, mod_revision=there)],
            success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=write.value))],
        )

        def append() -> tuple[Hashable, int]:
            answer, revision = _txn(client, txn)
            return answer or None, revision

        self._do(thing, "append", (value,), write, append)

    def _set(self, client: Client, thing: str) -> None:
        draw = self._chance.random()
        prefix = f"{thing}/".encode()
        if draw < 0.5:
            value = self._work.serial()
            request = kv_pb2.PutRequest(key=prefix + value.encode(), value=value.encode())
            write = Write(request.key, request.value, 0)
            self._do(thing, "add", (value,), write, lambda: _put(client, request))
            return
        called_at = time.monotonic_ns()
        everything = kv_pb2.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0")
        kvs = client.kv.Range(everything, timeout=_TIMEOUT_S).kvs
        there = frozenset(kv.value.decode() for kv in kvs)
        self._record(thing, "get", (), called_at, there)
        if draw < 0.7 or not there:
            return
        value = self._chance.choice(sorted(there))
        gone = kv_pb2.DeleteRangeRequest(key=prefix + value.encode())

        def take() -> tuple[Hashable, int]:
            answer = client.kv.DeleteRange(gone, timeout=_TIMEOUT_S)
            return answer.deleted == 1, answer.header.revision if answer.deleted else 0

        self._do(thing, "take", (value,), Write(gone.key, None, 0), take)

    def _lock(self, client: Client, thing: str) -> None:
        key = thing.encode()
        if self._chance.random() < 0.3:
            called_at = time.monotonic_ns()
            kvs = client.kv.Range(kv_pb2.RangeRequest(key=key), timeout=_TIMEOUT_S).kvs
            self._record(thing, "holder", (), called_at, kvs[0].mod_revision if kvs else None)
            return
        granted_at = time.monotonic_ns()
        lease = client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(TTL=_TTL_S), timeout=_TIMEOUT_S)
        owner = self._work.serial()
        ends_at = granted_at + lease.TTL * _NS
        self._told.leases[owner] = Lease(self._number, thing, owner, ends_at)
        write = Write(key, owner.encode(), 0)
        put = kv_pb2.PutRequest(key=key, value=write.value, lease=lease.ID)
        txn = kv_pb2.TxnRequest(
            compare=[_has(key, None)], success=[kv_pb2.RequestOp(request_put=put)]
        )

        def acquire() -> tuple[Hashable, int]:
            answer, revision = _txn(client, txn)
            return (revision if answer else None), revision

        if self._do(thing, "acquire", (owner,), write, acquire) is not None:
            self._held = (thing, owner, lease.ID)

    def _go_on_with_lock(self, client: Client, thing: str, owner: str, lease: int) -> None:
        """Keep a lock, give it back, or forget it."""
        draw = self._chance.random()
        if draw < 0.1:
            self._held = None
            return
        if draw > 0.4:
            self._held = None
            asked_at = time.monotonic_ns()
            keep = lease_pb2.LeaseKeepAliveRequest(ID=lease)
            (kept,) = client.lease.LeaseKeepAlive(iter([keep]), timeout=_TIMEOUT_S)
            if kept.TTL > 0:
                self._held = (thing, owner, lease)
                ends_at = asked_at + kept.TTL * _NS
                self._told.leases[owner] = Lease(self._number, thing, owner, ends_at)
            return
        self._held = None
        key = thing.encode()
        txn = kv_pb2.TxnRequest(
            compare=[_has(key, owner)],
            success=[kv_pb2.RequestOp(request_delete_range=kv_pb2.DeleteRangeRequest(key=key))],
        )
        self._do(thing, "release", (owner,), Write(key, None, 0), lambda: _txn(client, txn))

    # --- asking ----------------------------------------------------------------------------------

    def _get(self, client: Client, thing: str) -> str | None:
        called_at = time.monotonic_ns()
        request = kv_pb2.RangeRequest(key=thing.encode())
        kvs = client.kv.Range(request, timeout=_TIMEOUT_S).kvs
        value = kvs[0].value.decode() if kvs else None
        self._record(thing, "get", (), called_at, value)
        return value

    def _do(
        self,
        thing: str,
        name: str,
        arguments: tuple[Hashable, ...],
        write: Write,
        call: Callable[[], tuple[Hashable, int]],
    ) -> Hashable:
        """Make a change; record what came of it, also if nothing did."""
        called_at = time.monotonic_ns()
        try:
            answer, revision = call()
        except grpc.RpcError:
            self._record(thing, name, arguments, called_at, UNANSWERED, write)
            raise
        if revision:
            self._told.acknowledged_at.append(time.monotonic_ns())
            write = write._replace(revision=revision)
        if name == "append":
            if not revision:
                # Somebody else was faster: nothing was asked of the list.
                return None
            answer = ()
        self._record(thing, name, arguments, called_at, answer, write if revision else None)
        return answer

    def _record(
        self,
        thing: str,
        name: str,
        arguments: tuple[Hashable, ...],
        called_at: int,
        answer: Hashable,
        write: Write | None = None,
    ) -> None:
        operation = Operation(self._number, thing, name, arguments, called_at)
        if answer is not UNANSWERED:
            self._told.counts["answered"] += 1
            operation = operation._replace(returned_at=time.monotonic_ns(), answer=answer)
        self._told.steps.append(Step(operation, write))


def _has(key: bytes, value: str | None) -> kv_pb2.Compare:
    if value is None:
        return kv_pb2.Compare(key=key, target=kv_pb2.Compare.VERSION, version=0)
    return kv_pb2.Compare(key=key, target=kv_pb2.Compare.VALUE, value=value.encode())


def _put(client: Client, request: kv_pb2.PutRequest) -> tuple[Hashable, int]:
    return True, client.kv.Put(request, timeout=_TIMEOUT_S).header.revision


def _txn(client: Client, request: kv_pb2.TxnRequest) -> tuple[Any, int]:
    """Return whether it has succeeded, and the revision at which it changed something."""
    answer = client.kv.Txn(request, timeout=_TIMEOUT_S)
    return answer.succeeded, answer.header.revision if answer.succeeded else 0
