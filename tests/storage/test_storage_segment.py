"""The format of a segment: what is read back, and what every kind of damage is called."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage.segments_lab import (
    CLUSTER,
    MEMBER,
    ROOT,
    encode_segment,
    frame_bytes,
    frames_until_damage,
)

from kvsecure.crypto.sealing import fresh_salt
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.storage.segment import (
    HEADER_BYTES,
    NO_LINK,
    Damage,
    DamagedSegment,
    Frame,
    Header,
    Kind,
    SegmentEncoder,
    read_frames,
    read_header,
)
from kvsecure.storage.segments import segment_key

_SECTOR = 512
_PER_FRAME = frame_bytes(0)


def _ends(texts: list[bytes]) -> list[int]:
    """Return where the header and each frame end."""
    return list(accumulate((frame_bytes(len(text)) for text in texts), initial=HEADER_BYTES))


@given(
    batches=st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=700)), max_size=8),
    first=st.integers(1, 2**64 - 100),
)
def test_segment_gives_back_what_was_put_in(batches: list[tuple[int, bytes]], first: int) -> None:
    """Every batch comes back with its number, its count and its bytes, in order."""
    salt = fresh_salt()
    header = Header(Kind.WAL, CLUSTER, MEMBER, 7, first, 3, salt, b"l" * 16)
    encoder = SegmentEncoder(header, segment_key(ROOT, salt))
    parts, expected, number = [header.encode()], [], first
    for count, text in batches:
        parts.append(encoder.frame(number, count, text))
        expected.append((number, count, text))
        number += count
    content = b"".join(parts)

    found_header = read_header(content, Kind.WAL, CLUSTER, MEMBER)
    frames = list(read_frames(content, found_header, segment_key(ROOT, salt)))

    assert found_header == header
    assert [(frame.first, frame.count, frame.text) for frame in frames] == expected
    assert [frame.offset for frame in frames[1:]] == [frame.end for frame in frames[:-1]]
    assert (frames[-1].tag if frames else header.link) == encoder.tag


def test_segment_shows_nothing_of_a_text() -> None:
    """What is written is sealed: no part of a text is in the segment, nor two equal frames."""
    text = b"a password that nobody may read off the disk"
    _, _, content = encode_segment([text, text])

    assert not any(text[at : at + 6] in content for at in range(len(text) - 6))
    first, second = content[HEADER_BYTES:][: len(text) + 36], content[-len(text) - 20 : -20]
    assert second not in first


def test_segment_finds_every_changed_byte() -> None:
    """Whatever one byte is changed to, wherever, it is found and never taken for a torn write."""
    texts = [b"one", b"", b"three"]
    _, _, content = encode_segment(texts)
    ends = _ends(texts)
    assert ends[-1] == len(content)

    for place in range(len(content)):
        whole_before = sum(end <= place for end in ends[1:])
        for change in range(1, 256):
            changed = bytearray(content)
            changed[place] ^= change
            frames, damage = frames_until_damage(bytes(changed))
            assert damage is not None, (place, change)
            assert damage.damage is Damage.CHANGED, (place, change, str(damage))
            assert [frame.text for frame in frames] == texts[:whole_before], (place, change)


def test_segment_cut_anywhere_is_torn_after_its_whole_frames() -> None:
    """A tail cut at any length is torn behind the last whole frame, or ends there cleanly."""
    texts = [b"one", b"x" * 900, b"three"]
    _, _, content = encode_segment(texts)
    ends = _ends(texts)

    for length in range(len(content)):
        frames, damage = frames_until_damage(content[:length])
        whole = sum(end <= length for end in ends[1:])
        assert [frame.text for frame in frames] == texts[:whole]
        if length in ends or (length > HEADER_BYTES and not any(content[ends[whole] : length])):
            assert damage is None
        else:
            assert damage is not None
            assert damage.damage is Damage.TORN
            assert damage.offset == (ends[whole] if length > HEADER_BYTES else 0)


@pytest.mark.parametrize("room_bytes", [0, 1, 20_000])
def test_segment_with_a_sector_of_the_last_write_missing_is_torn(room_bytes: int) -> None:
    """A sector of the last frame that never arrived, whichever, makes it a write that was cut."""
    texts = [b"one" * 100, b"x" * 2_000]
    _, _, content = encode_segment(texts)
    start = _ends(texts)[1]
    boundaries = [start, *range(start // _SECTOR * _SECTOR + _SECTOR, len(content), _SECTOR)]
    pieces = list(zip(boundaries, [*boundaries[1:], len(content)], strict=True))
    assert len(pieces) > 3

    for begin, end in pieces:
        torn = content[:begin] + bytes(end - begin) + content[end:] + bytes(room_bytes)
        frames, damage = frames_until_damage(torn)
        assert [frame.text for frame in frames] == texts[:1]
        assert damage is not None
        assert (damage.damage, damage.offset) == (Damage.TORN, start), (begin, end)


@pytest.mark.parametrize("room_bytes", [0, 20_000])
@pytest.mark.parametrize("piece_bytes", [8, 16, 24, 104])
def test_segment_is_torn_by_a_small_piece_that_is_missing(
    piece_bytes: int, room_bytes: int
) -> None:
    """A frame that only just reaches into its first or last sector is torn if that is missing."""
    pad = _SECTOR - HEADER_BYTES - _PER_FRAME - piece_bytes
    texts = [b"p" * pad, b"x" * (_SECTOR + 2 * piece_bytes - _PER_FRAME)]
    _, _, content = encode_segment(texts)
    start = _ends(texts)[1]
    assert start == _SECTOR - piece_bytes
    assert len(content) == 2 * _SECTOR + piece_bytes

    for begin in (start, 2 * _SECTOR):
        end = begin + piece_bytes
        torn = content[:begin] + bytes(piece_bytes) + content[end:] + bytes(room_bytes)
        frames, damage = frames_until_damage(torn)
        assert [frame.text for frame in frames] == texts[:1]
        assert damage is not None
        assert (damage.damage, damage.offset) == (Damage.TORN, start)


@pytest.mark.parametrize("room_bytes", [0, 20_000])
@pytest.mark.parametrize("piece_bytes", [8, 16, 24, 32])
def test_segment_finds_a_flipped_bit_beside_the_edge_of_a_sector(
    piece_bytes: int, room_bytes: int
) -> None:
    """However a frame lies across sectors, one flipped bit in it is never called a torn write."""
    pad = _SECTOR - HEADER_BYTES - _PER_FRAME - piece_bytes
    # A length of one bit alone is the one that a single flip could turn into nothing.
    texts = [b"p" * pad, b"x" * (_SECTOR - 16)]
    _, _, content = encode_segment(texts)
    start = _ends(texts)[1]

    for place in [*range(start, start + 24), *range(len(content) - 24, len(content))]:
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            _, damage = frames_until_damage(bytes(changed) + bytes(room_bytes))
            assert damage is not None
            assert damage.damage is Damage.CHANGED, (place - start, bit)


@pytest.mark.parametrize("kind", list(Kind))
def test_segment_is_torn_by_whatever_sectors_are_missing(kind: Kind) -> None:
    """Whatever length a frame has and wherever it lies: without any of its sectors it is torn."""
    for before in range(0, 520, 3):
        texts = [b"p" * before, b"x" * (before % 700 + 460)]
        _, _, content = encode_segment(texts, kind=kind)
        start = _ends(texts)[1]
        first, last = start // _SECTOR, (len(content) - 1) // _SECTOR

        for missing in range(1, 1 << (last - first + 1)):
            torn = bytearray(content)
            for sector in range(first, last + 1):
                if missing >> (sector - first) & 1:
                    begin, end = sector * _SECTOR, min((sector + 1) * _SECTOR, len(content))
                    torn[max(begin, start) : end] = bytes(end - max(begin, start))
            frames, damage = frames_until_damage(bytes(torn) + bytes(1_000), kind=kind)
            assert [frame.text for frame in frames] == texts[:1]
            # All of it missing is no frame at all.
            assert damage is None or (damage.damage, damage.offset) == (Damage.TORN, start), before


def test_segment_of_the_first_version_is_read() -> None:
    """Frames without padding, as they were written before, are read, and their damage is found."""
    texts = [b"one", b"", b"three"]
    _, _, content = encode_segment(texts, version=1)

    frames, damage = frames_until_damage(content)
    assert [frame.text for frame in frames] == texts
    assert damage is None
    assert len(content) == HEADER_BYTES + sum(len(text) + 40 for text in texts)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        _, damage = frames_until_damage(bytes(changed))
        assert damage is not None


def test_segment_with_zeros_behind_its_end_is_whole() -> None:
    """Room that was made ahead, of any length, is no part of what was written."""
    texts = [b"one", b"two"]
    _, _, content = encode_segment(texts)

    for length in [*range(1, 40), 511, 512, 513, 4_096]:
        frames, damage = frames_until_damage(content + bytes(length))
        assert [frame.text for frame in frames] == texts
        assert damage is None, length


def test_segment_with_a_missing_sector_before_the_last_frame_is_changed() -> None:
    """Zeros in a frame that others follow are damage: those were written after it was whole."""
    texts = [b"x" * 2_000, b"two"]
    _, _, content = encode_segment(texts)

    for begin in (HEADER_BYTES, _SECTOR, 3 * _SECTOR):
        end = (begin // _SECTOR + 1) * _SECTOR
        frames, damage = frames_until_damage(content[:begin] + bytes(end - begin) + content[end:])
        assert not frames
        assert damage is not None
        assert damage.damage is Damage.CHANGED, begin


def test_audit_segment_with_a_missing_sector_is_torn_there() -> None:
    """Several frames of the trail are made durable at once: any of them may not have arrived."""
    texts = [b"one", b"x" * 2_000, b"three"]
    _, _, content = encode_segment(texts, kind=Kind.AUDIT)
    start = _ends(texts)[1]

    for begin in (start, 2 * _SECTOR, 4 * _SECTOR):
        end = (begin // _SECTOR + 1) * _SECTOR
        torn = content[:begin] + bytes(end - begin) + content[end:]
        frames, damage = frames_until_damage(torn, kind=Kind.AUDIT)
        assert [frame.text for frame in frames] == texts[:1]
        assert damage is not None
        assert (damage.damage, damage.offset) == (Damage.TORN, start), begin


def test_segment_whose_header_never_arrived_is_torn() -> None:
    """A first sector of nothing but zeros is a segment that was begun and never written."""
    _, _, content = encode_segment([])

    frames, damage = frames_until_damage(bytes(len(content)))

    assert not frames
    assert damage is not None
    assert (damage.damage, damage.offset) == (Damage.TORN, 0)


def test_segment_refuses_frames_in_another_order() -> None:
    """Frames that are swapped, repeated or dropped from the middle do not open."""
    texts = [b"aaa", b"bbb", b"ccc"]
    _, _, content = encode_segment(texts)
    ends = _ends(texts)
    head, one, two, three = (content[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True))

    for bent, good in [
        (head + two + one + three, 0),
        (head + one + one + two + three, 1),
        (head + one + three, 1),
        (head + two + three, 0),
        (head + one + two + two, 2),
    ]:
        frames, damage = frames_until_damage(bent)
        assert len(frames) == good
        assert damage is not None
        assert damage.damage is Damage.CHANGED
        assert "seal" in str(damage)


def test_segment_refuses_a_frame_of_another_segment() -> None:
    """A frame that is brought in from another segment of the same cluster does not open."""
    _, _, content = encode_segment([b"one", b"two"])
    _, _, other = encode_segment([b"one", b"two"])
    end = _ends([b"one"])[1]

    frames, damage = frames_until_damage(content[:end] + other[end:])

    assert [frame.text for frame in frames] == [b"one"]
    assert damage is not None
    assert damage.damage is Damage.CHANGED


def test_segment_tells_whose_frame_fails_its_seal() -> None:
    """A frame whose checksums were made to fit is handed over for inquiry, still sealed."""
    _, key, content = encode_segment([b"one", b"two"])
    _, _, other = encode_segment([b"one", b"two"])
    end = _ends([b"one"])[1]
    seen: list[Frame] = []
    bent = content[:end] + other[end:]
    header = read_header(bent, Kind.WAL, CLUSTER, MEMBER)

    with pytest.raises(DamagedSegment) as caught:
        list(read_frames(bent, header, key, on_tampered=seen.append))

    assert caught.value.first == 2
    assert [(frame.first, frame.offset) for frame in seen] == [(2, end)]
    assert seen[0].text == other[end + 20 :][: 3 + 16]


def test_header_tells_whose_it_is() -> None:
    """A segment of another cluster, member or kind is foreign, and says what it is."""
    salt = fresh_salt()

    def header_of(kind: Kind, cluster: int, member: int) -> bytes:
        ids = ClusterId(cluster), MemberId(member)
        return Header(kind, *ids, 1, 1, 1, salt, NO_LINK).encode()

    for content, text in [
        (header_of(Kind.AUDIT, CLUSTER, MEMBER), "another kind"),
        (header_of(Kind.WAL, 0xABC, MEMBER), "cluster abc, member beef"),
        (header_of(Kind.WAL, CLUSTER, 0xDEF), "cluster c0ffee, member def"),
    ]:
        with pytest.raises(DamagedSegment, match=text) as caught:
            read_header(content, Kind.WAL, CLUSTER, MEMBER)
        assert caught.value.damage is Damage.FOREIGN


@given(content=st.binary(max_size=400))
def test_any_bytes_are_a_damaged_segment(content: bytes) -> None:
    """No bytes whatever make reading fail in another way than by naming the damage."""
    frames, damage = frames_until_damage(content)

    assert not frames
    assert damage is not None


@given(rest=st.binary(max_size=200))
def test_any_bytes_behind_a_header_are_found(rest: bytes) -> None:
    """Bytes that were not sealed under the segment's key never come back as a frame."""
    _, _, content = encode_segment([])

    frames, damage = frames_until_damage(content + rest)

    assert not frames
    assert (damage is None) == (not any(rest))
