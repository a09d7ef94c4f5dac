"""Programs in other languages in front of a cluster of three members that has trouble.

    Ride(cluster, commands)   all programs at once, with the endpoints of all members
      trouble(name)           from now on what fails does so because of this
      go_on()                 wait until each of them is served again, and more than once
      end()                   what each of them was told

A program does the scenario `ride`: it puts and gets, watches and keeps a lease, until there is a
line on its standard input; then it finds out whether everything that it was told is so. It prints
`served` for each key that was put and read, and `error`, the operation, the code and the text for
each call, watch or lease that failed.

Owns: running the programs, and what their errors come down to.
Never: says which errors are right; the tests compare two clusters.
"""

import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Final, NamedTuple, Self, final

from cluster.members import RealCluster
from support.processes import wait_until

__all__ = ["GONE", "Error", "Ride", "Told"]

# What a call comes to whose member has died, or has said that it ends, in the words of any client.
GONE: Final = "the member is gone"
_GONE_TEXTS: Final = (
    # Go
    "error reading from server",
    "EOF$",
    "transport is closing",
    "connection refused",
    # Go and grpcio, of a member that does not end its calls in order
    "unexpected HTTP status code received from server: 200",
    "No status received",
    # Java
    "unexpected EOS on empty DATA frame",
    "Network closed",
    "io exception",
    "closed unexpectedly",
    "Connection reset",
    "Channel shutdown",
    # Node, whose etcd3 leaves a member alone for a while that has failed three times in a row
    "RST_STREAM",
    "Connection dropped",
    "unexpectedly ended",
    "No connection established",
    "ECONN",
    "circuit breaker is open",
    # grpcio
    "Stream removed",
    "Socket closed",
    "failed to connect",
    "GOAWAY",
    "Broken pipe",
    # a member that says it itself
    "etcdserver: server stopped",
)
_IS_GONE: Final = re.compile("|".join(_GONE_TEXTS), re.IGNORECASE)
_READY_S_MAX: Final = 40
# An etcd whose leader dies lets a put wait for seven seconds before it says so.
_AGAIN_S_MAX: Final = 40
_END_S_MAX: Final = 40
_SERVED_AGAIN: Final = 30


@final
class Error(NamedTuple):
    """What a program was told instead of an answer."""

    code: str
    text: str


@final
@dataclass
class Told:
    """What one program was told."""

    served: int = 0
    # By the trouble in which it came; `operation` and error.
    errors: Counter[tuple[str, str, Error]] = field(default_factory=Counter)
    # What it found in the end: nothing, or why it failed.
    wrong: str = ""

    def of(self, *troubles: str) -> set[Error]:
        """Return the errors that came in some troubles, or in all."""
        return {error for trouble, _, error in self.errors if not troubles or trouble in troubles}


@final
class Ride:
    """All programs at once, from entering to the end."""

    def __init__(self, cluster: RealCluster, commands: Mapping[str, Sequence[str]]) -> None:
        """Prepare; nothing runs yet.

        Args:
            cluster: It serves.
            commands: The programs, by the names of their clients.
        """
        self.told = {name: Told() for name in commands}
        self._commands = commands
        self._trouble = "the start"
        self._environment = {name: told for name, told in os.environ.items() if name[:2] != "KV"}
        self._environment |= {
            "KVSECURE_ENDPOINT": ",".join(each.place.endpoint for each in cluster.members),
            "KVSECURE_CA": str(cluster.authority.certificate),
            "KVSECURE_USER": "root",
            "KVSECURE_PASSWORD": cluster.password,
            # etcd 3.5.1 does not speak TLS 1.3.
            "KVSECURE_OLD_TLS": "1",
        }
        # Where a program has said why it failed.
        self._logs = {name: cluster.directory / f"{name}.log" for name in commands}
        self._programs: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._verdicts: dict[str, str] = {}

    def __enter__(self) -> Self:
        for name, command in self._commands.items():
            with self._logs[name].open("wb") as log:
                program = subprocess.Popen(
                    [*command, "ride"],
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            self._programs[name] = program
            assert program.stdout is not None
            reader = threading.Thread(target=self._read, args=(name, program.stdout))
            reader.start()
            self._readers.append(reader)
        self.go_on(deadline_s=_READY_S_MAX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in self._programs.values():
            program.kill()
            program.wait()
            if program.stdin is not None:
                program.stdin.close()
        for reader in self._readers:
            reader.join()

    def trouble(self, name: str) -> None:
        """Say what is done to the cluster from now on."""
        self._trouble = name

    def go_on(self, *, deadline_s: float = _AGAIN_S_MAX) -> None:
        """Wait until every program was served many times more; one that has ended is not served.

        Raises:
            TimeoutError: One was not.
        """
        targets = {name: told.served + _SERVED_AGAIN for name, told in self.told.items()}
        for name, target in targets.items():
            wait_until(
                lambda at=name, least=target: (
                    self.told[at].served >= least or self._programs[at].poll() is not None
                ),
                deadline_s=deadline_s,
                what=f"what {name} asks for in {self._trouble}",
            )

    def end(self) -> dict[str, Told]:
        """Have all programs find out whether everything is so; return what they were told.

        Raises:
            TimeoutError: One does not end.
        """
        self._trouble = "the end"
        for program in self._programs.values():
            # One that has ended by itself has said why.
            if program.poll() is None and program.stdin is not None:
                program.stdin.write("\n")
                program.stdin.flush()
        for name, program in self._programs.items():
            wait_until(
                lambda at=program: at.poll() is not None,
                deadline_s=_END_S_MAX,
                what=f"the end of {name}",
            )
        for reader in self._readers:
            reader.join()
        for name, told in self.told.items():
            verdict = self._verdicts.get(name, "nothing")
            if verdict.split()[0] not in {"ok", "passed"}:
                told.wrong = f"{verdict}:\n{self._logs[name].read_text()[-3_000:]}"
        return self.told

    def _read(self, name: str, lines: IO[str]) -> None:
        told = self.told[name]
        with lines:
            for line in lines:
                match line.split(maxsplit=3):
                    case ["served"]:
                        told.served += 1
                    case ["error", operation, code, text]:
                        error = _error(code, text.strip())
                        told.errors[self._trouble, operation, error] += 1
                    case _:
                        self._verdicts[name] = line


def _error(code: str, text: str) -> Error:
    """Return what an error comes down to: its code, and what the server or the client has said."""
    code = re.sub(r"[^A-Z]", "", code.upper())
    said = re.search(r"etcdserver: [^<\n]*", text)
    if _IS_GONE.search(text):
        return Error(code, GONE)
    # etcd has four words for it, and guesses which is right.
    words = said.group().partition(", possibly due to")[0].strip() if said else text
    return Error(code, re.sub(r"\d+", "#", words))
