"""Keys of backups: what one is sealed and signed with, and what opens it again.

Owns: which keys those are, and the header that says how to get them.
Never: touches a backup's file.
Follows: docs/adr/0016-backups.md.
Keeps: every backup has a key of its own, which the key-encryption key opens and nothing else does.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, final

from kvsecure.crypto.keyring import KeyEncryptionKey, KeyringError, SealedRoot
from kvsecure.crypto.sealing import derive_key, fresh_salt
from kvsecure.crypto.signing import SigningKey
from kvsecure.model.secret import Secret
from kvsecure.server.datadir import DataDirectory
from kvsecure.storage.backup import DamagedBackup

__all__ = ["BackupHeader", "backup_job"]

_FORMAT: Final = 1
_CONTENT: Final = "backup/1"
_SIGNING: Final = "backup-signing/1"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BackupHeader:
    """What a backup says of itself without being opened."""

    cluster_id: str
    member_id: str
    trust_domain: str
    created: str
    revision: int
    compact_revision: int
    salt: bytes
    signing_key: bytes
    root: SealedRoot

    @classmethod
    def decode(cls, header: bytes) -> "BackupHeader":
        """Read a header.

        Raises:
            DamagedBackup: It is none, or of a format that is not known here.
        """
        try:
            fields = json.loads(header)
            if fields["format"] != _FORMAT:
                raise DamagedBackup(f"backup format {fields['format']!r} is not known here")
            return cls(
                cluster_id=f"{int(fields['cluster_id'], 16):x}",
                member_id=f"{int(fields['member_id'], 16):x}",
                trust_domain=str(fields["trust_domain"]),
                created=str(fields["created"]),
                revision=int(fields["revision"]),
                compact_revision=int(fields["compact_revision"]),
                salt=base64.b64decode(fields["salt"], validate=True),
                signing_key=bytes.fromhex(fields["signing_key"]),
                root=SealedRoot.of_fields(fields["root"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, KeyringError):
            raise DamagedBackup("the backup's header is damaged") from None

    def content_key(self, kek: KeyEncryptionKey) -> Secret:
        """Return what the backup is sealed with.

        Raises:
            KeyringError: Another key-encryption key wrapped it.
        """
        return derive_key(self.root.root_key(kek, purpose=_CONTENT), purpose="file", salt=self.salt)

    def check_signer(self, kek: KeyEncryptionKey) -> None:
        """Check that the key that is said to have signed is the cluster's.

        Raises:
            DamagedBackup: It is not.
            KeyringError: Another key-encryption key wrapped the cluster's keys.
        """
        ours = SigningKey(self.root.root_key(kek, purpose=_SIGNING)).public
        if ours.raw != self.signing_key:
            raise DamagedBackup("the backup was not signed by the cluster that it says it is of")


def backup_job(directory: DataDirectory) -> Mapping[str, Any]:
    """Return what the scanning process needs to make a backup, with a key of its own."""
    identity, keyring = directory.identity, directory.keyring
    salt = fresh_salt()
    signing = keyring.root_key(purpose=_SIGNING)
    key = derive_key(keyring.root_key(purpose=_CONTENT), purpose="file", salt=salt)
    return {
        "spool": str(directory.path),
        "key": base64.b64encode(key.reveal()).decode(),
        "signing": base64.b64encode(signing.reveal()).decode(),
        "header": {
            "format": _FORMAT,
            "cluster_id": f"{identity.cluster:x}",
            "member_id": f"{identity.member:x}",
            "trust_domain": identity.trust_domain,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "salt": base64.b64encode(salt).decode(),
            "signing_key": SigningKey(signing).public.raw.hex(),
            "root": keyring.sealed_root.fields(),
        },
    }
