"""Watches of a measurement: until they are there.

Owns: waiting for a stream's watches to be made.
Never: measures.
"""

from typing import Final

from bench.load import LoadError
from bench.rawstream import RawStream

from kvsecure.proto import watch_pb2

__all__ = ["await_watches"]

_SETUP_S_MAX: Final = 30.0


def await_watches(stream: RawStream, count: int) -> None:
    """Wait until so many watches of a stream have been made.

    Raises:
        LoadError: One was refused, or the connection was closed.
    """
    stream.socket.settimeout(_SETUP_S_MAX)
    created = 0
    while created < count:
        if not stream.receive():
            raise LoadError("the connection was closed before the watches were made")
        for message in stream.messages():
            response = watch_pb2.WatchResponse.FromString(message)
            if response.canceled:
                raise LoadError(f"a watch was refused: {response.cancel_reason}")
            created += response.created
