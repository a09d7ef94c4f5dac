"""What another member sends: written as tables if it is a state; else nothing, whatever comes."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from core.stored_tables import MemoryTables, flush, reload
from hypothesis import given
from hypothesis import strategies as st
from storage.segments_lab import CLUSTER, KEYS

from kvsecure.core.apply import apply
from kvsecure.core.backup import pack
from kvsecure.core.installer import Incoming, write_incoming
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.scan import Damage, contents, survey
from kvsecure.core.snapshot_stream import SnapshotHead, chunks_of, pieces_of
from kvsecure.core.state import State
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import DEFAULT_TENANT, Index, MemberId, Term
from kvsecure.proto import kv_pb2, lease_pb2, tenant_pb2
from kvsecure.storage.files import StorageError
from kvsecure.storage.rows import NO_SCOPE, Table
from kvsecure.storage.tables import TableReader

_SYSTEM = Caller(DEFAULT_TENANT, Origin.SYSTEM, "", 0)
_CONFIGURATION = Configuration((MemberId(1), MemberId(2)))
_HEAD = SnapshotHead(Index(9), Term(3), _CONFIGURATION)
_AUDIT_HEAD = (41, b"h" * 32)
_BYTES_MAX = 1 << 26


@pytest.fixture(scope="module")
def sent() -> MemoryTables:
    """The tables of a member that sends: keys of two tenants, a deletion, a compaction, a lease."""
    tables = MemoryTables()
    state = reload(tables)
    added = tenant_pb2.TenantAddRequest(name="x", root_no_password=True)
    apply(state, _SYSTEM, added, 0)
    apply(state, _SYSTEM, lease_pb2.LeaseGrantRequest(ID=7, TTL=60), 0)
    for number in range(30):
        key = b"k%d" % (number % 10)
        apply(state, _SYSTEM, kv_pb2.PutRequest(key=key, value=b"v%d" % number, lease=7), 0)
    apply(state, _SYSTEM, kv_pb2.DeleteRangeRequest(key=b"k3"), 0)
    apply(state, _SYSTEM, kv_pb2.CompactionRequest(revision=12), 0)
    state.index, state.term = _HEAD.index, _HEAD.term
    flush(state, tables)
    return tables


def _packed(tables: MemoryTables) -> bytes:
    return b"".join(text for text, _ in pack(contents(tables)))


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """Give a place for tables, in memory where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path) / "tables"


def _write(
    directory: Path, pieces: Iterable[bytes], head: SnapshotHead = _HEAD, spare_bytes: int = 0
) -> None:
    incoming = Incoming(
        directory=directory,
        cluster=CLUSTER,
        key=KEYS.data_key(1, purpose="table"),
        term=1,
        size_bytes_max=_BYTES_MAX,
        spare_bytes=spare_bytes,
        head=head,
    )
    write_incoming(incoming, pieces, lambda: _AUDIT_HEAD)


@contextlib.contextmanager
def _reading(directory: Path) -> Iterator[TableReader]:
    reader = TableReader(directory, CLUSTER, KEYS, size_bytes_max=_BYTES_MAX)
    try:
        yield reader
    finally:
        reader.close()


def _load(reader: TableReader) -> State:
    state = State(reader)
    blocks = [block for _, block in reader.scan(Table.INDEX, NO_SCOPE)]
    state.load(reader.scan(Table.STATE, NO_SCOPE), blocks, 0)
    return state


# --- what is written ------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_tables_say_what_was_sent_and_whose_they_are(sent: MemoryTables, sizes: list[int]) -> None:
    """All versions and rows, whatever the pieces; the trail's head is the receiver's own."""
    stream = b"".join(pieces_of(text for text, _ in pack(contents(sent))))

    with _directory() as directory:
        _write(directory, _cut(stream, sizes))

        with _reading(directory) as reader:
            assert survey(reader)[1:] == survey(sent)[1:]
            applied = contents(reader).applied
    assert (applied.index, applied.term, applied.revision) == (
        9,
        3,
        contents(sent).applied.revision,
    )
    assert Configuration.decode(applied.configuration) == _CONFIGURATION
    assert (applied.audit_seq, applied.audit_hash) == _AUDIT_HEAD
    assert applied.is_received


def _cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    at, turn = 0, 0
    while at < len(stream):
        yield stream[at : at + sizes[turn % len(sizes)]]
        at += sizes[turn % len(sizes)]
        turn += 1


def test_what_a_former_attempt_has_left_is_not_in_them(sent: MemoryTables) -> None:
    """Tables and stray files in the way go first."""
    with _directory() as directory:
        (directory / "compact.0").mkdir(parents=True)
        (directory / "compact.0" / "data.mdb").write_bytes(b"x")
        (directory / "data.mdb").write_bytes(b"x")

        _write(directory, pieces_of([_packed(sent)]))

        assert sorted(path.name for path in directory.iterdir()) == ["data.mdb", "lock.mdb"]
        with _reading(directory) as reader:
            assert survey(reader)[1:] == survey(sent)[1:]


