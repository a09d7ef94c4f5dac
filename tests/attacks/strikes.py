"""How attacks are made: bytes that are made once, connections that send them, and what they meet.

    flooding     floods the member with words on one connection
    holding      makes the member hold something, and leaves it at that

Owns: single attempts over real sockets, and reading from what is left how they ended.
Never: knows which attack it is; the table does.
"""

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable

from attacks.attack import Ground, Struck
from wire.rawframes import GOAWAY, Frame, begin
from wire.socket_peer import call_fields

from kvsecure.wire.h2.frames import ErrorCode

__all__ = [
    "calling",
    "crowding",
    "dripping",
    "dropping",
    "flooding",
    "holding",
    "shaking_halfway",
]

Words = Callable[[Ground], bytes]
Strike = Callable[[Ground], Struck]
_HTTP2_WIDE = [(4, (1 << 31) - 1)]
# How long an attempt waits for what it meets with.
_ANSWER_S = 10.0
_DRIP_S = 0.05


def flooding(words: Words, *, changes: Iterable[tuple[int, int]] = _HTTP2_WIDE) -> Strike:
    """Return attempts that send words as fast as they are taken, and see how the member ends it.

    Args:
        words: Made once for each attempt.
        changes: The settings that the attacker begins with.
    """

    def strike(ground: Ground) -> Struck:
        said = begin(changes) + words(ground)
        with ground.peer() as peer:
            return _verdict(*peer.pour(said, ground.until_s + _ANSWER_S))

    return strike


def holding(
    words: Words,
    *,
    changes: Iterable[tuple[int, int]] = _HTTP2_WIDE,
    reads: bool = False,
    receive_bytes: int = 4_096,
) -> Strike:
    """Return attempts that send words and then wait, reading or not, until time is up.

    Args:
        words: Made once for each attempt.
        changes: The settings that the attacker begins with.
        reads: Whether what comes is read.
        receive_bytes: What the kernel keeps for an attacker that does not read.
    """

    def strike(ground: Ground) -> Struck:
        said = begin(changes) + words(ground)
        with ground.peer(receive_bytes=None if reads else receive_bytes) as peer:
            if reads:
                return _verdict(*peer.pour(said, ground.until_s))
            peer.sock.settimeout(max(ground.left_s, 0.1))
            try:
                peer.send(said)
            except TimeoutError:
                return Counter(("held: not read from any more",))
            except OSError:
                return Counter(("closed",))
            threading.Event().wait(ground.left_s)
            return Counter(("held",))

    return strike


def calling(path: str, content: Callable[[], bytes], **fields: str) -> Strike:
    """Return attempts that make one call of gRPC, and see its status."""

    def strike(ground: Ground) -> Struck:
        said = content()
        with ground.peer() as peer:
            peer.begin(_HTTP2_WIDE)
            peer.send(peer.request(1, call_fields(path, ground.token, **fields), said))
            answered = peer.answer(1)
            return Counter((f"status {answered.status[0]}",))

    return strike


def dripping(words: Words, count: int, *, alpn: str = "h2") -> Strike:
    """Return attempts by many connections that send their words one byte at a time."""

    def strike(ground: Ground) -> Struck:
        said = words(ground)
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(ground.peer(alpn=alpn)) for _ in range(count)]
            for byte in said:
                if not ground.left_s:
                    break
                for peer in peers:
                    with contextlib.suppress(OSError):
                        peer.send(bytes((byte,)))
                threading.Event().wait(_DRIP_S if alpn != "h2" else 0)
            closed = sum(_is_closed(peer.sock) for peer in peers)
            return Counter({"held": count - closed, "closed": closed}) + Counter()

    return strike


def dropping(words: Words) -> Strike:
    """Return attempts that hang up in the middle of their words."""

    def strike(ground: Ground) -> Struck:
        with ground.peer() as peer, contextlib.suppress(OSError):
            peer.send(begin(_HTTP2_WIDE), words(ground))
        return Counter(("dropped",))

    return strike


def shaking_halfway(count: int) -> Strike:
    """Return attempts that begin handshakes and do not go on with them."""

    def strike(ground: Ground) -> Struck:
        hello = _client_hello()
        with contextlib.ExitStack() as stack:
            socks = []
            for number in range(count):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", ground.port)))
                # Some say nothing, some a part, some everything but the last message.
                sock.sendall(hello[: number % 3 * len(hello) // 2])
                socks.append(sock)
            threading.Event().wait(ground.left_s)
            closed = sum(_is_closed(sock) for sock in socks)
            return Counter({"held": count - closed, "closed": closed}) + Counter()

    return strike


def crowding(count: int) -> Strike:
    """Return attempts that shake hands and hang up, over and over."""

    def strike(ground: Ground) -> Struck:
        for _ in range(count):
            if not ground.left_s:
                break
            ground.peer().close()
        return Counter(("served",))

    return strike


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _is_closed(sock: socket.socket) -> bool:
    """Tell whether the member has hung up; what it has said before that is passed over."""
    sock.settimeout(0)
    try:
        while sock.recv(1 << 16):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


def _verdict(frames: list[Frame], ended: bool) -> Struck:  # noqa: FBT001 - as it was returned
    """Return what a connection met with in the end."""
    for frame in reversed(frames):
        if frame.type == GOAWAY and any(frame.payload[4:8]):
            code = ErrorCode(int.from_bytes(frame.payload[4:8], "big"))
            return Counter((f"GOAWAY {code.name}",))
    return Counter(("closed",) if ended else ("served",))
