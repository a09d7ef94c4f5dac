"""`lock` and `elect` against a real server."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from click.testing import Result
from support.etcd import open_client
from support.processes import wait_until
from support.servers import Member

from kvsecure.client import Client, Keys

__all__: list[str] = []

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[bytes]"]

_DEADLINE_S = 15.0


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A queue for each test of its own."""
    return f"/{request.node.name}"


@pytest.fixture
def client(member: Member) -> Iterator[Client]:
    """A client of the same member."""
    with open_client(member) as client:
        yield client


def _in_queue(client: Client, name: str, count: int) -> None:
    keys = Keys.prefix(name.encode() + b"/")
    wait_until(
        lambda: len(client.kv.range(keys).kvs) == count,
        deadline_s=_DEADLINE_S,
        what=f"{count} places in {name}",
    )


def _line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


@pytest.mark.parametrize("mark", [(), pytest.param(("--",), marks=pytest.mark.campaign)])
def test_command_runs_under_the_lock(
    root: Run, start: Start, client: Client, name: str, mark: tuple[str, ...]
) -> None:
    """A command finds key and number in its environment, and its exit status comes out."""
    script = (
        "import os, sys; print(os.environ['ETCD_LOCK_KEY'], os.environ['ETCD_LOCK_REV']);"
        "sys.exit(7)"
    )

    done = start("lock", "--ttl", "30", name, *mark, sys.executable, "-c", script, "--flag")
    out, _ = done.communicate(timeout=_DEADLINE_S)

    key, revision = out.decode().split()
    assert key.startswith(name + "/")
    assert int(revision) > 1
    assert done.returncode == 7
    _in_queue(client, name, 0)


def test_command_that_a_signal_ends_is_told_as_by_the_shell(
    root: Run, start: Start, name: str
) -> None:
    """A command that was killed has 128 and the signal's number."""
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    done = start("lock", name, sys.executable, "-c", script)

    assert done.wait(timeout=_DEADLINE_S) == 128 + signal.SIGKILL


def test_command_that_there_is_not_lets_go(root: Run, client: Client, name: str) -> None:
    """What cannot be run is said, and the lock is free."""
    done = root("lock", name, "/no/such/program")

    assert done.exit_code == 1
    assert "cannot run /no/such/program" in done.stderr
    _in_queue(client, name, 0)


@pytest.mark.parametrize(
    "by",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.campaign),
        pytest.param(signal.SIGHUP, marks=pytest.mark.campaign),
    ],
)
def test_lock_is_held_until_a_signal(
    root: Run, start: Start, client: Client, name: str, by: signal.Signals
) -> None:
    """Without a command the key is printed, and the signal lets go of it."""
    process = start("lock", name)
    key = _line(process)
    assert [kv.key.decode() for kv in client.kv.range(Keys.prefix(name.encode())).kvs] == [key]

    process.send_signal(by)

    assert process.wait(timeout=_DEADLINE_S) == 0
    _in_queue(client, name, 0)


def test_signal_reaches_the_command_before_the_lock_goes(
    root: Run, start: Start, client: Client, name: str
) -> None:
    """A command that is asked to end has the lock until it has ended."""
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    process = start("lock", name, sys.executable, "-c", script)
    assert _line(process) == "ready"

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=_DEADLINE_S) == 9
    _in_queue(client, name, 0)


def test_command_whose_lock_is_lost_is_ended(
    root: Run, start: Start, client: Client, name: str
) -> None:
    """Who does not hold the lock any more does not go on as if."""
    script = "import signal; print('ready', flush=True); signal.pause()"
    process = start("lock", "--ttl", "3", name, sys.executable, "-c", script)
    assert _line(process) == "ready"
    (held,) = client.kv.range(Keys.prefix(name.encode())).kvs

    client.lease.revoke(held.lease)

    _, err = process.communicate(timeout=_DEADLINE_S)
    assert process.returncode == 1
    assert b"was lost" in err


def test_waiter_that_is_interrupted_leaves_the_queue(
    root: Run, start: Start, client: Client, name: str
) -> None:
    """Ctrl-C while waiting is status 130, and nobody waits behind it."""
    with client.lock(name.encode()):
        process = start("lock", name)
        _in_queue(client, name, 2)

        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=_DEADLINE_S) == 130
        _in_queue(client, name, 1)


def test_leader_is_printed_and_resigns(root: Run, start: Start, client: Client, name: str) -> None:
    """Key and value are a line each; the signal ends the term, and the next one leads."""
    listener = start("elect", "--listen", name)
    first = start("elect", name, "one")
    key = _line(first)
    assert _line(first) == "one"
    second = start("elect", name, "two")
    _in_queue(client, name, 2)

    first.send_signal(signal.SIGTERM)

    assert first.wait(timeout=_DEADLINE_S) == 0
    next_key = _line(second)
    assert [_line(listener) for _ in range(4)] == [key, "one", next_key, "two"]
    leader = client.election(name.encode()).leader()
    assert leader is not None
    assert leader.key.decode() == next_key
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=_DEADLINE_S) == 0


@pytest.mark.parametrize("arguments", [["e"], ["--listen", "e", "v"], [], ["e", "v", "w"]])
def test_election_without_what_it_needs_is_wrong_usage(root: Run, arguments: list[str]) -> None:
    """Somebody who stands has a value, somebody who listens has none."""
    assert root("elect", *arguments).exit_code == 2
