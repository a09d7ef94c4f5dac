"""Channels: one connection between two members, whichever of them dialled.

Owns: whom the certificate of the other end names, frames in and out, turns for everybody, and the
    end of a connection that is refused or not trusted any more.
Never: knows what frames mean; its session does.
Keeps: nothing is read from a connection whose certificate names no member of this cluster, or that
    is plaintext from another machine; what is wrong with one connection ends that one alone.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any, Final, Protocol, cast, final

from kvsecure.model.errors import Broken
from kvsecure.model.limits import (
    PEER_HELLO_BYTES_MAX,
    PEER_SHARE_BYTES,
    PEER_UNSENT_BYTES_MAX,
)
from kvsecure.pki.identity import IdentityError, identity_of
from kvsecure.pki.identity import Kind as IdentityKind
from kvsecure.pki.standing import Standing
from kvsecure.pki.trust import MEMBER_ALPN
from kvsecure.server.credentials import Credentials
from kvsecure.server.farewell import reason_of
from kvsecure.server.peers.counts import PeerCounts
from kvsecure.server.peers.framing import FrameReader, Kind, Malformed, frame
from kvsecure.server.peers.hello import Refusal
from kvsecure.server.places import Source
from kvsecure.server.reception import Arrival
from kvsecure.server.vetting import Vetting
from kvsecure.telemetry.log import log

__all__ = ["Channel", "Session"]

_CLOSED: Final = "closed by the peer"

_log = log("peers")


class Session(Protocol):
    """What is spoken on a channel."""

    def opened(self, channel: "Channel") -> None:
        """Begin: it is known whom the certificate names."""
        ...

    def heard(self, channel: "Channel", kind: int, payload: bytes) -> None:
        """Take in a frame.

        Raises:
            Malformed: It cannot come now, or not like this.
        """
        ...

    def writable(self, channel: "Channel") -> None:
        """Go on: what was written has left."""
        ...

    def lost(self, channel: "Channel", reason: str) -> None:
        """Let go: the connection is over, or there never was one."""
        ...


class _Host(Protocol):
    """What all channels of a member have in common."""

    credentials: Credentials | None

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds that only grow."""
        ...

    @property
    def trust_domain(self) -> str:
        """The label of the cluster in certificates."""
        ...

    def joined(self, channel: "Channel", /) -> None:
        """Take note that a connection is there."""
        ...

    def left(self, channel: "Channel", /) -> None:
        """Take note that it is gone."""
        ...

    def refused(self, channel: "Channel", reason: str, detail: str, /) -> None:
        """Count and record that a connection was refused."""
        ...

    def cut(self, channel: "Channel", standing: Standing, /) -> None:
        """Record that a connection was ended for its certificate."""
        ...


@final
class _Silent:
    """What stands in for a session where there will be none."""

    def opened(self, _: "Channel") -> None:
        """Do nothing."""

    def heard(self, _: "Channel", __: int, ___: bytes) -> None:
        """Hear nothing."""

    def writable(self, _: "Channel") -> None:
        """Do nothing."""

    def lost(self, _: "Channel", __: str) -> None:
        """Do nothing."""


