"""How the programs for python's etcd clients say how their checks ended; peers.py reads it.

Owns: the lines `passed <check> <seconds>` and `failed <check> <seconds>`.
Never: knows a client.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["CALL_S_MAX", "MEGABYTE", "fails", "run", "told", "wait_for_restart"]

MEGABYTE: Final = 1024 * 1024
CALL_S_MAX: Final = 20


def told(name: str) -> str | None:
    """Return what the test says about the server and its accounts, or None."""
    return os.environ.get(f"KVSECURE_{name}")


def fails(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    """Expect a call to fail in one way, and with this in what the error says."""
    try:
        call()
    except kind as error:
        failure = error
    else:
        raise AssertionError(f"it did not fail with {kind}")
    # etcd3gw keeps the text beside the arguments.
    assert text in f"{failure} {vars(failure)}", repr(failure)


def wait_for_restart() -> None:
    """Return once the server has gone away and come back."""
    print("restart", flush=True)
    sys.stdin.readline()


def run(checks: Mapping[str, Callable[[Any], None]], client: Any) -> None:
    """Run the checks that the command line names."""
    for name in sys.argv[1:]:
        begun = time.monotonic()
        try:
            checks[name](client)
        except Exception:  # noqa: BLE001 - whatever it is, the other checks go on
            traceback.print_exc()
            verdict = "failed"
        else:
            verdict = "passed"
        print(verdict, name, f"{time.monotonic() - begun:.2f}", flush=True)
    # Threads of the clients would keep this program from ending.
    os._exit(0)
