"""The wire of the campaign loses what it is told to lose, and nothing else."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cluster.wire import HERE, Rules, Wire

_DEADLINE_S = 20.0
_PORT = 4_000
_MARK = b"mark"
# Tells two hosts the same numbers, again and again.
_TELL = """
import socket, sys, time
teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = 0
while True:
    number += 1
    for address in sys.argv[1:]:
        teller.sendto(b"%d" % number, (address, 4000))
    # The wire passes on a few thousand packets a second.
    time.sleep(0.002)
"""
# Passes on what it hears.
_PASS_ON = """
import socket, sys
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("", 4000))
while True:
    ear.sendto(b"second:" + ear.recv(100), (sys.argv[1], 4000))
"""


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Two hosts: the first tells us and the second, and the second passes on to us."""
    if not Wire.is_possible():
        pytest.skip("hosts are namespaces on TUN devices: that takes root, ip and nsenter")
    with Wire(2, seed=1) as wire:
        here, second = wire.address(HERE), wire.address(2)
        running = [
            subprocess.Popen([*wire.prefix(host), sys.executable, "-c", program, *addresses])
            for host, program, addresses in ((2, _PASS_ON, (here,)), (1, _TELL, (here, second)))
        ]
        yield wire
        for process in running:
            process.kill()
            process.wait()


def _comes_through(wire: Wire, ear: socket.socket, rules: Rules) -> bool:
    """Tell whether the second host hears the first one by these rules."""
    wire.set(rules)
    # What was on its way comes before the mark; behind it the first host speaks ten times.
    ear.sendto(_MARK, (wire.address(2), _PORT))
    while ear.recv(100) != b"second:" + _MARK:
        pass
    told, passed_on = 0, 0
    while told < 10:
        is_second = ear.recv(100).startswith(b"second:")
        passed_on += is_second
        told += not is_second
    # And what the second host has to say of it comes before its second mark.
    ear.sendto(_MARK, (wire.address(2), _PORT))
    while (heard := ear.recv(100)) != b"second:" + _MARK:
        passed_on += heard.startswith(b"second:")
    return passed_on > 0


@pytest.mark.parametrize(
    ("rules", "comes_through"),
    [
        (Rules(), True),
        (Rules(cut=frozenset({(1, 2)})), False),
        (Rules(cut=frozenset({(2, 1)})), True),
        (Rules(cut=Rules.apart([1], [2])), False),
        (Rules(lost=1.0), False),
        (Rules(late_s=0.001, later_s=0.001), True),
    ],
    ids=["none", "cut", "cut the other way", "apart", "lost", "late"],
)
def test_wire_carries_what_its_rules_let_through(
    wire: Wire, rules: Rules, *, comes_through: bool
) -> None:
    """Rules hold from when they are set, and in the direction that they name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((wire.address(HERE), _PORT))
        ear.settimeout(_DEADLINE_S)
        # Both hosts are there.
        while not ear.recv(100).startswith(b"second:"):
            pass

        assert _comes_through(wire, ear, rules) is comes_through
        assert _comes_through(wire, ear, Rules())
