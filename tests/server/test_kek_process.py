"""Real servers, with their key-encryption key from each provider: right, wrong, and not there."""

import base64
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, final

import pytest
from support.kms import KmsPluginServer
from support.servers import KvsecureServer
from support.terminal import Terminal

from kvsecure.pki.files import write_private
from kvsecure.proto import kv_pb2

_DEADLINE_S: Final = 20.0
_PASSPHRASE: Final = b"harbour maple violet"
_READY: Final = b"ready to serve client requests"


@final
class _Case:
    """One provider: its flags, its variables, and how to spoil it."""

    def __init__(self, directory: Path, provider: str) -> None:
        self.provider = provider
        self.directory = directory
        self.variables: dict[str, str] = {}
        self.flags = [f"--kek-provider={provider}"]
        self.plugin: KmsPluginServer | None = None
        # What must not be on the disk or in a log.
        self.secrets: list[bytes] = []
        match provider:
            case "file":
                self.flags.append(f"--kek-file={directory / 'key'}")
                self._new_key()
            case "env":
                self._new_key()
            case "passphrase":
                self.flags.append(f"--kek-passphrase-file={directory / 'passphrase'}")
                write_private(directory / "passphrase", _PASSPHRASE)
                self.secrets.append(_PASSPHRASE)
            case _:
                self.plugin = KmsPluginServer(directory / "kms.sock")
                self.plugin.start()
                self.flags.append(f"--kek-kms-socket={self.plugin.socket}")

    def _new_key(self) -> None:
        key = base64.b64encode(secrets.token_bytes(32))
        self.secrets.append(key)
        if self.provider == "file":
            write_private(self.directory / "key", key)
        else:
            self.variables["KVSECURE_KEK"] = key.decode()

    def spoil(self) -> str:
        """Have another key; return what a start says then."""
        if self.provider == "passphrase":
            write_private(self.directory / "passphrase", b"some other passphrase")
            return "the passphrase is not the one"
        if self.plugin is not None:
            self.plugin.forget()
            return "Decrypt fails: FAILED_PRECONDITION"
        self._new_key()
        return "give the right key"

    def lose(self) -> str:
        """Have no key; return what a start says then."""
        if self.plugin is not None:
            self.plugin.stop()
            return "kms.sock: No such file"
        if self.provider == "env":
            self.variables.clear()
            return "--kek-env KVSECURE_KEK: the variable is not set"
        (self.directory / ("key" if self.provider == "file" else "passphrase")).unlink()
        return "No such file"

    def close(self) -> None:
        if self.plugin is not None:
            self.plugin.stop()


@pytest.fixture(params=["file", "env", "passphrase", "kms"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Case]:
    """Each provider, in order."""
    case = _Case(tmp_path, str(request.param))
    yield case
    case.close()


@pytest.fixture
def member(case: _Case, tmp_path: Path) -> Iterator[KvsecureServer]:
    """A member that takes its key from there."""
    member = KvsecureServer(
        tmp_path / "member", flags=tuple(case.flags), environment=case.variables
    )
    yield member
    member.close()


def _refused(member: KvsecureServer, variables: Mapping[str, str], why: str) -> None:
    """Check that a start is refused in these words, and nothing was changed."""
    keyring = (member.data_directory / "keyring").read_bytes()
    environment = {**member.process._environment, **variables}
    if not variables:
        environment.pop("KVSECURE_KEK", None)

    done = subprocess.run(
        member.process._command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )

    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert why in last, done.stderr
    assert "Traceback" not in done.stderr
    assert (member.data_directory / "keyring").read_bytes() == keyring


def _verify(case: _Case, member: KvsecureServer) -> "subprocess.CompletedProcess[bytes]":
    words = ("audit", "verify", f"--data-dir={member.data_directory}", *case.flags)
    environment = {**os.environ, "KVSECURE_HOME": str(case.directory), **case.variables}
    line = [*member.process._command[:3], *words]
    return subprocess.run(line, env=environment, capture_output=True, check=False, timeout=30)


def test_member_with_each_provider_starts_again_with_its_key_and_with_no_other(
    case: _Case, member: KvsecureServer
) -> None:
    """What was stored is there after a restart; with a wrong key or none nothing starts."""
    member.start()
    with member.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
    member.process.kill9_all()
    member.restart()
    with member.client() as client:
        assert client.kv.Range(kv_pb2.RangeRequest(key=b"k")).kvs[0].value == b"v"
    assert _verify(case, member).returncode == 0
    member.stop()

    _refused(member, case.variables, case.spoil())
    done = _verify(case, member)
    assert done.returncode == 2, done.stderr
    _refused(member, case.variables, case.lose())

    assert _verify(case, member).returncode == 2
    told = case.secrets + ([] if case.plugin is None else case.plugin.plaintexts)
    written = [path.read_bytes() for path in member.data_directory.rglob("*") if path.is_file()]
    for secret in told:
        assert all(secret not in content for content in (*written, member.log.read_bytes()))


@pytest.mark.parametrize("case", ["env"], indirect=True)
def test_key_in_the_environment_does_not_reach_the_disk_processes(
    case: _Case, member: KvsecureServer
) -> None:
    """What the member starts has no key in its environment."""
    member.start()

    children = Path(f"/proc/{member.process.pid}/task/{member.process.pid}/children").read_text()

    environments = [Path(f"/proc/{child}/environ").read_bytes() for child in children.split()]
    assert len(environments) == 2
    assert all(case.secrets[0] not in environment for environment in environments)


@pytest.mark.parametrize("case", ["kms"], indirect=True)
def test_member_serves_on_while_its_plugin_is_away(case: _Case, member: KvsecureServer) -> None:
    """The plugin is asked at the start, and not needed afterwards."""
    member.start()
    case.close()

    with member.client() as client:
        client.kv.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))

        assert client.kv.Range(kv_pb2.RangeRequest(key=b"k")).count == 1


