"""Key files: exposed ones are refused, and written ones are never exposed."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsecure.model.secret import Secret
from kvsecure.pki.files import (
    FILE_BYTES_MAX,
    Existing,
    UnsafeFile,
    check_private,
    ensure_directory,
    read_private,
    read_public,
    write_private,
    write_public,
)

_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a file that is fit for a key."""
    path = tmp_path / "a b.key"
    write_private(path, b"content")
    return path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_write_private_gives_0600_under_any_umask(tmp_path: Path, umask: int) -> None:
    """A private file has mode 0600 whatever the umask is."""
    before = os.umask(umask)

    write_private(tmp_path / "key", b"content")

    os.umask(before)
    assert _mode(tmp_path / "key") == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_write_public_gives_0644_under_any_umask(tmp_path: Path, umask: int) -> None:
    """A public file has mode 0644 whatever the umask is."""
    before = os.umask(umask)

    write_public(tmp_path / "crt", b"content")

    os.umask(before)
    assert _mode(tmp_path / "crt") == 0o644


_KILLED_MIDWAY = """
import os, pathlib, resource, signal, sys
from kvsecure.pki.files import write_private
os.umask(0)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
write_private(pathlib.Path(sys.argv[1]), b"content" * 10)
"""


def test_write_private_is_private_from_the_start(tmp_path: Path) -> None:
    """What a process leaves that is killed while it writes has mode 0600 and not the name."""
    tree = Path(__file__).resolve().parent.parent.parent

    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_MIDWAY, str(tmp_path / "key")],
        env={**os.environ, "PYTHONPATH": str(tree)},
        timeout=30,
        check=False,
    )

    left = list(tmp_path.iterdir())
    assert killed.returncode == -signal.SIGXFSZ
    assert [_mode(path) for path in left] == [0o600]
    assert left[0].name != "key"


def test_write_private_replaces_an_exposed_file_by_a_private_one(tmp_path: Path) -> None:
    """The mode of the file that was there before does not carry over."""
    path = tmp_path / "key"
    write_public(path, b"old")

    write_private(path, Secret(b"new"))

    assert _mode(path) == 0o600
    assert path.read_bytes() == b"new"


def test_write_does_not_follow_a_link(tmp_path: Path) -> None:
    """A link in the place of the file is replaced; what it points to is untouched."""
    target = tmp_path / "target"
    target.write_bytes(b"theirs")
    path = tmp_path / "key"
    path.symlink_to(target)

    write_private(path, b"ours")

    assert target.read_bytes() == b"theirs"
    assert not path.is_symlink()


def test_write_refuses_what_is_there_when_told_so(key: Path) -> None:
    """With `REFUSE` the file that is there stays, and nothing is left beside it."""
    with pytest.raises(FileExistsError):
        write_private(key, b"other", Existing.REFUSE)

    assert key.read_bytes() == b"content"
    assert [path.name for path in key.parent.iterdir()] == [key.name]


def test_write_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    """A file that cannot take its name leaves no other file with its content."""
    (tmp_path / "key").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "key", b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_ensure_directory_makes_every_level_private(tmp_path: Path) -> None:
    """Directories that are made on the way are 0700 as well."""
    ensure_directory(tmp_path / "one" / "two")

    assert _mode(tmp_path / "one") == 0o700
    assert _mode(tmp_path / "one" / "two") == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o644, 0o666, 0o660])
def test_check_private_refuses_every_exposed_mode(key: Path, mode: int) -> None:
    """A file that group or world can read or write is refused, with the command that mends it."""
    key.chmod(mode)

    with pytest.raises(UnsafeFile) as caught:
        read_private(key)

    assert f"chmod 600 '{key}'" in str(caught.value)
    assert "content" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_check_private_takes_what_only_the_owner_can_read(key: Path, mode: int) -> None:
    """Modes that give nothing to others are fine."""
    key.chmod(mode)

    check_private(key)


@_as_root
def test_check_private_refuses_the_file_of_another_user(key: Path) -> None:
    """A file of a user who is neither we nor root is refused, with the command that mends it."""
    os.chown(key, 65_530, -1)

    with pytest.raises(UnsafeFile) as caught:
        check_private(key)

    assert f"chown root '{key}'" in str(caught.value)
    assert "65530" in str(caught.value)


@_as_root
def test_check_private_takes_a_file_of_root(key: Path) -> None:
    """A service that runs as another user may be given a file of root."""
    os.seteuid(65_530)

    try:
        with pytest.raises((UnsafeFile, PermissionError)) as caught:
            check_private(key)
    finally:
        os.seteuid(0)

    # It cannot read it at mode 0600, but that is all that stands in the way.
    assert caught.type is PermissionError


@pytest.fixture
def credential() -> Iterator[Path]:
    """Return a credential as systemd shows it: 0440, in the directory that it names."""
    before = os.environ.get("CREDENTIALS_DIRECTORY")
    # Not below pytest's directory, which only its owner can enter.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kek"
        write_private(path, b"content")
        path.chmod(0o440)
        path.parent.chmod(0o550)
        os.environ["CREDENTIALS_DIRECTORY"] = directory
        yield path
        path.parent.chmod(0o700)
    os.environ.pop("CREDENTIALS_DIRECTORY")
    if before is not None:
        os.environ["CREDENTIALS_DIRECTORY"] = before


