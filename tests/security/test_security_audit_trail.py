"""The trail while it is written: numbers without gaps, one chain, over restarts and crashes."""

import json
import os
from pathlib import Path

import pytest
from security.lab import CLUSTER, keyring, place_of
from security.trail import Trail

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.crypto.sealing import Tampered
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import MemberId
from kvsecure.model.secret import Secret
from kvsecure.security.audit import (
    GENESIS,
    AuditTrail,
    Head,
    chain,
    checkpoint_text,
    linked_hash,
)
from kvsecure.storage.files import StorageError
from kvsecure.storage.segments import terms_of


@pytest.fixture(scope="module")
def keys() -> Keyring:
    """The keys of one cluster."""
    return keyring()


def _reopened(trail: Trail, known: Head) -> AuditTrail:
    return AuditTrail(
        trail.place, trail.keys, known=known, on_segment=lambda _: None, wall_ns=lambda: 0
    )


def test_records_are_numbered_and_chained(tmp_path: Path, keys: Keyring) -> None:
    """Every record has the next number, and the head is the hash over all of them."""
    trail = Trail(tmp_path / "audit", keys, turns=20)
    head = trail.open.written_head
    trail.close()

    records = trail.records()
    running = GENESIS
    for number, record in enumerate(records, 1):
        assert json.loads(record)["seq"] == number
        running = chain(running, record)

    assert head == (len(records), running)
    report = trail.check()
    assert (report.first_seq, report.record_count, report.head) == (1, len(records), head)
    assert report.unfinished_bytes == 0


def test_a_turn_without_records_writes_nothing(tmp_path: Path, keys: Keyring) -> None:
    """Only the record of the start is written before anything happens."""
    trail = Trail(tmp_path / "audit", keys)

    trail.open.end_turn()
    size = trail.files()[0].stat().st_size
    trail.open.end_turn()

    assert trail.files()[0].stat().st_size == size
    assert trail.open.written_head.seq == 1


def test_the_chain_goes_on_over_restarts(tmp_path: Path, keys: Keyring) -> None:
    """A member that is started again goes on with the next number, in a segment of its own."""
    trail = Trail(tmp_path / "audit", keys)

    for _ in range(5):
        trail.write(4)
        trail.rotate()
    trail.close()

    assert len(trail.files()) == 6
    report = trail.check()
    assert report.record_count == report.head.seq == len(trail.records())


def test_a_segment_says_what_it_links_to(tmp_path: Path, keys: Keyring) -> None:
    """The first record of a segment holds the hash of the last one of the segment before."""
    trail = Trail(tmp_path / "audit", keys, turns=3)
    head = trail.open.written_head

    trail.rotate()
    trail.close()

    first = trail.records()[head.seq]
    assert linked_hash(first) == head.hash
    assert json.loads(first)["segment"]["reason"] == "start"


def test_a_full_segment_is_followed_by_another(tmp_path: Path, keys: Keyring) -> None:
    """At 32 MiB the next segment begins, and the trail holds over the seam."""
    trail = Trail(tmp_path / "audit", keys)
    text = "x" * (8 << 20)

    for _ in range(9):
        trail.add(text)
        trail.open.end_turn()
    trail.close()

    assert len(trail.files()) == 3
    reasons = [json.loads(each).get("segment", {}).get("reason") for each in trail.records()]
    assert [each for each in reasons if each] == ["start", "size", "size"]
    assert trail.check().record_count == 12


@pytest.mark.parametrize("kept", ["first", "second"])
def test_a_trail_can_begin_later(tmp_path: Path, keys: Keyring, kept: str) -> None:
    """Segments at the front may be archived: what is left is still checked, and says where."""
    trail = Trail(tmp_path / "audit", keys, turns=3)
    trail.rotate()
    trail.write(3)
    trail.rotate()
    trail.write(3)
    trail.close()
    head = trail.check().head
    seam = json.loads(trail.records()[-1])["seq"]

    for path in trail.files()[: 1 if kept == "first" else 2]:
        path.unlink()
    report = trail.check()

    assert report.first_seq > 1
    assert report.head == head
    assert report.record_count == seam - report.first_seq + 1
    assert _reopened(trail, head).next_seq == head.seq + 2


