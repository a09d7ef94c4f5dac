"""Vetting: what the certificate of one connection is worth, from its handshake to its end.

Owns: the chain by which a connection's peer was verified, and when it is to be judged again.
Never: closes a connection; whoever owns it does.
Keeps: a certificate is checked by the handshake that shows it, so a resumed session (TLS 1.2) never
    carries one in; what came into force during the handshake counts; a loss is told once.
"""

import math
from typing import Any, final

from kvsecure.pki.certificates import CertificateError
from kvsecure.pki.standing import Link, Standing
from kvsecure.server.credentials import Credentials

__all__ = ["Vetting"]


@final
class Vetting:
    """The certificate of one connection."""

    __slots__ = ("_chain", "_credentials", "expires_s")

    def __init__(self, credentials: Credentials | None) -> None:
        """Know nothing yet.

        Args:
            credentials: By what it is judged; without it, it is not judged.
        """
        self._credentials = credentials
        self._chain: tuple[Link, ...] = ()
        # When it is to be judged again, in seconds since 1970.
        self.expires_s = math.inf

    def refusal(self, tls: Any) -> str:
        """Judge the peer of a finished handshake; return why it is refused, or nothing.

        Args:
            tls: The TLS object of a connection whose peer showed a certificate.
        """
        if tls.session_reused:
            # It was checked when the session was made; by now it may have expired, or its
            # authority may not be trusted any more. Ending without a goodbye makes OpenSSL forget
            # the session, so that the next attempt shakes hands in full.
            return "resumed session"
        if self._credentials is None:
            return ""
        # What is in force may have changed while they shook hands.
        try:
            self._chain = self._credentials.chain_of(tls)
        except CertificateError as error:
            return str(error)
        verdict = self._credentials.judge(self._chain)
        if verdict.standing is not Standing.GOOD:
            return str(verdict.standing.value)
        self.expires_s = verdict.expires_s
        return ""

    def loss(self) -> Standing | None:
        """Judge it again; return what has become of it if it is good no more."""
        if self._credentials is None or not self._chain:
            return None
        verdict = self._credentials.judge(self._chain)
        self.expires_s = verdict.expires_s
        if not verdict.standing.is_lost:
            return None
        # It is judged once.
        self._chain = ()
        self.expires_s = math.inf
        cut = self._credentials.counts.cut
        cut[verdict.standing.value] = cut.get(verdict.standing.value, 0) + 1
        return verdict.standing
