"""Handshakes: what the ssl module knows of one and keeps to itself.

Owns: the alert of a failed handshake, which event loops throw away, and the chain of one that
    succeeded.
Never: touches a socket, or judges a certificate.
Follows: RFC 8446 section 6.2: an alert is sent before the connection is closed.
"""

import _ssl
import ssl
from typing import final

__all__ = ["Alert", "LivingContext", "LivingHandshake"]


@final
class Alert(Exception):
    """The cause that a failed handshake's error carries: the bytes that tell the peer."""

    def __init__(self, content: bytes) -> None:
        super().__init__("a handshake failed")
        self.content = content


@final
class LivingHandshake(ssl.SSLObject):
    """One side of one connection."""

    _outgoing: ssl.MemoryBIO

    def speak_into(self, outgoing: ssl.MemoryBIO) -> None:
        """Say where what it has to send is put."""
        self._outgoing = outgoing

    def do_handshake(self) -> None:
        """Go on with the handshake.

        Raises:
            ssl.SSLError: It waits for more, or has failed; a failure is raised from an `Alert`.
        """
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            content = self._outgoing.read()
            # It stays where it belongs, for whoever takes it from there.
            self._outgoing.write(content)
            raise error from Alert(content)

    def verified_chain(self) -> list[bytes]:
        """Return what verified the peer, in DER: its certificate first, the anchor last.

        A peer that showed no certificate has none.
        """
        chain = self._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # public from 3.13
        return [each.public_bytes(_ssl.ENCODING_DER) for each in chain or ()]


@final
class LivingContext(ssl.SSLContext):
    """A context whose failed handshakes bring their alert along, and whose peers stay known."""

    sslobject_class = LivingHandshake

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the signature of the ssl module
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Return the TLS of one connection between two buffers."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, LivingHandshake):
            made.speak_into(outgoing)
        return made
