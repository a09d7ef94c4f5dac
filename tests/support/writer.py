"""A process that writes numbered values for ever, and says of each what it tried and what came.

    stdin   one line of JSON: where, as whom; then `go` and `pause`, as often as wanted
    stdout  one JSON list a line:
            ["try", number, [[key, value], ...]]   before the call; value null is a delete
            ["ack", number, revision]              after the server said yes
            ["paused"]                             nothing is under way

Owns: the writes of one process; its keys begin with its name.
Never: uses a number twice, so a call whose fate is unknown stays one write or none.
"""

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any, Final, final

import grpc
from support.rpc import Client

from kvsecure.proto import kv_pb2

__all__ = ["KEYS", "keys_of_pair", "main"]

# Plain keys of one writer, beside its pair and the key that it deletes again and again.
KEYS: Final = 5
_CALL_S_MAX: Final = 5.0
_RETRY_S: Final = 0.01

Change = tuple[str, str | None]


def keys_of_pair(writer: str) -> tuple[str, str]:
    """Return the two keys that a writer only ever writes together."""
    return f"{writer}/pair/a", f"{writer}/pair/b"


@final
class _Writer:
    """The loop, and the gate that stops it between two calls."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings
        self._name = settings["name"]
        self._client: Client | None = None
        self._gate = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        number = 0
        while True:
            if not self._gate.is_set():
                _say("paused")
                self._gate.wait()
            number += 1
            try:
                self._write(number)
            except grpc.RpcError:
                # The fate of this number stays unknown; the token may have died with the server.
                self._forget_client()
                threading.Event().wait(_RETRY_S)

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == "go":
                self._gate.set()
            else:
                self._gate.clear()

    def _write(self, number: int) -> None:
        client = self._client or self._connect()
        changes = self._changes(number)
        _say("try", number, changes)
        answer = client.kv.Txn(_request(changes), timeout=_CALL_S_MAX)
        _say("ack", number, answer.header.revision)

    def _changes(self, number: int) -> list[Change]:
        value = f"{self._name}:{number}"
        match number % 4:
            case 0:
                return [(key, value) for key in keys_of_pair(self._name)]
            case 1 if number % 8 == 1:
                return [(f"{self._name}/come-and-go", value)]
            case 1:
                # The key is there unless the write before was lost; then the put makes a revision.
                return [(f"{self._name}/come-and-go", None), (f"{self._name}/gone", value)]
            case _:
                return [(f"{self._name}/{number % KEYS}", value)]

    def _connect(self) -> Client:
        settings = self._settings
        client = Client(settings["endpoint"], Path(settings["authority"]))
        self._client = client
        return client.login(settings["user"], settings["password"])

    def _forget_client(self) -> None:
        if self._client is not None:
            with contextlib.suppress(grpc.RpcError):
                self._client.close()
            self._client = None


def _request(changes: list[Change]) -> kv_pb2.TxnRequest:
    request = kv_pb2.TxnRequest()
    for key, value in changes:
        operation = request.success.add()
        if value is None:
            operation.request_delete_range.key = key.encode()
        else:
            operation.request_put.key = key.encode()
            operation.request_put.value = value.encode()
    return request


def _say(*words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the settings, then write until the process is killed."""
    _Writer(json.loads(sys.stdin.readline())).run()


if __name__ == "__main__":
    main()
