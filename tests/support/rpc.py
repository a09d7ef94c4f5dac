"""A stock gRPC client whose calls are made from the protobuf descriptors.

Owns: channels, the token in the metadata, and the table of methods.
Never: kvsecure's own client or wire code; grpcio is the reference that both servers must satisfy.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple, Self, final

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from support.certificates import KeyPair

from kvsecure.proto import (
    auth_pb2,
    cluster_pb2,
    crypto_pb2,
    election_pb2,
    health_pb2,
    joining_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    maintenance_pb2,
    tenant_pb2,
    version_pb2,
    watch_pb2,
)

__all__ = ["CALL_TIMEOUT_S", "Client", "Refusal", "Service", "refusal_of"]

CALL_TIMEOUT_S: Final = 20.0
_OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Two clients of one test must not share a connection behind our back.
    ("grpc.use_local_subchannel_pool", 1),
    # A killed server is tried again at once, not after a second. What is called the least of the
    # times between attempts bounds an attempt itself, and stays at gRPC's 20 s.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@final
class Refusal(NamedTuple):
    """What a client sees of a failed call."""

    code: str
    text: str


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Return the status code and text of a failed call."""
    return Refusal(error.code().name, error.details())


@final
class Service:
    """The methods of one service as attributes, by their names in the `.proto` file."""

    def __init__(self, client: "Client", descriptor: ServiceDescriptor) -> None:
        for method in descriptor.methods:
            setattr(self, method.name, client.method(descriptor, method))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@final
class Client:
    """One connection to one server, as one user."""

    def __init__(
        self, endpoint: str, authority: Path | None, certificate: KeyPair | None = None
    ) -> None:
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel = _channel(endpoint, authority, certificate)
        self.kv = Service(self, kv_pb2.DESCRIPTOR.services_by_name["KV"])
        self.watch = Service(self, watch_pb2.DESCRIPTOR.services_by_name["Watch"])
        self.lease = Service(self, lease_pb2.DESCRIPTOR.services_by_name["Lease"])
        self.auth = Service(self, auth_pb2.DESCRIPTOR.services_by_name["Auth"])
        self.cluster = Service(self, cluster_pb2.DESCRIPTOR.services_by_name["Cluster"])
        self.maintenance = Service(self, maintenance_pb2.DESCRIPTOR.services_by_name["Maintenance"])
        self.lock = Service(self, lock_pb2.DESCRIPTOR.services_by_name["Lock"])
        self.election = Service(self, election_pb2.DESCRIPTOR.services_by_name["Election"])
        self.tenants = Service(self, tenant_pb2.DESCRIPTOR.services_by_name["Tenants"])
        self.audit = Service(self, tenant_pb2.DESCRIPTOR.services_by_name["Audit"])
        self.crypto = Service(self, crypto_pb2.DESCRIPTOR.services_by_name["Crypto"])
        self.joining = Service(self, joining_pb2.DESCRIPTOR.services_by_name["Joining"])
        self.versions = Service(self, version_pb2.DESCRIPTOR.services_by_name["Versions"])
        self.health = Service(self, health_pb2.DESCRIPTOR.services_by_name["Health"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def login(self, user: str, password: str) -> Self:
        """Authenticate; every later call carries the token."""
        request = auth_pb2.AuthenticateRequest(name=user, password=password)
        self.use_token(self.auth.Authenticate(request).token)
        return self

    def use_token(self, token: str) -> None:
        """Send this token with every later call; an empty one means none."""
        self._metadata = (("token", token),) if token else ()

    @property
    def token(self) -> str:
        """The token that calls carry, or an empty text."""
        return self._metadata[0][1] if self._metadata else ""

    def call(self, name: str, request: Any) -> Any:
        """Make one unary call named like `kv.Put`."""
        service, method = name.split(".")
        return getattr(getattr(self, service), method)(request)

    def raw(self, path: str) -> Any:
        """Return a unary call of any path whose request and response are bytes."""
        call = self._channel.unary_unary(path)

        def invoke(request: bytes, timeout: float = CALL_TIMEOUT_S) -> bytes:
            return bytes(call(request, timeout=timeout, metadata=self._metadata))

        return invoke

    def prepared(self, path: str, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Return a function that starts a unary call of bytes and returns its future."""
        call = self._channel.unary_unary(path)
        metadata = self._metadata

        def start(request: bytes) -> Any:
            return call.future(request, timeout=timeout_s, metadata=metadata)

        return start

    def method(self, service: ServiceDescriptor, method: MethodDescriptor) -> Any:
        """Return the call of one method: unary ones answer, the others return the stream."""
        shape = (
            f"{'stream' if method.client_streaming else 'unary'}_"
            f"{'stream' if method.server_streaming else 'unary'}"
        )
        call = getattr(self._channel, shape)(
            f"/{service.full_name}/{method.name}",
            request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        streams = method.client_streaming or method.server_streaming

        def invoke(
            request: Any, timeout: float | None = None if streams else CALL_TIMEOUT_S
        ) -> Any:
            return call(request, timeout=timeout, metadata=self._metadata)

        return invoke

    def close(self) -> None:
        """Close the connection and end its streams."""
        self._channel.close()


def _channel(endpoint: str, authority: Path | None, certificate: KeyPair | None) -> grpc.Channel:
    if authority is None:
        return grpc.insecure_channel(endpoint, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=authority.read_bytes(),
        private_key=certificate.key.read_bytes() if certificate else None,
        certificate_chain=certificate.certificate.read_bytes() if certificate else None,
    )
    return grpc.secure_channel(endpoint, credentials, options=_OPTIONS)
