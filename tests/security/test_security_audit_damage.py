"""Claim C1: whatever is done to a trail is found, and the first broken record is named.

What somebody without the keys can do is done to files and frames; what only a holder of the keys
can do is done to records, which are then sealed again. The last kind shows only against a head that
was kept elsewhere.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from security.lab import keyring
from security.trail import Trail

from kvsecure.model.ids import MemberId
from kvsecure.security.audit import GENESIS, MARK_BYTES, Head, chain
from kvsecure.security.audit_check import BrokenTrail
from kvsecure.security.canonical import canonical
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import HEADER_BYTES

_KEYS: Final = keyring()
_Batches = list[list[tuple[bytes, bytes]]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    """A trail of three segments that nobody has touched."""
    trail = Trail(tmp_path_factory.mktemp("original") / "audit", _KEYS, turns=3)
    trail.rotate()
    trail.write(3)
    trail.rotate()
    trail.write(2)
    trail.close()
    return trail


@pytest.fixture
def damaged(original: Trail, tmp_path: Path) -> Trail:
    """A copy of it."""
    return original.copy(tmp_path / "damaged")


def _broken(trail: Trail, must_hold: Head | None = None) -> BrokenTrail:
    with pytest.raises(BrokenTrail) as caught:
        trail.check(must_hold)
    return caught.value


# --- without the keys: bytes, frames and files --------------------------------------------------


def test_every_changed_byte_is_found_and_named(original: Trail, tmp_path: Path) -> None:
    """One bit anywhere in any segment, and the record is named that it belongs to, or its batch."""
    copy = original.copy(tmp_path / "flipped")
    pieces = {piece.path.name: [] for piece in original.pieces()}
    for piece in original.pieces():
        pieces[piece.path.name].append(piece)

    for path in copy.files():
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << random.randrange(8)
            path.write_bytes(changed)
            seq = _broken(copy).seq
            if place < HEADER_BYTES:
                assert seq == pieces[path.name][0].first
                continue
            hit = next(each for each in pieces[path.name] if each.start <= place < each.end)
            assert hit.first <= seq < hit.first + hit.count, (path.name, place)
        path.write_bytes(content)
    assert copy.check().head == original.check().head


def test_a_changed_record_is_named_exactly(original: Trail, tmp_path: Path) -> None:
    """A changed letter of a record's text names this record and no other of its batch."""
    copy = original.copy(tmp_path / "changed")
    named = 0
    for piece in original.pieces():
        path = copy.directory / piece.path.name
        content = path.read_bytes()
        # Behind the frame's head of 20 bytes stand the records, each behind length and mark.
        place = piece.start + 20
        for seq, record in enumerate(_of(original, piece.first, piece.count), piece.first):
            inside = place + 4 + MARK_BYTES + len(record) // 2
            changed = bytearray(content)
            changed[inside] ^= 0x01
            path.write_bytes(changed)
            assert _broken(copy).seq == seq
            place += 4 + MARK_BYTES + len(record)
            named += 1
        path.write_bytes(content)

    assert named == original.check().record_count


def _of(trail: Trail, first: int, count: int) -> list[bytes]:
    return trail.records()[first - 1 : first - 1 + count]


def test_a_frame_that_is_taken_out_is_missed(original: Trail, tmp_path: Path) -> None:
    """Without one frame the record that it began with is the first that is missing."""
    *frames, last = original.pieces()
    for piece in frames:
        copy = original.copy(tmp_path / "cut")
        path = copy.directory / piece.path.name
        content = path.read_bytes()
        path.write_bytes(content[: piece.start] + content[piece.end :])
        assert _broken(copy).seq == piece.first
    assert last.first == frames[-1].first + frames[-1].count


def test_a_frame_that_stands_twice_is_found(original: Trail, tmp_path: Path) -> None:
    """A repeated frame is no frame, wherever it is put."""
    rng = random.Random(random.randrange(1 << 32))
    pieces = original.pieces()
    for piece in pieces:
        copy = original.copy(tmp_path / "twice")
        frame = (copy.directory / piece.path.name).read_bytes()[piece.start : piece.end]
        behind = rng.choice(pieces)
        path = copy.directory / behind.path.name
        content = path.read_bytes()
        path.write_bytes(content[: behind.end] + frame + content[behind.end :])
        # Right behind the one before it, the first of the two is where it belongs.
        following = behind.first + behind.count
        expected = following + (piece.count if piece.first == following else 0)
        same_segment = piece.path == behind.path
        assert _broken(copy).seq == (expected if same_segment else following)


