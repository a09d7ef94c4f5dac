"""Listening: from the configuration to open listeners, and what they show as it changes.

Owns: which listener speaks what, and closing all of them, whatever happens.
Never: accepts a connection.
Keeps: every listener has the one TLS policy there is; two URLs of one address are one listener.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from kvsecure.server.accepting import Accepting
from kvsecure.server.assembly import MemberParts
from kvsecure.server.config.model import ServerConfig
from kvsecure.server.config.urls import Endpoint
from kvsecure.server.credentials import Credentials
from kvsecure.server.listener import Listener, Spoken
from kvsecure.telemetry.log import log

__all__ = ["open_listeners", "watch_credentials"]

_ANY_PORT: Final = 0

_log = log("server")


@asynccontextmanager
async def open_listeners(
    config: ServerConfig, parts: MemberParts, credentials: Credentials | None
) -> AsyncIterator[list[Listener]]:
    """Listen wherever the configuration says, and close all of them in the end.

    Raises:
        OSError: An address cannot be had.
    """
    context = credentials.context if credentials is not None else None
    listeners: list[Listener] = []
    try:
        for accepting, endpoints in (
            (parts.front.client, config.listen.client),
            (parts.front.pages, config.listen.client_http),
            (parts.front.metrics, config.listen.metrics),
        ):
            for together in _by_address(endpoints):
                listener = await _open(accepting, together, context)
                listeners.append(listener)
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


async def watch_credentials(
    parts: MemberParts, credentials: Credentials, listeners: Sequence[Listener]
) -> None:
    """Take up new certificates, authorities and revocation lists; until cancelled."""

    def on_change() -> None:
        for listener in listeners:
            listener.use(credentials.context)
        for accepting in parts.front:
            accepting.judge_again()

    await credentials.watch(on_change=on_change, note=parts.gate.events.note_credentials)


def _by_address(endpoints: Sequence[Endpoint]) -> list[list[Endpoint]]:
    """Put together what is TLS and plaintext of one address."""
    found: list[list[Endpoint]] = []
    for endpoint in endpoints:
        mates = [
            one
            for one in found
            if one[0].address == endpoint.address
            and (endpoint.path is not None or endpoint.port != _ANY_PORT)
        ]
        if mates:
            mates[0].append(endpoint)
        else:
            found.append([endpoint])
    return found


async def _open(
    accepting: Accepting, together: Sequence[Endpoint], context: ssl.SSLContext | None
) -> Listener:
    """Open the listener of one address."""
    secured = [endpoint.scheme.is_secure for endpoint in together]
    spoken = Spoken.PLAINTEXT
    if any(secured):
        spoken = Spoken.TLS if all(secured) else Spoken.EITHER
    tls = None if spoken is Spoken.PLAINTEXT else context
    first = together[0]
    if first.path is not None:
        listener = await accepting.listen_unix(first.path, tls, spoken)
    else:
        listener = await accepting.listen(first.host, first.port, tls, spoken)
    for endpoint in together:
        is_secure = endpoint.scheme.is_secure
        _log.info(
            "serving client traffic" if is_secure else "serving client traffic insecurely",
            address=endpoint.url,
        )
    return listener
