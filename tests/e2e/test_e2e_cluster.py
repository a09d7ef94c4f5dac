"""`kvsecure cluster`: three commands make a cluster of three, which outlives any one of them."""

import contextlib
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import final

import grpc
import pytest
from e2e.world import cli, environment
from support.certificates import KeyPair
from support.processes import free_ports, wait_until
from support.rpc import Client

from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret
from kvsecure.pki.files import write_private
from kvsecure.proto import cluster_pb2

_TOKEN = "kvjoin1/"


@final
class _Machines:
    """Machines with a home each; they share this one's loopback address."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {name: free_ports(2) for name in ("m1", "m2", "m3")}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def home(self, name: str) -> Path:
        """Return a machine's home."""
        path = self.directory / f"home-{name}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def words(self, name: str) -> list[str]:
        """Return the options of a machine's command."""
        client, peer = self.ports[name]
        return [
            f"--dir={self.directory / name}",
            f"--name={name}",
            "--host=127.0.0.1",
            f"--client-port={client}",
            f"--peer-port={peer}",
        ]

    def start(self, name: str, command: str, *words: str, token: str = "") -> None:
        """Run `kvsecure cluster COMMAND` on a machine, which goes on as its server."""
        with (self.directory / f"{name}.output").open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "kvsecure", "cluster", command, *self.words(name), *words],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                env=environment(self.home(name)),
                cwd=self.directory,
                umask=0,
            )
        assert process.stdin is not None
        process.stdin.write(token.encode())
        process.stdin.close()
        self.running[name] = process

    def stop(self, name: str, number: int) -> None:
        """End a server by a signal."""
        process = self.running.pop(name)
        process.send_signal(number)
        process.wait(15)

    def said(self, name: str) -> str:
        """Return what a machine's command has said."""
        return (self.directory / f"{name}.output").read_text()

    def run(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a command at the first machine, as the context of `init` has it."""
        return cli(self.home("m1"), *words, stdin=stdin)

    def at(self, name: str) -> str:
        """Return where clients reach a machine."""
        return f"--endpoint=127.0.0.1:{self.ports[name][0]}"

    def voters(self) -> set[str]:
        """Return the names of those who vote, as anybody who answers knows them."""
        place = self.directory / "m1"
        root = KeyPair(certificate=place / "root.crt", key=place / "root.key")
        for name in self.running:
            endpoint = self.at(name).removeprefix("--endpoint=")
            with (
                contextlib.suppress(grpc.RpcError),
                Client(endpoint, place / "ca.crt", root) as client,
            ):
                found = client.cluster.MemberList(cluster_pb2.MemberListRequest()).members
                return {each.name for each in found if not each.isLearner}
        return set()

    def wait_for_voters(self, *names: str) -> None:
        """Wait until exactly these vote."""

        def vote() -> bool:
            for name, process in self.running.items():
                assert process.poll() is None, self.said(name)
            return self.voters() == set(names)

        wait_until(vote, deadline_s=60, what=f"the votes of {names}")

    def tokens(self) -> list[str]:
        """Return the tokens that `init` has shown."""
        wait_until(
            lambda: self.said("m1").count(_TOKEN) == 2, deadline_s=20, what="two join tokens"
        )
        return [line for line in self.said("m1").splitlines() if line.startswith(_TOKEN)]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[_Machines]:
    """Three machines on which nothing has been run."""
    made = _Machines(tmp_path)
    yield made
    for process in made.running.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_three_commands_make_a_cluster_that_outlives_any_member(machines: _Machines) -> None:
    """After `init`, `join`, `join` three vote; with the first one killed everything still works."""
    machines.start("m1", "init", "--cluster=prod")
    tokens = machines.tokens()
    for name, token in zip(("m2", "m3"), tokens, strict=True):
        machines.start(name, "join", "--token-file=-", token=f"{token}\n")
    machines.wait_for_voters("m1", "m2", "m3")
    put = machines.run("put", "/app/k", "--stdin", stdin=b"before")
    # The context that joining has made trusts the authority; who it is says the password.
    root = ("--user=root", f"--password-file={machines.directory / 'm1' / 'root-password'}")
    options = [machines.at("m2"), machines.at("m3"), *root, "--timeout=20"]

    machines.stop("m1", signal.SIGKILL)

    there = machines.home("m2")
    again = cli(there, *options, "put", "/app/l", "--stdin", stdin=b"after")
    got = [cli(there, *options, "get", key).stdout for key in ("/app/k", "/app/l")]
    assert (put.returncode, again.returncode, got) == (0, 0, [b"before", b"after"]), again.stderr

    # The same command again starts the member that there is.
    machines.start("m1", "init", "--cluster=prod")
    machines.wait_for_voters("m1", "m2", "m3")
    wait_until(
        lambda: machines.run("get", "/app/l").stdout == b"after", deadline_s=20, what="m1 again"
    )
    assert "is set up already" in machines.said("m1")
    assert machines.said("m1").count(_TOKEN) == 2
    _check_files(machines, tokens)


def _check_files(machines: _Machines, tokens: list[str]) -> None:
    """No key is anywhere but at its own machine, none for others to read, and no token is left."""
    keys = {}
    for name in ("m1", "m2", "m3"):
        place = machines.directory / name
        for path in place.rglob("*"):
            if path.suffix not in {".crt", ".yaml", ".json"} and path.is_file():
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        for key in ("server.key", "peer.key", "kek"):
            keys[name, key] = (place / key).read_bytes()
        said = machines.said(name)
        content = b"".join(p.read_bytes() for p in place.rglob("*") if p.is_file())
        for token in tokens:
            assert token.rpartition("/")[2].encode() not in content
            assert name == "m1" or token not in said
    assert len(set(keys.values())) == 9
    assert not (machines.directory / "m2" / "authority").exists()


def test_token_is_good_once_and_only_as_a_whole(machines: _Machines) -> None:
    """What is no token, or used, or on the command line makes no member and no configuration."""
    machines.start("m1", "init", "--cluster=prod")
    good = machines.tokens()[0]
    machines.wait_for_voters("m1")
    made = machines.run("cluster", "token", "--ttl=30m")
    fresh = made.stdout.decode().strip()
    join = ("cluster", "join", *machines.words("m2"), "--no-start")
    home = machines.home("m2")

    broken = cli(home, *join, "--token-file=-", stdin=good[:-1].encode())
    shown = cli(home, *join, good)
    elsewhere = cli(home, *join, "--token-file=-", stdin=_of_another(good).encode())
    nothing_yet = (machines.directory / "m2" / "kvsecure.yaml").exists()
    write_private(home / "token", good.encode())
    joined = cli(home, *join, f"--token-file={home / 'token'}")
    other = ("cluster", "join", *machines.words("m3"), "--no-start", "--token-file=-")
    used = cli(machines.home("m3"), *other, stdin=good.encode())

    assert [each.returncode for each in (broken, shown, elsewhere, used)] == [1, 2, 1, 1]
    assert b"not a whole one" in broken.stderr
    assert b"not taken from the command line" in shown.stderr
    assert b"another authority than the token says" in elsewhere.stderr
    assert b"has been used" in used.stderr
    assert not nothing_yet
    assert joined.returncode == 0, joined.stderr
    assert b"kvsecure server --config-file" in joined.stdout
    assert fresh.startswith(_TOKEN)
    assert fresh != good
    assert not (machines.directory / "m3" / "kvsecure.yaml").exists()


def _of_another(token: str) -> str:
    """Return a token with the fingerprint of another authority and all else as it was."""
    read = JoinToken.parse(Secret.of_text(token))
    return replace(read, fingerprint=b"x" * 32).text().reveal_text()