def test_frames_in_another_order_are_found(original: Trail, tmp_path: Path) -> None:
    """Two frames that have changed places are both wrong; the first is named."""
    pieces = original.pieces()
    for one in pieces:
        for other in pieces:
            if one.path != other.path or one.start >= other.start:
                continue
            copy = original.copy(tmp_path / "swapped")
            path = copy.directory / one.path.name
            content = path.read_bytes()
            path.write_bytes(
                content[: one.start]
                + content[other.start : other.end]
                + content[one.end : other.start]
                + content[one.start : one.end]
                + content[other.end :]
            )
            assert _broken(copy).seq == one.first


def test_a_frame_of_another_trail_does_not_fit(original: Trail, tmp_path: Path) -> None:
    """A frame that the same cluster's keys sealed elsewhere is found, in any place."""
    other = Trail(tmp_path / "other", _KEYS, turns=3)
    other.close()
    for own, foreign in zip(original.pieces(), other.pieces(), strict=False):
        copy = original.copy(tmp_path / "spliced")
        frame = foreign.path.read_bytes()[foreign.start : foreign.end]
        path = copy.directory / own.path.name
        content = path.read_bytes()
        path.write_bytes(content[: own.start] + frame + content[own.end :])
        assert _broken(copy).seq == own.first


@pytest.mark.parametrize("same_member", [True, False], ids=["same member", "another member"])
def test_a_segment_of_another_trail_does_not_fit(
    original: Trail,
    damaged: Trail,
    tmp_path: Path,
    same_member: bool,  # noqa: FBT001 - the two cases of one parameter
) -> None:
    """A whole segment from elsewhere, under the right name, is found."""
    member = original.place.member if same_member else MemberId(9)
    other = Trail(tmp_path / "other", _KEYS, member=member, turns=3)
    other.rotate()
    other.write(3)
    other.rotate()
    other.write(2)
    other.close()

    for number, path in enumerate(damaged.files()):
        content = path.read_bytes()
        shutil.copy(other.files()[number], path)
        if number == 0 and same_member:
            # The other trail's first segment is right in itself; the second one does not follow.
            second = damaged.files()[1].name
            seam = next(each for each in original.pieces() if each.path.name == second)
            assert _broken(damaged).seq == seam.first
        else:
            first = next(each for each in original.pieces() if each.path.name == path.name).first
            assert _broken(damaged).seq == first
        path.write_bytes(content)


def test_a_missing_segment_is_missed(original: Trail, tmp_path: Path) -> None:
    """Without the segment in the middle its first record is the first that is missing."""
    copy = original.copy(tmp_path / "gap")
    middle = copy.files()[1]
    first = next(each for each in original.pieces() if each.path.name == middle.name).first

    middle.unlink()

    assert _broken(copy).seq == first


def test_no_segment_at_all_is_no_whole_trail(damaged: Trail) -> None:
    """An empty directory is not an empty trail in good order."""
    for path in damaged.files():
        path.unlink()

    assert _broken(damaged).seq == 1


def test_segments_under_other_names_are_found(original: Trail, tmp_path: Path) -> None:
    """Exchanged file names do not exchange the records."""
    copy = original.copy(tmp_path / "renamed")
    first, second, _ = copy.files()
    first_content, second_content = first.read_bytes(), second.read_bytes()

    first.write_bytes(second_content)
    second.write_bytes(first_content)

    assert _broken(copy).seq == 1


def test_a_stray_name_is_no_segment(damaged: Trail) -> None:
    """A file that is named like no segment is not passed over."""
    (damaged.directory / "x.audit").write_bytes(b"")

    with pytest.raises(StorageError, match="not named like a segment"):
        damaged.check()