# --- what is not ----------------------------------------------------------------------------------


def _refused(stream: Iterable[bytes], text: str, head: SnapshotHead = _HEAD) -> None:
    with _directory() as directory:
        with pytest.raises(Damage, match=text):
            _write(directory, stream, head)
        assert not directory.exists()


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (SnapshotHead(Index(8), Term(3), _CONFIGURATION), "another state than was announced"),
        (SnapshotHead(Index(9), Term(2), _CONFIGURATION), "another state than was announced"),
    ],
)
def test_another_state_than_was_announced_is_refused(
    sent: MemoryTables, head: SnapshotHead, text: str
) -> None:
    """What was asked whether it is wanted is what is installed."""
    _refused(pieces_of([_packed(sent)]), text, head)


def test_another_configuration_than_was_announced_is_refused(sent: MemoryTables) -> None:
    """Where the tables say who the members are, nobody else does."""
    found = contents(sent)
    found.applied.configuration = Configuration((MemberId(9),)).encode()
    stream = pieces_of(text for text, _ in pack(found))

    _refused(stream, "another configuration than was announced")


def test_a_stream_that_was_changed_anywhere_is_refused(sent: MemoryTables) -> None:
    """The hash at its end is of every byte, the rows of the state included."""
    stream = b"".join(pieces_of([_packed(sent)]))
    for at in {*range(0, len(stream), 97), 0, 3, len(stream) - 33, len(stream) - 1}:
        changed = bytearray(stream)
        changed[at] ^= 0x10
        with _directory() as directory:
            with pytest.raises((Damage, StorageError)):
                _write(directory, [bytes(changed)])
            assert not directory.exists()


@pytest.mark.parametrize("cut", [0, 1, 4, 100, -40, -33, -32, -1])
def test_a_stream_that_ends_early_or_late_is_refused(sent: MemoryTables, cut: int) -> None:
    """Also where every record in it is whole."""
    stream = b"".join(pieces_of([_packed(sent)]))

    _refused([stream[:cut]], "snapshot|backup")
    _refused([stream, b"x"], "follows on the end")
    _refused([stream, stream], "follows on the end")


def test_a_chunk_without_end_is_not_waited_for() -> None:
    """What is held is bounded: a length that no chunk has ends it at once."""

    def endless() -> Iterator[bytes]:
        yield b"\xff\xff\xff\xff"
        pytest.fail("more was asked for")

    with pytest.raises(Damage, match="too long"):
        list(chunks_of(endless()))


def test_no_room_is_an_error_of_the_disk_and_leaves_nothing(sent: MemoryTables) -> None:
    """The log needs room more than this does."""
    with _directory() as directory:
        with pytest.raises(OSError, match="no room"):
            _write(directory, pieces_of([_packed(sent)]), spare_bytes=1 << 62)
        assert not directory.exists()


# --- whatever comes -------------------------------------------------------------------------------


@st.composite
def _damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Bend the content in some places."""
    bent = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(bent)))
        end = min(len(bent), at + draw(st.integers(0, 40)))
        match draw(st.integers(0, 3)):
            case 0:
                bent[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
            case 1:
                del bent[at:end]
            case 2:
                bent[at:at] = bent[at:end]
            case _:
                bent[at:at] = draw(st.binary(max_size=20))
    return bytes(bent)


@given(data=st.data())
def test_whatever_a_member_sends_is_refused_or_can_be_loaded(
    sent: MemoryTables, data: st.DataObject
) -> None:
    """With a right hash around it: every refusal is one of three errors, and nothing is left."""
    content = data.draw(_damage(_packed(sent)))

    with _directory() as directory:
        try:
            _write(directory, pieces_of([content]))
        except (Damage, OSError, StorageError):
            assert not directory.exists()
            return
        with _reading(directory) as reader:
            _load(reader)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_refused(pieces: list[bytes]) -> None:
    """A stream of anything is no snapshot."""
    with _directory() as directory:
        with pytest.raises((Damage, StorageError)):
            _write(directory, pieces)
        assert not directory.exists()


@given(st.binary(max_size=80) | st.binary(max_size=30).map(lambda end: _HEAD.encode()[:34] + end))
def test_a_subject_is_read_as_it_was_said_or_refused(subject: bytes) -> None:
    """There is one form of it."""
    try:
        head = SnapshotHead.decode(subject)
    except Damage:
        return
    assert head.encode() == subject


def test_a_subject_comes_back() -> None:
    """Index, term and configuration, and a format that a later release may raise."""
    assert SnapshotHead.decode(_HEAD.encode()) == _HEAD
    later = _HEAD.encode().replace(b"snapshot\1", b"snapshot\2")
    with pytest.raises(Damage, match="format 2 is not known here"):
        SnapshotHead.decode(later)
    with pytest.raises(Damage, match="is no snapshot"):
        SnapshotHead.decode(b"x" * 60)
    with pytest.raises(Damage, match="is of nothing"):
        SnapshotHead.decode(SnapshotHead(Index(0), Term(0), _CONFIGURATION).encode())
