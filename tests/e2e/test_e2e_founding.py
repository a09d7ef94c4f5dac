"""A first start that goes wrong: the reason is said, and nothing is served without accounts."""

import socket
import subprocess
from pathlib import Path

import pytest
from e2e.world import Fortress
from support.disk import small_disk_at

from kvsecure.pki.files import write_private

_ACCOUNTS = b"the first accounts could not be made: No space left on device"


def _start(
    fortress: Fortress, *flags: str, without: str = ""
) -> "subprocess.CompletedProcess[bytes]":
    """Start the server, which is expected to end by itself."""
    process = fortress.server.process
    command = [word for word in process._command if not without or without not in word]
    return subprocess.run(
        [*command, *flags],
        env=process._environment,
        capture_output=True,
        check=False,
        timeout=20,
    )


def test_nothing_is_served_when_the_first_accounts_cannot_be_recorded(tmp_path: Path) -> None:
    """A full audit disk at the first start ends the server; it does not leave the door open."""
    fortress = Fortress(tmp_path / "first")
    assert _start(fortress, without="initial-root-password").returncode == 1
    for path in (fortress.data / "audit").iterdir():
        path.unlink()

    with small_disk_at(fortress.data / "audit", 4_096) as disk:
        disk.fill()
        done = _start(fortress)
        disk.make_room()

    assert done.returncode == 1
    assert _ACCOUNTS in done.stdout + done.stderr
    assert b"ready to serve" not in done.stdout + done.stderr
    with fortress:
        assert fortress.value(fortress.root(), b"k") is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, b"No such file or directory"),
        (b"short", b"password rejected: at least 15 characters"),
        (b"correct horse battery staple", b"it is among those that everybody tries"),
        (b"\xff" * 20, b"a password is text in UTF-8"),
    ],
)
def test_a_first_password_that_is_not_good_ends_the_start(
    tmp_path: Path, content: bytes | None, why: bytes
) -> None:
    """Without a good password for root nothing is founded, and a later start with one goes on."""
    fortress = Fortress(tmp_path / "first")
    path = tmp_path / "password"
    if content is not None:
        write_private(path, content)

    done = _start(fortress, f"--initial-root-password-file={path}")

    assert done.returncode == 1
    assert why in done.stdout + done.stderr
    assert content is None or content not in done.stdout + done.stderr
    with fortress:
        assert fortress.value(fortress.root(), b"k") is None


def test_a_new_cluster_needs_a_password_file(tmp_path: Path) -> None:
    """Without the flag a new cluster does not start, and the text names it."""
    done = _start(Fortress(tmp_path / "first"), without="initial-root-password")

    assert done.returncode == 1
    assert b"a new cluster needs --initial-root-password-file FILE" in done.stdout + done.stderr


def test_an_address_in_use_ends_the_start(tmp_path: Path) -> None:
    """Where somebody else listens, the server says so and ends."""
    fortress = Fortress(tmp_path / "first")
    with socket.create_server(("127.0.0.1", fortress.server.port)):
        done = _start(fortress)

    assert done.returncode == 1
    assert b"Address already in use" in done.stdout + done.stderr
    assert b"internal error" not in done.stdout + done.stderr
