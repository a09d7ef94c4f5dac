"""One HTTP/1.1 connection of the server: for the pages of the observatory.

Owns: HTTP/1.1 by way of h11.
Never: touches a socket; it is given bytes and a place to write them.
Follows: RFC 9112; a request's body is not wanted and ends the connection.
Keeps: a connection on which nothing was answered for a while ends, whatever drips in.
"""

from collections.abc import Callable
from typing import Final, final

import h11

from kvsecure.server.observatory import Page

__all__ = ["Http1Session"]

_EVENT_BYTES_MAX: Final = 16 * 1024
# A request that takes longer to come is not one; those who ask again do so more often.
_IDLE_S_MAX: Final = 60
# Requests of one read that are answered; a page is larger than its request by far, and the peer has
# not read any of them yet.
_REQUESTS_PER_READ_MAX: Final = 16
_METHOD_NOT_ALLOWED: Final = Page(405, "text/plain; charset=utf-8", b"Method Not Allowed\n")
_BAD_REQUEST: Final = Page(400, "text/plain; charset=utf-8", b"Bad Request\n")


@final
class Http1Session:
    """A connection."""

    __slots__ = ("_connection", "_idle_s", "_left_count", "_page", "_write", "is_over")

    def __init__(self, page: Callable[[str], Page], write: Callable[[bytes], None]) -> None:
        self._page = page
        self._write = write
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_EVENT_BYTES_MAX)
        # Seconds since the last answer.
        self._idle_s = 0
        # How many requests of this read may still be answered.
        self._left_count = 0
        # Whether the connection is to be closed.
        self.is_over = False

    def receive(self, data: bytes) -> None:
        """Take in bytes."""
        self._left_count = _REQUESTS_PER_READ_MAX
        try:
            self._connection.receive_data(data)
            while not self.is_over and self._step():
                pass
        except h11.RemoteProtocolError:
            self.is_over = True
            if self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._answer(_BAD_REQUEST, with_body=True)

    def second(self) -> None:
        """Take note that a second has passed."""
        self._idle_s += 1
        if self._idle_s >= _IDLE_S_MAX:
            self.is_over = True

    def _step(self) -> bool:
        event = self._connection.next_event()
        match event:
            case h11.Request():
                self._request(event)
                return True
            case h11.EndOfMessage():
                if self._connection.our_state is h11.DONE:
                    self._connection.start_next_cycle()
                elif self._connection.our_state is h11.MUST_CLOSE:
                    # The peer asked for it, or speaks HTTP/1.0, and waits for the end.
                    self.is_over = True
                return True
            case h11.NEED_DATA:
                return False
            case h11.PAUSED:
                self._connection.start_next_cycle()
                return True
            case _:
                # A body, or the end of the connection.
                self.is_over = True
                return False

    def _request(self, request: h11.Request) -> None:
        if request.method not in (b"GET", b"HEAD"):
            self.is_over = True
            self._answer(_METHOD_NOT_ALLOWED, with_body=True)
            return
        self._left_count -= 1
        if not self._left_count:
            # Who sends more at once may come again.
            self.is_over = True
        if any(_announces_body(name, value) for name, value in request.headers):
            # RFC 9112 section 6.3: what follows may be a body or a request, as somebody else sees
            # it; it is neither here.
            self.is_over = True
        page = self._page(request.target.decode("latin-1"))
        self._answer(page, with_body=request.method == b"GET")

    def _answer(self, page: Page, *, with_body: bool) -> None:
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if self.is_over:
            headers.append(("Connection", "close"))
        send = self._connection.send
        parts = [send(h11.Response(status_code=page.status, headers=headers))]
        if with_body:
            parts.append(send(h11.Data(data=page.body)))
        parts.append(send(h11.EndOfMessage()))
        self._idle_s = 0
        self._write(b"".join(part or b"" for part in parts))


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
