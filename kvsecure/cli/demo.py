"""`kvsecure demo`: the whole promise, watched as it happens.

Owns: the story, its commands, and what each of them has to answer.
Never: pretends: every step is a command that can be typed, run as a process of its own against a
    server that was started for it, and the demo fails when one answers anything else.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, final

import click

from kvsecure.cli.failures import CommandFailure
from kvsecure.cli.options import example
from kvsecure.cli.sandbox import Sandbox, free_port, prepare

__all__ = ["demo"]

_SECRET: Final = "s3cr3t-of-the-database"  # noqa: S105 - the demo's own
_OTHER_SECRET: Final = "another-secret-altogether"  # noqa: S105 - the demo's own
_ACME_PASSWORD: Final = "a-password-only-acme-knows"  # noqa: S105 - the demo's own
_READY_S_MAX: Final = 30.0
_STEP_S_MAX: Final = 30.0
_READY: Final = "ready to serve client requests"


@click.command(epilog=example("kvsecure demo", "kvsecure demo --keep"))
@click.option("--keep", is_flag=True, help="Leave the files for a look afterwards.")
def demo(*, keep: bool) -> None:
    """Start a secured server, use it as its users would, and try to get around it.

    It runs on a free port of 127.0.0.1 with files of its own, and takes some seconds.
    """
    place = Path(tempfile.mkdtemp(prefix="kvsecure-demo-"))
    try:
        story = _Story(place)
        with story.server_running():
            story.tell()
    finally:
        if keep:
            click.echo(f"files kept in {place}")
        else:
            shutil.rmtree(place)
    click.secho("demo: all steps went as promised", bold=True)


@final
class _Story:
    """One run of the demo."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._sandbox: Sandbox = prepare(home, free_port())
        self._step = 0
        self._server: subprocess.Popen[bytes]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KVSECURE_", "ETCD_"))}
        self._environment: Mapping[str, str] = {**kept, "KVSECURE_HOME": str(home)}

    def tell(self) -> None:
        """Go through the story; every step that answers something else ends it."""
        self._grant_and_put()
        self._read_and_be_refused()
        self._tenants()
        self._watch()
        self._crash()
        self._audit()
        self._scan()

    # --- chapters -------------------------------------------------------------------------------

    def _grant_and_put(self) -> None:
        self._say("An operator lets the role `reader` read everything below /app/.")
        self._run("role", "grant", "reader", "/app/")
        self._say(
            "The application `web` gets a user with that role, and a certificate to prove it."
        )
        self._run("user", "add", "web", "--no-password")
        self._run("user", "grant-role", "web", "reader")
        self._run("pki", "issue", "client", "web", "--out", str(self._home))
        self._say("The operator stores a secret; it comes from stdin, so no process list shows it.")
        self._run("put", "/app/db/password", "--stdin", stdin=_SECRET)

    def _read_and_be_refused(self) -> None:
        self._say("`web` reads the secret over mutual TLS.")
        self._run("get", "/app/db/password", who="web", says=_SECRET)
        self._say("`web` may not read anything else, and not write at all.")
        denied = "permission denied"
        self._run("get", "/ops/root-token", who="web", fails=True, says=denied)
        self._run("put", "/app/x", "--stdin", stdin="mine", who="web", fails=True, says=denied)

    def _tenants(self) -> None:
        self._say("A second tenant has its own root, and sees nothing of the first one.")
        password_file = self._home / "acme-password"
        password_file.touch(mode=0o600)
        password_file.write_text(_ACME_PASSWORD)
        self._run("tenant", "add", "acme", "--root-password-file", str(password_file))
        acme = ("--tenant", "acme", "--user", "root", "--password-file", str(password_file))
        self._run(*acme, "get", "/app/db/password", fails=True, says="not found")
        self._run(*acme, "put", "/app/db/password", "--stdin", stdin=_OTHER_SECRET)
        self._run(*acme, "get", "/app/db/password", says=_OTHER_SECRET)
        self._run("get", "/app/db/password", says=_SECRET)

    def _watch(self) -> None:
        self._say("A watcher sees a change as it happens.")
        with self._started("watch", "/app/", "--prefix", who="web") as watcher:
            assert watcher.stdout is not None  # noqa: S101 - it was asked for
            self._run("put", "/app/colour", "blue")
            line = self._line_with(watcher.stdout, "blue")
        click.echo(f"      watcher: {line}")

    def _crash(self) -> None:
        self._say(
            "The server is killed with -9 and started again: nothing that was answered is lost."
        )
        self._server.kill()
        self._server.wait()
        self._start()
        self._run("get", "/app/db/password", who="web", says=_SECRET)

    def _audit(self) -> None:
        self._say("The audit trail tells who asked for what, and what came of it.")
        self._run("audit", "tail", "--count", "2", says='"stage"')
        self._run("audit", "verify", says="ok:")
        self._say("One byte of the trail is changed on the disk: the broken record is named.")
        path = min((self._sandbox.data_dir / "audit").glob("*.audit"))
        content = bytearray(path.read_bytes())
        place = len(content) // 2
        content[place] ^= 0x01
        path.write_bytes(content)
        self._run("audit", "verify", fails=True, says="record ")
        content[place] ^= 0x01
        path.write_bytes(content)
        self._run("audit", "verify", says="ok:")

    def _scan(self) -> None:
        self._say("A thief of the disk finds neither value nor key name nor password in the data.")
        password = self._sandbox.password_file.read_text()
        canaries = (_SECRET, _OTHER_SECRET, "/app/db/password", password, _ACME_PASSWORD)
        size_bytes = 0
        for path in sorted(self._sandbox.data_dir.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                size_bytes += len(content)
                for canary in canaries:
                    if canary.encode() in content:
                        raise CommandFailure(f"found a secret in {path}")
        click.echo(f"      scanned {size_bytes} bytes in {self._sandbox.data_dir}: nothing found")

    # --- the server -----------------------------------------------------------------------------

    @contextmanager
    def server_running(self) -> Iterator[None]:
        """Keep the server up while the story is told."""
        self._say("A secured server starts: TLS 1.3, authentication, sealing and audit are on.")
        self._start()
        click.echo(f"      https://{self._sandbox.endpoint}")
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGTERM)
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()

    def _start(self) -> None:
        log = self._home / "server.log"
        with log.open("wb") as sink:
            self._server = subprocess.Popen(
                [*_program(), "server", *self._sandbox.arguments(("--log-level=info",))],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=self._environment,
            )
        deadline = time.monotonic() + _READY_S_MAX
        while _READY not in log.read_text(errors="replace"):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise CommandFailure(
                    f"the server did not start:\n{log.read_text(errors='replace')}"
                )
            time.sleep(0.02)

    # --- commands -------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._step += 1
        click.secho(f"\n{self._step:2d}. {text}", bold=True)

    def _arguments(self, words: Sequence[str], who: str) -> list[str]:
        if not who:
            return list(words)
        return [f"--cert={self._home / who}.crt", f"--key={self._home / who}.key", *words]

    def _run(
        self,
        *words: str,
        who: str = "",
        stdin: str | None = None,
        says: str = "",
        fails: bool = False,
    ) -> None:
        """Run a command, show it and what it says, and check that it is what was promised."""
        arguments = self._arguments(words, who)
        piped = "printf %s ... | " if stdin is not None else ""
        click.secho(f"    $ {piped}kvsecure {' '.join(arguments)}", fg="cyan")
        done = subprocess.run(
            [*_program(), *arguments],
            input=stdin.encode() if stdin is not None else b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            timeout=_STEP_S_MAX,
            check=False,
        )
        output = done.stdout.decode(errors="replace").strip()
        for line in output.splitlines()[-6:]:
            click.echo(f"      {line[:160]}")
        if (done.returncode != 0) is not fails or says not in output:
            wanted = "fail" if fails else "succeed"
            words_wanted = f" and to say {says!r}" if says else ""
            raise CommandFailure(
                f"this step was to {wanted}{words_wanted}; its status was {done.returncode}"
            )

    @contextmanager
    def _started(self, *words: str, who: str) -> Iterator["subprocess.Popen[bytes]"]:
        arguments = self._arguments(words, who)
        click.secho(f"    $ kvsecure {' '.join(arguments)} &", fg="cyan")
        process = subprocess.Popen(
            [*_program(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self._environment, "PYTHONUNBUFFERED": "1"},
        )
        try:
            self._wait_for_watcher()
            yield process
        finally:
            process.kill()
            process.wait()

    def _wait_for_watcher(self) -> None:
        """Wait until the server has a watcher: its opening is a record of the audit trail."""
        deadline = time.monotonic() + _READY_S_MAX
        while time.monotonic() < deadline:
            done = subprocess.run(
                [*_program(), "audit", "tail", "--count", "5"],
                stdout=subprocess.PIPE,
                env=self._environment,
                timeout=_STEP_S_MAX,
                check=False,
            )
            if b'"WatchCreate"' in done.stdout:
                return
        raise CommandFailure("the watcher did not start")

    def _line_with(self, source: IO[bytes], text: str) -> str:
        for line in source:
            if text.encode() in line:
                return line.decode(errors="replace").strip()
        raise CommandFailure("the watcher ended without having seen the change")


def _program() -> list[str]:
    """Return the command that runs this very program."""
    return [sys.executable, "-m", "kvsecure"]
