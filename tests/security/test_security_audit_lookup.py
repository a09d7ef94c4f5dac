"""Looking a record up in a trail by its number: it is there, or it is not, or nobody can say."""

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from security.lab import keyring
from security.trail import Trail

from kvsecure.security.audit import Head
from kvsecure.security.audit_lookup import Standing, holds

_KEYS: Final = keyring()


def _standing(trail: Trail, head: Head) -> Standing:
    return holds(trail.place, trail.keys, head, trail.open.written_head).standing


def _written(directory: Path, lives: int, turns: int = 4) -> Trail:
    trail = Trail(directory, _KEYS)
    for _ in range(lives):
        trail.write(turns)
        trail.rotate()
    return trail


def test_every_record_of_a_trail_is_held(tmp_path: Path) -> None:
    """At whatever place of whatever file it stands, also at the joints."""
    trail = _written(tmp_path / "audit", lives=4)
    heads = trail.heads()

    found = {_standing(trail, Head(seq, digest)) for seq, digest in heads.items()}

    assert len(trail.files()) >= 4
    assert found == {Standing.HELD}


def test_another_record_of_the_same_number_is_missing(tmp_path: Path) -> None:
    """The number alone proves nothing."""
    trail = _written(tmp_path / "audit", lives=2)

    found = {_standing(trail, Head(seq, b"x" * 32)) for seq in trail.heads()}

    assert found == {Standing.MISSING}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=st.integers(1, 6), lost=st.integers(1, 6), after=st.integers(0, 12))
def test_what_a_rollback_took_is_missing_however_the_trail_goes_on(
    tmp_path_factory: pytest.TempPathFactory, before: int, lost: int, after: int
) -> None:
    """Records of the copy are held; those since are not, though others have their numbers."""
    directory = tmp_path_factory.mktemp("rollback")
    trail = Trail(directory / "audit", _KEYS, turns=before)
    trail.close()
    kept = trail.heads()
    copy = trail.copy(directory / "copy")
    trail.write(lost)
    trail.close()
    copy.write(after, size=30)

    found = {seq: _standing(copy, Head(seq, digest)) for seq, digest in trail.heads().items()}

    assert found == {
        seq: Standing.HELD if seq in kept else Standing.MISSING for seq in trail.heads()
    }


def test_trail_that_was_cut_within_a_file_misses_what_was_behind(tmp_path: Path) -> None:
    """Also where the member did not read that file at its start."""
    trail = _written(tmp_path / "audit", lives=2)
    heads, piece = trail.heads(), trail.pieces()[2]
    os.truncate(piece.path, piece.start)

    assert _standing(trail, Head(piece.first, heads[piece.first])) is Standing.MISSING
    assert _standing(trail, Head(piece.first - 1, heads[piece.first - 1])) is Standing.HELD


def test_trail_with_a_changed_byte_misses_the_record(tmp_path: Path) -> None:
    """What cannot be opened is not what was recorded."""
    trail = _written(tmp_path / "audit", lives=2)
    heads, piece = trail.heads(), trail.pieces()[1]
    content = bytearray(piece.path.read_bytes())
    content[piece.start + 20] ^= 1
    piece.path.write_bytes(content)

    assert _standing(trail, Head(piece.first, heads[piece.first])) is Standing.MISSING


def test_record_whose_file_was_moved_away_proves_nothing(tmp_path: Path) -> None:
    """Old files may be archived; the record before the oldest that is left is pinned by that."""
    trail = _written(tmp_path / "audit", lives=4)
    heads, (oldest, second, *_) = trail.heads(), trail.files()
    first = int(second.stem.partition("-")[2], 16)
    oldest.unlink()

    assert _standing(trail, Head(first - 2, heads[first - 2])) is Standing.ARCHIVED
    assert _standing(trail, Head(first - 1, heads[first - 1])) is Standing.HELD
    assert _standing(trail, Head(first - 1, b"x" * 32)) is Standing.MISSING


def test_trail_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    """Keys that are not there and files that do not open are no reason to accuse anybody."""
    trail = _written(tmp_path / "audit", lives=2)
    head = Head(2, trail.heads()[2])
    newest = trail.open.written_head

    other = keyring()
    assert holds(trail.place, trail.keys, head, newest).standing is Standing.HELD
    elsewhere = trail.place._replace(directory=tmp_path / "nowhere")
    assert holds(elsewhere, other, head, newest).standing is Standing.UNKNOWN
