"""A DNS server for tests: real questions and answers over UDP and TCP on loopback.

    NameServer     a zone that a test writes, and how often it was asked
      resolver()   asks this server and no other

Owns: the sockets and threads of the server, and answers that are wrong on purpose.
Never: asks anybody else.
Keeps: a name without records is NXDOMAIN, one with others is empty; what does not fit into a
    datagram is cut and comes by TCP.
"""

import contextlib
import socket
import struct
import threading
from collections import Counter
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
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        self.address, self.port = self._udp.getsockname()
        self._tcp = socket.create_server((address, self.port))
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
