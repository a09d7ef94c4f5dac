"""The plugin of a key management service: it wraps the key-encryption key, and unwraps it again.

Owns: what is asked of the plugin over its Unix socket, how long it may take, and what its answers
    must look like.
Never: sends anything but a key that was made for this, or logs what the plugin sends.
Follows: Kubernetes' KMS plugin interface, version 2 (kvsecure/proto/kms.proto), so that its plugins
    work unchanged.
Keeps: the socket is not in a place where everybody could have put one.
"""

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, final
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from kvsecure.crypto.keyring import KekRecord, KeyEncryptionKey, KeyringError
from kvsecure.crypto.sealing import fresh_key
from kvsecure.model.secret import Secret
from kvsecure.proto import kms_pb2

__all__ = ["PROVIDER", "KmsPlugin"]

PROVIDER: Final = "kms"
_SERVICE: Final = "/v2.KeyManagementService/"
_VERSIONS: Final = frozenset({"v2", "v2beta1"})
_DEADLINE_S: Final = 5.0
_KEY_ID_BYTES_MAX: Final = 1024
_CIPHERTEXT_BYTES_MAX: Final = 1024
_ANNOTATIONS_BYTES_MAX: Final = 32 * 1024
_ANNOTATION: Final = "annotation/"
_SHOWN_CHARACTERS_MAX: Final = 200

_Answer = TypeVar("_Answer", bound=Message)


@final
class KmsPlugin:
    """A key-encryption key that a plugin keeps wrapped."""

    __slots__ = ("_socket",)

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def key_for(self, stored: KekRecord | None) -> KeyEncryptionKey:
        """Have a stored key unwrapped, or a new one wrapped; blocks for some seconds at most.

        Raises:
            KeyringError: The plugin cannot be reached, is not well, or refuses.
        """
        _check_socket(self._socket)
        # The name of a socket is no authority that HTTP/2 servers in Go take.
        options = (("grpc.default_authority", "localhost"), ("grpc.enable_retries", 0))
        with grpc.insecure_channel(f"unix:{self._socket.absolute()}", options=options) as channel:
            key_id = self._status(channel)
            if stored is None:
                return self._wrapped(channel, fresh_key(), key_id)
            return self._unwrapped(channel, stored.parameters)

    def _status(self, channel: grpc.Channel) -> str:
        """Return the plugin's current key, if it is well."""
        status = self._ask(channel, "Status", kms_pb2.StatusRequest(), kms_pb2.StatusResponse)
        if status.version not in _VERSIONS:
            raise self._error(f"it speaks version {_shown(status.version)}, and v2 is wanted")
        if status.healthz != "ok":
            raise self._error(f"it is not well: {_shown(status.healthz)}")
        if not status.key_id:
            raise self._error("it does not name its key")
        return status.key_id

    def _wrapped(self, channel: grpc.Channel, key: Secret, key_id: str) -> KeyEncryptionKey:
        answer = self._ask(
            channel,
            "Encrypt",
            kms_pb2.EncryptRequest(plaintext=key.reveal(), uid=str(uuid4())),
            kms_pb2.EncryptResponse,
        )
        annotations = {name: bytes(text) for name, text in answer.annotations.items()}
        sizes_bytes = sum(len(name) + len(text) for name, text in annotations.items())
        sound = (
            0 < len(answer.ciphertext) <= _CIPHERTEXT_BYTES_MAX
            and key.reveal() not in answer.ciphertext
            and answer.key_id == key_id
            and len(key_id.encode()) <= _KEY_ID_BYTES_MAX
            and sizes_bytes < _ANNOTATIONS_BYTES_MAX
        )
        if not sound:
            raise self._error("what it wrapped is not of the form that the interface wants")
        parameters = {"key_id": key_id, "ciphertext": _text(answer.ciphertext)}
        parameters |= {_ANNOTATION + name: _text(text) for name, text in annotations.items()}
        made = KeyEncryptionKey(key, PROVIDER, parameters)
        # A key that cannot be had back would seal everything for good.
        if self._unwrapped(channel, parameters).key_id != made.key_id:
            raise self._error("it does not unwrap what it has wrapped")
        return made

    def _unwrapped(self, channel: grpc.Channel, parameters: Mapping[str, str]) -> KeyEncryptionKey:
        try:
            request = kms_pb2.DecryptRequest(
                ciphertext=_bytes(parameters["ciphertext"]),
                uid=str(uuid4()),
                key_id=parameters["key_id"],
                annotations={
                    name.removeprefix(_ANNOTATION): _bytes(text)
                    for name, text in parameters.items()
                    if name.startswith(_ANNOTATION)
                },
            )
        except (KeyError, ValueError, binascii.Error):
            raise KeyringError(
                "the keyring does not say what the plugin wrapped; restore it from a backup"
            ) from None
        answer = self._ask(channel, "Decrypt", request, kms_pb2.DecryptResponse)
        return KeyEncryptionKey(Secret(answer.plaintext), PROVIDER, parameters)

    def _ask(
        self, channel: grpc.Channel, method: str, request: Message, answer: type[_Answer]
    ) -> _Answer:
        call: Any = channel.unary_unary(
            _SERVICE + method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            # The plugin may be starting at the same time as we are.
            answered: _Answer = call(request, timeout=_DEADLINE_S, wait_for_ready=True)
        except grpc.RpcError as error:
            code, details = error.code().name, _shown(error.details() or "")
            raise self._error(f"{method} fails: {code}: {details}") from None
        return answered

    def _error(self, why: str) -> KeyringError:
        return KeyringError(f"the KMS plugin at {self._socket}: {why}")


def _check_socket(path: Path) -> None:
    """Check that not just anybody can have put the socket there.

    Raises:
        KeyringError: It is not there, no socket, or could be anybody's.
    """
    try:
        status, directory = path.stat(), path.parent.stat()
    except OSError as error:
        raise KeyringError(f"the KMS plugin at {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise KeyringError(f"{path} is not a socket")
    writable, sticky = directory.st_mode & stat.S_IWOTH, directory.st_mode & stat.S_ISVTX
    if writable and not (sticky and status.st_uid in {os.geteuid(), 0}):
        raise KeyringError(
            f"{path} could be anybody's: its directory is world-writable; have the plugin listen "
            "in a directory of its own"
        )


def _shown(text: str) -> str:
    """Return a plugin's words, short and on one line."""
    return "".join(c if c.isprintable() else "?" for c in text[:_SHOWN_CHARACTERS_MAX])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