def test_the_crash_of_a_writer_loses_nothing_that_was_written(
    tmp_path: Path, keys: Keyring
) -> None:
    """After kill -9 every turn that had ended is in the trail."""
    trail = Trail(tmp_path / "audit", keys, turns=7)
    head = trail.open.written_head
    trail.add("of a turn that never ended")

    trail.drop()
    trail.rotate()
    trail.close()

    assert trail.heads()[head.seq] == head.hash
    assert trail.check().record_count == head.seq + 1


def test_the_torn_end_of_a_write_is_cut_at_every_length(tmp_path: Path, keys: Keyring) -> None:
    """Whatever part of the last write reached the disk, the chain goes on behind the one before."""
    trail = Trail(tmp_path / "original", keys, turns=2)
    trail.close()
    last = trail.pieces()[-1]

    for length in range(last.start, last.end):
        torn = trail.copy(tmp_path / "torn")
        os.truncate(torn.files()[-1], length)
        # A frame begins with zeros, which are no sign of a write.
        unfinished = len(torn.files()[-1].read_bytes()[last.start :].rstrip(b"\0"))
        assert torn.check().unfinished_bytes == unfinished
        torn.rotate()
        torn.close()
        start = json.loads(torn.records()[-1])
        assert (start["seq"], start["segment"]["cut_bytes"]) == (last.first, unfinished)
        assert torn.check().head.seq == last.first


def test_a_trail_that_ends_before_what_was_known_is_refused(tmp_path: Path, keys: Keyring) -> None:
    """A member does not start on a trail that was cut behind the head that its tables know."""
    trail = Trail(tmp_path / "audit", keys, turns=4)
    known = trail.open.written_head
    trail.write(4)
    trail.close()
    whole = trail.copy(tmp_path / "whole")

    piece = next(piece for piece in trail.pieces() if piece.first + piece.count - 1 == known.seq)
    os.truncate(trail.files()[-1], piece.start)

    assert _reopened(whole, known)
    with pytest.raises(StorageError, match=rf"record {known.seq}"):
        _reopened(trail, known)


def test_a_trail_that_was_rewritten_is_refused(tmp_path: Path, keys: Keyring) -> None:
    """A trail that holds another record in the place of a known one is another trail."""
    trail = Trail(tmp_path / "audit", keys, turns=4)
    head = trail.open.written_head
    trail.close()

    with pytest.raises(StorageError, match="cut or replaced"):
        _reopened(trail, Head(head.seq, bytes(32)))


@pytest.mark.parametrize("what", ["segment", "directory"])
def test_a_trail_that_is_gone_is_refused(tmp_path: Path, keys: Keyring, what: str) -> None:
    """A member whose tables know of records does not start without any."""
    trail = Trail(tmp_path / "audit", keys, turns=4)
    known = trail.open.written_head
    trail.close()

    for path in trail.files():
        path.unlink()
    if what == "directory":
        trail.directory.rmdir()
        place_of(trail.directory)

    with pytest.raises(StorageError, match="Restore the missing segments"):
        _reopened(trail, known)


def test_a_trail_of_another_member_is_refused(tmp_path: Path, keys: Keyring) -> None:
    """Segments of another member of the cluster are not gone on with."""
    other = Trail(tmp_path / "audit", keys, member=MemberId(7), turns=2)
    other.close()

    with pytest.raises(StorageError, match="member 7"):
        Trail(tmp_path / "audit", keys).open.end_turn()


def test_checkpoints_are_signed_and_pin_what_stands_before(tmp_path: Path, keys: Keyring) -> None:
    """After 10,000 records one is a signed checkpoint over the record before it."""
    trail = Trail(tmp_path / "audit", keys)
    for _ in range(25):
        for _ in range(1_000):
            trail.add("x")
        trail.open.end_turn()
    trail.open.end_turn()
    trail.close()

    report = trail.check()
    heads = trail.heads()
    found = [json.loads(each) for each in trail.records() if b'"stage":"checkpoint"' in each]

    assert report.checkpoint_count == len(found) == 2
    for each in found:
        point = each["checkpoint"]
        assert point["seq"] == each["seq"] - 1
        assert bytes.fromhex(point["hash"]) == heads[point["seq"]]


