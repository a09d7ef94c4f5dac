"""Authentication: a certificate, a token or a password becomes a session, or is refused.

Owns: resolving credentials against the accounts as they are now, and log-in by password.
Never: decides what a session may do; never hashes on the event loop; never tells why a log-in
    failed.
Follows: etcd-surface sections 3.6-3.8; security.md F: hashing in a bounded pool, a limit before it,
    the same work for users that do not exist.
Keeps: one identity a request: a certificate that names one user and a token that names another are
    refused together.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, final

from kvsecure.access.grants import NOTHING, Grants
from kvsecure.core.accounts import Accounts, Tenant
from kvsecure.core.apply import grants_for
from kvsecure.core.state import State
from kvsecure.crypto.passwords import Verdict, hash_password, verify_nobody, verify_password
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.model.limits import PASSWORD_BYTES_MAX, PASSWORD_QUEUE_MAX
from kvsecure.model.secret import Secret
from kvsecure.security.session import Peer, Session, Via
from kvsecure.security.throttle import Throttle
from kvsecure.security.tokens import Claims, TokenMint

__all__ = ["Authenticator", "LoginOutcome", "split_name"]

T = TypeVar("T")

_NEVER_NS: Final = 1 << 62
_SESSIONS_PER_PEER_MAX: Final = 16
_ATTEMPTS_MAX: Final = 8
_NS: Final = 1_000_000_000
# What the tenant of users without one is called.
_DEFAULT: Final = "default"
# Half the machine stays free for everybody who is logged in already.
_WORKERS: Final = 2


@final
class LoginOutcome:
    """A log-in that succeeded."""

    __slots__ = ("old_verifier", "replacement", "tenant", "token", "user")

    def __init__(self, tenant: Tenant, user: str, token: Secret, old: str, new: str | None) -> None:
        self.tenant = tenant
        self.user = user
        self.token = token
        self.old_verifier = old
        # A stronger verifier of the same password, to be stored instead of the old one.
        self.replacement = new


@final
class Authenticator:
    """Resolves credentials for one member."""

    def __init__(
        self,
        state: State,
        mint: TokenMint,
        *,
        stream: str,
        wall_ns: Callable[[], int],
        token_beats_certificate: bool,
    ) -> None:
        """Make an authenticator.

        Args:
            state: The applied state.
            mint: Mints and verifies tokens.
            stream: The name of this member's audit stream, for the sessions' record parts.
            wall_ns: Time of day in nanoseconds.
            token_beats_certificate: etcd's way when both name a user (`--compat etcd`).
        """
        self._state = state
        self._mint = mint
        self._stream = stream.encode()
        self._wall_ns = wall_ns
        self._token_wins = token_beats_certificate
        self._throttle = Throttle()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="password")
        self._queued = 0

    # --- sessions -------------------------------------------------------------------------------

    def session(self, peer: Peer, token: bytes) -> Session:
        """Return the session of a request.

        Raises:
            Refused: There is no identity (USER_EMPTY), the token is not good (INVALID_AUTH_TOKEN),
                the user is gone (PERMISSION_DENIED), or two identities differ (IDENTITY_CONFLICT).
        """
        known = peer.sessions.get(token)
        if known is not None:
            if (
                known.law_revision == known.tenant.law_revision
                and self._wall_ns() < known.expires_ns
            ):
                return known
            del peer.sessions[token]
        session = self._resolve(peer, token)
        if len(peer.sessions) >= _SESSIONS_PER_PEER_MAX:
            peer.sessions.pop(next(iter(peer.sessions)))
        peer.sessions[token] = session
        return session

    def renewed(self, session: Session, peer: Peer) -> Session:
        """Return an open stream's session as of now; that its token has expired does not matter.

        Raises:
            Refused: The user is gone or its sessions were ended.
        """
        _check_peer(peer)
        if not session.tenant.record.auth_enabled:
            # What was allowed to somebody is allowed to everybody now (etcd: a watch survives it).
            return self._open(session.tenant, peer)
        claims = session.via.claims
        if claims is not None:
            return self._session(self._check_claims(claims, peer), claims.user, session.via, peer)
        renewed = self.session(peer, b"")
        if renewed.tenant is not session.tenant:
            # Another tenant has been given the name that the certificate says.
            raise Refused(Failure.PERMISSION_DENIED)
        return renewed

    def stranger(self, peer: Peer) -> Session:
        """Return the session of somebody without an identity, for what anybody may ask."""
        default = self._state.accounts.tenant(DEFAULT_TENANT)
        assert default is not None  # noqa: S101 - every cluster has it
        caller = Caller(default.id, Origin.ANYBODY, "", default.law_revision)
        grants = Grants(
            user="",
            roles=frozenset(),
            read=NOTHING,
            write=NOTHING,
            admin=False,
            cluster_admin=False,
        )
        return self._build(default, caller, grants, Via("nobody", _NEVER_NS), peer)

    def _resolve(self, peer: Peer, token: bytes) -> Session:
        _check_peer(peer)
        accounts = self._state.accounts
        default = accounts.tenant(DEFAULT_TENANT)
        assert default is not None  # noqa: S101 - every cluster has it
        named = self._tenant_of(peer)
        if not default.record.auth_enabled and not self._is_of_another(default, peer, token):
            return self._open(default, peer)
        if token:
            claims = self._mint.verify(token, self._wall_ns() // _NS)
            tenant = self._check_claims(claims, peer)
            via = Via("token", claims.expires_s * _NS, claims)
            return self._session(tenant, claims.user, via, peer)
        if peer.user is None:
            raise Refused(Failure.USER_EMPTY)
        if named is None:
            raise Refused(Failure.PERMISSION_DENIED)
        return self._session(named, peer.user.user, Via("certificate", _NEVER_NS), peer)

    def _is_of_another(self, default: Tenant, peer: Peer, token: bytes) -> bool:
        """Tell whether a request is of another tenant than the one whose authentication is off.

        What it writes must not end up where anybody can read it.
        """
        if peer.user is not None and self._tenant_of(peer) is not default:
            return True
        try:
            claims = self._mint.verify(token, self._wall_ns() // _NS) if token else None
        except Refused:
            # While there is no log-in, nobody asks for a token (etcd).
            return False
        return claims is not None and claims.tenant != default.id

    def _check_claims(self, claims: Claims, peer: Peer) -> Tenant:
        """Check a verified token against the accounts and the members as they are now."""
        if not self._mint.knows(claims):
            raise Refused(Failure.INVALID_AUTH_TOKEN)
        tenant = self._state.accounts.tenant(claims.tenant)
        user = tenant.users.get(claims.user) if tenant else None
        if tenant is None or user is None or user.id != claims.user_id:
            raise Refused(Failure.INVALID_AUTH_TOKEN)
        epochs = (tenant.record.session_epoch, user.session_epoch)
        if epochs != (claims.tenant_epoch, claims.user_epoch):
            raise Refused(Failure.INVALID_AUTH_TOKEN)
        if claims.certificate and claims.certificate != peer.fingerprint:
            raise Refused(Failure.INVALID_AUTH_TOKEN)
        named = peer.user
        if named is not None and not self._token_wins and named != (tenant.name, claims.user):
            raise Refused(Failure.IDENTITY_CONFLICT)
        return tenant

    def _tenant_of(self, peer: Peer) -> Tenant | None:
        if peer.user is None:
            return None
        try:
            return self._state.accounts.tenant_named(peer.user.tenant)
        except Refused:
            return None

    def _open(self, tenant: Tenant, peer: Peer) -> Session:
        """Return the session of anybody, while the tenant's authentication is off."""
        caller = Caller(tenant.id, Origin.ANYBODY, "", tenant.law_revision)
        grants = tenant.open_grants()
        return self._build(tenant, caller, grants, Via("open", _NEVER_NS), peer)

    def _session(self, tenant: Tenant, user: str, via: Via, peer: Peer) -> Session:
        caller = Caller(tenant.id, Origin.USER, user, tenant.law_revision)
        grants = grants_for(tenant, caller)
        if grants is None:
            raise Refused(Failure.PERMISSION_DENIED)
        return self._build(tenant, caller, grants, via, peer)

    def _build(
        self, tenant: Tenant, caller: Caller, grants: Grants, via: Via, peer: Peer
    ) -> Session:
        space = self._state.store.space(tenant.id)
        return Session(tenant, space, caller, grants, via, source=peer.source, stream=self._stream)

    # --- passwords ------------------------------------------------------------------------------

    async def log_in(self, name: str, password: Secret, peer: Peer) -> LoginOutcome:
        """Check a password and mint a token.

        Args:
            name: `user`, or `tenant/user` for a user of a named tenant.
            password: What is claimed to be the user's.
            peer: Where it comes from.

        Raises:
            Refused: AUTH_FAILED whatever is wrong with name or password, TOO_MANY_REQUESTS for a
                name that has to wait, AUTH_NOT_ENABLED where there is nothing to log in to.
        """
        tenant_name, user = split_name(name)
        default = self._state.accounts.tenant(DEFAULT_TENANT)
        if not tenant_name and default is not None and not default.record.auth_enabled:
            raise Refused(Failure.AUTH_NOT_ENABLED)
        # However it is written: `web` and `default/web` are one user, and one to be guessed at.
        whole_name = f"{tenant_name or _DEFAULT}/{user.strip()}"
        if self._throttle.wait_ns(whole_name, peer.ip, self._wall_ns()):
            raise Refused(Failure.TOO_MANY_REQUESTS)
        outcome = None
        if len(password) <= PASSWORD_BYTES_MAX:
            outcome = await self._check(tenant_name, user, password, peer)
        if outcome is None:
            self._throttle.failed(whole_name, peer.ip, self._wall_ns())
            raise Refused(Failure.AUTH_FAILED)
        self._throttle.succeeded(whole_name, peer.ip)
        return outcome

    async def hash(self, password: Secret) -> str:
        """Return a new verifier for a password."""
        return await self._in_pool(hash_password, password)

    def close(self) -> None:
        """Let go of the workers."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _check(
        self, tenant_name: str, name: str, password: Secret, peer: Peer
    ) -> LoginOutcome | None:
        for _ in range(_ATTEMPTS_MAX):
            tenant = _tenant_or_none(self._state.accounts, tenant_name)
            user = tenant.users.get(name) if tenant else None
            if tenant is None or user is None or user.no_password or not user.password_hash:
                await self._in_pool(verify_nobody, password)
                return None
            verifier, revision = user.password_hash, tenant.law_revision
            verdict: Verdict = await self._in_pool(verify_password, password, verifier)
            if tenant.law_revision != revision:
                # Accounts moved while the password was hashed: what was checked may be gone.
                continue
            if not verdict.right:
                return None
            claims = Claims(
                tenant=tenant.id,
                user=name,
                user_id=user.id,
                tenant_epoch=tenant.record.session_epoch,
                user_epoch=user.session_epoch,
                session=secrets.token_hex(12),
                expires_s=0,
                certificate=peer.fingerprint,
            )
            token = self._mint.mint(claims, self._wall_ns() // _NS)
            return LoginOutcome(tenant, name, token, verifier, verdict.replacement)
        raise Refused(Failure.TOO_MANY_REQUESTS)

    async def _in_pool(self, act: Callable[..., T], *arguments: object) -> T:
        if self._queued >= PASSWORD_QUEUE_MAX:
            raise Refused(Failure.TOO_MANY_REQUESTS)
        self._queued += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, act, *arguments)
        finally:
            self._queued -= 1


def split_name(name: str) -> tuple[str, str]:
    """Return the tenant (empty: the default one) and the user that a log-in name stands for."""
    tenant, slash, user = name.partition("/")
    return (tenant, user) if slash else ("", name)


def _check_peer(peer: Peer) -> None:
    if peer.is_cut:
        raise Refused(Failure.INVALID_AUTH_TOKEN)


def _tenant_or_none(accounts: Accounts, name: str) -> Tenant | None:
    try:
        return accounts.tenant_named(name or _DEFAULT)
    except Refused:
        return None
