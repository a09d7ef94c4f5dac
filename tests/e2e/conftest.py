"""Servers that the end-to-end tests attack.

Owns: fixtures of the end-to-end tests.
Never: attacks; the tests do.
"""

from collections.abc import Iterator

import pytest
from e2e.world import READ, READWRITE, WRITE, Fortress

from kvsecure.proto import kv_pb2, lease_pb2


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server with some users.

    `web` may read and write /app/, `reader` only read it, `writer` only write it, `point` may read
    the one key /app/k. The keys below /ops/ are root's, and /ops/leased hangs on lease 777.
    """
    with Fortress(tmp_path_factory.mktemp("fortress")) as built:
        app = (b"/app/", b"/app0")
        built.role("app", (READWRITE, *app))
        built.role("reader", (READ, *app))
        built.role("writer", (WRITE, *app))
        built.role("point", (READ, b"/app/k", b""))
        built.user("web", "app")
        built.user("reader", "reader")
        built.user("writer", "writer")
        built.user("point", "point")
        root = built.root()
        built.put(root, b"/app/k", b"application")
        built.put(root, b"/ops/k", b"operations")
        root.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=777, TTL=3_600))
        root.kv.Put(kv_pb2.PutRequest(key=b"/ops/leased", value=b"x", lease=777))
        yield built
