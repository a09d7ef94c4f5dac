"""A member's security room on the bench: real state, gate, trail and turns, without a socket.

    World.ask(request)       one request through the gate, to the end of its turn
    World.records()          what the trail holds of it

Owns: building the parts, an engine that applies at once, a clock that is turned by hand.
Never: replaces a part of the security room.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, final

from google.protobuf.message import Message

from kvsecure.core.apply import apply
from kvsecure.core.member import MemberFacts
from kvsecure.core.query import reads_only
from kvsecure.core.replica import Proposal
from kvsecure.core.scans import Place, Scans
from kvsecure.core.state import State
from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.crypto.passwords import hash_password
from kvsecure.crypto.signing import SigningKey
from kvsecure.model.answer import Answer
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT, ClusterId, MemberId, TenantId
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2, tenant_pb2
from kvsecure.proto.joining_pb2 import JoinRedeemRequest
from kvsecure.security.audit import GENESIS, AuditTrail, Head
from kvsecure.security.authn import Authenticator
from kvsecure.security.feeds import Feeds
from kvsecure.security.gate import Gate
from kvsecure.security.password_policy import PasswordPolicy
from kvsecure.security.session import CertificateUser, Peer
from kvsecure.security.token_keys import TokenKeys
from kvsecure.security.tokens import TokenMint
from kvsecure.security.upkeep import Upkeep
from kvsecure.server.turn import Turn
from kvsecure.storage.files import make_directory
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace

__all__ = [
    "CLUSTER",
    "MEMBER",
    "NO_ADMISSION",
    "NO_KEYS",
    "NO_ROWS",
    "Asked",
    "Clock",
    "World",
    "keyring",
    "place_of",
]

CLUSTER: Final = ClusterId(0xC0FFEE)
MEMBER: Final = MemberId(0xBEEF)
# Hashing takes 25 ms; the bench makes the same accounts again and again.
_VERIFIERS: dict[str, str] = {}


@final
class Clock:
    """A time of day and a monotonic time that stand until they are moved."""

    def __init__(self) -> None:
        self.ns = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.ns

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.ns += int(seconds * 1_000_000_000)


@final
class _Rows:
    """Tables that hold nothing: everything is still in memory."""

    def get(self, *_: object) -> None:
        """Return no row."""

    def next(self, *_: object) -> None:
        """Return no row."""


NO_ROWS: Final = _Rows()


@final
class _Keys:
    """The keys of a bench that stores nothing: they cannot be changed, and nobody asks."""

    async def status(self, *, count: bool) -> Message:
        """Refuse."""
        raise Refused(Failure.KEYS_UNCHANGED, "nothing is stored here")

    async def rotate(self) -> Message:
        """Refuse."""
        raise Refused(Failure.KEYS_UNCHANGED, "nothing is stored here")

    rewrap = rotate

    async def reencrypt(self, rows_per_second: int) -> Message:
        """Refuse."""
        raise Refused(Failure.KEYS_UNCHANGED, "nothing is stored here")

    async def retire(self, term: int) -> Message:
        """Refuse."""
        raise Refused(Failure.KEYS_UNCHANGED, "nothing is stored here")


NO_KEYS: Final = _Keys()


@final
class _Admission:
    """The admission of a member without an authority."""

    def authority(self) -> Message:
        """Refuse."""
        raise Refused(Failure.JOIN_REJECTED, "there is no authority here")

    async def add_token(self, ttl_s: int) -> Message:
        """Refuse."""
        raise Refused(Failure.JOIN_REJECTED, "there is no authority here")

    async def redeem(self, request: JoinRedeemRequest, source: str) -> Message:
        """Refuse."""
        raise Refused(Failure.JOIN_REJECTED, "there is no authority here")


NO_ADMISSION: Final = _Admission()


@final
class _Engine:
    """Applies what a turn submitted when the turn ends; its log is never behind."""

    def __init__(self, state: State, clock: Clock) -> None:
        self.state = state
        self.statistics = SimpleNamespace(table_bytes_in_use=0)
        self.slicing = _Slicing()
        self.leading = SimpleNamespace(is_own=True)
        self.unsettled: list[Callable[[], None]] = []
        self.membership = SimpleNamespace(when_settled=self.unsettled.append)
        # What is refused before it is taken, as by a full disk.
        self.refusal: Refused | None = None
        self.has_leader = True
        # Whether there is nobody else; otherwise who reads waits.
        self.is_alone = True
        self.readers: list[tuple[Callable[[], None], Callable[[Refused], None] | None]] = []
        self._is_fresh = False
        # The ways to others, where a test has any.
        self.peering: Any = None
        # What a sync of the trail comes to.
        self.sync_audit: Callable[[], None] = lambda: None
        # Who waits for consensus to go by the declared members; and consensus, if it is looked at.
        self.replica = SimpleNamespace(node=None)
        self.applied: list[Message] = []
        self.finished: Callable[[Proposal, Any], None]
        self._collected: list[Proposal] = []
        self._clock = clock

    def submit(self, proposal: Proposal) -> None:
        """Take a proposal, unless the disk is full."""
        self.check_taking()
        self.take(proposal)

    def check_taking(self) -> None:
        """Refuse if the disk is full."""
        if self.refusal is not None:
            raise self.refusal

    def take(self, proposal: Proposal) -> None:
        """Take a proposal."""
        self._collected.append(proposal)

    def end_turn(self) -> None:
        """Apply."""
        batch, self._collected = self._collected, []
        for proposal in batch:
            self.applied.append(proposal.command)
            outcome: Any
            try:
                outcome = apply(self.state, proposal.caller, proposal.command, self._clock())
            except Refused as refused:
                outcome = refused
            proposal.done = True
            self.finished(proposal, outcome)

    def drop_turn(self) -> list[Proposal]:
        """Give back what was submitted."""
        dropped, self._collected = self._collected, []
        return dropped

    def can_read(self) -> bool:
        """Say that the state is good: nobody else is there, or somebody is told just now."""
        return self.is_alone or self._is_fresh

    def can_read_keys(self) -> bool:
        """Say that the keys are good."""
        return self.can_read()

    def when_readable(
        self, resume: Callable[[], None], fail: Callable[[Refused], None] | None = None
    ) -> None:
        """Let somebody wait until a test says what comes of it."""
        self.readers.append((resume, fail))

    def catch_up(self) -> None:
        """Tell those who wait that the state is good."""
        readers, self.readers = self.readers, []
        self._is_fresh = True
        for resume, _ in readers:
            resume()
        self._is_fresh = False

    def give_up(self) -> None:
        """Tell those who wait that it takes too long."""
        readers, self.readers = self.readers, []
        for _, fail in readers:
            assert fail is not None
            fail(Refused(Failure.TIMEOUT))

    @property
    def is_whole(self) -> bool:
        """Say that nothing is carried out in part."""
        return True


@final
class _Slicing:
    """There is no long work."""

    def when_done(self, resume: Callable[[], None]) -> None:
        """Go on."""
        resume()


@final
class _Loop:
    """Where a turn asks to be ended; the bench ends it."""

    def call_soon(self, *_: object) -> None:
        """Take note of nothing."""


@final
class Asked:
    """One request and what came of it."""

    def __init__(self, turn: Turn, peer: Peer, token: bytes) -> None:
        self.peer = peer
        self.token = token
        self.body: bytes | None = None
        self.refused: Refused | None = None
        self._turn = turn

    def succeed(self, answer: Answer) -> None:
        """Answer when the turn ends."""
        self._turn.answer(self, answer.body, None)

    def fail(self, refused: Refused) -> None:
        """Refuse when the turn ends."""
        self._turn.answer(self, None, refused)

    def deliver(self, message: bytes | None, refused: Refused | None) -> None:
        """Take what leaves the member."""
        self.body, self.refused = message, refused

    @property
    def why(self) -> str:
        """The name of the failure, or nothing."""
        return self.refused.failure.name if self.refused else ""


def keyring() -> Keyring:
    """Return the keys of a new cluster."""
    kek = KeyEncryptionKey.from_file_content(KeyEncryptionKey.new_file_content())
    return Keyring.create(kek, CLUSTER)


def _refuse(work: object) -> None:
    raise AssertionError(work)


def place_of(directory: Path, member: MemberId = MEMBER) -> SegmentPlace:
    """Return the place of a trail in a directory, which is made."""
    make_directory(directory)
    return SegmentPlace(directory, Kind.AUDIT, CLUSTER, member)


@final
class World:
    """Everything between a decoded request and an applied command."""

    def __init__(
        self, directory: Path, *, compat: bool = False, auth: bool = True, root: str = ""
    ) -> None:
        self.clock = Clock()
        self.state = State(NO_ROWS)  # type: ignore[arg-type]  # it is a table source without rows
        self.state.found()
        self.keyring = keyring()
        self.place = place_of(directory / "audit")
        self.trail = self._trail(Head(0, GENESIS))
        key = SigningKey(self.keyring.root_key(purpose="test"))
        self.token_key = key.public
        self.mint = TokenMint(key, CLUSTER, 600, TokenKeys(key.public, self.state.members).find)
        self.authn = Authenticator(
            self.state,
            self.mint,
            stream=self.trail.stream,
            wall_ns=self.clock,
            token_beats_certificate=compat,
        )
        self.gate = Gate(
            authenticator=self.authn,
            audit=self.trail,
            passwords=PasswordPolicy(["correct horse battery staple"]),
            facts=MemberFacts(
                cluster=CLUSTER,
                member=MEMBER,
                name="bench",
                peer_urls=(),
                client_urls=(),
                version="3.5.0",
                quota_bytes=1 << 30,
            ),
            now_ns=self.clock,
        )
        self.turn = Turn(self.gate, _Loop())  # type: ignore[arg-type]  # all that a turn asks of it
        self.engine = _Engine(self.state, self.clock)
        self.engine.finished = self.gate.finished
        self.gate.open_to(self.engine, self.turn.schedule)  # type: ignore[arg-type]  # a small engine
        self.feeds = Feeds(self.gate)
        place = Place(
            directory=directory, cluster=CLUSTER, size_bytes_max=1 << 20, keys=dict, backup=dict
        )
        scans = Scans(self.engine, place)  # type: ignore[arg-type]  # a small engine
        self.upkeep = Upkeep(self.gate, scans, spawn=_refuse, schedule=self.turn.schedule)
        if auth:
            self.user("root", password=root)
            self.system(auth_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
            self.system(auth_pb2.AuthEnableRequest())
        self.turn.end()

    def _trail(self, known: Head) -> AuditTrail:
        return AuditTrail(
            self.place,
            self.keyring,
            known=known,
            on_segment=lambda _: None,
            wall_ns=self.clock,
        )

    def close(self) -> None:
        """Let go of threads and files."""
        self.authn.close()
        self.trail.close()

    # --- accounts -------------------------------------------------------------------------------

    def system(self, command: Message, tenant: TenantId = DEFAULT_TENANT) -> None:
        """Carry out a command of the member itself, beside the gate."""
        apply(self.state, Caller(tenant, Origin.SYSTEM, "", 0), command, self.clock())

    def user(self, name: str, *roles: str, password: str = "", tenant: str = "default") -> None:
        """Add a user, with roles that are there."""
        number = self.state.accounts.tenant_named(tenant).id
        if password and password not in _VERIFIERS:
            _VERIFIERS[password] = hash_password(Secret.of_text(password))
        self.system(
            auth_pb2.AuthUserAddRequest(
                name=name,
                hashedPassword=_VERIFIERS.get(password, ""),
                options=authstore_pb2.UserAddOptions(no_password=not password),
            ),
            number,
        )
        for role in roles:
            self.system(auth_pb2.AuthUserGrantRoleRequest(user=name, role=role), number)

    def role(
        self, name: str, key: bytes, range_end: bytes = b"", kind: int = 2, tenant: str = "default"
    ) -> None:
        """Add a role with one permission."""
        number = self.state.accounts.tenant_named(tenant).id
        self.system(auth_pb2.AuthRoleAddRequest(name=name), number)
        permission = authstore_pb2.Permission(permType=kind, key=key, range_end=range_end)  # type: ignore[arg-type]  # an enum is an int here
        self.system(auth_pb2.AuthRoleGrantPermissionRequest(name=name, perm=permission), number)

    def tenant(self, name: str) -> None:
        """Add a tenant, whose root logs in by certificate."""
        self.system(tenant_pb2.TenantAddRequest(name=name, root_no_password=True))

    # --- asking ---------------------------------------------------------------------------------

    def peer(
        self, user: str = "", tenant: str = "default", *, ip: str = "192.0.2.7", mark: bytes = b""
    ) -> Peer:
        """Return the other end of a connection, with a certificate if a user is named.

        Args:
            user: Whom the certificate names; nobody has none.
            tenant: Whose user it is.
            ip: Where it comes from.
            mark: Tells certificates of one user apart.
        """
        named = CertificateUser(tenant, user) if user else None
        certificate = (mark or user.encode()).ljust(32, b".") if user or mark else b""
        return Peer(ip=ip, port=4711, tls="TLSv1.3 X", user=named, fingerprint=certificate)

    def ask(self, request: Message, peer: Peer | None = None, token: bytes = b"") -> Asked:
        """Send one request by the door it belongs to, and end the turn; by default as root."""
        asked = self.begin(request, peer, token)
        self.turn.end()
        return asked

    def lose_records(self) -> None:
        """Flush what was written to tables that keep nothing of it."""
        self.state.begin_flush(0, b"", b"")
        self.state.end_flush()

    def begin(self, request: Message, peer: Peer | None = None, token: bytes = b"") -> Asked:
        """Send one request and leave its turn open."""
        asked = Asked(self.turn, peer or self.peer("root"), token)
        match request:
            case kv_pb2.TxnRequest() if reads_only(request):
                self.gate.read(asked, request)
            case (
                kv_pb2.RangeRequest()
                | lease_pb2.LeaseTimeToLiveRequest()
                | lease_pb2.LeaseLeasesRequest()
                | auth_pb2.AuthStatusRequest()
                | auth_pb2.AuthUserGetRequest()
                | tenant_pb2.TenantListRequest()
            ):
                self.gate.read(asked, request)
            case tenant_pb2.AuditHeadRequest() | tenant_pb2.AuditHeadsRequest():
                self.gate.operate(asked, request)
            case lease_pb2.LeaseKeepAliveRequest():
                self.gate.keep_alive(asked, request)
            case _:
                self.gate.submit(asked, request, request.SerializeToString())
        return asked

    def log_in(self, name: str, password: str, peer: Peer | None = None) -> Asked:
        """Log in by password."""
        request = auth_pb2.AuthenticateRequest(name=name, password=password)
        asked = Asked(self.turn, peer or self.peer(), b"")
        self.run(self.gate.log_in(asked, request))
        self.turn.end()
        return asked

    def token(self, name: str, password: str, peer: Peer | None = None) -> bytes:
        """Log in and return the token."""
        asked = self.log_in(name, password, peer)
        assert asked.body is not None, asked.why
        return auth_pb2.AuthenticateResponse.FromString(asked.body).token.encode()

    def run(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine to its end."""

        async def whole() -> Any:
            return await work

        return asyncio.run(whole())

    # --- the trail ------------------------------------------------------------------------------

    def records(self) -> list[dict[str, Any]]:
        """Return the records that were written, parsed."""
        return [json.loads(record) for record in self.trail.recent(10_000)]

    def last(self, count: int = 1) -> Iterator[dict[str, Any]]:
        """Return the newest records, oldest first."""
        return iter(self.records()[-count:])
