"""A stream that needs more than one answer frame.

Owns: what is queued on it, its send window, and what is left of its request.
Never: writes; the connection does.
Follows: RFC 9113 section 5.1.
"""

from collections import deque
from typing import final

from kvsecure.wire.h2.windows import ReceiveWindow

__all__ = ["Stream"]


@final
class Stream:
    """One stream; the connection keeps it while either side may still send."""

    __slots__ = (
        "content_left",
        "headers_sent",
        "lingers",
        "queue",
        "queued_bytes",
        "receive_window",
        "remote_ended",
        "send_window",
        "trailers",
        "was_full",
    )

    def __init__(self, send_window: int, receive_window: int, *, remote_ended: bool) -> None:
        self.send_window = send_window
        self.receive_window = ReceiveWindow(receive_window)
        self.remote_ended = remote_ended
        # Bytes of data that its content-length still promises; None if it gave none.
        self.content_left: int | None = None
        self.queue: deque[bytes | memoryview] = deque()
        self.queued_bytes = 0
        # The header block that ends it, once there is one.
        self.trailers: bytes | None = None
        self.headers_sent = False
        # Whether its answer does not end before its request has, or not at once.
        self.lingers = False
        # Whether its producer was told to wait.
        self.was_full = False