@final
class Channel(Arrival):
    """One connection."""

    def __init__(self, host: _Host, session: Session, source: Source | None = None) -> None:
        """Wait for the end of its handshake.

        Args:
            host: What all channels have in common.
            session: What is spoken on it, at first.
            source: Where it comes from; None if it was dialled from here.
        """
        self._host = host
        self.session = session
        self.source = source
        self.was_made = False
        self.vetting = Vetting(host.credentials)
        # What the certificate names; None in plaintext.
        self.certified: str | None = None
        # Which member it is, once that is agreed, and where its bytes are counted.
        self.member: int | None = None
        self.name = ""
        self.counts: PeerCounts | None = None
        self.address: tuple[str, int] = ("", 0)
        self.heard_s = host.clock()
        self.is_writable = True
        self._transport: asyncio.Transport
        self._reader = FrameReader(PEER_HELLO_BYTES_MAX)
        self._is_over = False
        # Why it ends, where we end it.
        self._reason = ""
        self._share_bytes = PEER_SHARE_BYTES
        self._is_sharing = False
        self._is_waiting = False
        self._is_held_back = False
        self._rest = b""

    # --- what the event loop calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is, and begin."""
        self._transport = cast("asyncio.Transport", transport)
        self.was_made = True
        self._transport.set_write_buffer_limits(high=PEER_UNSENT_BYTES_MAX)
        found = transport.get_extra_info("peername") or ("", 0)
        self.address = (str(found[0]), int(found[1]))
        self.heard_s = self._host.clock()
        self._host.joined(self)
        if self._is_known(transport.get_extra_info("ssl_object")):
            self.session.opened(self)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; who has had a share waits until the others had theirs."""
        self.heard_s = self._host.clock()
        if self.counts is not None:
            self.counts.received_bytes += len(data)
        if self._is_waiting:
            self._rest += data
            return
        self._share_bytes -= len(data)
        if not self._is_sharing:
            self._is_sharing = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._share_bytes < 0:
            self._is_waiting = True
            self._apply_reading()
        self._hear(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Let go of everything."""
        self._is_over = True
        self._rest = b""
        self._host.left(self)
        reason = self._reason or (reason_of(error) if error is not None else _CLOSED)
        # The session may know the channel: a circle, which would stay until it is collected.
        session, self.session = self.session, _Silent()
        session.lost(self, reason)

    def pause_writing(self) -> None:
        """Take note that the peer does not read."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self.is_writable = True
        self.session.writable(self)

    # --- what sessions call ---------------------------------------------------------------------

    def settle(self, member: int, name: str, counts: PeerCounts, payload_bytes_max: int) -> None:
        """Take note that both sides know each other."""
        self.member = member
        self.name = name
        self.counts = counts
        self.expect(payload_bytes_max)

    def expect(self, payload_bytes_max: int) -> None:
        """Take frames of this length from here on, those that are read at once included."""
        self._reader.payload_bytes_max = payload_bytes_max

    def write(self, content: bytes) -> None:
        """Send frames; what is written after the end is for nobody."""
        if self._is_over or self._transport.is_closing():
            return
        if self.counts is not None:
            self.counts.sent_bytes += len(content)
        self._transport.write(content)

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not left."""
        return self._transport.get_write_buffer_size()

    @property
    def is_over(self) -> bool:
        """Whether nothing will be heard any more."""
        return self._is_over

    def hold_back(self, *, held_back: bool) -> None:
        """Stop reading, or go on."""
        if held_back is not self._is_held_back:
            self._is_held_back = held_back
            self._apply_reading()

    def refuse(self, refusal: Refusal, detail: str = "") -> None:
        """Count and record it, tell the peer why, and close."""
        if self._is_over:
            return
        if self.counts is not None:
            self.counts.received_failures += 1
        self._host.refused(self, refusal.words, detail)
        self.dismiss(refusal)

    def dismiss(self, refusal: Refusal) -> None:
        """Tell the peer why, and close."""
        if self._is_over:
            return
        if self.unsent_bytes:
            self.abort(refusal.words)
            return
        self.write(frame(Kind.REFUSAL, bytes((refusal.code,))))
        self._is_over, self._reason = True, refusal.words
        self._transport.close()

    def abort(self, reason: str) -> None:
        """Close at once."""
        self._reason = self._reason or reason
        self._is_over = True
        if self.was_made:
            self._transport.abort()

    def judge_again(self) -> None:
        """End the connection at once if its certificate is not good any more."""
        standing = self.vetting.loss()
        if standing is not None:
            self._host.cut(self, standing)
            self.abort(standing.value)

    # --- within ---------------------------------------------------------------------------------

    def _is_known(self, tls: Any) -> bool:
        """Tell whether the other end is a member of this cluster; refuse it if not."""
        if self._is_over:
            # It was given up while it shook hands.
            self._transport.abort()
            return False
        if tls is None:
            if self._host.credentials is None and _is_loopback(self.address[0]):
                return True
            self.refuse(Refusal.PLAINTEXT)
            return False
        if tls.selected_alpn_protocol() not in MEMBER_ALPN:
            self.refuse(Refusal.PROTOCOL)
            return False
        try:
            identity = identity_of(
                tls.getpeercert(binary_form=True) or b"", self._host.trust_domain
            )
        except IdentityError as error:
            self.refuse(Refusal.CERTIFICATE, str(error))
            return False
        if identity.kind is not IdentityKind.NODE:
            self.refuse(Refusal.CERTIFICATE, "it is a user's")
            return False
        doubt = self.vetting.refusal(tls)
        if doubt:
            self.refuse(Refusal.CERTIFICATE, doubt)
            return False
        self.certified = identity.name
        return True

    def _hear(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.take(data):
                if self._is_over:
                    return
                self.session.heard(self, kind, payload)
        except Malformed as error:
            self.refuse(Refusal.MALFORMED, str(error))
        except Broken:
            self.abort("an invariant does not hold")
            raise
        except Exception:  # noqa: BLE001 - a mistake of ours costs one connection; it is logged
            _log.exception("a connection between members failed", remote=self.address[0])
            self.abort("failed here")

    def _next_turn(self) -> None:
        """Give it another share; read again if it had to wait."""
        self._is_sharing = False
        self._share_bytes = PEER_SHARE_BYTES
        if self._is_over or not self._is_waiting:
            return
        self._is_waiting = False
        rest, self._rest = self._rest, b""
        if rest:
            self.data_received(rest)
        self._apply_reading()

    def _apply_reading(self) -> None:
        if self._is_over or self._transport.is_closing():
            return
        if self._is_waiting or self._is_held_back:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


def _is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False
