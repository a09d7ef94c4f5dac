"""Non-interference: what one tenant sees does not depend on what another one does.

One random trace runs in two tenants, once while nobody else is there and once while a third tenant
does its worst. Every answer and every event must be the same, but for the number of the store's
revision, which all tenants share: revisions of keys are compared by their order.
"""

import contextlib
import itertools
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from e2e.world import PASSWORD, Fortress, refused
from support.processes import wait_until
from support.rpc import Client
from support.streams import WatchScript

from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2

_STEPS: Final = 500
_KEYS: Final = [b"/%c/%d" % (letter, number) for letter in b"ab" for number in range(5)]
_LEASES: Final = (11, 12, 13)
_NAMES: Final = ("u1", "u2")
# Numbers that are the store's, and times.
_SHARED: Final = re.compile(r"\b(?:revision|TTL): \d+")
_OWN: Final = re.compile(r"\b((?:create|mod)_revision): (\d+)")

type_step = tuple[str, Any]


def _trace(rng: random.Random, written: list[int]) -> Iterator[type_step]:
    """Yield calls; those that look back choose among the revisions written so far."""
    kinds = (_reads, _puts, _deletes, _txns, _leases, _accounts)
    for _ in range(_STEPS):
        yield rng.choices(kinds, (6, 6, 2, 4, 3, 2))[0](rng, written)


def _reads(rng: random.Random, written: list[int]) -> type_step:
    whole = rng.random() < 0.5
    request = kv_pb2.RangeRequest(
        key=b"\0" if whole else rng.choice(_KEYS),
        range_end=b"\0" if whole else rng.choice((b"", b"/b", b"\0")),
        limit=rng.choice((0, 0, 3)),
        count_only=rng.random() < 0.1,
        keys_only=rng.random() < 0.2,
        sort_order=rng.choice((0, 1, 2)),  # type: ignore[arg-type]  # an enum is an int here
        sort_target=rng.choice((0, 1, 2, 3)),  # type: ignore[arg-type]  # as above
        serializable=rng.random() < 0.2,
    )
    if written and rng.random() < 0.3:
        request.revision = rng.choice(written)
    if written and rng.random() < 0.2:
        request.min_mod_revision = rng.choice(written)
    return "kv.Range", request


def _puts(rng: random.Random, _: list[int]) -> type_step:
    return "kv.Put", kv_pb2.PutRequest(
        key=rng.choice(_KEYS),
        value=rng.randbytes(rng.randrange(40)),
        lease=rng.choice((0, 0, 0, *_LEASES)),
        prev_kv=rng.random() < 0.3,
    )


def _deletes(rng: random.Random, _: list[int]) -> type_step:
    return "kv.DeleteRange", kv_pb2.DeleteRangeRequest(
        key=rng.choice(_KEYS), range_end=rng.choice((b"", b"", b"/b", b"\0")), prev_kv=True
    )


def _txns(rng: random.Random, written: list[int]) -> type_step:
    put = kv_pb2.RequestOp(request_put=_puts(rng, written)[1])
    read = kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    compare = kv_pb2.Compare(
        key=rng.choice(_KEYS), target="VERSION", result="GREATER", version=rng.randrange(4)
    )
    return "kv.Txn", kv_pb2.TxnRequest(compare=[compare], success=[put, read], failure=[read, put])


