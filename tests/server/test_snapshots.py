"""Snapshots between members: over real links, into real tables, taken up by a start."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, final

import pytest
import uvloop
from core.engine_lab import KEK, TABLES_BYTES_MAX, WANTED, EngineLab, running, value_of
from server.peers.lab import Lab, play, until

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.replication import SnapshotOrder
from kvsecure.core.scan import survey
from kvsecure.core.scans import Place, Scans, StateSent, Surveyed
from kvsecure.core.snapshot_stream import SnapshotHead
from kvsecure.model.ids import DEFAULT_TENANT, Index, MemberId, TenantId, Term
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    tenant_pb2,
    version_pb2,
)
from kvsecure.server.datadir import DataDirectory, MemberIdentity
from kvsecure.server.peers import BulkFailed
from kvsecure.server.restore import restore
from kvsecure.server.snapshot_receiving import SnapshotReceiving
from kvsecure.server.snapshot_sending import SnapshotSending

# Who receives is another member of the same cluster, with keys of its own.
_RECEIVER: Final = MemberIdentity(
    cluster=WANTED.cluster, member=MemberId(0xFEED), token="lab", trust_domain="lab"
)
_MEMBERS: Final = Configuration((WANTED.member, _RECEIVER.member))
_HEAD_OF_TRAIL: Final = (3, b"own" * 8)
_KEYS: Final = 3_000


def _scans(lab: EngineLab) -> Scans:
    keyring = lab.directory.keyring
    place = Place(
        directory=lab.directory.tables,
        cluster=WANTED.cluster,
        size_bytes_max=TABLES_BYTES_MAX,
        keys=lambda: {
            facts.term: keyring.data_key(facts.term, purpose="table") for facts in keyring.terms
        },
        backup=dict,
    )
    return Scans(lab.engine, place)


async def _fill(lab: EngineLab) -> None:
    """Let a member have something of everything."""
    await lab.do(tenant_pb2.TenantAddRequest(name="x", root_no_password=True))
    await lab.do(tenant_pb2.TenantAddRequest(name="gone", root_no_password=True))
    other = TenantId(max(tenant.id for tenant in lab.state.accounts.tenants()) - 1)
    await lab.do(tenant_pb2.TenantDeleteRequest(name="gone"))
    await lab.do(lease_pb2.LeaseGrantRequest(ID=7, TTL=600))
    await lab.do(lease_pb2.LeaseGrantRequest(ID=8, TTL=600), other)
    await lab.do(auth_pb2.AuthRoleAddRequest(name="r"))
    permission = authstore_pb2.Permission(key=b"k", range_end=b"l")
    await lab.do(auth_pb2.AuthRoleGrantPermissionRequest(name="r", perm=permission))
    await lab.do(auth_pb2.AuthUserAddRequest(name="u", hashedPassword="h"))
    await lab.do(auth_pb2.AuthUserGrantRoleRequest(user="u", role="r"))
    for start in range(0, _KEYS, 300):
        told = [
            lab.submit(
                kv_pb2.PutRequest(key=b"k%d" % at, value=os.urandom(at % 400), lease=7 * (at % 2)),
                DEFAULT_TENANT,
            )
            for at in range(start, start + 300)
        ]
        told += [lab.submit(kv_pb2.PutRequest(key=b"o%d" % start, value=b"x", lease=8), other)]
        lab.engine.end_turn()
        await asyncio.gather(*told)
    await lab.put(b"large", os.urandom(1_000_000))
    await lab.do(version_pb2.RetentionSetRequest(prefix=b"k1", keep_versions=3))
    for number in range(20):
        await lab.put(b"k1", b"again %d" % number)
    await lab.do(kv_pb2.DeleteRangeRequest(key=b"k2", range_end=b"k3"))
    await lab.do(kv_pb2.CompactionRequest(revision=lab.state.store.revision - 8))
    await lab.put(b"k2", b"back")
    raising = maintenance_pb2.AlarmRequest(
        action=maintenance_pb2.AlarmRequest.ACTIVATE,
        memberID=WANTED.member,
        alarm=maintenance_pb2.NOSPACE,
    )
    await lab.do(raising)


@final
class _Pair:
    """A member that sends and one that receives."""

    def __init__(self, sender: EngineLab, receiver: EngineLab, lab: Lab) -> None:
        self.sender = sender
        self.receiver = receiver
        self.lab = lab
        self.wanted: list[tuple[Index, Term]] = []
        self.installed: list[Index] = []
        self.wants: Callable[[], bool] = lambda: True
        self.audit_head = lambda: _HEAD_OF_TRAIL
        self.spare_bytes = 0
        self.tables_bytes_max = TABLES_BYTES_MAX

    async def open(self) -> None:
        """Connect them."""
        self.first, self.second = await self.lab.member(1), await self.lab.member(2)
        for member in (self.first, self.second):
            member.knows(self.first, self.second)
        await self.first.reaches(self.second)
        self.send_anew()
        self.receive_anew()

    def begin_anew(self) -> None:
        """Forget what an earlier test has seen and wanted, after which nothing was left."""
        assert self.left() == []
        self.wanted.clear()
        self.installed.clear()
        self.wants = lambda: True
        self.spare_bytes = 0
        self.tables_bytes_max = TABLES_BYTES_MAX
        self.send_anew()
        self.receive_anew()

    def send_anew(self) -> None:
        """Begin to send over the link as it is."""
        self.sending = SnapshotSending(
            _scans(self.sender), self.first.links.send_bulk, lambda _: _MEMBERS, pause_s=0
        )

    def receive_anew(self) -> None:
        """Begin to receive, as in a new life."""
        self.receiving = SnapshotReceiving(
            self.receiver.directory,
            tables_bytes_max=self.tables_bytes_max,
            wants=self._wants,
            audit_head=lambda: self.audit_head(),  # noqa: PLW0108 - a test may exchange it
            on_installed=self.installed.append,
            spare_bytes=self.spare_bytes,
        )
        self.second.consumer = self.receiving.take

    def order(self) -> SnapshotOrder:
        """Return an order for all that is applied."""
        state = self.sender.state
        return SnapshotOrder(MemberId(2), state.index, state.term, _MEMBERS)

    def left(self) -> list[str]:
        """Return what of tables there is beside the receiver's."""
        return sorted(path.name for path in self.receiver.directory.path.glob("tables.*"))

    def _wants(self, index: Index, term: Term) -> bool:
        self.wanted.append((index, term))
        return self.wants()