def test_a_cut_tail_shows_against_a_head_that_was_kept(original: Trail, tmp_path: Path) -> None:
    """What is missing at the end is named where a head is known, and cannot be seen without."""
    head = original.check().head
    for piece in original.pieces():
        copy = original.copy(tmp_path / "cut")
        for path in copy.files():
            if path.name > piece.path.name:
                path.unlink()
        os.truncate(copy.directory / piece.path.name, piece.start)
        if piece.first == 1:
            assert _broken(copy).seq == 1
            continue
        assert copy.check().head.seq == piece.first - 1
        assert _broken(copy, head).seq == piece.first


def test_a_missing_front_shows_in_the_report_and_against_an_old_head(
    original: Trail, tmp_path: Path
) -> None:
    """Records before the first one are not claimed; a head of theirs cannot be checked."""
    heads = original.heads()
    copy = original.copy(tmp_path / "beheaded")
    copy.files()[0].unlink()

    report = copy.check()
    seam = report.first_seq - 1

    assert report.first_seq > 1
    # The first record that is there says what it links to.
    assert copy.check(Head(seam, heads[seam])).head == report.head
    assert _broken(copy, Head(seam, bytes(32))).seq == seam
    with pytest.raises(StorageError, match="older than the oldest"):
        copy.check(Head(seam - 1, heads[seam - 1]))


def test_every_head_that_a_trail_went_through_is_met(original: Trail) -> None:
    """Whichever record's head was kept, the trail passes through it, and through no other."""
    for seq, digest in original.heads().items():
        assert original.check(Head(seq, digest))
        assert _broken(original, Head(seq, digest[::-1])).seq == seq


# --- with the keys: records, sealed again ------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path) -> Trail:
    """A trail of one segment whose records will be sealed again."""
    trail = Trail(tmp_path / "sealed", _KEYS, turns=6)
    trail.close()
    return trail


def _shuffled(batches: _Batches, rng: random.Random) -> int:
    batch = rng.choice([each for each in batches if len(each) > 1])
    one, other = sorted(rng.sample(range(len(batch)), 2))
    batch[one], batch[other] = batch[other], batch[one]
    return _number_of(batches, batch) + one


def _number_of(batches: _Batches, batch: list[tuple[bytes, bytes]]) -> int:
    before = next(number for number, each in enumerate(batches) if each is batch)
    return 1 + sum(map(len, batches[:before]))


def _changed(batches: _Batches, rng: random.Random) -> int:
    batch = rng.choice(batches)
    place = rng.randrange(len(batch))
    mark, record = batch[place]
    batch[place] = (mark, record.replace(b'"v":1', b'"v":2'))
    return _number_of(batches, batch) + place


def _removed(batches: _Batches, rng: random.Random) -> int:
    batch = rng.choice([each for each in batches[:-1] if len(each) > 1])
    place = rng.randrange(len(batch))
    number = _number_of(batches, batch) + place
    del batch[place]
    return number


def _inserted(batches: _Batches, rng: random.Random) -> int:
    batch = rng.choice(batches)
    place = rng.randrange(len(batch) + 1)
    number = _number_of(batches, batch) + place
    batch.insert(place, (bytes(MARK_BYTES), b'{"seq":%d,"stage":"read"}' % number))
    return number


def _repeated(batches: _Batches, rng: random.Random) -> int:
    batch = rng.choice(batches)
    place = rng.randrange(len(batch))
    batch.insert(place, batch[place])
    return _number_of(batches, batch) + place + 1


@pytest.mark.parametrize("change", [_changed, _removed, _inserted, _repeated, _shuffled])
def test_records_that_were_sealed_again_do_not_chain(
    sealed: Trail, change: Callable[[_Batches, random.Random], int]
) -> None:
    """A record that was touched is named even where the seal over it is right."""
    rng = random.Random(random.randrange(1 << 32))
    original = sealed.batches()
    for _ in range(20):
        batches = [list(batch) for batch in original]
        number = change(batches, rng)
        sealed.reseal(batches)
        assert _broken(sealed).seq == number


def _rechained(batches: _Batches, after: int, *, renumber: bool) -> Iterator[list]:
    """Yield batches in which everything behind a record has been given fresh hashes."""
    running, number = GENESIS, 0
    for batch in batches:
        fresh = []
        for _, record in batch:
            number += 1
            fields = json.loads(record)
            if number > after:
                fields["ts"] = "1999-12-31T23:59:59.000000000Z"
            if renumber:
                fields["seq"] = number
            text = canonical(fields)
            running = chain(running, text)
            fresh.append((running[:MARK_BYTES], text))
        yield fresh


