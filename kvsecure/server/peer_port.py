"""The peer port: the engine's way to the other members, and theirs to it.

Owns: which links there are for the members that the state has declared, and what is recorded and
    done when a link comes, goes or is refused.
Never: knows what a message says.
Follows: design D2; docs/adr/0021-peer-links.md.
Keeps: a member that the others have removed stops, whoever of them says so first.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, final

from kvsecure.core.engine import Engine
from kvsecure.core.members import Members
from kvsecure.core.peering import SnapshotDone
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.scans import Scans
from kvsecure.model.ids import MemberId
from kvsecure.server.credentials import Credentials
from kvsecure.server.joining import KnownMember, encode_members
from kvsecure.server.peers import LinkTiming, PeerAddress, PeerIdentity, PeerLinks
from kvsecure.server.peers.hello import Refusal
from kvsecure.server.snapshot_receiving import SnapshotReceiving
from kvsecure.server.snapshot_sending import SnapshotSending
from kvsecure.server.tasks import Tasks
from kvsecure.telemetry.log import log

__all__ = ["PeerPort", "addresses_of", "type_note"]

# Records something in the audit trail: its stage, and the facts.
type_note = Callable[[str, dict[str, object]], None]

# etcd's HealthInterval.
_LONG_ACTIVE_S: Final = 5.0

_log = log("peers")


def addresses_of(members: Members, partners: frozenset[MemberId]) -> dict[int, PeerAddress]:
    """Return where members are reached, and partners in consensus that are going.

    Who is being removed may be needed to make that certain, also by a member that was restarted.
    """
    going = [found for each in partners if (found := members.removed_record(each)) is not None]
    return {each.id: PeerAddress(each.name, tuple(each.peer_urls)) for each in (*going, *members)}


@final
class PeerPort:
    """One member's port to the others."""

    def __init__(
        self,
        own: PeerIdentity,
        credentials: Credentials | None,
        timing: LinkTiming,
        *,
        tasks: Tasks,
        on_fatal: Callable[[str], None],
    ) -> None:
        """Make a port that `open_to` connects to a member; make it within the event loop.

        Args:
            own: Who this member is.
            credentials: What it shows to others and whom it trusts; None for plaintext.
            timing: The settings of consensus.
            tasks: What the member does besides answering.
            on_fatal: Called when the member cannot go on.
        """
        self._spawn = tasks.spawn
        self._on_fatal = on_fatal
        self._engine: Engine
        self._note: type_note
        self._sending: SnapshotSending
        self._receiving: SnapshotReceiving
        self.links = PeerLinks(
            own,
            credentials,
            on_message=self._on_message,
            on_up=self._on_up,
            on_down=self._on_down,
            on_parted=self._on_parted,
            on_bulk=self._on_bulk,
            members=self._tell_newcomer,
            spawn=tasks.spawn,
            spawn_vital=tasks.spawn_vital,
            on_refused=self._on_refused,
            on_refused_by=self._on_refused_by,
            on_cut=self._on_cut,
            note=self._record,
            timing=timing,
        )

    def open_to(
        self, engine: Engine, note: type_note, scans: Scans, receiving: SnapshotReceiving
    ) -> None:
        """Connect to the engine, the audit trail, and what reads and replaces the tables."""
        self._engine = engine
        self._note = note
        self._receiving = receiving
        self._sending = SnapshotSending(
            scans, self.links.send_bulk, engine.replica.node.configuration_at
        )

    def begin(self, peers: Mapping[int, PeerAddress]) -> None:
        """Have links to those whom a member begins with, or to those whom the state names."""
        members = self._engine.state.members
        if members:
            self.follow(members, self._engine.replica.node.partners)
        else:
            self.links.set_peers(peers)

    # --- for the engine ---------------------------------------------------------------------------

    def follow(self, members: Members, partners: frozenset[MemberId]) -> None:
        """Have links to the members that are declared and to partners in consensus, no others."""
        self.links.set_peers(addresses_of(members, partners), members.removed - partners)

    def send(self, member: MemberId, text: bytes) -> bool:
        """Send bytes, without ever waiting; return whether they are on their way."""
        return self.links.send(member, text)

    def send_snapshot(self, order: SnapshotOrder, done: SnapshotDone) -> None:
        """Send the applied state; tell whether it was installed, once."""

        async def send() -> None:
            is_installed = False
            try:
                is_installed = await self._sending.send(order)
            finally:
                done(is_installed=is_installed)

        self._spawn(send())

    def long_active(self) -> frozenset[int]:
        """Return which others have been reached for some seconds without a break (etcd)."""
        links, now_s = self.links, asyncio.get_running_loop().time()
        since = {member: links.up_since_s(member) for member in links.known}
        return frozenset(
            member
            for member, up_s in since.items()
            if up_s is not None and now_s - up_s >= _LONG_ACTIVE_S
        )

    # --- of the links -----------------------------------------------------------------------------

    def _on_message(self, sender: int, text: bytes) -> None:
        self._engine.peering.take(MemberId(sender), text)

    def _on_up(self, member: int) -> None:
        _log.info("a peer is there", peer=f"{member:x}")
        self._engine.drive_soon()

    def _on_down(self, member: int) -> None:
        _log.info("a peer is gone", peer=f"{member:x}")
        self._engine.peering.lost(MemberId(member))
        self._engine.drive_soon()

    def _on_parted(self, member: int) -> None:
        self._engine.peering.parted(MemberId(member))

    async def _on_bulk(self, sender: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
        await self._receiving.take(sender, subject, pieces)

    def _tell_newcomer(self) -> bytes | None:
        """Return who the members are, once this member knows it."""
        members = self._engine.state.members
        if not members:
            return None
        return encode_members(
            KnownMember(
                MemberId(each.id),
                each.name,
                tuple(sorted(each.peer_urls)),
                tuple(each.client_urls),
                each.is_learner,
            )
            for each in members
        )

    def _record(self, stage: str, facts: dict[str, object]) -> None:
        self._note(stage, facts)

    def _on_refused(self, ip: str, port: int, reason: str) -> None:
        self._note("peer-refused", {"ip": ip, "port": port, "reason": reason})

    def _on_refused_by(self, member: int, refusal: Refusal) -> None:
        _log.warning("a peer has refused us", peer=f"{member:x}", reason=refusal.words)
        if refusal is Refusal.REMOVED:
            self._on_fatal("this member has been removed from the cluster")

    def _on_cut(self, member: int | None, ip: str, port: int, reason: str) -> None:
        facts: dict[str, object] = {"ip": ip, "port": port, "reason": reason}
        if member is not None:
            facts["member"] = f"{member:x}"
        self._note("peer-cut", facts)
