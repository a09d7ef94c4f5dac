"""A directory of segments: recovery, refusals that change nothing, and writes that fail."""

import contextlib
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage.segments_lab import (
    CLUSTER,
    KEYS,
    MEMBER,
    Bench,
    dirty_pages,
    file_size_limit,
    frame_bytes,
)
from support.disk import small_disk_at

from kvsecure.crypto.keyring import KeyEncryptionKey, Keyring
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import HEADER_BYTES, Header, Kind
from kvsecure.storage.segments import (
    SegmentPlace,
    frames_of,
    list_segments,
    recover,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty directory of segments."""
    return Bench(tmp_path / "wal")


def _refused(bench: Bench, text: str) -> None:
    """Check that recovery refuses with this text, says what to do, and changes nothing."""
    before = bench.contents()

    with pytest.raises(StorageError, match=text) as caught:
        bench.recover()

    assert re.search(r"[Rr]estore|move it away", str(caught.value)), caught.value
    assert bench.contents() == before


# --- recovery -----------------------------------------------------------------------------------


def test_recovery_of_nothing_begins_at_one(bench: Bench) -> None:
    """An empty directory gives the place of the very first segment."""
    texts, tail = bench.recover()

    assert not texts
    assert (tail.number, tail.following, tail.cut_bytes) == (0, 1, 0)


def test_recovery_reads_every_segment_in_order(bench: Bench) -> None:
    """What several processes appended, one after the other, comes back in that order."""
    bench.write([b"a", b"b"], [b"c"], [b"d", b"e"])

    texts, tail = bench.recover()

    assert texts == [b"a", b"b", b"c", b"d", b"e"]
    assert (tail.number, tail.following) == (3, 6)
    assert len(set(bench.salts())) == 3


def test_recovery_cuts_a_tail_at_any_length_and_goes_on(bench: Bench, tmp_path: Path) -> None:
    """Cut anywhere, the newest segment keeps its whole frames, and what comes next joins on."""
    bench.write([b"a"], [b"b", b"cc"])
    newest = bench.paths()[-1].name
    whole = bench.contents()[newest]
    ends = [HEADER_BYTES + frame_bytes(1), len(whole)]

    for length in range(len(whole) + 1):
        copy = Bench(tmp_path / f"cut{length}")
        shutil.copytree(bench.place.directory, copy.place.directory, dirs_exist_ok=True)
        (copy.place.directory / newest).write_bytes(whole[:length])
        expected = [b"a", b"b", b"cc"][: 1 + sum(end <= length for end in ends)]

        texts, tail = copy.recover()
        kept = HEADER_BYTES + sum(frame_bytes(len(text)) for text in expected[1:])
        assert texts == expected
        assert tail.following == len(expected) + 1
        assert copy.contents().get(newest) == (whole[:kept] if length >= HEADER_BYTES else None)
        # A frame begins with zeros, which are no sign of a write.
        torn = whole[kept if length >= HEADER_BYTES else 0 : length].rstrip(b"\0")
        assert tail.cut_bytes == len(torn)
        copy.write([b"next"])
        assert copy.recover()[0] == [*expected, b"next"]
        shutil.rmtree(copy.place.directory)


def test_recovery_leaves_on_the_disk_what_it_gives_out(bench: Bench) -> None:
    """What a killed process wrote and did not sync is durable before anyone builds on it."""
    writer = bench.writer()
    writer.append(1, b"written, and the process is killed before its sync")
    if not dirty_pages(bench.paths()[0]):
        pytest.skip("nobody can tell here which pages are on the disk")

    texts, _ = bench.recover()

    assert len(texts) == 1
    assert dirty_pages(bench.paths()[0]) == 0


def test_recovery_refuses_an_end_before_what_is_known(bench: Bench) -> None:
    """Segments that end before what is known to have been there are refused, torn or not."""
    bench.write([b"a", b"b"])
    path = bench.paths()[0]
    path.write_bytes(path.read_bytes()[:-1])
    before = bench.contents()

    with pytest.raises(StorageError, match=r"with entry 1, and entry 2 was on the disk: .*Restore"):
        recover(bench.place, KEYS, lambda _: None, first_known=3)

    assert bench.contents() == before


def test_recovery_reads_only_the_newest_where_that_is_asked(bench: Bench) -> None:
    """A reader of the newest segments gets these alone, and the same place to go on."""
    bench.write([b"a"], [b"b"], [b"c"])
    texts: list[bytes] = []

    tail = recover(bench.place, KEYS, lambda frame: texts.append(frame.text), newest=2)

    assert texts == [b"b", b"c"]
    assert tail == bench.recover()[1]


# --- refusals -----------------------------------------------------------------------------------


def test_recovery_refuses_every_flipped_bit(bench: Bench) -> None:
    """A bit that flipped, in any segment and any byte, keeps the member from starting."""
    bench.write([b"a", b"b"], [b"c"])

    for path in bench.paths():
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            path.write_bytes(bytes(changed))
            with pytest.raises(StorageError) as caught:
                bench.recover()
            assert str(path) in str(caught.value)
            assert "Restore the data directory from a backup" in str(caught.value)
            assert path.read_bytes() == changed
        path.write_bytes(content)
    assert bench.recover()[0] == [b"a", b"b", b"c"]


def test_recovery_refuses_a_cut_segment_that_others_follow(bench: Bench) -> None:
    """A cut is a torn write only at the very end; before other segments it is damage."""
    bench.write([b"a", b"b"], [b"c"])
    path = bench.paths()[0]
    content = path.read_bytes()

    for length in (10, HEADER_BYTES + 5, len(content) - 1):
        path.write_bytes(content[:length])
        _refused(bench, "cut off")
    path.write_bytes(content[: HEADER_BYTES + frame_bytes(1)])
    _refused(bench, "does not follow on the one before")


def test_recovery_refuses_a_missing_segment(bench: Bench) -> None:
    """A segment that is gone from between two others is named."""
    bench.write([b"a"], [b"b"], [b"c"])
    bench.paths()[1].unlink()

    _refused(bench, "segment 0000000000000002 is missing")


def test_recovery_refuses_swapped_segments(bench: Bench) -> None:
    """Segments under each other's names are found by their headers."""
    bench.write([b"a"], [b"b"], [b"c"])
    one, two, _ = bench.paths()
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])

    _refused(bench, "not of the segment of this name")


