"""Tasks of a member: what may fail by itself, and what ends the member."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.certificates import Authority

from kvsecure.model.errors import Broken
from kvsecure.pki.trust import ClientCertificates, ServerTls
from kvsecure.server.credentials import Credentials
from kvsecure.server.listening import watch_credentials
from kvsecure.server.tasks import Tasks

Start = Callable[[Tasks], None]


def _ended(start: Start, *, waits: bool = True) -> list[str]:
    """Start tasks; return why the member would have ended, once it has, or at once."""

    async def run() -> list[str]:
        reasons: list[str] = []
        over = asyncio.Event()

        def end(reason: str) -> None:
            reasons.append(reason)
            over.set()

        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group, end)
            start(tasks)
            if waits:
                async with asyncio.timeout(10):
                    await over.wait()
            else:
                await asyncio.sleep(0)
            tasks.cancel()
        return reasons

    return asyncio.run(run())


async def _fail(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


async def _go_on() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), KeyError(1)])
def test_task_of_one_connection_fails_alone(error: Exception) -> None:
    """A mistake there costs the connection, and not the member."""
    assert _ended(lambda tasks: tasks.spawn(_fail(error)), waits=False) == []


def test_broken_invariant_ends_the_member_wherever_it_is() -> None:
    """Going on could lose or show something."""
    (reason,) = _ended(lambda tasks: tasks.spawn(_fail(Broken("two leaders"))))

    assert reason == "an invariant does not hold: two leaders"


@pytest.mark.parametrize("error", [ValueError("secret"), MemoryError(), Broken("x")])
def test_vital_task_that_fails_ends_the_member(error: Exception) -> None:
    """The reason names the task and the kind of failure, and nothing of what it had in hand."""
    (reason,) = _ended(lambda tasks: tasks.spawn_vital("the watch", _fail(error)))

    assert reason == f"the watch failed: {type(error).__name__}"


def test_vital_task_that_ends_by_itself_ends_the_member() -> None:
    """Something that should go on for ever has not done its work."""
    (reason,) = _ended(lambda tasks: tasks.spawn_vital("the watch", asyncio.sleep(0)))

    assert reason == "the watch ended"


def test_vital_task_that_is_cancelled_is_no_failure() -> None:
    """That is how it ends when the member stops."""
    assert _ended(lambda tasks: tasks.spawn_vital("the watch", _go_on()), waits=False) == []


def test_watch_over_certificates_does_not_fail_in_silence(tmp_path: Path) -> None:
    """If taking up a revocation goes wrong in a way nobody thought of, the member ends."""
    authority = Authority(tmp_path)
    pair = authority.server()
    tls = ServerTls(
        cert_file=pair.certificate,
        key_file=pair.key,
        client_certificates=ClientCertificates.OFF,
    )
    credentials = Credentials(tls, lambda: datetime.now(UTC))

    def note(_stage: str, _facts: dict[str, object]) -> None:
        raise RuntimeError("the trail is gone")

    parts: Any = SimpleNamespace(
        gate=SimpleNamespace(events=SimpleNamespace(note_credentials=note)), front=()
    )
    credentials.look_now()

    def start(tasks: Tasks) -> None:
        watching: Coroutine[Any, Any, None] = watch_credentials(parts, credentials, [])
        tasks.spawn_vital("the watch over certificates", watching)

    (reason,) = _ended(start)

    assert reason == "the watch over certificates failed: RuntimeError"
