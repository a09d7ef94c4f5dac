"""etcd's API for tests of clients: a server that answers by a script, and clients of real members.

Owns: the scripted server, and how a client of a real one is made.
Never: replaces a part of the client; the scripted server is a real gRPC server.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import grpc
from google.protobuf.message import Message
from support.servers import ROOT_PASSWORD, Member

from kvsecure.client import Client, Secret
from kvsecure.client.methods import Shape, every_method

__all__ = ["ScriptedServer", "Seen", "Step", "open_client"]


def open_client(member: Member, user: str = "root", password: str = ROOT_PASSWORD) -> Client:
    """Return a client of a member."""
    return Client.open(
        member.endpoint,
        ca_file=str(member.authority.certificate),
        user=user,
        password=Secret.of_text(password),
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it arrived."""

    path: str
    request: Message
    token: str


Step = Message | tuple[grpc.StatusCode, str]


@final
class ScriptedServer:
    """A gRPC server whose answers are given in advance, in order, for each path."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._steps: dict[str, list[Step | Sequence[Step]]] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((_Router(self._answer),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server.start()

    def script(self, path: str, *steps: Step | Sequence[Step]) -> None:
        """Append answers for a path; for a stream one step is all the answers to one opening."""
        self._steps.setdefault(path, []).extend(steps)

    def calls_of(self, path: str) -> list[Seen]:
        """Return what arrived at a path."""
        with self._lock:
            return [seen for seen in self.seen if seen.path == path]

    def _answer(self, path: str, request: Message, token: str) -> Step | Sequence[Step]:
        with self._lock:
            self.seen.append(Seen(path=path, request=request, token=token))
            steps = self._steps.get(path)
            if steps is None:
                # As a server that has no such method.
                return (grpc.StatusCode.UNIMPLEMENTED, "unknown method")
            return steps.pop(0) if steps else (grpc.StatusCode.ABORTED, "the script is over")

    def close(self) -> None:
        """Stop serving."""
        self._server.stop(None).wait()


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no stubs
    """Leads every known path to the script."""

    def __init__(self, answer: Callable[[str, Message, str], Step | Sequence[Step]]) -> None:
        self._answer = answer
        self._methods = {method.path: method for method in every_method()}

    def service(self, details: Any) -> Any:
        """Return the handler of a path."""
        method = self._methods[details.method]
        token = dict(details.invocation_metadata).get("token", "")

        def unary(request: Message, context: Any) -> Message:
            step = self._answer(method.path, request, token)
            return _carry_out(step, context)

        def stream(requests: Iterator[Message], context: Any) -> Iterator[Message]:
            steps = self._answer(method.path, next(requests), token)
            for step in steps if isinstance(steps, list) else [steps]:
                yield _carry_out(step, context)
            # Like a server, wait for what happens next: here, the client's end.
            for _ in requests:
                pass

        make = (
            grpc.unary_unary_rpc_method_handler
            if method.shape is Shape.UNARY
            else grpc.stream_stream_rpc_method_handler
        )
        return make(
            unary if method.shape is Shape.UNARY else stream,
            request_deserializer=method.request.FromString,
            response_serializer=method.answer.SerializeToString,
        )


def _carry_out(step: Any, context: Any) -> Message:
    if isinstance(step, tuple):
        context.abort(*step)
    answer: Message = step
    return answer
