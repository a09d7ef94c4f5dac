"""A KMS plugin as Kubernetes has them: a gRPC server on a Unix socket that wraps keys.

    KmsPluginServer     serves Status, Encrypt and Decrypt; its keys and moods are the test's

Owns: a real, small plugin, with AES-GCM under keys of its own.
Never: speaks through kvsecure's code but the generated messages.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kvsecure.proto import kms_pb2

__all__ = ["KmsPluginServer"]

_SERVICE: Final = "v2.KeyManagementService"
_ANNOTATION: Final = "wrapped-by.kms.example.com"


@final
class KmsPluginServer:
    """One plugin; what it answers can be bent."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.version = "v2"
        self.health = "ok"
        self.key_id = "key-1"
        self.calls: list[str] = []
        # What it was given to wrap, to look for it on the disk.
        self.plaintexts: list[bytes] = []
        self.answers: dict[str, Any] = {}
        self._keys = {"key-1": AESGCM(os.urandom(32))}
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve."""
        server = grpc.server(ThreadPoolExecutor(2))
        methods = {
            "Status": (self._status, kms_pb2.StatusRequest),
            "Encrypt": (self._encrypt, kms_pb2.EncryptRequest),
            "Decrypt": (self._decrypt, kms_pb2.DecryptRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                serve,
                request_deserializer=request.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (serve, request) in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        server.add_insecure_port(f"unix:{self.socket}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """Go away; the socket is gone as well."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None
            self.socket.unlink(missing_ok=True)

    def rotate(self, key_id: str) -> None:
        """Wrap under a new key from now on; what the old ones wrapped still opens."""
        self._keys[key_id] = AESGCM(os.urandom(32))
        self.key_id = key_id

    def forget(self) -> None:
        """Have other keys under the same names."""
        self._keys = {name: AESGCM(os.urandom(32)) for name in self._keys}

    def _status(self, _: kms_pb2.StatusRequest, __: grpc.ServicerContext) -> Any:
        self.calls.append("Status")
        return kms_pb2.StatusResponse(version=self.version, healthz=self.health, key_id=self.key_id)

    def _encrypt(self, request: kms_pb2.EncryptRequest, _: grpc.ServicerContext) -> Any:
        self.calls.append("Encrypt")
        self.plaintexts.append(request.plaintext)
        if "Encrypt" in self.answers:
            return self.answers["Encrypt"]
        nonce = os.urandom(12)
        sealed = self._keys[self.key_id].encrypt(nonce, request.plaintext, None)
        return kms_pb2.EncryptResponse(
            ciphertext=nonce + sealed, key_id=self.key_id, annotations={_ANNOTATION: b"\x00\xff"}
        )

    def _decrypt(self, request: kms_pb2.DecryptRequest, context: grpc.ServicerContext) -> Any:
        self.calls.append("Decrypt")
        if "Decrypt" in self.answers:
            return self.answers["Decrypt"]
        if dict(request.annotations) != {_ANNOTATION: b"\x00\xff"} or not request.uid:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "annotations or uid are missing")
        key, text = self._keys.get(request.key_id), request.ciphertext
        try:
            assert key is not None
            return kms_pb2.DecryptResponse(plaintext=key.decrypt(text[:12], text[12:], None))
        except (InvalidTag, AssertionError):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such\nkey\x1b[31m here")
