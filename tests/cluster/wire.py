"""The wire between hosts that are network namespaces: packets pass a process that may lose them.

    Wire                   namespaces with an address each, and this machine as one more host
      set(Rules)           from now on: who is cut off from whom, how many are lost, how late
      is_possible()          whether this machine and this user can have one
    python -m cluster.wire   the process that passes packets on; `Wire` starts it

Owns: namespaces, their TUN devices, and the fate of every packet between them.
Never: needs more of the kernel than TUN and namespaces; qdiscs and filters that lose and delay are
    not in every kernel.
Keeps: rules are of directions, so that somebody may hear who is not heard; between this machine and
    the others nothing is lost unless it is cut.
"""

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import secrets
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

__all__ = ["HERE", "Rules", "Wire"]

# The number of this machine among the hosts.
HERE: Final = 254
_NAMESPACES: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_PACKET_BYTES_MAX: Final = 65_536
# Where the last byte of the recipient stands in an IPv4 packet.
_RECIPIENT: Final = 19
_QUEUED_MAX: Final = 20_000
_READY: Final = "ready\n"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What becomes of packets."""

    # From whom to whom nothing comes through.
    cut: frozenset[tuple[int, int]] = frozenset()
    # Of how many packets between the other hosts each is lost, from 0 to 1.
    lost: float = 0.0
    # How long such a packet takes at least, and how much longer by chance.
    late_s: float = 0.0
    later_s: float = 0.0

    @staticmethod
    def apart(some: Iterable[int], others: Iterable[int]) -> frozenset[tuple[int, int]]:
        """Return the cut between two groups, in both directions."""
        pairs = [(one, other) for one in some for other in others]
        return frozenset(pairs) | {(other, one) for one, other in pairs}


@final
class Wire:
    """Hosts 1 to n, and this machine, on one wire."""

    def __init__(self, hosts: int, seed: int) -> None:
        """Prepare; there is nothing yet.

        Args:
            hosts: How many.
            seed: Decides which packets are lost.
        """
        self._tag = secrets.token_hex(2)
        self._net = f"198.18.{secrets.randbelow(256)}"
        self._hosts = range(1, hosts + 1)
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None

    @staticmethod
    def is_possible() -> bool:
        """Whether there are namespaces and TUN devices for this user."""
        return (
            os.geteuid() == 0
            and Path("/dev/net/tun").exists()
            and all(shutil.which(program) for program in ("ip", "nsenter"))
        )

    def address(self, host: int) -> str:
        """Return the address of a host."""
        return f"{self._net}.{host}"

    def prefix(self, host: int) -> tuple[str, ...]:
        """Return what a command begins with that is to run there."""
        return ("nsenter", f"--net={_NAMESPACES / self._namespace(host)}")

    def __enter__(self) -> Self:
        try:
            for host in self._hosts:
                _run("ip", "netns", "add", self._namespace(host))
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def set(self, rules: Rules) -> None:
        """Have every packet that is taken from now on go by these rules."""
        told = {"cut": sorted(rules.cut), "lost": rules.lost}
        self._tell(told | {"late_s": rules.late_s, "later_s": rules.later_s})

    def _namespace(self, host: int) -> str:
        return f"kvs-{self._tag}-{host}"

    def _device(self, host: int) -> str:
        return f"kvs{self._tag}{host}"

    def _start(self) -> None:
        here = Path(__file__).parent.parent
        devices = {host: (self._device(host), self._namespace(host)) for host in self._hosts}
        told = json.dumps({"devices": devices, "here": self._device(HERE), "seed": self._seed})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.wire", told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(here)},
            start_new_session=True,
        )
        self._hear()
        for host in (*self._hosts, HERE):
            within = () if host == HERE else ("ip", "netns", "exec", self._namespace(host))
            device = self._device(host)
            _run(*within, "ip", "address", "add", f"{self.address(host)}/24", "dev", device)
            _run(*within, "ip", "link", "set", "dev", device, "mtu", "9000", "up")
            if within:
                _run(*within, "ip", "link", "set", "dev", "lo", "up")

    def _tell(self, told: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(told)}\n")
        self._process.stdin.flush()
        self._hear()

    def _hear(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == _READY, "the process of the wire has ended"

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        for host in self._hosts:
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", self._namespace(host))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


# --- the process ----------------------------------------------------------------------------------


@final
class _Passing:
    """Takes packets from one host and gives them to another."""

    def __init__(self, ends: dict[int, int], seed: int) -> None:
        self._ends = ends
        self._chance = random.Random(seed)
        self._cut: frozenset[tuple[int, int]] = frozenset()
        self._lost = 0.0
        self._late_s = 0.0
        self._later_s = 0.0
        self._queued: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def take_rules(self, told: dict[str, Any]) -> None:
        """Go by other rules."""
        self._cut = frozenset((one, other) for one, other in told["cut"])
        self._lost, self._late_s, self._later_s = told["lost"], told["late_s"], told["later_s"]

    def take_packets(self, host: int) -> None:
        """Take what a host has sent."""
        end = self._ends[host]
        for _ in range(64):
            try:
                packet = os.read(end, _PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self._pass(host, packet[_RECIPIENT], packet)

    def wait_s(self) -> float:
        """Return how long there is nothing to do, at most a second."""
        if not self._queued:
            return 1.0
        return max(0.0, min(1.0, self._queued[0][0] - time.monotonic()))

    def deliver(self) -> None:
        """Give away what has been late for long enough."""
        now = time.monotonic()
        while self._queued and self._queued[0][0] <= now:
            _, _, recipient, packet = heapq.heappop(self._queued)
            self._give(recipient, packet)

    def _pass(self, sender: int, recipient: int, packet: bytes) -> None:
        if recipient not in self._ends or (sender, recipient) in self._cut:
            return
        if HERE in {sender, recipient}:
            self._give(recipient, packet)
            return
        if self._lost and self._chance.random() < self._lost:
            return
        late_s = self._late_s + self._later_s * self._chance.random()
        if not late_s:
            self._give(recipient, packet)
        elif len(self._queued) < _QUEUED_MAX:
            self._count += 1
            due = time.monotonic() + late_s
            heapq.heappush(self._queued, (due, self._count, recipient, packet))

    def _give(self, recipient: int, packet: bytes) -> None:
        # A full queue loses packets, as anywhere.
        with contextlib.suppress(OSError):
            os.write(self._ends[recipient], packet)


def _tun(device: str, namespace: str | None) -> int:
    """Make a TUN device, in a namespace or here; return its end."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    if namespace is not None:
        there = os.open(_NAMESPACES / namespace, os.O_RDONLY)
        assert libc.setns(there, _CLONE_NEWNET) == 0
        os.close(there)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN_NO_PI))
    assert libc.setns(home, _CLONE_NEWNET) == 0
    os.close(home)
    return end


def _main() -> None:
    """Pass packets on until standard input ends; each line of it is rules."""
    told = json.loads(sys.argv[1])
    ends = {int(host): _tun(*where) for host, where in told["devices"].items()}
    ends[HERE] = _tun(told["here"], None)
    passing = _Passing(ends, told["seed"])
    poll = select.epoll()
    hosts = {end: host for host, end in ends.items()}
    for end in hosts:
        poll.register(end, select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    _say_ready()
    while True:
        for end, _ in poll.poll(passing.wait_s()):
            if end in hosts:
                passing.take_packets(hosts[end])
                continue
            line = sys.stdin.readline()
            if not line:
                return
            passing.take_rules(json.loads(line))
            _say_ready()
        passing.deliver()


def _say_ready() -> None:
    sys.stdout.write(_READY)
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
