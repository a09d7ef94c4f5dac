"""Scenario files: etcdctl commands as plain text, run against a member into a transcript.

    # a comment
    put /app/a 1                    one etcdctl command, split as a shell would
    txn                             what the command reads follows on lines that start with |
    | mod("/app/a") > "0"
    |
    @as web some-long-password      later commands run as this user; `@as root`, `@as nobody`
    @background w                   the next command runs in the background under this name
    @wait w 2 /app/a                until its output has the text twice
    @type w                         the following | lines are typed into it
    @stop w                         end it and print what it said
    @save LEASE                     keep the 16 hex digits of the last output as $LEASE

Lines that start with = after a command are what kvsecure prints where it differs from etcd on
purpose; the comment above the command says why.

Owns: the language, and the form of a transcript.
Never: judges an output; two transcripts are compared by the tests.
"""

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from support.etcdctl import ROOT, Background, Credentials, Etcdctl, Outcome
from support.normal import Normaliser
from support.servers import Member

__all__ = ["Played", "ScenarioError", "Step", "parse", "play"]

_HEX_ID: Final = re.compile(r"\b[0-9a-f]{16}\b")


@final
class ScenarioError(Exception):
    """A scenario file says something that cannot be done."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a scenario with the input that follows it."""

    line: int
    text: str
    stdin: bytes = b""
    # What kvsecure prints, where that is not what etcd prints.
    ours: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A step, and what it printed."""

    step: Step
    printed: list[str]


def parse(source: str) -> list[Step]:
    """Return the steps of a scenario file.

    Raises:
        ScenarioError: Input lines that belong to no command.
    """
    steps: list[Step] = []
    for number, line in enumerate(source.splitlines(), start=1):
        if line.startswith(("|", "=")):
            if not steps:
                raise ScenarioError(f"line {number}: it belongs to no command")
            content = line[1:].removeprefix(" ")
            last = steps[-1]
            if line.startswith("|"):
                steps[-1] = replace(last, stdin=last.stdin + f"{content}\n".encode())
            else:
                steps[-1] = replace(last, ours=(*last.ours, content))
        elif line.strip() and not line.startswith("#"):
            steps.append(Step(line=number, text=line.strip()))
    return steps


def play(scenario: Path, member: Member) -> list[Played]:
    """Run a scenario against a member and return what each step printed.

    Raises:
        ScenarioError: The scenario is wrong.
        TimeoutError: What was waited for did not come.
    """
    player = _Player(member)
    try:
        return [
            Played(step=step, printed=player.play(step)) for step in parse(scenario.read_text())
        ]
    finally:
        player.close()


@final
class _Player:
    """A run of one scenario: who is acting, what is saved, what runs in the background."""

    def __init__(self, member: Member) -> None:
        self._etcdctl = Etcdctl(member)
        self._normaliser = Normaliser.of_member(member)
        self._credentials = ROOT
        self._saved: dict[str, str] = {}
        self._background: dict[str, Background] = {}
        self._next_name = ""
        self._last = ""

    def play(self, step: Step) -> list[str]:
        """Do one step and return what it printed."""
        if not step.text.startswith("@"):
            return self._command(step)
        verb, *words = step.text.split()
        try:
            return self._direct(verb, words, step)
        except (KeyError, ValueError) as error:
            raise ScenarioError(f"line {step.line}: {step.text}: {error!r}") from error

    def close(self) -> None:
        """End what still runs in the background."""
        for background in self._background.values():
            background.stop()

    def _command(self, step: Step) -> list[str]:
        arguments = [self._expand(word) for word in shlex.split(step.text)]
        if self._next_name:
            self._background[self._next_name] = self._etcdctl.start(
                arguments, credentials=self._credentials, stdin=step.stdin
            )
            self._next_name = ""
            return []
        outcome = self._etcdctl.run(arguments, credentials=self._credentials, stdin=step.stdin)
        self._last = outcome.stdout.decode(errors="replace")
        if arguments[:2] == ["lease", "grant"]:
            self._normaliser.learn_lease(outcome.stdout)
        return self._printed(arguments, outcome)

    def _direct(self, verb: str, words: list[str], step: Step) -> list[str]:
        match verb, words:
            case "@as", ["root"]:
                self._credentials = ROOT
            case "@as", ["nobody"]:
                self._credentials = Credentials()
            case "@as", [user, password]:
                self._credentials = Credentials(user=user, password=password)
            case "@background", [name]:
                self._next_name = name
            case "@wait", [name, count, *text]:
                self._background[name].wait_for(" ".join(text).encode(), count=int(count))
            case "@type", [name]:
                self._background[name].send(step.stdin)
            case "@stop", [name]:
                return self._printed(["watch"], self._background.pop(name).stop())
            case "@save", [name]:
                self._saved[name] = self._identifier()
            case _:
                raise ValueError("no such directive")
        return []

    def _identifier(self) -> str:
        found = _HEX_ID.search(self._last)
        # Where there is none the command failed, and its own output shows that.
        return found[0] if found else "0" * 16

    def _expand(self, word: str) -> str:
        for name, value in self._saved.items():
            word = word.replace(f"${name}", value)
        return word

    def _printed(self, arguments: list[str], outcome: Outcome) -> list[str]:
        errors = self._normaliser.text(outcome.stderr.decode(errors="backslashreplace"))
        return [
            *self._normaliser.stdout(arguments, outcome.stdout),
            *(f"! {line}" for line in errors.splitlines()),
            f"[exit {outcome.status}]",
        ]
