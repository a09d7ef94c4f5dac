"""The data directory: whose it is, its lock, its keyring, and where things are in it.

    LOCK          held while a member or one of its disk processes lives
    member.json   which member of which cluster this is; nothing secret
    keyring       wrapped keys
    wal/ tables/ audit/
    tables.*      see `kvsecure.storage.replacement`: opening it finishes what was begun there

Owns: making a new directory and recognising an old one.
Never: opens what is inside; a directory of another cluster is left as it is.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from kvsecure.crypto.keyring import KekSource, Keyring, KeyringError
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.files import DirectoryLock, StorageError, make_directory, replace_file
from kvsecure.storage.replacement import take_effect
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace

__all__ = ["DataDirectory", "MemberIdentity"]

_FORMAT: Final = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberIdentity:
    """Which member of which cluster a directory belongs to."""

    cluster: ClusterId
    member: MemberId
    # What the cluster's ids were made with; a directory of another token is another cluster's.
    token: str
    # The trust domain of its certificates.
    trust_domain: str
    # Of a member that came to a cluster that was there: what the others told it of themselves.
    joined: bytes = b""
    # Of a founder that no flag told who the others are: what it discovered at its first start.
    founders: bytes = b""

    def encode(self) -> bytes:
        """Return the content of member.json."""
        fields = {
            "format": _FORMAT,
            "cluster_id": f"{self.cluster:x}",
            "member_id": f"{self.member:x}",
            "token": self.token,
            "trust_domain": self.trust_domain,
        }
        if self.joined:
            fields["joined"] = self.joined.hex()
        if self.founders:
            fields["founders"] = self.founders.hex()
        return json.dumps(fields, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, content: bytes, path: Path) -> "MemberIdentity":
        """Read the content of member.json.

        Raises:
            StorageError: It is not that.
        """
        try:
            fields = json.loads(content)
            if fields["format"] != _FORMAT:
                raise StorageError(f"{path}: format {fields['format']} is not known here")
            return cls(
                cluster=ClusterId(int(fields["cluster_id"], 16)),
                member=MemberId(int(fields["member_id"], 16)),
                token=str(fields["token"]),
                trust_domain=str(fields["trust_domain"]),
                joined=bytes.fromhex(fields.get("joined", "")),
                founders=bytes.fromhex(fields.get("founders", "")),
            )
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{path} is damaged; restore it from a backup") from None


@final
class DataDirectory:
    """An open data directory, locked."""

    def __init__(
        self, path: Path, wanted: MemberIdentity, kek: KekSource, disk: Disk = SYSTEM_DISK
    ) -> None:
        """Open a directory, making it if it is empty or not there.

        Args:
            path: Where it is.
            wanted: What the configuration says it is; used where it is new.
            kek: Where the key comes from that its keyring is wrapped with.
            disk: What it is on.

        Raises:
            StorageError: It is in use, open to others, damaged, or another cluster's.
        """
        make_directory(path, disk)
        self.path = path
        self.disk = disk
        self.kek = kek
        self.lock = DirectoryLock(path)
        try:
            self.identity, self.keyring, self.is_new = self._open(wanted, kek)
            take_effect(path, disk)
            for directory in (self.wal, self.tables, self.audit):
                make_directory(directory, disk)
        except (StorageError, KeyringError, OSError) as error:
            self.lock.close()
            raise StorageError(str(error)) from None

    def write_keyring(self, keyring: Keyring) -> None:
        """Put another keyring of this cluster on the disk, durably and as a whole.

        Raises:
            OSError: The one before is still there.
        """
        replace_file(self.path / "keyring", keyring.file_content(), self.disk)

    @property
    def wal(self) -> Path:
        """Where the log is."""
        return self.path / "wal"

    @property
    def tables(self) -> Path:
        """Where the applied state is."""
        return self.path / "tables"

    @property
    def audit(self) -> Path:
        """Where the audit trail is."""
        return self.path / "audit"

    def place(self, kind: Kind) -> SegmentPlace:
        """Return where the segments of the log or of the audit trail are, and whose they are."""
        directory = self.wal if kind is Kind.WAL else self.audit
        identity = self.identity
        return SegmentPlace(directory, kind, identity.cluster, identity.member, self.disk)

    def _open(self, wanted: MemberIdentity, kek: KekSource) -> tuple[MemberIdentity, Keyring, bool]:
        identity_file, keyring_file = self.path / "member.json", self.path / "keyring"
        if identity_file.exists():
            identity = MemberIdentity.decode(identity_file.read_bytes(), identity_file)
            _check_same(identity, wanted, self.path)
            if not keyring_file.exists():
                raise StorageError(f"{keyring_file} is missing; restore it from a backup")
            keyring = Keyring.open(keyring_file.read_bytes(), kek)
            if keyring.cluster_id != identity.cluster:
                raise StorageError(f"{keyring_file} belongs to another cluster")
            return identity, keyring, False
        others = sorted(entry.name for entry in self.path.iterdir() if entry.name != "LOCK")
        if set(others) - {"keyring", "keyring.new", "member.json.new"}:
            raise StorageError(
                f"{self.path} is neither empty nor a data directory: it holds {others[0]}"
            )
        # The identity comes last: a directory without it was never used.
        keyring = Keyring.create(kek.key_for(None), wanted.cluster, now_s=int(time.time()))
        replace_file(keyring_file, keyring.file_content(), self.disk)
        replace_file(identity_file, wanted.encode(), self.disk)
        return wanted, keyring, True


def _check_same(found: MemberIdentity, wanted: MemberIdentity, path: Path) -> None:
    if found.token != wanted.token:
        raise StorageError(
            f"{path} belongs to another cluster: it was made with --initial-cluster-token "
            f"{found.token!r}, and this is {wanted.token!r}. Give the right --data-dir"
        )
    if found.trust_domain != wanted.trust_domain:
        raise StorageError(
            f"{path} belongs to cluster name {found.trust_domain!r}, and this is "
            f"{wanted.trust_domain!r}. Give the right --data-dir or --cluster-name"
        )
