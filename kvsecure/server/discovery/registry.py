"""The registry: another cluster's store, where the members of a new one meet.

Owns: connections to its endpoints, the log-in there, deadlines, and what passes by itself.
Never: knows what is registered; follows an endpoint that the flags do not name, or a proxy of the
    environment.
Follows: etcd's v3 API (etcd-surface section 1); any etcd or kvsecure serves it.
Keeps: every call ends in time, but for the wait for a change, which a probe of the connection ends
    when the other side is gone; a password goes to https or to this machine alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Self, TypeVar, final
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from kvsecure import __version__
from kvsecure.model.secret import Secret
from kvsecure.pki.files import UnsafeFile, read_private, read_public
from kvsecure.pki.trust import ClientTls, MinimumVersion, TrustError, client_context
from kvsecure.proto import auth_pb2, kv_pb2, watch_pb2
from kvsecure.server.config.model import TokenDiscovery
from kvsecure.server.discovery.failure import DiscoveryFailed, shown

__all__ = ["Registry", "RegistryLost"]

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
# What will be the same however often it is asked.
_FINAL: Final = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)

_Answer = TypeVar("_Answer", bound=Message)
_Result = TypeVar("_Result")


@final
class RegistryLost(Exception):
    """An endpoint has not answered; another one, or the same one later, may."""


@final
class Registry:
    """A client of the endpoints, of which one is used until it fails."""

    def __init__(self, settings: TokenDiscovery) -> None:
        """Read the files; nothing is sent yet.

        Args:
            settings: Where, as whom, and how patiently.

        Raises:
            DiscoveryFailed: A file cannot be used.
        """
        self._settings = settings
        self._password = _password(settings)
        self._credentials = _credentials(settings)
        self._place = 0
        self._channel: grpc.Channel | None = None
        self._token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hang_up()

    def transact(self, request: kv_pb2.TxnRequest) -> kv_pb2.TxnResponse:
        """Carry out a transaction.

        Raises:
            RegistryLost: Nobody has answered; it may have been carried out.
            DiscoveryFailed: It was refused.
        """
        return self._tried("/etcdserverpb.KV/Txn", request, kv_pb2.TxnResponse)

    def wait_for_change(self, prefix: bytes, end: bytes, revision: int) -> None:
        """Return when something has changed in a range of keys; nobody says when that is.

        Args:
            prefix: The first key.
            end: What comes after the last one.
            revision: The first one that counts.

        Raises:
            RegistryLost: The connection, or the watch, has ended without a change.
            DiscoveryFailed: It was refused.
        """
        create = watch_pb2.WatchCreateRequest(key=prefix, range_end=end, start_revision=revision)
        requests: SimpleQueue[watch_pb2.WatchRequest | None] = SimpleQueue()
        requests.put(watch_pb2.WatchRequest(create_request=create))

        def sent() -> Iterator[watch_pb2.WatchRequest]:
            # The stream stays open for as long as there may be something to say.
            while (request := requests.get()) is not None:
                yield request

        def wait(channel: grpc.Channel) -> None:
            stream: Any = channel.stream_stream(
                "/etcdserverpb.Watch/Watch",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=watch_pb2.WatchResponse.FromString,
            )(sent(), metadata=self._metadata())
            try:
                for answer in stream:
                    if answer.canceled:
                        raise _Canceled(shown(answer.cancel_reason))
                    if answer.events:
                        return
            finally:
                requests.put(None)
                stream.cancel()

        try:
            self._attempt("Watch", wait)
        except _Canceled as error:
            # Compacted, or without the right to it: reading says which.
            raise self._lost("Watch", str(error)) from None

    # --- calls ----------------------------------------------------------------------------------

    def _tried(self, path: str, request: Message, answer: type[_Answer]) -> _Answer:
        """Make a call, at each endpoint once."""
        for _ in self._settings.endpoints[1:]:
            with contextlib.suppress(RegistryLost):
                return self._called(path, request, answer)
        return self._called(path, request, answer)

    def _called(self, path: str, request: Message, answer: type[_Answer]) -> _Answer:
        def call(channel: grpc.Channel) -> _Answer:
            return self._unary(channel, path, request, answer, self._metadata())

        return self._attempt(path.rpartition("/")[2], call)

    def _unary(
        self,
        channel: grpc.Channel,
        path: str,
        request: Message,
        answer: type[_Answer],
        metadata: list[tuple[str, str]],
    ) -> _Answer:
        call: Any = channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        timeout_s = self._settings.request_ns_max / _NS_PER_S
        answered: _Answer = call(request, timeout=timeout_s, metadata=metadata)
        return answered

    def _attempt(self, what: str, act: Callable[[grpc.Channel], _Result]) -> _Result:
        """Act on a connection, as whoever logs in; tell errors apart.

        Raises:
            RegistryLost: It may work elsewhere, or later.
            DiscoveryFailed: It will not.
        """
        try:
            return act(self._connected())
        except grpc.FutureTimeoutError:
            raise self._lost(what, "no connection in time") from None
        except grpc.RpcError as error:
            code, details = error.code(), shown(error.details() or "")
            if code in _FINAL:
                raise DiscoveryFailed(
                    f"discovery: {self._endpoint}: {what}: {code.name}: {details}"
                ) from None
            raise self._lost(what, f"{code.name}: {details}") from None

    def _connected(self) -> grpc.Channel:
        """Return a channel that is connected, and logged in if somebody is to."""
        if self._channel is None:
            self._channel = self._open()
            future = grpc.channel_ready_future(self._channel)
            try:
                future.result(timeout=self._settings.dial_ns_max / _NS_PER_S)
            finally:
                future.cancel()
        if self._password is not None and not self._token:
            request = auth_pb2.AuthenticateRequest(
                name=self._settings.user, password=self._password.reveal_text()
            )
            path, answer = "/etcdserverpb.Auth/Authenticate", auth_pb2.AuthenticateResponse
            self._token = self._unary(self._channel, path, request, answer, []).token
        return self._channel

    def _open(self) -> grpc.Channel:
        settings = self._settings
        parts = urlsplit(self._endpoint)
        options = [
            ("grpc.primary_user_agent", f"kvsecure/{__version__}"),
            ("grpc.max_receive_message_length", _ANSWER_BYTES_MAX),
            ("grpc.keepalive_time_ms", settings.keepalive_ns // _NS_PER_MS),
            ("grpc.keepalive_timeout_ms", settings.keepalive_ns_max // _NS_PER_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.service_config_disable_resolution", 1),
        ]
        if parts.scheme == "http":
            return grpc.insecure_channel(parts.netloc, options=options)
        return grpc.secure_channel(parts.netloc, self._credentials, options=options)

    def _metadata(self) -> list[tuple[str, str]]:
        return [("token", self._token)] if self._token else []

    @property
    def _endpoint(self) -> str:
        return self._settings.endpoints[self._place]

    def _lost(self, what: str, why: str) -> RegistryLost:
        """Leave the endpoint for the next one."""
        lost = RegistryLost(f"{self._endpoint}: {what}: {why}")
        self._hang_up()
        self._place = (self._place + 1) % len(self._settings.endpoints)
        return lost

    def _hang_up(self) -> None:
        self._token = ""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


@final
class _Canceled(Exception):
    """The server has ended a watch."""


# --- files --------------------------------------------------------------------------------------


def _password(settings: TokenDiscovery) -> Secret | None:
    path = settings.password_file
    if path is None:
        return None
    try:
        password = Secret(read_private(path).reveal().rstrip(b"\r\n"))
        password.reveal_text()
    except OSError as error:
        raise DiscoveryFailed(f"{path}: {error.strerror}") from None
    except UnsafeFile as error:
        raise DiscoveryFailed(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise DiscoveryFailed(f"{path}: a password is text in UTF-8") from None
    return password


def _credentials(settings: TokenDiscovery) -> grpc.ChannelCredentials | None:
    """Return what connections by https go with; None if there are none.

    Raises:
        DiscoveryFailed: A file is missing, exposed or damaged, or does not go with the others.
    """
    if all(urlsplit(url).scheme == "http" for url in settings.endpoints):
        return None
    ca_file, cert_file, key_file = settings.ca_file, settings.cert_file, settings.key_file
    try:
        # The gRPC library would take anything, and fail at the first handshake without a word.
        client_context(
            ClientTls(
                trusted_ca_file=ca_file,
                cert_file=cert_file,
                key_file=key_file,
                minimum=MinimumVersion.TLS1_2,
            )
        )
        return grpc.ssl_channel_credentials(
            root_certificates=None if ca_file is None else read_public(ca_file),
            private_key=None if key_file is None else read_private(key_file).reveal(),
            certificate_chain=None if cert_file is None else read_public(cert_file),
        )
    except (TrustError, UnsafeFile) as error:
        raise DiscoveryFailed(str(error)) from None
    except OSError as error:
        raise DiscoveryFailed(f"{error.filename}: {error.strerror}") from None