@contextlib.asynccontextmanager
async def _pair(path: Path, *, is_filled: bool = False) -> AsyncIterator[_Pair]:
    async with (
        running(path / "sender") as sender,
        running(path / "receiver", identity=_RECEIVER) as receiver,
        Lab(path) as lab,
    ):
        await receiver.put(b"old", b"of the receiver")
        for number in range(5):
            await sender.put(b"k%d" % number, b"v" * 1_000)
        if is_filled:
            await _fill(sender)
        else:
            for number in range(8):
                await sender.put(b"large%d" % number, os.urandom(300_000))
        pair = _Pair(sender, receiver, lab)
        await pair.open()
        yield pair


class _Stage:
    """A pair for all tests after which the receiver is as it was, and the loop in which it is."""

    def __init__(self, runner: asyncio.Runner, pair: _Pair) -> None:
        self._runner = runner
        self._pair = pair

    def play(self, scene: Callable[[_Pair], Coroutine[Any, Any, None]]) -> None:
        """Run a test's scene."""
        self._pair.begin_anew()
        self._runner.run(scene(self._pair))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Stage]:
    """A member that sends, and one to which nothing that is sent is done."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        opened = _pair(tmp_path_factory.mktemp("stage"))
        pair = runner.run(opened.__aenter__())
        yield _Stage(runner, pair)
        runner.run(opened.__aexit__(None, None, None))


async def _refused(pair: _Pair) -> None:
    """Send in vain, and see that nothing is left and the receiver goes on as it was."""
    assert not await pair.sending.send(pair.order())

    await until(lambda: not pair.receiving._is_busy, "the end of the attempt")
    assert pair.left() == []
    assert pair.installed == []
    await pair.receiver.put(b"new", b"of the receiver")
    assert value_of(pair.receiver.state, b"old") == b"of the receiver"


# --- what arrives ---------------------------------------------------------------------------------


def test_a_state_that_was_sent_is_there_after_a_start(tmp_path: Path) -> None:
    """Every version, row, lease and account; the members, the own audit head, and then the log."""
    sent: list[Surveyed] = []
    orders: list[SnapshotOrder] = []

    async def scene() -> None:
        async with _pair(tmp_path, is_filled=True) as pair:
            orders.append(pair.order())
            assert await pair.sending.send(orders[0])
            sent.append(await _scans(pair.sender).survey())
            assert pair.installed == [orders[0].index]
            assert pair.wanted == [(orders[0].index, orders[0].term)] * 2
            assert pair.left() == ["tables.installed"]

    async def after() -> None:
        async with running(tmp_path / "receiver", leads=False, identity=_RECEIVER) as lab:
            node, state = lab.engine.replica.node, lab.state
            # Who sends was alone.
            assert node.configuration == Configuration((WANTED.member,))
            assert (node.log.applied, node.log.last) == (orders[0].index,) * 2
            assert node.log.term_of(node.log.last) == orders[0].term
            assert lab.restored.audit_head == _HEAD_OF_TRAIL
            assert (WANTED.member, maintenance_pb2.NOSPACE) in state.alarms
            assert value_of(state, b"old") is None
            assert value_of(state, b"k2") == b"back"
            found = survey(lab.restored.reader)
            assert (found.versions_hash, found.hash) == (sent[0].versions_hash, sent[0].hash)
            assert found.version_count == sent[0].version_count > _KEYS
            assert sorted(state.store.space(DEFAULT_TENANT).leases.by_expiry()) == [7]
            assert not list(lab.directory.path.glob("tables.*"))

    play(scene())
    for _ in range(2):
        play(after())


def test_a_member_without_anything_becomes_one_with_everything(tmp_path: Path) -> None:
    """Also where nothing was ever in the tables, and the log has no entry."""

    async def scene() -> None:
        async with _pair(tmp_path) as pair:
            fresh = DataDirectory(tmp_path / "fresh", _RECEIVER, KEK)
            restored = restore(fresh, tables_bytes_max=TABLES_BYTES_MAX, now_ns=0)
            lab = EngineLab(fresh, restored)
            starting = asyncio.ensure_future(lab.engine.start())
            await until(lambda: lab.engine.replica.node.log.durable, "its first entry")
            pair.receiver = lab
            pair.receive_anew()
            assert await pair.sending.send(pair.order())
            lab.engine.stop()
            await starting
            await asyncio.sleep(0)
            restored.close()
            fresh.lock.close()

            # The same process begins the next life.
            again = DataDirectory(tmp_path / "fresh", _RECEIVER, KEK)
            restored = restore(again, tables_bytes_max=TABLES_BYTES_MAX, now_ns=0)
            state = restored.replica.state
            assert state.index == pair.order().index
            assert value_of(state, b"k3") == b"v" * 1_000
            for link in (restored.log, restored.tables):
                link._socket.close()
            restored.close()
            again.lock.close()

    play(scene())


def test_what_is_applied_when_it_is_ordered_is_sent(tmp_path: Path) -> None:
    """The tables are brought up to it first, and a state ahead of the order is said to be that."""

    async def scene() -> None:
        async with _pair(tmp_path) as pair:
            order = pair.order()
            for number in range(50):
                await pair.sender.put(b"later%d" % number, b"v")
            assert await pair.sending.send(order)
            assert pair.installed[0] >= order.index + 50

    play(scene())


# --- what does not --------------------------------------------------------------------------------


def test_a_link_that_is_cut_leaves_nothing_and_the_next_attempt_is_whole(tmp_path: Path) -> None:
    """Wherever in the stream it is cut."""

    async def scene() -> None:
        async with _pair(tmp_path) as pair:
            for bytes_before in (0, 1_000_000):
                seen = 0

                async def cut(
                    member: int,
                    subject: bytes,
                    pieces: AsyncIterator[bytes],
                    bytes_before: int = bytes_before,
                ) -> None:
                    async def watched() -> AsyncIterator[bytes]:
                        nonlocal seen
                        async for piece in pieces:
                            seen += len(piece)
                            if seen > bytes_before:
                                for channel in list(pair.second.links._setting.channels):
                                    channel.abort("the test cuts it")
                            yield piece

                    await pair.first.links.send_bulk(member, subject, watched())

                pair.sending = SnapshotSending(
                    _scans(pair.sender), cut, lambda _: _MEMBERS, pause_s=0
                )
                await _refused(pair)
                assert seen > bytes_before
            pair.sending = SnapshotSending(
                _scans(pair.sender), pair.first.links.send_bulk, lambda _: _MEMBERS
            )
            assert await pair.sending.send(pair.order())
            assert len(pair.installed) == 1

    play(scene())


def test_a_wrong_hash_installs_nothing(stage: _Stage) -> None:
    """One bit of one piece is enough."""

    async def scene(pair: _Pair) -> None:

        async def bent(member: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
            async def changed() -> AsyncIterator[bytes]:
                async for piece in pieces:
                    yield piece.replace(b"vvvv", b"vvvw", 1)

            await pair.first.links.send_bulk(member, subject, changed())

        pair.sending = SnapshotSending(_scans(pair.sender), bent, lambda _: _MEMBERS, pause_s=0)
        await _refused(pair)

    stage.play(scene)


@pytest.mark.parametrize("kind", ["no room on the disk", "tables that are full"])
def test_a_full_disk_installs_nothing(stage: _Stage, kind: str) -> None:
    """Neither where the log needs the room, nor where the tables may not grow so far."""

    async def scene(pair: _Pair) -> None:
        if kind == "no room on the disk":
            pair.spare_bytes = 1 << 60
        else:
            pair.tables_bytes_max = 1 << 20
        pair.receive_anew()
        await _refused(pair)

    stage.play(scene)


def test_what_is_not_wanted_is_not_taken(stage: _Stage) -> None:
    """Neither at the beginning, nor where it has come to be unwanted at the end."""

    async def scene(pair: _Pair) -> None:
        pair.wants = lambda: False
        await _refused(pair)
        assert len(pair.wanted) == 1

        pair.wants = lambda: len(pair.wanted) % 2 == 0
        await _refused(pair)
        assert len(pair.wanted) == 3

    stage.play(scene)


def test_a_key_that_was_rotated_meanwhile_is_not_relied_on(tmp_path: Path) -> None:
    """It may be retired before the new tables are sealed under another one."""

    async def scene() -> None:
        async with _pair(tmp_path) as pair:
            directory = pair.receiver.directory

            def rotate() -> tuple[int, bytes]:
                directory.keyring.become(directory.keyring.rotated(KEK, now_s=1))
                return _HEAD_OF_TRAIL

            pair.audit_head = rotate
            await _refused(pair)
            assert len(pair.wanted) == 1
            assert directory.keyring.current_term == 2

    play(scene())


def test_a_process_that_is_killed_installs_nothing(stage: _Stage) -> None:
    """Whatever ends it while it writes."""

    async def scene(pair: _Pair) -> None:
        pid = 0

        async def killing(member: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
            async def watched() -> AsyncIterator[bytes]:
                nonlocal pid
                count = 0
                async for piece in pieces:
                    count += 1
                    if count == 3:
                        pid = await _installer()
                        os.kill(pid, signal.SIGKILL)
                    yield piece

            await pair.first.links.send_bulk(member, subject, watched())

        pair.sending = SnapshotSending(_scans(pair.sender), killing, lambda _: _MEMBERS, pause_s=0)
        await _refused(pair)
        assert pid

    stage.play(scene)


async def _installer() -> int:
    """Return the process that writes, once there is one."""
    found: list[int] = []

    def look() -> bool:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = entry.read_bytes().split(b"\0")
                if b"kvsecure.core.installer" in line and str(os.getpid()).encode() in line:
                    found.append(int(entry.parent.name))
        return bool(found)

    await until(look, "the process that writes")
    return found[0]


def test_one_snapshot_is_taken_at_a_time_and_none_behind_it(tmp_path: Path) -> None:
    """A second one is refused while one is written, and when one waits for the next life."""

    async def scene() -> None:
        async with _pair(tmp_path) as pair:
            head = SnapshotHead(pair.order().index, pair.order().term, _MEMBERS).encode()
            gate = asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                await gate.wait()
                raise BulkFailed("it breaks off")
                yield b""

            taking = asyncio.ensure_future(pair.receiving.take(1, head, slow()))
            await until(lambda: pair.receiving._is_busy, "the first one")
            with pytest.raises(BulkFailed, match="another snapshot"):
                await pair.receiving.take(1, head, slow())
            gate.set()
            with pytest.raises(BulkFailed, match="breaks off"):
                await taking
            assert pair.left() == []

            assert await pair.sending.send(pair.order())
            assert not await pair.sending.send(pair.order())
            assert len(pair.installed) == 1

    play(scene())


def test_a_life_that_ends_leaves_no_process_and_the_next_start_no_tables(tmp_path: Path) -> None:
    """A consumer that is cancelled ends what it has started; what is left goes at the start."""

    async def scene() -> None:
        async with _pair(tmp_path) as pair:
            head = SnapshotHead(pair.order().index, pair.order().term, _MEMBERS).encode()

            async def endless() -> AsyncIterator[bytes]:
                await asyncio.Event().wait()
                yield b""

            taking = asyncio.ensure_future(pair.receiving.take(1, head, endless()))
            pid = await _installer()
            await until(lambda: pair.left() == ["tables.incoming"], "the tables")
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert pair.left() == ["tables.incoming"]

    play(scene())
    directory = DataDirectory(tmp_path / "receiver", _RECEIVER, KEK)
    assert not list(directory.path.glob("tables.*"))
    directory.lock.close()


def test_an_order_that_cannot_be_carried_out_is_answered(stage: _Stage) -> None:
    """The member is gone, or the tables are damaged: no, and never silence."""

    async def scene(pair: _Pair) -> None:
        nobody = SnapshotOrder(MemberId(9), Index(1), Term(1), _MEMBERS)
        assert not await pair.sending.send(nobody)
        ahead = SnapshotOrder(MemberId(2), Index(1 << 40), Term(1), _MEMBERS)
        assert not await pair.sending.send(ahead)
        assert pair.wanted == []
        assert not pair.sender.engine.slicing._holds

    stage.play(scene)


def test_tables_that_do_not_say_who_the_members_are_are_sent_with_those_of_consensus() -> None:
    """They are from before tables said it: then nobody has changed since the node began."""

    @final
    class Old:
        @contextlib.asynccontextmanager
        async def stream(self) -> AsyncIterator[tuple[StateSent, AsyncIterator[bytes]]]:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"piece"

            yield StateSent(index=Index(7), term=Term(2), configuration=b""), pieces()

    said: list[tuple[bytes, list[bytes]]] = []

    async def send_bulk(member: int, subject: bytes, pieces: AsyncIterator[bytes]) -> None:
        said.append((subject, [piece async for piece in pieces]))

    async def scene() -> None:
        members = {7: _MEMBERS}
        sending = SnapshotSending(Old(), send_bulk, members.__getitem__)  # type: ignore[arg-type]  # all that it asks
        assert await sending.send(SnapshotOrder(MemberId(2), Index(6), Term(2), _MEMBERS))

    asyncio.run(scene())
    assert said == [(SnapshotHead(Index(7), Term(2), _MEMBERS).encode(), [b"piece"])]


def test_a_hostile_subject_costs_nothing(stage: _Stage) -> None:
    """Nobody is asked whether it is wanted, and no process is started."""

    async def scene(pair: _Pair) -> None:
        for subject in (b"", b"x" * 100, os.urandom(60)):

            async def nothing() -> AsyncIterator[bytes]:
                yield b"x"

            with pytest.raises(BulkFailed):
                await pair.first.links.send_bulk(2, subject, nothing())
        assert pair.wanted == []
        assert pair.left() == []

    stage.play(scene)
