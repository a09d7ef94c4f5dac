"""Credentials: which certificate, authorities and revocation lists are in force.

Owns: noticing that their files have changed, taking them up together or not at all, and judging
    the peers of open connections by what is in force.
Never: closes a connection; whoever owns it does, when it is told to judge again.
Follows: docs/pki.md, rotation.
Keeps: a replacement that cannot be used leaves everything as it was, and is logged, counted and
    recorded; the files are looked at twice a second, so that whoever is revoked is out within one.
"""

import asyncio
import contextlib
import math
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, final

from kvsecure.model.errors import Broken
from kvsecure.pki.certificates import CertificateError
from kvsecure.pki.handshake import LivingHandshake
from kvsecure.pki.standing import Link, Standing, Verdict, chain_of
from kvsecure.pki.trust import ServerCredentials, ServerTls, TrustError, server_credentials
from kvsecure.telemetry.log import log

__all__ = ["CredentialCounts", "Credentials"]

_LOOK_S: Final = 0.5
_NEVER_S: Final = math.inf

_log = log("credentials")

# Puts a record into the audit trail: its stage, and what it notes.
_Note = Callable[[str, dict[str, object]], None]


class _Seen(NamedTuple):
    """What a file looked like from outside."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


@final
class CredentialCounts:
    """Plain counts for whoever shows them."""

    __slots__ = ("cut", "failures", "reloads")

    def __init__(self) -> None:
        self.reloads = 0
        self.failures = 0
        # Connections, by why they were cut.
        self.cut: dict[str, int] = {}


@final
class Credentials:
    """What the listeners of a member show, and whom they trust."""

    def __init__(self, tls: ServerTls, now: Callable[[], datetime]) -> None:
        """Read the files.

        Args:
            tls: Where they are, and the policy.
            now: The time of day in UTC.

        Raises:
            TrustError: They cannot be used.
        """
        self._tls = tls
        self._now = now
        self._files = tuple(
            path
            for path in (tls.cert_file, tls.key_file, tls.trusted_ca_file, tls.crl_file)
            if path is not None
        )
        self._seen = self._look()
        self._in_force = server_credentials(tls, now())
        self._asked = asyncio.Event()
        # Why the files that are there are not in force, if they are not.
        self._failure = ""
        self._overdue_count = 0
        self.counts = CredentialCounts()

    @property
    def context(self) -> ssl.SSLContext:
        """The context of new connections."""
        return self._in_force.context

    @property
    def dialing(self) -> ssl.SSLContext:
        """The context of new connections to other members; only a member's credentials have it."""
        context = self._in_force.dialing
        if context is None:
            raise Broken("only members dial each other")
        return context

    @property
    def expires_s(self) -> float:
        """When the server's own certificate ends, in seconds since 1970."""
        return self._in_force.not_after.timestamp()

    @property
    def next_list_s(self) -> float | None:
        """When the first of the revocation lists is overdue, in seconds since 1970."""
        lists = self._in_force.trust.lists
        return min(each.next_update.timestamp() for each in lists) if lists else None

    # --- peers ----------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Return the time of day in seconds since 1970."""
        return self._now().timestamp()

    def chain_of(self, handshake: object) -> tuple[Link, ...]:
        """Return what verified the peer of a finished handshake; empty if it showed nothing.

        Raises:
            CertificateError: It cannot be read.
        """
        if not isinstance(handshake, LivingHandshake):
            raise CertificateError("the handshake was not made with a context of ours")
        certificates = handshake.verified_chain()
        return chain_of(certificates) if certificates else ()

    def judge(self, chain: Sequence[Link]) -> Verdict:
        """Tell how a peer stands now; who has shown nothing is good for ever."""
        if not chain:
            return Verdict(Standing.GOOD, _NEVER_S)
        return self._in_force.trust.judge(chain, self._now())

    # --- files ----------------------------------------------------------------------------------

    def look_now(self) -> None:
        """Read the files at once, changed or not."""
        self._asked.set()

    async def watch(self, *, on_change: Callable[[], None], note: _Note) -> None:
        """Take up new files as they come; until cancelled.

        A member may begin anew within its process, with another loop.

        Args:
            on_change: Called when something else is in force: judge every peer again.
            note: Records what was taken up, and what could not be.
        """
        # An event belongs to the loop that first waits for it; what was asked before counts.
        was_asked, self._asked = self._asked.is_set(), asyncio.Event()
        if was_asked:
            self._asked.set()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _LOOK_S)
            asked = self._asked.is_set()
            self._asked.clear()
            await self._take_up(on_change, note, asked=asked)
            self._mind_lists(note)

    async def _take_up(self, on_change: Callable[[], None], note: _Note, *, asked: bool) -> None:
        """Read the files if there is a reason to, off the loop: lists may be long."""
        # First look, then read: what changes in between is seen to have changed next time.
        seen = await asyncio.to_thread(self._look)
        changed = seen != self._seen
        self._seen = seen
        # What was refused for its dates, or for a part of it, may be good by now.
        if not (changed or asked or self._failure):
            return
        try:
            fresh = await asyncio.to_thread(server_credentials, self._tls, self._now())
        except (TrustError, OSError, ValueError) as error:
            self._refuse(str(error), note, again=changed or asked)
            return
        self._failure = ""
        self._in_force = fresh
        self.counts.reloads += 1
        facts = _facts(fresh)
        _log.info("certificates, authorities and revocation lists taken up", **facts)
        note("credentials-reloaded", facts)
        on_change()

    def _refuse(self, reason: str, note: _Note, *, again: bool) -> None:
        if not again and reason == self._failure:
            return
        self._failure = reason
        self.counts.failures += 1
        _log.error("new certificates cannot be used, the old ones stay in force", error=reason)
        note("credentials-refused", {"reason": reason})

    def _mind_lists(self, note: _Note) -> None:
        """Say it once when a list becomes overdue: nobody of its issuer gets in from then on."""
        now = self._now()
        count = sum(not each.is_fresh(now) for each in self._in_force.trust.lists or ())
        if count > self._overdue_count:
            _log.error("a revocation list is overdue: its issuer's clients are refused")
            note("revocation-list-overdue", {"lists": count})
        self._overdue_count = count

    def _look(self) -> tuple[_Seen | None, ...]:
        return tuple(map(_seen, self._files))


def _seen(path: Path) -> _Seen | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Seen(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def _facts(credentials: ServerCredentials) -> dict[str, object]:
    trust = credentials.trust
    facts: dict[str, object] = {
        "serial": f"{credentials.serial:040x}",
        "not_after": credentials.not_after.isoformat(),
        "authorities": trust.authority_count,
    }
    if trust.lists is not None:
        facts["lists"] = len(trust.lists)
        facts["revoked"] = sum(map(len, trust.lists))
    return facts