def test_the_signed_head_can_be_checked_by_its_key_alone(tmp_path: Path, keys: Keyring) -> None:
    """Whoever keeps a head needs nothing else to know that it is this stream's."""
    trail = Trail(tmp_path / "audit", keys, turns=3)

    head, signature, key = trail.open.signed_head()

    key.verify(signature, checkpoint_text(trail.open.stream, head))
    for wrong in (Head(head.seq + 1, head.hash), Head(head.seq, bytes(32))):
        with pytest.raises(Tampered):
            key.verify(signature, checkpoint_text(trail.open.stream, wrong))
    with pytest.raises(Tampered):
        key.verify(signature, checkpoint_text("node/0", head))


def test_followers_get_every_record_once(tmp_path: Path, keys: Keyring) -> None:
    """Each turn's records are handed on after they were written, in order, until it is ended."""
    trail = Trail(tmp_path / "audit", keys, turns=1)
    seen: list[bytes] = []

    stop = trail.open.follow(seen.extend)
    trail.write(3)
    between = trail.open.written_head.seq
    stop()
    trail.write(2)

    numbers = [json.loads(each)["seq"] for each in seen]
    assert numbers == list(range(numbers[0], between + 1))


def test_newest_records_are_kept_within_bounds(tmp_path: Path, keys: Keyring) -> None:
    """What is kept in memory is bounded in bytes, however long the records are."""
    trail = Trail(tmp_path / "audit", keys)

    for _ in range(30):
        trail.add("x" * (1 << 20))
        trail.open.end_turn()

    kept = trail.open.recent(1_000)
    assert 10 <= len(kept) <= 16
    assert sum(map(len, kept)) <= 16 << 20
    assert json.loads(kept[-1])["seq"] == trail.open.written_head.seq


def test_newest_records_survive_a_restart(tmp_path: Path, keys: Keyring) -> None:
    """Whoever asks for the newest records gets those of before the restart as well."""
    trail = Trail(tmp_path / "audit", keys, turns=5)
    before = trail.open.recent(3)

    trail.rotate()

    assert trail.open.recent(4)[:3] == before
    assert trail.open.recent(0) == []


def test_new_segments_are_made_durable_with_the_log(tmp_path: Path, keys: Keyring) -> None:
    """The disk process is told of each segment, once."""
    trail = Trail(tmp_path / "audit", keys, turns=3)
    trail.rotate()

    assert trail.segments == trail.files()


def test_durable_heads_only_rise(tmp_path: Path, keys: Keyring) -> None:
    """What is known to be on the disk does not become less."""
    trail = Trail(tmp_path / "audit", keys, turns=3)
    head = trail.open.written_head

    trail.open.note_durable(head)
    trail.open.note_durable((1, b"older"))

    assert trail.open.durable_head == head


def test_refusals_of_the_trail_name_the_trail() -> None:
    """The text that a client sees says that the audit trail is why."""
    refused = Refused(Failure.AUDIT_UNAVAILABLE)

    assert refused.code.name == "UNAVAILABLE"
    assert "audit unavailable" in refused.text


def test_trail_goes_over_to_another_data_key_within_one_chain(tmp_path: Path) -> None:
    """A new key begins a segment behind the turn that is going on; a retired one still opens."""
    kek = KeyEncryptionKey(Secret(bytes(32)), "file")
    keys = Keyring.create(kek, CLUSTER)
    trail = Trail(tmp_path / "audit", keys, turns=3)
    trail.add("of the turn that is going on")

    keys.become(keys.rotated(kek, now_s=0))
    trail.open.use(keys)
    trail.open.end_turn()
    trail.write(3)
    head = trail.open.written_head
    trail.close()
    keys.become(keys.without(1))

    assert sorted(terms_of(trail.place)) == [1, 2]
    assert trail.check().head == head
    assert [json.loads(record)["stage"] for record in trail.records()].count("segment") == 2
    assert trail.open.written_head == head
