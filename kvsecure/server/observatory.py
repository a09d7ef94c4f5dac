"""What is told about a member over plain HTTP: health, version, metrics.

Owns: these pages.
Never: needs an identity, tells a name, key or value, or changes anything.
Follows: etcd-surface section 4.3.
"""

import json
from collections.abc import Callable
from typing import Final, NamedTuple, final
from urllib.parse import parse_qs, urlsplit

from kvsecure.core.engine import Engine
from kvsecure.model.versions import ETCD_VERSION
from kvsecure.proto import maintenance_pb2
from kvsecure.telemetry.metrics import CONTENT_TYPE, render
from kvsecure.telemetry.snapshot import Snapshot

__all__ = ["NOT_FOUND", "Observatory", "Page"]

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """An answer to a GET."""

    status: int
    content_type: str
    body: bytes


NOT_FOUND: Final = Page(404, _TEXT, b"404 page not found\n")


@final
class Observatory:
    """The pages of one member."""

    __slots__ = ("_engine", "_snapshot")

    def __init__(self, engine: Engine, snapshot: Callable[[], Snapshot]) -> None:
        self._engine = engine
        self._snapshot = snapshot

    def page(self, target: str) -> Page:
        """Return the page of a request's target, which may have a query."""
        parts = urlsplit(target)
        match parts.path:
            case "/health":
                query = parse_qs(parts.query)
                stale = query.get("serializable", ["false"])[-1] == "true"
                return self._health(frozenset(query.get("exclude", ())), stale=stale)
            case "/version":
                cluster = ".".join((*ETCD_VERSION.split(".")[:2], "0"))
                versions = {"etcdserver": ETCD_VERSION, "etcdcluster": cluster}
                return Page(200, _JSON, json.dumps(versions, separators=(",", ":")).encode())
            case "/metrics":
                return Page(200, CONTENT_TYPE, render(self._snapshot()))
            case _:
                return NOT_FOUND

    def _health(self, excluded: frozenset[str], *, stale: bool) -> Page:
        """Check alarms, then the leader, then that a read can be answered (etcd's order)."""
        reason = ""
        for _, kind in sorted(self._engine.state.alarms):
            name = maintenance_pb2.AlarmType.Name(kind)
            if name not in excluded:
                reason = f"ALARM {name}"
                break
        if not reason and not stale:
            if not self._engine.has_leader:
                reason = "RAFT NO LEADER"
            elif not self._engine.can_read():
                reason = "RANGE ERROR:etcdserver: request timed out"
        health = {"health": "false" if reason else "true", "reason": reason}
        body = json.dumps(health, separators=(",", ":")).encode()
        return Page(503 if reason else 200, _JSON, body)