def test_recovery_refuses_a_segment_of_another_history(bench: Bench, tmp_path: Path) -> None:
    """A segment with the right name from another copy of the directory does not join on."""
    bench.write([b"a"])
    other = Bench(tmp_path / "other")
    other.write([b"x"], [b"y"])
    bench.write([b"b"])
    shutil.copy(other.paths()[1], bench.paths()[1])

    _refused(bench, "does not follow on the one before")


def test_recovery_refuses_an_older_newest_segment_put_back(bench: Bench) -> None:
    """A segment that replays one that was given up, under its number, is refused."""
    bench.write([b"a"], [b"b"])
    old = bench.paths()[1]
    kept = old.read_bytes()
    old.unlink()
    bench.write([b"c"], [b"d"])
    bench.paths()[1].write_bytes(kept)

    _refused(bench, "does not follow on the one before")


def test_recovery_refuses_what_is_not_its_own(bench: Bench) -> None:
    """Segments of another cluster, member, kind or key are refused, with their owner's name."""
    bench.write([b"a"])
    place, before = bench.place, bench.contents()
    other_keys = Keyring.create(KeyEncryptionKey(Secret(bytes(32)), "file"), CLUSTER)

    for foreign, keys, text in [
        (place._replace(cluster=ClusterId(1)), KEYS, f"cluster {CLUSTER:x}, member {MEMBER:x}"),
        (place._replace(member=MemberId(1)), KEYS, f"cluster {CLUSTER:x}, member {MEMBER:x}"),
        (place, other_keys, "fails its seal"),
    ]:
        with pytest.raises(StorageError, match=text):
            recover(foreign, keys, lambda _: None)
    audit = SegmentPlace(place.directory, Kind.AUDIT, CLUSTER, MEMBER)
    renamed = bench.paths()[0].with_suffix(".audit")
    shutil.copy(bench.paths()[0], renamed)
    with pytest.raises(StorageError, match="another kind"):
        recover(audit, KEYS, lambda _: None)
    renamed.unlink()
    assert bench.contents() == before


