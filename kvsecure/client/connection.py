"""The connection: from a request to its answer, over whichever member can be reached.

Owns: channels, failover, deadlines, retries, and the token's place in the metadata.
Never: sends a change twice unless the first sending certainly reached no server; interprets
    requests or answers.
Follows: etcd's Go client: reads are repeated when no server could answer, writes only when nothing
    was sent.
"""

import dataclasses
import random
import threading
import time
from collections.abc import Generator, Iterable
from typing import Final, Self, TypeVar, final

import grpc
from google.protobuf.message import Message

import kvsecure
from kvsecure.client.credentials import channel_credentials
from kvsecure.client.errors import (
    ClientError,
    Outcome,
    SettingsError,
    error_of_call,
    was_never_sent,
)
from kvsecure.client.methods import Method, Repeat, method_at
from kvsecure.client.session import Relogin, Session
from kvsecure.client.settings import Endpoint, Settings
from kvsecure.client.stream import Stream
from kvsecure.model.errors import Code, Failure
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2

__all__ = ["Backoff", "Connection"]

Answer = TypeVar("Answer", bound=Message)

_WAIT_S_MIN: Final = 0.025
_WAIT_S_MAX: Final = 1.0
_LOGIN_PATH: Final = "/etcdserverpb.Auth/Authenticate"


@final
class Backoff:
    """Waits that double from 25 ms to 1 s, each shortened at random by up to a quarter."""

    def __init__(self) -> None:
        self._wait_s = _WAIT_S_MIN

    def next_s(self) -> float:
        """Return the next wait in seconds."""
        wait_s = self._wait_s
        self._wait_s = min(2 * wait_s, _WAIT_S_MAX)
        # Clients that lost the same server must not come back in the same moment.
        return wait_s * (1.0 - 0.25 * random.random())


@final
class _Attempts:
    """How often one request is sent, and until when."""

    def __init__(
        self, method: Method, link_count: int, *, timeout_s: float, reach_s: float
    ) -> None:
        self._method = method
        self._link_count = link_count
        now = time.monotonic()
        self._deadline = now + timeout_s
        self._reach_deadline = min(self._deadline, now + reach_s)
        self._backoff = Backoff()
        self._count = 0

    def next_s(self, error: ClientError) -> float | None:
        """Return after how many seconds to try again, or None if not at all."""
        if not _may_repeat(error, self._method):
            return None
        self._count += 1
        # Every member gets its turn before anybody waits.
        if self._count % self._link_count:
            return 0.0
        wait_s = self._backoff.next_s()
        was_sent = not was_never_sent(error.code, error.text)
        end = self._deadline if was_sent else self._reach_deadline
        return wait_s if time.monotonic() + wait_s < end else None


@final
class _Link:
    """One member and the channel to it, made when it is first used."""

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._channel: grpc.Channel | None = None
        self._lock = threading.Lock()

    def channel(self) -> grpc.Channel:
        with self._lock:
            if self._channel is None:
                self._channel = _open_channel(self.endpoint, self._settings)
            return self._channel

    def forget(self, channel: grpc.Channel) -> None:
        """Use a new channel next time, with the certificates that the files hold then.

        The old one is not closed, because other calls may wait on it; it ends with the last.
        """
        with self._lock:
            if self._channel is channel:
                self._channel = None

    def close(self) -> None:
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            self._channel = None


def _open_channel(endpoint: Endpoint, settings: Settings) -> grpc.Channel:
    connect_ms = int(settings.connect_timeout_s * 1000)
    options = [
        ("grpc.primary_user_agent", f"kvsecure/{kvsecure.__version__}"),
        ("grpc.max_send_message_length", settings.send_bytes_max),
        ("grpc.max_receive_message_length", settings.receive_bytes_max),
        # Despite its name this one bounds an attempt to connect.
        ("grpc.min_reconnect_backoff_ms", connect_ms),
        ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        # A connection goes where its endpoint says: not through a proxy of the environment, and
        # not over a socket that another client in this process opened with other certificates.
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config_disable_resolution", 1),
    ]
    if endpoint.plaintext:
        return grpc.insecure_channel(endpoint.target, options=options)
    return grpc.secure_channel(endpoint.target, channel_credentials(settings.tls), options=options)


