"""Checks of python's etcd3gw, which speaks JSON, against a real kvsecure server.

peers.py says how this is called.

Owns: what etcd3gw can do, one check for each part of it.
Never: runs where the tests run: it has an environment of its own.
"""

import time
from typing import Any, Final

import etcd3gw
from etcd3gw.exceptions import ConnectionFailedError, Etcd3Exception
from verdicts import CALL_S_MAX, MEGABYTE, fails, run, told, wait_for_restart

__all__ = [
    "CHECKS",
    "MANY",
    "PREFIX",
    "SECRET",
    "accounts",
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

PREFIX: Final = f"/etcd3gw/{time.time_ns()}/"
MANY: Final = 300
SECRET: Final = "walnut-Ferry-compass-5521"


def connect(user: str | None, password: str | None) -> Any:
    """Return a client; without a user it is who its certificate says, and it never has both."""
    host, port = str(told("ENDPOINT")).split(":")
    client = etcd3gw.client(
        host=host,
        port=int(port),
        protocol="https",
        ca_cert=told("CA"),
        cert_key=told("KEY") if user is None else None,
        cert_cert=told("CERT") if user is None else None,
        timeout=CALL_S_MAX,
    )
    # Neither a proxy nor other authorities, whatever the environment says.
    client.session.trust_env = False
    if user is not None:
        # It knows no log-in; its session carries whatever header it is given.
        entering = {"name": user, "password": password}
        token = client.post(client.get_url("/auth/authenticate"), json=entering)["token"]
        client.session.headers["Authorization"] = token
    return client


def keys(client: Any) -> None:
    """Put, get, ranges, order, delete."""
    for number in range(25):
        assert client.put(f"{PREFIX}k/{number:02}", "v")
    assert client.get(f"{PREFIX}k/03") == [b"v"]
    found = client.get_prefix(f"{PREFIX}k/", sort_order="descend", sort_target="key")
    assert [len(found), found[0][1]["key"]] == [25, f"{PREFIX}k/24".encode()]
    assert client.delete(f"{PREFIX}k/03")
    assert not client.delete(f"{PREFIX}k/03")
    assert client.delete_prefix(f"{PREFIX}k/")
    assert client.get(f"{PREFIX}k/04") == []


def transactions(client: Any) -> None:
    """Comparisons and both branches."""
    key = f"{PREFIX}txn"
    assert client.create(key, "1")
    assert not client.create(key, "2")
    assert client.replace(key, "1", "2")
    assert not client.replace(key, "1", "3")
    assert client.get(key) == [b"2"]


def large(client: Any) -> None:
    """A megabyte comes and goes."""
    for number in range(4):
        value = bytes([97 + number]) * MEGABYTE
        assert client.put(f"{PREFIX}large", value)
        assert client.get(f"{PREFIX}large") == [value]


def leases(client: Any) -> None:
    """A lease is granted, kept alive, looked at and revoked, with its keys."""
    lease = client.lease(60)
    client.put(f"{PREFIX}leased", "v", lease=lease)
    assert lease.refresh() == 60
    assert 0 < lease.ttl() <= 60
    assert lease.keys() == [f"{PREFIX}leased".encode()]
    assert lease.revoke()
    assert client.get(f"{PREFIX}leased") == []


def watch(client: Any) -> None:
    """Every change is seen once and in order, from the past on, until it is cancelled."""
    key = f"{PREFIX}w/x"
    client.put(key, "0")
    first = int(client.get(key, metadata=True)[0][1]["mod_revision"])
    for number in range(1, MANY // 2):
        client.put(key, str(number))
    seen, cancel = client.watch_prefix(f"{PREFIX}w/", start_revision=first)
    for number in range(MANY // 2, MANY):
        client.put(key, str(number))
    for number in range(MANY):
        assert next(seen)["kv"]["value"] == str(number).encode()
    cancel()
    client.put(key, "unseen")
    assert list(seen) == []


def locks(client: Any) -> None:
    """etcd3gw makes locks of transactions and leases."""
    name = f"{PREFIX}lock"
    with client.lock(name, ttl=60) as held:
        assert held.is_acquired()
        assert not client.lock(name, ttl=60).acquire()
    with client.lock(name, ttl=60) as held:
        assert held.is_acquired()


def members(client: Any) -> None:
    """Who the members are, and how this one is."""
    assert client.status()["version"].startswith("3.")
    assert [member["name"] for member in client.members()] == ["m1"]


def accounts(client: Any) -> None:
    """The accounts have no methods of their own, and are reached as any path is."""
    name = f"etcd3gw-{time.time_ns()}"

    def ask(path: str, **fields: Any) -> Any:
        return client.post(client.get_url(f"/auth/{path}"), json=fields)

    ask("role/add", name=name)
    ask("user/add", name=name, password=SECRET)
    ask("user/grant", user=name, role=name)
    assert ask("user/get", name=name)["roles"] == [name]
    reader = connect(name, SECRET)
    fails(Etcd3Exception, "permission denied", lambda: reader.get(f"{PREFIX}x"))
    ask("user/delete", name=name)
    ask("role/delete", role=name)
    assert name not in ask("role/list").get("roles", [])


def errors(client: Any) -> None:
    """Errors have the server's text, whatever class etcd3gw has for their status."""
    fails(Etcd3Exception, "key is not provided", lambda: client.put("", "v"))
    fails(Etcd3Exception, "future revision", lambda: client.get("x", revision=1_000_000_000))
    lease = client.lease(60)
    lease.revoke()
    fails(Etcd3Exception, "requested lease not found", lease.revoke)
    fails(Etcd3Exception, "authentication failed", lambda: connect("root", "of nobody at all"))


def restart(client: Any) -> None:
    """After the server has come back calls go on."""
    client.put(f"{PREFIX}r", "before")
    wait_for_restart()
    end = time.monotonic() + CALL_S_MAX
    while True:
        try:
            assert client.get(f"{PREFIX}r") == [b"before"]
            break
        except ConnectionFailedError:
            # The connection that it keeps is gone, and it tries no other by itself.
            assert time.monotonic() < end
            time.sleep(0.1)
    client.put(f"{PREFIX}r", "after")
    assert client.get(f"{PREFIX}r") == [b"after"]


CHECKS: Final = {
    check.__name__: check
    for check in (
        keys,
        transactions,
        large,
        leases,
        watch,
        locks,
        members,
        accounts,
        errors,
        restart,
    )
}

if __name__ == "__main__":
    run(CHECKS, connect(told("USER"), told("PASSWORD")))