@pytest.mark.parametrize("case", ["kms"], indirect=True)
def test_member_is_not_founded_on_a_plugin_that_is_not_well(
    case: _Case, member: KvsecureServer
) -> None:
    """The plugin's own words are in the log."""
    assert case.plugin is not None
    case.plugin.health = "starting"
    member.process.spawn()

    assert member.process.wait_exit() == 1
    assert b"it is not well: starting" in member.process.log()


# --- a prompt -----------------------------------------------------------------------------------

Sit = Callable[..., Terminal]


@pytest.fixture
def sit(tmp_path: Path) -> Iterator[Sit]:
    """A way to start the member of a directory on a terminal."""
    member = KvsecureServer(tmp_path / "member", flags=("--kek-provider=passphrase",))
    terminals: list[Terminal] = []

    def start() -> Terminal:
        arguments = member.process._command[3:]
        terminals.append(Terminal(arguments, member.process._environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()
    member.close()


def test_passphrase_is_asked_for_on_the_terminal(sit: Sit) -> None:
    """A new one twice, a known one once; it is not shown, and a wrong one ends the start."""
    first = sit()
    first.expect(b"Passphrase of the key-encryption key: ")
    first.type(_PASSPHRASE + b"\n")
    first.expect(b"Once more: ")
    first.type(_PASSPHRASE + b"\n")
    first.expect(_READY)
    first.type(b"\x03")
    first.end()

    second = sit()
    second.expect(b"Passphrase of the key-encryption key: ")
    second.type(b"some other passphrase\n")
    assert second.end() == 1

    third = sit()
    third.expect(b"Passphrase of the key-encryption key: ")
    third.type(_PASSPHRASE + b"\n")
    third.expect(_READY)

    assert b"the passphrase is not the one" in second.screen
    assert all(_PASSPHRASE not in each.screen for each in (first, second, third))


def test_slip_in_a_new_passphrase_founds_nothing(sit: Sit, tmp_path: Path) -> None:
    """Two different answers are no passphrase."""
    terminal = sit()
    terminal.expect(b"Passphrase of the key-encryption key: ")
    terminal.type(_PASSPHRASE + b"\n")
    terminal.expect(b"Once more: ")
    terminal.type(b"harbour maple viole\n")

    assert terminal.end() == 1
    assert b"are not the same" in terminal.screen
    assert not (tmp_path / "member" / "state" / "keyring").exists()


def test_passphrase_without_a_terminal_is_refused_with_the_way(tmp_path: Path) -> None:
    """A service has no terminal, and is told of the flag."""
    member = KvsecureServer(tmp_path / "member", flags=("--kek-provider=passphrase",))
    member.process.spawn()

    assert member.process.wait_exit() == 1
    assert b"no terminal to ask for the passphrase on" in member.process.log()
    member.close()
