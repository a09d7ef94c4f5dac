"""Admission: a machine that brings a join token becomes a member, at the member with the authority.

    token is good ──> the certificates could be made ──> declared a learner ──> token is used up
                  ──> certificates are made ──> answered

Owns: that order, and what a newcomer is told.
Never: keeps the authority's key in memory between calls; sees a newcomer's private key.
Follows: docs/adr/0025-join-tokens.md.
Keeps: no certificate leaves for a token that could be used again; nothing is used up for somebody
    who could not be added.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, final
from urllib.parse import urlsplit

from kvsecure.model.answer import Answer
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, AuthorityError
from kvsecure.pki.certificates import CertificateError
from kvsecure.pki.join_tokens import TTL_DEFAULT, JoinTokens, TokenRejected, TooManyTokens, ttl_of
from kvsecure.pki.profiles import ProfileError, ProfileName
from kvsecure.proto.joining_pb2 import (
    JoinAuthorityResponse,
    JoinMember,
    JoinRedeemRequest,
    JoinRedeemResponse,
    JoinTokenAddResponse,
)
from kvsecure.security.gate import Gate
from kvsecure.security.membership import Membership
from kvsecure.security.throttle import Throttle
from kvsecure.server.config.model import ServerConfig
from kvsecure.storage.files import StorageError
from kvsecure.telemetry.log import log

__all__ = ["TokenAdmission"]

_THROTTLED: Final = "join"
_UNUSABLE: Final = (AuthorityError, ProfileError, CertificateError)

T = TypeVar("T")

_log: Final = log("joining")


@final
class TokenAdmission:
    """The admission of one member; it has something to say where the authority is."""

    def __init__(
        self, config: ServerConfig, gate: Gate, membership: Membership, wall_ns: Callable[[], int]
    ) -> None:
        """Begin.

        Args:
            config: Says where the authority is, and what newcomers are told.
            gate: Where the state is.
            membership: Declares members.
            wall_ns: Time of day in nanoseconds.

        Raises:
            StorageError: There is to be an authority, and it cannot be used.
        """
        self._config = config
        self._gate = gate
        self._membership = membership
        self._wall_ns = wall_ns
        self._throttle = Throttle()
        # One newcomer at a time: who it may be depends on who was added before.
        self._admitting = asyncio.Lock()
        self._directory = config.peers.authority_dir
        self._trust_pem = b""
        if self._directory is None:
            return
        self._tokens = JoinTokens(self._directory)
        try:
            authority = Authority.open(self._directory)
        except AuthorityError as error:
            raise StorageError(f"--authority-dir: {error}") from None
        if authority.cluster != config.cluster.name:
            raise StorageError(
                f"--authority-dir {self._directory} is the authority of {authority.cluster}, and "
                f"--cluster-name is {config.cluster.name}"
            )
        self._trust_pem = authority.trust_pem

    def authority(self) -> JoinAuthorityResponse:
        """Say who this cluster's authority is."""
        self._here()
        return JoinAuthorityResponse(certificates=self._trust_pem)

    async def add_token(self, ttl_s: int) -> JoinTokenAddResponse:
        """Make a token that is good for so many seconds, or the default for 0."""
        authority = await self._open()
        address = _address_of(self._config)
        try:
            ttl = ttl_of(ttl_s) if ttl_s else TTL_DEFAULT
            token, expires = await asyncio.to_thread(self._tokens.make, authority, address, ttl)
        except (ValueError, TooManyTokens) as error:
            raise Refused(Failure.JOIN_REJECTED, str(error)) from None
        except OSError as error:
            raise _unwritten(error) from None
        self._trust_pem = authority.trust_pem
        return JoinTokenAddResponse(
            token=token.text().reveal_text(), expires_s=int(expires.timestamp())
        )

    async def redeem(self, request: JoinRedeemRequest, source: str) -> JoinRedeemResponse:
        """Make who has a token a member; `source` is the address that it comes from."""
        self._here()
        if self._throttle.wait_ns(_THROTTLED, source, self._wall_ns()):
            raise Refused(Failure.TOO_MANY_REQUESTS)
        await self._check(request, source)
        async with self._admitting:
            # Another one may have used it meanwhile.
            await self._check(request, source)
            authority = await self._open()
            await self._beside(lambda: _check_certifiable(authority, request))
            await self._declare(request)
            await self._use_up(request)
            answer = await self._beside(lambda: _certify(authority, request))
        _log.info("a newcomer has its certificates", name=request.name, source=source)
        self._tell(answer, request.name)
        return answer

    # --- steps ----------------------------------------------------------------------------------

    def _here(self) -> Path:
        """Return where the authority is, or refuse."""
        if self._directory is None:
            raise Refused(Failure.JOIN_REJECTED, "this member has not the cluster's authority")
        return self._directory

    async def _open(self) -> Authority:
        directory = self._here()
        return await self._beside(lambda: Authority.open(directory))

    async def _beside(self, act: Callable[[], T]) -> T:
        """Do something with the authority, beside the event loop: it reads and writes files."""
        try:
            return await asyncio.to_thread(act)
        except _UNUSABLE as error:
            raise Refused(Failure.JOIN_REJECTED, str(error)) from None

    async def _check(self, request: JoinRedeemRequest, source: str) -> None:
        try:
            await asyncio.to_thread(self._tokens.check, request.token_id, Secret(request.secret))
        except TokenRejected as error:
            self._throttle.failed(_THROTTLED, source, self._wall_ns())
            raise Refused(Failure.JOIN_TOKEN_REJECTED, str(error)) from None
        self._throttle.succeeded(_THROTTLED, source)

    async def _declare(self, request: JoinRedeemRequest) -> None:
        declared = _Declared()
        self._membership.add_joining(declared, request.name, request.peer_urls)
        await declared.done

    async def _use_up(self, request: JoinRedeemRequest) -> None:
        try:
            await asyncio.to_thread(self._tokens.use, request.token_id, Secret(request.secret))
        except TokenRejected as error:
            raise Refused(Failure.JOIN_TOKEN_REJECTED, str(error)) from None
        except OSError as error:
            raise _unwritten(error) from None

    def _tell(self, answer: JoinRedeemResponse, name: str) -> None:
        config, members = self._config, self._gate.engine.state.members
        answer.cluster_name, answer.cluster_token = config.cluster.name, config.cluster.token
        answer.heartbeat_ms, answer.election_ms = (
            config.peers.heartbeat_ms,
            config.peers.election_ms,
        )
        for each in members:
            # Flags need a name; of one that has none yet, the URLs count.
            known = each.name or f"{each.id:x}"
            answer.members.append(JoinMember(name=known, peer_urls=each.peer_urls))
            if each.name == name:
                answer.member_id = each.id