def test_recovery_refuses_a_key_that_is_not_in_the_keyring(bench: Bench) -> None:
    """A segment under a data key that is gone is refused before anything is cut."""
    bench.write([b"a"])
    path = bench.paths()[0]
    header = Header.decode(path.read_bytes())._replace(term=9)
    path.write_bytes(header.encode())

    with pytest.raises(StorageError, match="term 9 is not in the keyring"):
        bench.recover()


def test_listing_refuses_a_name_that_is_no_segments(bench: Bench) -> None:
    """A file that ends like a segment and is not named like one is pointed out, others ignored."""
    bench.write([b"a"])
    (bench.place.directory / "notes.txt").write_text("not ours")
    assert len(bench.paths()) == 1

    (bench.place.directory / "copy.wal").write_text("not ours")

    _refused(bench, "not named like a segment: move it away")


# --- writing ------------------------------------------------------------------------------------


def test_writer_begins_a_segment_when_one_is_full(bench: Bench) -> None:
    """A segment that has reached its size is followed by another with a key of its own."""
    writer = bench.writer(bytes_max=HEADER_BYTES + 1)

    firsts = [writer.append(2, b"x").first for _ in range(3)]
    writer.close()

    assert firsts == [1, 3, 5]
    assert [segment.first for segment in list_segments(bench.place)] == [1, 3, 5]
    assert len(set(bench.salts())) == 3
    assert bench.recover()[1].following == 7


def test_writer_never_opens_an_old_segment_again(bench: Bench) -> None:
    """A new process begins a segment of its own, so that no key outlives the one who drew it."""
    bench.write([b"a"])
    before = bench.contents()

    bench.write([b"b"])

    assert before.items() <= bench.contents().items()
    assert len(bench.paths()) == 2


