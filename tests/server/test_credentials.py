"""Credentials that outlive one loop after the other."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from support.certificates import Authority

from kvsecure.pki.trust import ClientCertificates, ServerTls
from kvsecure.server.credentials import Credentials

_DEADLINE_S = 10.0


async def _watch_until_taken_up(credentials: Credentials, renew: Callable[[], object]) -> None:
    """Watch, replace the files, and end when something else is in force."""
    changed = asyncio.Event()
    async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as group:
        watching = group.create_task(
            credentials.watch(on_change=changed.set, note=lambda stage, facts: None)
        )
        renew()
        await changed.wait()
        watching.cancel()


def test_credentials_are_watched_in_one_loop_after_the_other(tmp_path: Path) -> None:
    """A member that begins anew with another's state still takes up new certificates."""
    authority = Authority(tmp_path)
    pair = authority.server()
    credentials = Credentials(
        ServerTls(
            cert_file=pair.certificate,
            key_file=pair.key,
            client_certificates=ClientCertificates.OFF,
        ),
        lambda: datetime.now(UTC),
    )

    for number in range(1, 3):
        asyncio.run(_watch_until_taken_up(credentials, authority.server))
        assert credentials.counts.reloads == number
