"""Checks of python's etcd3, against a real kvsecure server; peers.py says how this is called.

Owns: what etcd3 can do, one check for each part of it.
Never: runs where the tests run: it has an environment of its own.
"""

import time
from typing import Any, Final

import etcd3
import grpc
from verdicts import CALL_S_MAX, MEGABYTE, fails, run, told, wait_for_restart

__all__ = [
    "CHECKS",
    "MANY",
    "PREFIX",
    "compaction",
    "connect",
    "errors",
    "keys",
    "large",
    "leases",
    "locks",
    "members",
    "restart",
    "transactions",
    "watch",
]

PREFIX: Final = f"/etcd3/{time.time_ns()}/"
MANY: Final = 400


def connect(user: str | None, password: str | None) -> Any:
    """Return a client; without a user it is who its certificate says, and it never has both."""
    host, port = str(told("ENDPOINT")).split(":")
    return etcd3.client(
        host=host,
        port=int(port),
        ca_cert=told("CA"),
        cert_key=told("KEY") if user is None else None,
        cert_cert=told("CERT") if user is None else None,
        user=user,
        password=password,
        timeout=CALL_S_MAX,
        grpc_options=[("grpc.max_receive_message_length", -1)],
    )


def keys(client: Any) -> None:
    """Put, get, ranges, order, delete."""
    for number in range(25):
        client.put(f"{PREFIX}k/{number:02}", "v")
    assert client.get(f"{PREFIX}k/03")[0] == b"v"
    found = list(client.get_prefix(f"{PREFIX}k/", sort_order="descend"))
    assert [len(found), found[0][1].key] == [25, f"{PREFIX}k/24".encode()]
    replaced = client.put(f"{PREFIX}k/03", "w", prev_kv=True)
    assert replaced.prev_kv.value == b"v"
    assert client.delete(f"{PREFIX}k/03")
    assert client.get(f"{PREFIX}k/03") == (None, None)
    assert client.delete_prefix(f"{PREFIX}k/").deleted == 24


def transactions(client: Any) -> None:
    """Comparisons, both branches, and what is made of them."""
    key = f"{PREFIX}txn"
    assert client.put_if_not_exists(key, "1")
    assert not client.put_if_not_exists(key, "2")
    assert client.replace(key, "1", "2")
    assert not client.replace(key, "1", "3")
    found = client.get(key)[1]
    succeeded, answers = client.transaction(
        compare=[
            client.transactions.mod(key) == found.mod_revision,
            client.transactions.version(key) > 1,
        ],
        success=[client.transactions.get(key), client.transactions.delete(key)],
        failure=[],
    )
    assert succeeded
    assert answers[0][0][0] == b"2"
    assert client.get(key) == (None, None)


def compaction(client: Any) -> None:
    """What is compacted cannot be watched."""
    key = f"{PREFIX}old"
    old = client.put(key, "1").header.revision
    client.put(key, "2")
    client.compact(old + 1)
    seen, cancel = client.watch(key, start_revision=old)
    fails(etcd3.exceptions.RevisionCompactedError, "", lambda: next(seen))
    cancel()
    assert client.get(key)[0] == b"2"


def large(client: Any) -> None:
    """A megabyte comes and goes."""
    for number in range(4):
        value = bytes([97 + number]) * MEGABYTE
        client.put(f"{PREFIX}large", value)
        assert client.get(f"{PREFIX}large")[0] == value


def leases(client: Any) -> None:
    """A lease is granted, kept alive, looked at and revoked, with its keys."""
    lease = client.lease(60)
    client.put(f"{PREFIX}leased", "v", lease=lease)
    assert [answer.TTL for answer in lease.refresh()] == [60]
    assert lease.granted_ttl == 60
    assert 0 < lease.remaining_ttl <= 60
    assert list(lease.keys) == [f"{PREFIX}leased".encode()]
    lease.revoke()
    assert client.get(f"{PREFIX}leased") == (None, None)


def watch(client: Any) -> None:
    """Every change is seen once and in order, from the past on, until it is cancelled."""
    key = f"{PREFIX}w/x"
    first = client.put(key, "0").header.revision
    for number in range(1, MANY // 2):
        client.put(key, str(number))
    seen, cancel = client.watch_prefix(f"{PREFIX}w/", start_revision=first, prev_kv=True)
    for number in range(MANY // 2, MANY):
        client.put(key, str(number))
    client.delete(key)
    for number in range(MANY):
        event = next(seen)
        assert isinstance(event, etcd3.events.PutEvent)
        assert event.value == str(number).encode()
        assert event.prev_value == (str(number - 1).encode() if number else b"")
    assert isinstance(next(seen), etcd3.events.DeleteEvent)
    cancel()
    client.put(key, "unseen")
    assert list(seen) == []


def locks(client: Any) -> None:
    """etcd3 makes locks of transactions, leases and watches."""
    with client.lock(f"{PREFIX}lock", ttl=60) as held:
        assert held.is_acquired()
        assert not client.lock(f"{PREFIX}lock", ttl=60).acquire(timeout=1)
    with client.lock(f"{PREFIX}lock", ttl=60) as held:
        assert held.is_acquired()


def members(client: Any) -> None:
    """Who the members are, and how this one is."""
    assert client.status().version.startswith("3.")
    assert [member.name for member in client.members] == ["m1"]
    assert list(client.list_alarms()) == []


def errors(client: Any) -> None:
    """Errors are what etcd3 makes of their codes."""
    roles = etcd3.etcdrpc.AuthStub(client.channel)
    nobody = etcd3.etcdrpc.AuthRoleGetRequest(role="etcd3-nobody")

    def call() -> None:
        roles.RoleGet(nobody, metadata=client.metadata)

    fails(grpc.RpcError, "role name not found", call)
    fails(grpc.RpcError, "key is not provided", lambda: client.put("", "v"))
    fails(grpc.RpcError, "authentication failed", lambda: connect("root", "of nobody at all"))
    lease = client.lease(60)
    lease.revoke()
    fails(grpc.RpcError, "requested lease not found", lease.revoke)
    taken = client.lease(60).id
    exists = etcd3.exceptions.PreconditionFailedError
    fails(exists, "", lambda: client.lease(60, lease_id=taken))


def restart(client: Any) -> None:
    """After the server has come back calls go on, and a watch that was told of it is made anew."""
    seen, _ = client.watch_prefix(f"{PREFIX}r/")
    first = client.put(f"{PREFIX}r/x", "before").header.revision
    assert next(seen).value == b"before"
    wait_for_restart()
    fails(etcd3.exceptions.ConnectionFailedError, "", lambda: next(seen))
    end = time.monotonic() + CALL_S_MAX
    while True:
        try:
            client.put(f"{PREFIX}r/x", "after")
            break
        except etcd3.exceptions.ConnectionFailedError:
            # It waits for no channel to be ready.
            assert time.monotonic() < end
            time.sleep(0.1)
    seen, cancel = client.watch_prefix(f"{PREFIX}r/", start_revision=first)
    assert [next(seen).value for _ in range(2)] == [b"before", b"after"]
    cancel()


CHECKS: Final = {
    check.__name__: check
    for check in (
        keys,
        transactions,
        compaction,
        large,
        leases,
        watch,
        locks,
        members,
        errors,
        restart,
    )
}

if __name__ == "__main__":
    run(CHECKS, connect(told("USER"), told("PASSWORD")))