def test_writer_makes_files_that_are_its_owners_alone(bench: Bench) -> None:
    """A segment is private from its first moment."""
    bench.write([b"a"])

    assert bench.paths()[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("below", range(1, 9))
def test_purge_deletes_only_what_lies_wholly_below(bench: Bench, below: int) -> None:
    """Segments with an entry at or above the bound stay, and the newest always does."""
    writer = bench.writer(bytes_max=HEADER_BYTES + 1)
    for _ in range(3):
        writer.append(2, b"x")

    writer.purge(below)

    firsts = [segment.first for segment in list_segments(bench.place)]
    assert firsts == [first for first in (1, 3) if first + 2 > below] + [5]
    writer.append(2, b"y")
    writer.close()
    assert bench.recover()[1].following == 9


def test_writer_tells_when_its_file_is_gone(bench: Bench) -> None:
    """A segment that was moved away or replaced is noticed, and noticed again when it is back."""
    writer = bench.writer()
    assert writer.is_in_place()
    writer.append(1, b"a")
    aside = writer.path.with_suffix(".aside")

    writer.path.rename(aside)
    gone = writer.is_in_place()
    writer.path.touch()
    replaced = writer.is_in_place()
    aside.rename(writer.path)

    assert (gone, replaced, writer.is_in_place()) == (False, False, True)


def test_writer_survives_a_write_that_stops_after_any_byte(bench: Bench, tmp_path: Path) -> None:
    """Wherever a write stops, nothing of it is read back, and later frames are in new segments."""
    whole = HEADER_BYTES + 2 * frame_bytes(2)

    for limit in range(whole):
        copy = Bench(tmp_path / f"limit{limit}")
        writer = copy.writer()
        done = []
        with file_size_limit(limit):
            for text in (b"a1", b"b2"):
                try:
                    writer.append(1, text)
                except OSError:
                    failed_path = writer.path
                    break
                done.append(text)
        left = copy.contents()
        assert len(done) < 2
        assert all(len(content) <= limit for content in left.values())
        assert copy.recover()[0] == done, limit

        first = writer.append(1, b"c3").first
        writer.close()
        assert first == len(done) + 1
        assert copy.recover()[0] == [*done, b"c3"], limit
        assert len(set(copy.salts())) == len(copy.paths())
        if done:
            assert writer.path != failed_path
            assert left.items() <= copy.contents().items()
        shutil.rmtree(copy.place.directory)


def test_writer_waits_until_a_failed_write_is_cut_off(bench: Bench) -> None:
    """What a failed write left and nobody could cut off is never followed by another segment."""
    writer = bench.writer()
    writer.append(1, b"a")
    with _append_only(writer.path):
        with (
            file_size_limit(writer.path.stat().st_size + 30),
            pytest.raises(OSError, match="large"),
        ):
            writer.append(1, b"b")
        before = bench.contents()
        for _ in range(2):
            with pytest.raises(PermissionError):
                writer.append(1, b"c")
        assert bench.contents() == before

    writer.append(1, b"d")
    writer.close()

    assert bench.recover()[0] == [b"a", b"d"]


@contextlib.contextmanager
def _append_only(path: Path) -> Iterator[None]:
    """Let a file grow and not be cut."""
    try:
        subprocess.run(["chattr", "+a", path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file can be made append-only here: {error}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-a", path], check=True)


def test_writer_never_seals_twice_under_one_number(bench: Bench) -> None:
    """Whatever fails in between, no segment's key seals two different texts at the same place."""
    sealed: dict[tuple[bytes, int], bytes] = {}
    writer = bench.writer(bytes_max=400)

    for number in range(40):
        size = writer.path.stat().st_size if writer.path.is_file() else 0
        try:
            with file_size_limit(size + number * 7 % 60 if number % 3 == 0 else 1 << 20):
                writer.append(1, b"%d" % number)
        except OSError:
            continue
        finally:
            for path in bench.paths():
                content = path.read_bytes()
                salt = Header.decode(content).salt
                for ordinal, start in enumerate(_frame_starts(content)):
                    piece = sealed.setdefault((salt, ordinal), content[start:])
                    assert content[start : start + len(piece)] == piece[: len(content) - start]
    writer.close()
    assert bench.recover()[1].cut_bytes == 0


def _frame_starts(content: bytes) -> list[int]:
    starts, at = [], HEADER_BYTES
    while at < len(content):
        starts.append(at)
        at += frame_bytes(int.from_bytes(content[at : at + 4], "big") - 16)
    return starts


def test_writer_goes_on_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    """On a disk that fills up and is cleared, again and again, what was appended is read back."""
    with small_disk_at(tmp_path / "disk", 128 * 1024) as disk:
        bench = Bench(disk.path / "wal")
        writer = bench.writer(bytes_max=20_000)
        done, failures = [], 0
        for number in range(60):
            if number % 10 == 4:
                disk.fill()
            if number % 10 == 8:
                disk.make_room()
            text = b"%d" % number * 2_000
            try:
                writer.append(1, text)
            except OSError:
                failures += 1
                continue
            done.append(text)
            if number % 10 == 0:
                writer.purge(writer.following - 8)
        writer.close()

        texts, tail = bench.recover()
        assert failures > 4
        assert texts == done[len(done) - len(texts) :]
        assert tail.following == len(done) + 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    script=st.lists(
        st.tuples(
            st.sampled_from(["append", "fail", "restart", "kill", "purge"]), st.integers(0, 200)
        ),
        max_size=25,
    )
)
def test_segments_hold_what_was_appended_whatever_happens(
    tmp_path: Path, script: list[tuple[str, int]]
) -> None:
    """Appends, failures, restarts, kills in the middle of a write, purges: nothing is ever lost."""
    directory = tmp_path / "any"
    shutil.rmtree(directory, ignore_errors=True)
    bench = Bench(directory)
    writer = bench.writer(bytes_max=500)
    done: list[bytes] = []

    for act, number in script:
        text = b"%d-%d" % (len(done), number)
        if act == "append":
            writer.append(1, text)
            done.append(text)
        elif act == "purge":
            writer.purge(number % (len(done) + 2))
        elif act == "fail":
            size = writer.path.stat().st_size if writer.path.is_file() else 0
            try:
                with file_size_limit(size + number % 150):
                    writer.append(1, text)
            except OSError:
                continue
            done.append(text)
        else:
            if act == "restart":
                writer.close()
            elif bench.paths():
                with bench.paths()[-1].open("ab") as last:
                    # The beginning of a frame that the killed process was writing.
                    last.write(b"\0\0\1\0\0\0\0\1"[: number % 9])
            writer = bench.writer(bytes_max=500)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer.close()

    assert soft == hard
    texts, tail = bench.recover()
    assert texts == done[len(done) - len(texts) :]
    assert tail.following == len(done) + 1
    for segment in list_segments(bench.place):
        assert all(frame.first >= segment.first for frame in frames_of(bench.place, KEYS, segment))