def _check_certifiable(authority: Authority, request: JoinRedeemRequest) -> None:
    hosts = tuple(request.hosts)
    authority.check_certifiable(ProfileName.SERVER, request.name, request.server_request, hosts)
    authority.check_certifiable(ProfileName.PEER, request.name, request.peer_request)


def _certify(authority: Authority, request: JoinRedeemRequest) -> JoinRedeemResponse:
    name, hosts = request.name, tuple(request.hosts)
    return JoinRedeemResponse(
        server_certificate=authority.certify(
            ProfileName.SERVER, name, request.server_request, hosts
        ),
        peer_certificate=authority.certify(ProfileName.PEER, name, request.peer_request),
    )


def _address_of(config: ServerConfig) -> str:
    for url in config.member.advertise_client_urls:
        parts = urlsplit(url)
        if parts.scheme == "https":
            return parts.netloc
    raise Refused(Failure.JOIN_REJECTED, "this member advertises no https URL to clients")


def _unwritten(error: OSError) -> Refused:
    _log.error("a join token cannot be written", error=str(error))
    return Refused(Failure.JOIN_REJECTED, "the member's disk does not let it")


@final
class _Declared:
    """Waits until somebody is declared a member, or is not."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def succeed(self, _: Answer) -> None:
        """It is."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, refused: Refused) -> None:
        """It is not."""
        if not self.done.done():
            self.done.set_exception(refused)
