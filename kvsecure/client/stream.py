"""One stream of a connection: requests in, answers out, an end that is always clean.

Owns: the queue of requests and the translation of the stream's end.
Never: opens itself again; what a broken stream means is for its user to say.
Keeps: when the stream is over, the thread that sent its requests ends too.
"""

import queue
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar, final

import grpc
from google.protobuf.message import Message

from kvsecure.client.errors import ClientError, error_of_call
from kvsecure.model.errors import Code
from kvsecure.model.secret import Secret

__all__ = ["Stream"]

Answer = TypeVar("Answer", bound=Message)


@final
class Stream(Generic[Answer]):
    """A stream in both directions. One thread may receive while others send or cancel.

    Attributes:
        endpoint: Where it goes.
        token: The token it was opened with.
    """

    def __init__(
        self,
        opener: Callable[[Iterable[Message]], Any],
        *,
        endpoint: str,
        token: Secret | None,
        changes: bool,
        failed: Callable[[ClientError], None],
    ) -> None:
        self.endpoint = endpoint
        self.token = token
        self._changes = changes
        self._failed = failed
        # None ends the requests.
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._call = opener(iter(self._requests.get, None))

    def send(self, request: Message) -> None:
        """Queue a request; whether it arrived is known by its answer."""
        self._requests.put(request)

    def half_close(self) -> None:
        """Say that no more requests come."""
        self._requests.put(None)

    def cancel(self) -> None:
        """End the stream now; whoever receives is told `CANCELLED`."""
        self._requests.put(None)
        self._call.cancel()

    def receive(self) -> Answer:
        """Return the next answer, however long it takes.

        Raises:
            ClientError: The stream broke, was refused, or was ended by the server.
        """
        answer = self.receive_or_end()
        if answer is None:
            raise self._broken(Code.UNAVAILABLE, "the server ended the stream")
        return answer

    def receive_or_end(self) -> Answer | None:
        """Return the next answer, or None when the server has ended the stream well.

        Raises:
            ClientError: The stream broke or was refused.
        """
        try:
            answer: Answer = next(self._call)
        except StopIteration:
            self._requests.put(None)
            return None
        except grpc.RpcError as raised:
            code, text = Code(raised.code().value[0]), raised.details() or raised.code().name
        else:
            return answer
        raise self._broken(code, text)

    def _broken(self, code: Code, text: str) -> ClientError:
        self._requests.put(None)
        error = error_of_call(code, text, endpoint=self.endpoint, changes=self._changes)
        self._failed(error)
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
