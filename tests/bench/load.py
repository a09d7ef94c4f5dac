"""One run of h2load against one method: calls a second, and how we know that they were real.

Owns: h2load's command line and its output.
Never: measures a server that was not asked to prove, before and after, that it does the work.
Follows: h2load 1.52; it repeats one request and looks at HTTP statuses only.
"""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

__all__ = ["CONNECTIONS", "WARM_UP_S", "Load", "LoadError", "framed", "run_h2load"]

CONNECTIONS: Final = 10
WARM_UP_S: Final = 1
_RATE: Final = re.compile(rb"finished in [^,]+, ([0-9.]+) req/s")
_COUNTS: Final = re.compile(
    rb"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored"
)
_TIMES: Final = re.compile(rb"time for request:\s+(\S+)\s+(\S+)\s+(\S+)")
_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@final
class LoadError(Exception):
    """H2load failed, or did not say what it should."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run came to."""

    calls_per_s: float
    succeeded: int
    failed: int
    mean_ms: float
    max_ms: float


def framed(message: Any) -> bytes:
    """Return a message as the body of a gRPC request: a flag, its length, its bytes."""
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + bytes(body)


def run_h2load(
    url: str,
    body: Path,
    *,
    streams: int,
    duration_s: float,
    token: str = "",
    connections: int = CONNECTIONS,
    more: Sequence[str] = (),
) -> Load:
    """Run h2load.

    Args:
        url: Scheme, host, port and path of the method.
        body: A file that holds the framed request.
        streams: Concurrent calls per connection.
        duration_s: Seconds that count, after a warm-up.
        token: The session token, or nothing where the server asks for none.
        connections: How many connections.
        more: Further options of h2load.

    Raises:
        LoadError: It failed.
    """
    command = [
        "h2load",
        f"--duration={round(duration_s * 1000)}ms",
        f"--warm-up-time={WARM_UP_S}",
        f"--clients={connections}",
        f"--max-concurrent-streams={streams}",
        "--threads=1",
        f"--data={body}",
        "--header=content-type: application/grpc",
        "--header=te: trailers",
        *more,
    ]
    if token:
        command.append(f"--header=token: {token}")
    done = subprocess.run([*command, url], capture_output=True, check=False)
    rate, counts = _RATE.search(done.stdout), _COUNTS.search(done.stdout)
    if done.returncode != 0 or rate is None or counts is None:
        raise LoadError(f"{done.stdout.decode()}\n{done.stderr.decode()}")
    times = _TIMES.search(done.stdout)
    return Load(
        calls_per_s=float(rate[1]),
        succeeded=int(counts[1]),
        failed=int(counts[2]) + int(counts[3]),
        mean_ms=_milliseconds(times[3]) if times else 0.0,
        max_ms=_milliseconds(times[2]) if times else 0.0,
    )


def _milliseconds(text: bytes) -> float:
    found = re.fullmatch(r"([0-9.]+)(us|ms|s)", text.decode())
    return float(found[1]) * _UNITS_MS[found[2]] if found else 0.0
