"""What is told about a member over plain HTTP: health, version, metrics.

Owns: these pages.
Never: needs an identity, tells a name, key or value, or changes anything.
Follows: etcd-surface section 4.3.
"""

import json
from collections.abc import Callable
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

from kvsecure.model.versions import ETCD_CLUSTER_VERSION, ETCD_VERSION
from kvsecure.server.health import Health
from kvsecure.telemetry.metrics import CONTENT_TYPE, render
from kvsecure.telemetry.snapshot import Snapshot

__all__ = ["NOT_FOUND", "Observatory", "Page"]

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """An answer to a GET.

    Attributes:
        status: Of HTTP.
        content_type: Of the body.
        body: It is left out of an answer to HEAD.
        allow: The methods that would have been right, where the method is wrong.
    """

    status: int
    content_type: str
    body: bytes
    allow: str = ""


NOT_FOUND: Final = Page(404, _TEXT, b"404 page not found\n")


@final
class Observatory:
    """The pages of one member."""

    __slots__ = ("_health", "_snapshot")

    def __init__(self, health: Health, snapshot: Callable[[], Snapshot]) -> None:
        self._health = health
        self._snapshot = snapshot

    def page(self, target: str) -> Page:
        """Return the page of a request's target, which may have a query."""
        try:
            parts = urlsplit(target)
        except ValueError:
            # Half a bracket, where a host would stand.
            return NOT_FOUND
        match parts.path:
            case "/health":
                return self._overall(parts.query)
            case "/version":
                versions = {"etcdserver": ETCD_VERSION, "etcdcluster": ETCD_CLUSTER_VERSION}
                return Page(200, _JSON, _json(versions))
            case "/metrics":
                return Page(200, CONTENT_TYPE, render(self._snapshot()))
            case path:
                verdict = self._health.verdict(path, parts.query)
                if verdict is None:
                    return NOT_FOUND
                return Page(verdict.status, _TEXT, verdict.text.encode())

    def _overall(self, query: str) -> Page:
        reason = self._health.overall(query)
        health = {"health": "false" if reason else "true", "reason": reason}
        return Page(503 if reason else 200, _JSON, _json(health))


def _json(value: dict[str, str]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