def test_a_trail_rewritten_with_fresh_hashes_shows_only_against_a_kept_head(sealed: Trail) -> None:
    """A key holder who writes everything behind a record anew is found by whoever kept a head."""
    heads, original = sealed.heads(), sealed.batches()
    newest = max(heads)

    for after in range(newest):
        sealed.reseal(list(_rechained(original, after, renumber=False)))
        assert sealed.check().record_count == newest
        assert _broken(sealed, Head(newest, heads[newest])).seq == newest
        if after:
            assert sealed.check(Head(after, heads[after]))


def test_a_record_left_out_and_rechained_is_found_by_its_number(sealed: Trail) -> None:
    """Whoever takes a record out and hashes anew is found, unless the numbers are new as well."""
    heads, original = sealed.heads(), sealed.batches()
    victim = len(original) // 2
    shorter = [list(batch) for batch in original]
    number = _number_of(shorter, shorter[victim])
    del shorter[victim][0]
    shorter = [batch for batch in shorter if batch]

    sealed.reseal(list(_rechained(shorter, 10**9, renumber=False)))
    assert _broken(sealed).seq == number

    sealed.reseal(list(_rechained(shorter, 10**9, renumber=True)))
    assert sealed.check().record_count == max(heads) - 1
    assert _broken(sealed, Head(max(heads), heads[max(heads)])).seq == max(heads)


def test_a_checkpoint_inside_the_trail_needs_the_clusters_signature(tmp_path: Path) -> None:
    """Behind a checkpoint a rewritten past does not fit, unless the signing key is known too."""
    trail = Trail(tmp_path / "audit", _KEYS)
    for _ in range(10):
        for _ in range(1_001):
            trail.add("x")
        trail.open.end_turn()
    trail.open.end_turn()
    trail.close()
    assert trail.check().checkpoint_count == 1
    at = next(n for n, each in enumerate(trail.records(), 1) if b'"checkpoint":{' in each)

    trail.reseal(list(_rechained(trail.batches(), at - 100, renumber=False)))

    broken = _broken(trail)
    assert broken.seq == at
    assert "checkpoint" in broken.why


# --- any of it, on trails of any shape ---------------------------------------------------------

_SHAPES = st.lists(
    st.lists(st.integers(min_value=1, max_value=4), min_size=1, max_size=4), min_size=1, max_size=3
)


@given(shape=_SHAPES, seed=st.integers(0, 2**32))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_to_any_trail_is_found(
    tmp_path: Path, shape: list[list[int]], seed: int
) -> None:
    """However a trail came about, any change of its bytes is found or cuts its end off."""
    rng = random.Random(seed)
    shutil.rmtree(tmp_path / "audit", ignore_errors=True)
    trail = Trail(tmp_path / "audit", _KEYS)
    for number, segment in enumerate(shape):
        if number:
            trail.rotate()
        for records in segment:
            for _ in range(records):
                trail.add("x" * rng.randrange(200))
            trail.open.end_turn()
    trail.close()
    head = trail.check().head

    for _ in range(6):
        copy = trail.copy(tmp_path / "copy")
        _damage(copy, rng)
        if [each.read_bytes() for each in copy.files()] == [
            each.read_bytes() for each in trail.files()
        ]:
            continue
        with pytest.raises(BrokenTrail):
            copy.check(head)


def _damage(trail: Trail, rng: random.Random) -> None:
    path = rng.choice(trail.files())
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    end = min(len(content), place + rng.choice((1, 1, 4, 16, 600, 5_000)))
    match rng.randrange(6):
        case 0:
            content[place] ^= 1 << rng.randrange(8)
        case 1:
            del content[place:end]
        case 2:
            content[place:place] = content[:end] if rng.random() < 0.5 else rng.randbytes(30)
        case 3:
            content[place:end] = bytes(end - place)
        case 4:
            content[place:end] = rng.randbytes(end - place)
        case _:
            del content[place:]
    path.write_bytes(content)