def _leases(rng: random.Random, _: list[int]) -> type_step:
    number = rng.choice(_LEASES)
    return rng.choice(
        (
            ("lease.LeaseGrant", lease_pb2.LeaseGrantRequest(ID=number, TTL=3_600)),
            ("lease.LeaseTimeToLive", lease_pb2.LeaseTimeToLiveRequest(ID=number, keys=True)),
            ("lease.LeaseLeases", lease_pb2.LeaseLeasesRequest()),
            ("lease.LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=number)),
        )
    )


def _accounts(rng: random.Random, _: list[int]) -> type_step:
    name = rng.choice(_NAMES)
    options = authstore_pb2.UserAddOptions(no_password=True)
    return rng.choice(
        (
            ("auth.UserAdd", auth_pb2.AuthUserAddRequest(name=name, options=options)),
            ("auth.UserDelete", auth_pb2.AuthUserDeleteRequest(name=name)),
            ("auth.UserList", auth_pb2.AuthUserListRequest()),
            ("auth.RoleAdd", auth_pb2.AuthRoleAddRequest(name=name)),
            ("auth.UserGrantRole", auth_pb2.AuthUserGrantRoleRequest(user=name, role=name)),
            ("auth.UserGet", auth_pb2.AuthUserGetRequest(name=name)),
        )
    )


def _seen(client: Client, seed: int) -> list[str]:
    """Run the trace; return all that was seen, with shared numbers taken out."""
    seen: list[str] = []
    written: list[int] = []
    script = WatchScript(client)
    try:
        script.create(b"\0", range_end=b"\0", prev_kv=True)
        script.wait(controls=1)
        for name, request in _trace(random.Random(seed), written):
            answers: list[Any] = []
            refusal = refused(
                lambda name=name, request=request, answers=answers: answers.append(
                    client.call(name, request)
                )
            )
            seen.append(f"{name} {refusal} {answers}")
            if name == "kv.Put" and answers:
                written.append(answers[0].header.revision)
        last = client.kv.Put(kv_pb2.PutRequest(key=b"/last", value=b"x")).header.revision
        script.wait_for_revision(last)
        observed = script.observed()
    finally:
        script.close()
    seen += [str(event) for events in observed.events.values() for event in events]
    return _in_order([_SHARED.sub("", each) for each in seen])


def _in_order(seen: list[str]) -> list[str]:
    """Write the rank of each revision of a key for its number."""
    numbers = sorted({int(number) for each in seen for _, number in _OWN.findall(each)})
    ranks = {number: rank for rank, number in enumerate(numbers)}
    return [_OWN.sub(lambda found: f"{found[1]}: #{ranks[int(found[2])]}", each) for each in seen]


def _disturb(client: Client, stranger: Client, stop: threading.Event, seed: int) -> None:
    """Do all that a tenant can do, with the same names, until it is enough."""
    rng = random.Random(seed)
    written: list[int] = []
    for number in itertools.count():
        if stop.is_set():
            return
        for name, request in itertools.islice(_trace(rng, written), 20):
            refused(lambda name=name, request=request: client.call(name, request))
        client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        if not number % 5:
            guess = auth_pb2.AuthenticateRequest(name=f"noisy/{number}", password="wrong")
            refused(lambda guess=guess: stranger.call("auth.Authenticate", guess))


@contextlib.contextmanager
def _noise(fortress: Fortress, noisy: Client, seed: int) -> Iterator[None]:
    stop = threading.Event()
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            client = fortress.certified("root", "noisy") if number else noisy
            _disturb(client, fortress.stranger(), stop, seed + number)
        except (grpc.RpcError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


def test_a_tenant_does_not_notice_its_neighbour(tmp_path: Path) -> None:
    """A trace's answers and events are the same whether or not another tenant is busy."""
    seed = random.randrange(1 << 32)
    with Fortress(tmp_path / "both") as fortress:
        alone, beside = fortress.tenant("alone"), fortress.tenant("beside")
        root = fortress.root()
        begun = fortress.put(root, b"/mark", b"x")
        expected = _seen(alone, seed)
        own = fortress.put(root, b"/mark", b"x") - begun
        noisy = fortress.tenant("noisy", PASSWORD)
        before = fortress.put(root, b"/mark", b"x")

        with _noise(fortress, noisy, seed + 1):
            wait_until(
                lambda: fortress.put(root, b"/mark", b"x") > before + 50,
                deadline_s=10,
                what="the noise to begin",
            )
            heard = fortress.put(root, b"/mark", b"x")
            seen = _seen(beside, seed)
            noise = fortress.put(root, b"/mark", b"x") - heard - own

        # It was busy all the while.
        assert noise > _STEPS // 10
    assert len(seen) > _STEPS
    for one, other in zip(expected, seen, strict=True):
        assert one == other
