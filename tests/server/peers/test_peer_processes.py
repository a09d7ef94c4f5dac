"""Three members in three processes: they find each other, talk, stream, and notice an end."""

import contextlib
import os
import signal
import sys
from pathlib import Path

from server.peers.lab import Lab
from support.processes import ServerProcess, free_ports, wait_until

_PROGRAM = Path(__file__).with_name("solitary.py")
_ROOT = Path(__file__).parents[3]


def test_three_processes_talk_and_notice_who_is_gone_and_who_is_back(tmp_path: Path) -> None:
    """Nothing is lost or out of order between them; a stopped one is gone by its silence."""
    lab = Lab(tmp_path)
    ports = free_ports(3)
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with contextlib.ExitStack() as running:
        members = {}
        for number in (1, 2, 3):
            lab.show(f"m{number}")
            members[number] = ServerProcess(
                [sys.executable, str(_PROGRAM), str(tmp_path), str(number), *map(str, ports)],
                log=tmp_path / f"{number}.log",
                ready=b"up ",
                environment=environment,
            )
            running.callback(members[number].close)
        for member in members.values():
            member.spawn()

        def lines(number: int) -> list[str]:
            return members[number].log().decode().splitlines()

        def said(number: int, *facts: str) -> bool:
            return set(facts) <= set(lines(number))

        size_bytes = 32 << 20
        for number, sender in ((1, 2), (1, 3), (2, 1)):
            fact = f"stream {sender} from {sender} {size_bytes}"
            wait_until(lambda n=number, f=fact: said(n, f), deadline_s=40, what=fact)
        for number in members:
            facts = [f"heard {other}" for other in members if other != number]
            wait_until(lambda n=number, f=facts: said(n, *f), deadline_s=40, what="all messages")
            assert not [line for line in lines(number) if line.startswith(("gap", "down"))]

        os.kill(members[3].pid, signal.SIGSTOP)
        for number in (1, 2):
            wait_until(lambda n=number: said(n, "down 3"), deadline_s=20, what="the silence")
        os.kill(members[3].pid, signal.SIGCONT)
        for number in (1, 2):
            wait_until(
                lambda n=number: lines(n).count("up 3") == 2, deadline_s=20, what="it to be back"
            )
        members[3].kill9()
        for number in (1, 2):
            wait_until(
                lambda n=number: lines(n).count("down 3") == 2, deadline_s=20, what="its end"
            )
            assert not said(number, "down 1")
            assert not said(number, "down 2")