@pytest.mark.parametrize("mode", [0o440, 0o640, 0o400])
def test_check_private_takes_a_credential_that_its_group_can_read(
    credential: Path, mode: int
) -> None:
    """An access list shows as the group's right to read, and does not expose the file."""
    credential.chmod(mode)

    assert read_private(credential) == Secret(b"content")


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o660, 0o404, 0o442, 0o420])
def test_check_private_refuses_a_credential_that_is_exposed(credential: Path, mode: int) -> None:
    """A credential that the group can write, or others can read or write, is refused like a key."""
    credential.chmod(mode)

    with pytest.raises(UnsafeFile, match="chmod 600"):
        check_private(credential)


def test_check_private_takes_a_link_to_a_credential(credential: Path, tmp_path: Path) -> None:
    """A path that leads to the credential is the credential."""
    (tmp_path / "kek").symlink_to(credential)

    check_private(tmp_path / "kek")


def test_check_private_takes_group_readable_credentials_only(
    credential: Path, tmp_path: Path
) -> None:
    """What lies elsewhere, beside it, or behind a link in it, is refused as ever."""
    outside = tmp_path / "kek"
    write_private(outside, b"other")
    outside.chmod(0o440)
    credential.parent.chmod(0o750)
    (credential.parent / "link").symlink_to(outside)
    below = credential.parent / "below"
    below.mkdir()
    write_private(below / "kek", b"other")
    (below / "kek").chmod(0o440)

    for path in (outside, credential.parent / "link", below / "kek"):
        with pytest.raises(UnsafeFile, match="chmod 600"):
            check_private(path)


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o757])
def test_check_private_refuses_credentials_that_others_can_replace(
    credential: Path, mode: int
) -> None:
    """A directory that others can write to is not one that systemd has made."""
    credential.parent.chmod(mode)

    with pytest.raises(UnsafeFile, match="chmod"):
        check_private(credential)


@pytest.mark.parametrize("named", ["", "relative", "/nowhere/at/all"])
def test_check_private_without_a_credentials_directory_is_strict(
    credential: Path, named: str
) -> None:
    """Where nothing is named, or nothing that is there, a group's right to read is too much."""
    os.environ["CREDENTIALS_DIRECTORY"] = named

    with pytest.raises(UnsafeFile, match="chmod 600"):
        check_private(credential)


@_as_root
def test_check_private_takes_credentials_of_root_and_of_nobody_else(credential: Path) -> None:
    """The unit's user may use what root has put there, and not what another user has."""
    os.chown(credential, 0, 65_530)
    os.chown(credential.parent, 0, 65_530)
    os.setegid(65_530)
    os.seteuid(65_530)
    try:
        check_private(credential)
    finally:
        os.seteuid(0)
        os.setegid(0)

    os.chown(credential, 65_531, -1)
    with pytest.raises(UnsafeFile, match="65531"):
        check_private(credential)


def test_check_private_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    """A pipe in the place of a key is refused at once instead of being waited for."""
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(UnsafeFile, match="not a regular file"):
        check_private(tmp_path / "pipe")
    with pytest.raises(UnsafeFile, match="not a regular file"):
        check_private(tmp_path)


def test_check_private_refuses_a_world_writable_directory(key: Path) -> None:
    """Where everybody can replace the file, its own mode means nothing; a sticky bit mends it."""
    key.parent.chmod(0o777)

    with pytest.raises(UnsafeFile) as caught:
        check_private(key)

    assert f"chmod o-w {key.parent}" in str(caught.value)
    key.parent.chmod(0o1777)
    check_private(key)


def test_check_private_looks_at_both_ends_of_a_link(key: Path, tmp_path: Path) -> None:
    """A link is followed, and the directory it points into counts as much as its own."""
    target = tmp_path / "open"
    target.mkdir()
    moved = target / "real.key"
    key.rename(moved)
    key.symlink_to(moved)
    check_private(key)

    target.chmod(0o777)

    with pytest.raises(UnsafeFile, match="world-writable"):
        check_private(key)


def test_read_private_reads_the_file_that_it_checked(key: Path) -> None:
    """The content comes back as a secret."""
    assert read_private(key) == Secret(b"content")


@pytest.mark.parametrize("read", [read_private, read_public])
def test_read_stops_at_a_file_of_absurd_size(key: Path, read: object) -> None:
    """A path to something huge is an error and not a full memory."""
    os.truncate(key, FILE_BYTES_MAX + 1)

    with pytest.raises(UnsafeFile, match="bytes"):
        read(key)  # type: ignore[operator] # the two have different results

    os.truncate(key, FILE_BYTES_MAX)
    assert len(read(key)) == FILE_BYTES_MAX  # type: ignore[operator] # as above


def test_read_public_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    """A directory or a pipe is no certificate."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UnsafeFile, match="not a regular file"):
        read_public(tmp_path / "pipe")
