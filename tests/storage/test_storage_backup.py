"""A backup's file: it comes back as it was written, and no change of it passes."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvsecure.crypto.signing import SigningKey, VerifyingKey
from kvsecure.model.secret import Secret
from kvsecure.storage.backup import (
    BackupWriter,
    DamagedBackup,
    check_outline,
    check_signature,
    open_chunks,
)

_KEY = Secret(bytes(range(32)))
_SIGNING = SigningKey(Secret(bytes(range(32, 64))))
_THIEF = SigningKey(Secret(bytes(range(64, 96))))
_CHUNKS = [b"first" * 40, b"", b"third" * 300, b"last"]


def _write(path: Path, chunks: list[bytes], signing: SigningKey = _SIGNING) -> bytes:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    writer = BackupWriter(descriptor, b'{"format": 1}', _KEY, signing)
    for number, chunk in enumerate(chunks, 1):
        writer.add(chunk, is_last=number == len(chunks))
    size = writer.finish()
    os.close(descriptor)
    content = path.read_bytes()
    assert len(content) == size
    return content


def _read(path: Path, key: VerifyingKey = _SIGNING.public) -> list[bytes]:
    outline = check_outline(path)
    check_signature(outline, key)
    return list(open_chunks(outline, _KEY))


def _digested(content: bytes) -> bytes:
    """Give a changed content the digest that whoever changed it can work out."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def _signed(content: bytes, signing: SigningKey) -> bytes:
    """Sign a changed content, and give it its digest."""
    digest = hashlib.sha256(content[:-96]).digest()
    return _digested(content[:-96] + signing.sign(b"kvsecure/backup/v1\0" + digest) + bytes(32))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=6))
def test_chunks_come_back_as_they_were_written(tmp_path: Path, chunks: list[bytes]) -> None:
    """Whatever the chunks, they come back, and the length is one that etcdctl takes."""
    path = tmp_path / "backup"
    content = _write(path, chunks)

    assert _read(path) == chunks
    assert len(content) % 512 == 32
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    """Whichever byte is changed, the file is refused before a chunk of it is used."""
    path = tmp_path / "backup"
    content = _write(path, _CHUNKS)

    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :])
        with pytest.raises(DamagedBackup):
            check_outline(path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    """A file that was cut off anywhere, or has anything behind its end, is refused."""
    path = tmp_path / "backup"
    content = _write(path, _CHUNKS)

    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(DamagedBackup):
            check_outline(path)
    path.write_bytes(content + bytes(512))
    with pytest.raises(DamagedBackup):
        check_outline(path)


def test_a_change_with_a_new_digest_is_found_by_the_signature(tmp_path: Path) -> None:
    """Whoever works out the digest anew has not signed."""
    path = tmp_path / "backup"
    content = _write(path, _CHUNKS)

    for place in range(0, len(content) - 32, 11):
        changed = content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :]
        path.write_bytes(_digested(changed))
        with pytest.raises(DamagedBackup):
            _read(path)


def test_a_change_signed_by_the_cluster_itself_is_found_by_the_seal(tmp_path: Path) -> None:
    """Even with the signing key no chunk can be changed: only with the key it is sealed under."""
    path = tmp_path / "backup"
    content = _write(path, _CHUNKS)

    for place in range(0, len(content) - 96, 5):
        changed = content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :]
        path.write_bytes(_signed(changed, _SIGNING))
        with pytest.raises(DamagedBackup):
            _read(path)


def test_a_backup_signed_by_somebody_else_is_refused(tmp_path: Path) -> None:
    """The key that has to have signed is known from elsewhere."""
    path = tmp_path / "backup"
    _write(path, _CHUNKS, _THIEF)

    assert _read(path, _THIEF.public) == _CHUNKS
    with pytest.raises(DamagedBackup, match="was not signed by"):
        _read(path)


def test_chunks_cannot_be_left_out_or_swapped(tmp_path: Path) -> None:
    """Chunks of the same file, sealed by the same key, stand only where they were put."""
    path = tmp_path / "backup"
    content = _write(path, [b"a" * 100, b"b" * 100, b"c" * 100, b"d" * 100])
    start = len(content) - 96
    begin = content.index(b"}") + 1
    size = 4 + 100 + 16
    chunks = [content[begin + size * n : begin + size * (n + 1)] for n in range(4)]
    rest = content[begin + 4 * size : start]

    for order in ([0, 1, 3], [1, 0, 2, 3], [0, 0, 1, 2, 3], [3]):
        body = content[:begin] + b"".join(chunks[n] for n in order) + rest
        body += bytes(-(len(body) + 64) % 512)
        path.write_bytes(_signed(body + bytes(96), _SIGNING))
        with pytest.raises(DamagedBackup):
            _read(path)
    # The end cut off, and what is left marked as the last chunk.
    body = content[:begin] + chunks[0] + bytes((chunks[1][0] | 0x80,)) + chunks[1][1:]
    body += bytes(-(len(body) + 64) % 512)
    path.write_bytes(_signed(body + bytes(96), _SIGNING))
    with pytest.raises(DamagedBackup, match="chunk 1 does not open"):
        _read(path)


@pytest.mark.parametrize("content", [b"", b"x", bytes(544), b"SQLite format 3\0" + bytes(528)])
def test_what_is_no_backup_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """Files of something else, etcd's snapshots for one, are not taken for damaged backups."""
    path = tmp_path / "backup"
    path.write_bytes(content)

    with pytest.raises(DamagedBackup, match="is no backup of kvsecure"):
        check_outline(path)
