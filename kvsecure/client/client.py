"""The client: one object that holds a connection and offers every service of it.

Owns: the way from a few arguments to a connection, and from a service's name to its class.
Never: behaviour of its own.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self, final

from kvsecure.client.connection import Connection
from kvsecure.client.keys import Keys
from kvsecure.client.kv import Kv
from kvsecure.client.settings import ENDPOINT_DEFAULT, Settings, Tls
from kvsecure.model.secret import Secret

if TYPE_CHECKING:
    from kvsecure.client.audit import Audit
    from kvsecure.client.auth import Auth
    from kvsecure.client.crypto import Crypto
    from kvsecure.client.election import Election
    from kvsecure.client.joining import Joining
    from kvsecure.client.lease import Lease
    from kvsecure.client.lock import Lock
    from kvsecure.client.maintenance import Maintenance
    from kvsecure.client.members import Members
    from kvsecure.client.roles import Roles
    from kvsecure.client.tenants import Tenants
    from kvsecure.client.users import Users
    from kvsecure.client.versions import Versions
    from kvsecure.client.watch import Watch

__all__ = ["Client"]


@final
class Client:
    """A client of kvsecure, or of etcd. Threads may share it.

    Example:
        >>> with Client.open("127.0.0.1:2379", ca_file="ca.crt", user="web",
        ...                  password=Secret.of_text(password)) as client:
        ...     client.kv.put(b"/app/colour", b"blue")
        ...     found = client.kv.get(b"/app/colour")
        ...     for batch in client.watch(Keys.prefix(b"/app/")):
        ...         print(batch.revision, batch.events)

    Nothing is sent before the first call. With a password the client logs in when a token is needed
    and again when the token has ended. Errors are `ClientError`; see `kvsecure.client.errors`.
    """

    def __init__(self, settings: Settings) -> None:
        self.connection = Connection(settings)
        self.kv = Kv(self.connection)

    @classmethod
    def open(
        cls,
        endpoints: str | Sequence[str] = ENDPOINT_DEFAULT,
        *,
        ca_file: str = "",
        certificate_file: str = "",
        key_file: str = "",
        user: str = "",
        tenant: str = "",
        password: Secret | None = None,
        token: Secret | None = None,
        timeout_s: float = 5.0,
    ) -> Self:
        """Return a client; see `Settings` and `Tls` for the arguments.

        Args:
            endpoints: `host:port` of the members, one or several; TLS unless it says `http://`.
            ca_file: The authorities that may vouch for the server.
            certificate_file: This client's certificate.
            key_file: Its key.
            user: Who logs in.
            tenant: The user's tenant.
            password: The user's password.
            token: A token from an earlier log-in.
            timeout_s: Bound of one call in seconds.

        Raises:
            SettingsError: These arguments cannot work together.
        """
        texts = [endpoints] if isinstance(endpoints, str) else endpoints
        return cls(
            Settings(
                endpoints=Settings.parse_endpoints(texts),
                tls=Tls(ca_file=ca_file, certificate_file=certificate_file, key_file=key_file),
                user=user,
                tenant=tenant,
                password=password,
                token=token,
                timeout_s=timeout_s,
                reach_s=timeout_s,
            )
        )

    def watch(
        self,
        keys: Keys,
        *,
        start_revision: int = 0,
        previous: bool = False,
        progress: bool = False,
        resume_s: float = 300.0,
    ) -> "Watch":
        """Watch keys; see `Watch` for the arguments. Close what is returned."""
        from kvsecure.client.watch import Watch

        return Watch(
            self.connection,
            keys,
            start_revision=start_revision,
            previous=previous,
            progress=progress,
            resume_s=resume_s,
        )

    def lock(self, name: bytes, *, ttl_s: int = 60) -> "Lock":
        """Return a lock, which `with` takes and releases; see `Lock` for the arguments."""
        from kvsecure.client.lock import Lock

        return Lock(self.connection, name, ttl_s=ttl_s)

    def election(self, name: bytes, *, ttl_s: int = 60) -> "Election":
        """Return an election, to stand for or to follow; see `Election` for the arguments."""
        from kvsecure.client.election import Election

        return Election(self.connection, name, ttl_s=ttl_s)

    # Services that a plain read does not need are loaded when they are used: a short-lived client,
    # like one command on a terminal, must not pay for all of them.

    @cached_property
    def lease(self) -> "Lease":
        """Leases."""
        from kvsecure.client.lease import Lease

        return Lease(self.connection)

    @cached_property
    def audit(self) -> "Audit":
        """The audit trail."""
        from kvsecure.client.audit import Audit

        return Audit(self.connection)

    @cached_property
    def auth(self) -> "Auth":
        """Authentication."""
        from kvsecure.client.auth import Auth

        return Auth(self.connection)

    @cached_property
    def users(self) -> "Users":
        """Users."""
        from kvsecure.client.users import Users

        return Users(self.connection)

    @cached_property
    def roles(self) -> "Roles":
        """Roles."""
        from kvsecure.client.roles import Roles

        return Roles(self.connection)

    @cached_property
    def tenants(self) -> "Tenants":
        """Tenants."""
        from kvsecure.client.tenants import Tenants

        return Tenants(self.connection)

    @cached_property
    def crypto(self) -> "Crypto":
        """The keys that a member's data is sealed under."""
        from kvsecure.client.crypto import Crypto

        return Crypto(self.connection)

    @cached_property
    def joining(self) -> "Joining":
        """How machines become members."""
        from kvsecure.client.joining import Joining

        return Joining(self.connection)

    @cached_property
    def versions(self) -> "Versions":
        """What keys were."""
        from kvsecure.client.versions import Versions

        return Versions(self.connection)

    @cached_property
    def members(self) -> "Members":
        """Members of the cluster."""
        from kvsecure.client.members import Members

        return Members(self.connection)

    @cached_property
    def maintenance(self) -> "Maintenance":
        """The state of members."""
        from kvsecure.client.maintenance import Maintenance

        return Maintenance(self.connection)

    def close(self) -> None:
        """Close every connection; watches and calls under way end with an error."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
