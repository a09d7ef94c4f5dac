"""The data directory: founded once, recognised afterwards, and never taken from somebody else."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage.segments_lab import contents_of, file_size_limit

from kvsecure.crypto.keyring import KeyEncryptionKey
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.model.secret import Secret
from kvsecure.server.datadir import DataDirectory, MemberIdentity
from kvsecure.storage.files import StorageError

_KEK = KeyEncryptionKey(Secret(bytes(32)), "file")
_OTHER_KEK = KeyEncryptionKey(Secret(bytes(31) + b"\1"), "file")


def _wanted(
    cluster: int = 0xC0FFEE, member: int = 0xBEEF, token: str = "token", domain: str = "domain"
) -> MemberIdentity:
    return MemberIdentity(
        cluster=ClusterId(cluster), member=MemberId(member), token=token, trust_domain=domain
    )


def _refused(path: Path, wanted: MemberIdentity, kek: KeyEncryptionKey, text: str) -> None:
    """Check that a directory is refused with this text, unchanged and unlocked."""
    before = contents_of(path) | {"LOCK": b""}

    with pytest.raises(StorageError, match=text):
        DataDirectory(path, wanted, kek)

    assert contents_of(path) | {"LOCK": b""} == before
    with pytest.raises(StorageError, match=text):
        DataDirectory(path, wanted, kek)


@pytest.fixture
def founded(tmp_path: Path) -> Path:
    """A data directory that a member has used."""
    path = tmp_path / "state"
    DataDirectory(path, _wanted(), _KEK).lock.close()
    return path


def test_directory_is_founded_where_nothing_is(tmp_path: Path) -> None:
    """A missing or an empty directory becomes a private data directory with a keyring."""
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)

    for path in (tmp_path / "missing", empty):
        directory = DataDirectory(path, _wanted(), _KEK)
        directory.lock.close()

        assert directory.is_new
        assert directory.identity == _wanted()
        assert directory.keyring.cluster_id == 0xC0FFEE
        assert {entry.name for entry in path.iterdir()} == {
            *("LOCK", "audit", "keyring", "member.json", "tables", "wal"),
        }
        for entry in path.iterdir():
            assert not entry.stat().st_mode & 0o077, entry


def test_directory_is_recognised(founded: Path) -> None:
    """Opened again it is the same member with the same keys; what it says of itself counts."""
    before = contents_of(founded)

    directory = DataDirectory(founded, _wanted(cluster=5, member=6), _KEK)
    directory.lock.close()

    assert not directory.is_new
    assert directory.identity == _wanted()
    assert contents_of(founded) | {"LOCK": b""} == before | {"LOCK": b""}


def test_directory_holds_no_key_in_the_clear(founded: Path) -> None:
    """Neither the key-encryption key nor any key below it is anywhere in the directory."""
    directory = DataDirectory(founded, _wanted(), _KEK)
    directory.lock.close()
    everything = b"".join(contents_of(founded).values())

    for seed in (directory.keyring._root, *directory.keyring._terms.values()):
        assert seed.reveal() not in everything


def test_directory_of_another_cluster_is_refused(founded: Path) -> None:
    """Another token, cluster name or key is refused by name, and says what to give instead."""
    _refused(founded, _wanted(token="other"), _KEK, "made with --initial-cluster-token 'token'")
    _refused(founded, _wanted(domain="other"), _KEK, "belongs to cluster name 'domain'.*Give")
    _refused(founded, _wanted(), _OTHER_KEK, "give the right key")


def test_directory_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    """A directory that is neither empty nor a member's is left alone, and says what it holds."""
    (tmp_path / "stranger").mkdir(mode=0o700)
    (tmp_path / "stranger" / "photos").write_bytes(b"holiday")

    _refused(tmp_path / "stranger", _wanted(), _KEK, "it holds photos")


@pytest.mark.parametrize("missing", ["member.json", "keyring"])
def test_directory_that_lost_a_file_is_refused(founded: Path, missing: str) -> None:
    """Without its identity or its keyring a directory is never founded over."""
    (founded / missing).unlink()

    _refused(founded, _wanted(), _KEK, "it holds audit|keyring is missing; restore it")


def test_directory_with_the_keyring_of_another_cluster_is_refused(
    founded: Path, tmp_path: Path
) -> None:
    """A keyring that was brought in from elsewhere is refused although the key fits."""
    DataDirectory(tmp_path / "other", _wanted(cluster=7), _KEK).lock.close()
    shutil.copy(tmp_path / "other" / "keyring", founded / "keyring")

    _refused(founded, _wanted(), _KEK, "keyring belongs to another cluster")


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_directory_that_is_open_to_others_is_refused(founded: Path, mode: int) -> None:
    """Rights of others are refused with the command that takes them away, above and below."""
    founded.chmod(mode)
    with pytest.raises(StorageError, match=f"run chmod 700 {founded}"):
        DataDirectory(founded, _wanted(), _KEK)
    founded.chmod(0o700)

    (founded / "wal").chmod(mode)
    with pytest.raises(StorageError, match=f"run chmod 700 {founded / 'wal'}"):
        DataDirectory(founded, _wanted(), _KEK)
    (founded / "wal").chmod(0o700)

    DataDirectory(founded, _wanted(), _KEK).lock.close()


def test_directory_that_is_in_use_is_refused(founded: Path) -> None:
    """While one has it open, a second one is told so."""
    directory = DataDirectory(founded, _wanted(), _KEK)

    with pytest.raises(StorageError, match="in use by another member process"):
        DataDirectory(founded, _wanted(), _KEK)
    directory.lock.close()

    DataDirectory(founded, _wanted(), _KEK).lock.close()


def test_founding_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    """Wherever the founding's writes stop, the next start founds the directory as if new."""
    sizes = set(range(0, 700, 23))

    for limit in sizes:
        path = tmp_path / f"limit{limit}"
        try:
            with file_size_limit(limit):
                DataDirectory(path, _wanted(), _KEK).lock.close()
        except StorageError:
            assert not (path / "member.json").exists()
            directory = DataDirectory(path, _wanted(), _KEK)
            directory.lock.close()
            assert directory.is_new
        # And from here on it is that member's.
        again = DataDirectory(path, _wanted(), _KEK)
        again.lock.close()
        assert not again.is_new


@given(
    cluster=st.integers(0, 2**64 - 1),
    member=st.integers(0, 2**64 - 1),
    token=st.text(),
    domain=st.text(),
)
def test_identity_is_read_as_it_was_written(
    cluster: int, member: int, token: str, domain: str
) -> None:
    """Every identity comes back from its file."""
    identity = _wanted(cluster, member, token, domain)

    assert MemberIdentity.decode(identity.encode(), Path("member.json")) == identity


@given(content=st.binary(max_size=60))
def test_any_bytes_are_no_identity(content: bytes) -> None:
    """No bytes whatever fail in another way than by saying that the file is damaged."""
    with pytest.raises(StorageError):
        MemberIdentity.decode(content, Path("member.json"))


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"format": 2},
        {"format": 1},
        {"format": 1, "cluster_id": 5, "member_id": "1", "token": "", "trust_domain": ""},
        {"format": 1, "cluster_id": "x", "member_id": "1", "token": "", "trust_domain": ""},
    ],
)
def test_other_forms_are_no_identity(fields: object) -> None:
    """JSON of another form is refused, a format of the future by its number."""
    expected = "format 2 is not known here" if fields == {"format": 2} else "restore it from a"

    with pytest.raises(StorageError, match=expected):
        MemberIdentity.decode(json.dumps(fields).encode(), Path("member.json"))
