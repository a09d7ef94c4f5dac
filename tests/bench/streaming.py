"""Many calls of one method, so many of them under way at a time.

Owns: how many, and what becomes of a failure.
Never: looks at an answer.
"""

import threading
from collections.abc import Iterable
from typing import Any

from bench.load import LoadError
from support.rpc import Client

__all__ = ["call_all"]


def call_all(client: Client, path: str, bodies: Iterable[bytes], *, under_way: int) -> None:
    """Make a call with each of these bodies, and wait until all are answered.

    Args:
        client: Whose token the calls have.
        path: The method.
        bodies: Made one by one, as calls are made.
        under_way: So many calls at most are not answered yet.

    Raises:
        LoadError: A call failed; no more are made then.
    """
    room = threading.Semaphore(under_way)
    failures: list[BaseException] = []

    def done(future: Any) -> None:
        error = future.exception()
        if error is not None:
            failures.append(error)
        room.release()

    call = client.prepared(path)
    for body in bodies:
        room.acquire()
        if failures:
            raise LoadError(str(failures[0]))
        call(body).add_done_callback(done)
    for _ in range(under_way):
        room.acquire()
    if failures:
        raise LoadError(str(failures[0]))