@final
class Connection:
    """A connection to the service; it may be used by many threads at once.

    Nothing is sent before the first call. A member that cannot be reached is left for the next one
    on the list, and the connection then stays with the one that answered.
    """

    def __init__(self, settings: Settings, *, session: Session | None = None) -> None:
        self.settings = settings
        self._links = [_Link(endpoint, settings) for endpoint in settings.endpoints]
        self._place = 0
        self._lock = threading.Lock()
        self._is_closed = False
        login = self._log_in if settings.password is not None else None
        self._session = session or Session(login, token=settings.token)

    def call(
        self,
        path: str,
        request: Message,
        answer: type[Answer],
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send one request and return its answer.

        Args:
            path: The method, `/package.Service/Method`.
            request: Its request message.
            answer: The class of its answer.
            timeout_s: Replaces the bound of the settings, in seconds.

        Raises:
            ClientError: It was refused or not answered.
            SettingsError: The connection cannot be set up as asked.
        """
        deadline = time.monotonic() + (timeout_s or self.settings.timeout_s)
        token = self._session.token()
        try:
            return self._exchange(path, request, answer, token, deadline)
        except ClientError as error:
            if not Relogin(self.renew).helps(error, token):
                raise
        return self._exchange(path, request, answer, self._session.token(), deadline)

    def read_stream(
        self, path: str, request: Message, answer: type[Answer]
    ) -> Generator[Answer, None, None]:
        """Send one request that changes nothing, and yield the answers to it.

        What fails before the first one is tried again as `call` does it.

        Args:
            path: The method.
            request: Its request message.
            answer: The class of its answers.

        Raises:
            ClientError: It was refused, or broke off: what came before is a part of the answer.
            SettingsError: The connection cannot be set up as asked.
        """
        attempts = self._attempts(_checked(path, answer), self.settings.timeout_s)
        relogin = Relogin(self.renew)
        while True:
            with self.open_stream(path, answer) as stream:
                stream.send(request)
                try:
                    first = stream.receive()
                except ClientError as error:
                    if not relogin.helps(error, stream.token):
                        self._wait(attempts, error)
                    continue
                yield first
                while (more := stream.receive_or_end()) is not None:
                    yield more
                return

    def open_stream(
        self,
        path: str,
        answer: type[Answer],
        *,
        timeout_s: float | None = None,
        more: Iterable[tuple[str, str]] = (),
    ) -> Stream[Answer]:
        """Open a stream to one member; nothing is known about it before its first answer.

        Args:
            path: The method.
            answer: The class of its answers.
            timeout_s: Ends the stream after so many seconds; None lets it go on.
            more: More metadata.

        Raises:
            ClientError: The log-in failed.
            SettingsError: The connection cannot be set up as asked.
        """
        method = _checked(path, answer)
        link = self._link()
        token = self._session.token()
        channel = self._channel(link)
        opened = channel.stream_stream(
            path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )

        def failed(error: ClientError) -> None:
            self._leave(link, channel, error)

        return Stream(
            lambda requests: opened(
                requests, timeout=timeout_s, metadata=[*_metadata(token), *more]
            ),
            endpoint=str(link.endpoint),
            token=token,
            changes=method.repeat is Repeat.FORBIDDEN,
            failed=failed,
        )

    def renew(self, used: Secret | None) -> bool:
        """Have the next call or stream log in again; tell whether that is possible.

        Args:
            used: The token that did not work.
        """
        return self._session.renew(used)

    def log_in(self, name: str, password: Secret) -> Secret:
        """Exchange a password for a token, whatever the settings say; nothing else changes.

        Raises:
            ClientError: The service refused, or does not authenticate at all.
        """
        deadline = time.monotonic() + self.settings.timeout_s
        request = auth_pb2.AuthenticateRequest(name=name, password=password.reveal_text())
        answer = self._exchange(_LOGIN_PATH, request, auth_pb2.AuthenticateResponse, None, deadline)
        return Secret.of_text(answer.token)

    def _log_in(self) -> Secret | None:
        password = self.settings.password
        if password is None:
            return None
        try:
            return self.log_in(self.settings.login_name, password)
        except ClientError as error:
            if error.failure is Failure.AUTH_NOT_ENABLED:
                return None
            raise

    def only(self, endpoint: Endpoint) -> "Connection":
        """Return a connection to this member alone, with the same session; close it as well."""
        settings = dataclasses.replace(self.settings, endpoints=(endpoint,))
        return Connection(settings, session=self._session)

    def _exchange(
        self,
        path: str,
        request: Message,
        answer: type[Answer],
        token: Secret | None,
        deadline: float,
    ) -> Answer:
        method = _checked(path, answer)
        attempts = self._attempts(method, deadline - time.monotonic())
        while True:
            link = self._link()
            try:
                return self._attempt(link, method, request, answer, token=token, deadline=deadline)
            except ClientError as error:
                self._wait(attempts, error)

    def _attempts(self, method: Method, timeout_s: float) -> "_Attempts":
        return _Attempts(
            method, len(self._links), timeout_s=timeout_s, reach_s=self.settings.reach_s
        )

    def _wait(self, attempts: "_Attempts", error: ClientError) -> None:
        """Wait for the next attempt after one that failed, or raise why there is none."""
        wait_s = attempts.next_s(error)
        if self._is_closed or wait_s is None:
            raise error
        # A second at most. A call cannot be called off, and one whose connection is closed
        # meanwhile ends with its next attempt.
        time.sleep(wait_s)

    def _attempt(
        self,
        link: _Link,
        method: Method,
        request: Message,
        answer: type[Answer],
        *,
        token: Secret | None,
        deadline: float,
    ) -> Answer:
        channel = self._channel(link)
        send = channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        remaining_s = max(deadline - time.monotonic(), 0.001)
        try:
            received: Answer = send(request, timeout=remaining_s, metadata=_metadata(token))
        except grpc.RpcError as raised:
            code = Code(raised.code().value[0])
            text = raised.details() or code.name
        except ValueError:
            # Another thread closed the channel between our look at it and the call.
            raise _closed() from None
        else:
            return received
        error = error_of_call(
            code, text, endpoint=str(link.endpoint), changes=method.repeat is Repeat.FORBIDDEN
        )
        self._leave(link, channel, error)
        # The library's exception is not chained: it knows the call, and so the token.
        raise error

    def _channel(self, link: _Link) -> grpc.Channel:
        if self._is_closed:
            raise _closed()
        return link.channel()

    def _link(self) -> _Link:
        return self._links[self._place]

    def _leave(self, link: _Link, channel: grpc.Channel, error: ClientError) -> None:
        if error.code is not Code.UNAVAILABLE:
            return
        if was_never_sent(error.code, error.text):
            link.forget(channel)
        with self._lock:
            if self._links[self._place] is link:
                self._place = (self._place + 1) % len(self._links)

    def close(self) -> None:
        """Close every channel; calls and streams under way end with an error."""
        self._is_closed = True
        for link in self._links:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _closed() -> ClientError:
    return ClientError(Code.CANCELLED, "the client is closed", outcome=Outcome.UNANSWERED)


def _checked(path: str, answer: type[Message]) -> Method:
    method = method_at(path)
    if method.answer is not answer:
        raise SettingsError(f"{path} does not answer with {answer.__name__}")
    return method


def _may_repeat(error: ClientError, method: Method) -> bool:
    if was_never_sent(error.code, error.text):
        return True
    return error.code is Code.UNAVAILABLE and method.repeat is Repeat.ALLOWED


def _metadata(token: Secret | None) -> list[tuple[str, str]]:
    return [] if token is None else [("token", token.reveal_text())]
