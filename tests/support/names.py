"""A DNS server for tests: real questions and answers over UDP and TCP on loopback.

    NameServer     a zone that a test writes, and how often it was asked
      resolver()   asks this server and no other
      for_programs()   a server that programs ask that are started with its prefix

Owns: the sockets and threads of the server, and answers that are wrong on purpose.
Never: asks anybody else.
Keeps: a name without records is NXDOMAIN, one with others is empty; what does not fit into a
    datagram is cut and comes by TCP.
"""

import contextlib
import ipaddress
import os
import secrets
import shutil
import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset

__all__ = ["NameServer"]

_DATAGRAM_BYTES_MAX: Final = 512
_TTL_S: Final = 0
_DNS_PORT: Final = 53
# A program that sees another resolv.conf, and this machine's network.
_WITH_RESOLV: Final = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


@final
class NameServer:
    """One server, while it is open."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; nobody is answered yet.

        Args:
            address: Of loopback.
            port: 0 for one that is free.
        """
        self.asked: Counter[str] = Counter()
        # A server that hears and says nothing.
        self.is_silent = False
        self._records: dict[tuple[str, str], list[str]] = {}
        self._udp, self._tcp = _listening(address, port)
        self.address, self.port = self._udp.getsockname()
        self._threads = [
            threading.Thread(target=serve, daemon=True) for serve in (self._datagrams, self._calls)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for listening in (self._udp, self._tcp):
            # Whoever waits in it wakes up; closing alone would not tell them.
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for listening in (self._udp, self._tcp):
            listening.close()

    @staticmethod
    def programs_can_be_led() -> bool:
        """Whether this user can start programs with a resolv.conf of their own."""
        if os.geteuid() != 0 or not shutil.which("unshare"):
            return False
        tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
        return not tried.returncode

    @classmethod
    def for_programs(cls) -> Self:
        """Return a server where resolv.conf can name it: port 53 of an address of its own."""
        address = ipaddress.IPv4Address("127.53.0.0") + secrets.randbelow(1 << 16)
        return cls(str(address), _DNS_PORT)

    def prefix(self, directory: Path) -> tuple[str, ...]:
        """Return what a command begins with that is to ask this server.

        Args:
            directory: Where its resolv.conf may lie.
        """
        resolv = directory / "resolv.conf"
        resolv.write_text(f"nameserver {self.address}\n")
        return ("unshare", "--mount", "sh", "-c", _WITH_RESOLV, str(resolv))

    def say(self, name: str, kind: str, *texts: str) -> None:
        """Have these be the records of a name: `say("a.test", "A", "127.0.0.1")`."""
        self._records[name, kind] = list(texts)

    def resolver(self) -> dns.resolver.Resolver:
        """Return what asks this server."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [self.address]
        resolver.port = self.port
        return resolver

    def _datagrams(self) -> None:
        while True:
            try:
                question, sender = self._udp.recvfrom(4_096)
            except OSError:
                return
            # A datagram of a shutdown is empty.
            if not question:
                return
            answer = self._answer(question)
            if answer is None:
                continue
            wire = answer.to_wire(max_size=65_535)
            if len(wire) > _DATAGRAM_BYTES_MAX:
                answer.answer = []
                answer.flags |= dns.flags.TC
                wire = answer.to_wire()
            self._udp.sendto(wire, sender)

    def _calls(self) -> None:
        while True:
            try:
                call, _ = self._tcp.accept()
            except OSError:
                return
            with call, call.makefile("rwb") as stream:
                head = stream.read(2)
                if len(head) < 2:
                    continue
                answer = self._answer(stream.read(*struct.unpack("!H", head)))
                if answer is not None:
                    wire = answer.to_wire(max_size=65_535)
                    stream.write(struct.pack("!H", len(wire)) + wire)

    def _answer(self, content: bytes) -> dns.message.Message | None:
        question = dns.message.from_wire(content)
        (asked,) = question.question
        name = asked.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(asked.rdtype)
        self.asked[name] += 1
        if self.is_silent:
            return None
        answer = dns.message.make_response(question)
        answer.use_edns(False)
        texts = self._records.get((name, kind), [])
        if texts:
            answer.answer.append(dns.rrset.from_text_list(asked.name, _TTL_S, "IN", kind, texts))
        elif not any(known == name for known, _ in self._records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer


def _listening(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a socket for datagrams and one for calls, on one port."""
    while True:
        calls = socket.create_server((address, port))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagrams.bind(calls.getsockname())
        except OSError:
            # Free for calls, and not for datagrams: another one.
            calls.close()
            datagrams.close()
            if port:
                raise
        else:
            return datagrams, calls
