"""`kvsecure audit verify`: checking the trail of a data directory, with or without its member.

Owns: finding what is needed in a data directory, and what the answer says.
Never: takes the directory's lock or changes anything: a running member is not disturbed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kvsecure.crypto.keyring import Keyring, KeyringError
from kvsecure.crypto.sealing import Tampered
from kvsecure.crypto.signing import VerifyingKey
from kvsecure.security.audit import Head, checkpoint_text, signing_key, stream_of
from kvsecure.security.audit_check import BrokenTrail, Report, check_trail
from kvsecure.server.config.model import KekProvider, KekSettings
from kvsecure.server.datadir import MemberIdentity
from kvsecure.server.kek import kek_source
from kvsecure.storage.files import StorageError
from kvsecure.storage.segment import Kind
from kvsecure.storage.segments import SegmentPlace

__all__ = [
    "BrokenTrail",
    "Checkpoint",
    "KekProvider",
    "KekSettings",
    "Report",
    "StorageError",
    "verify",
]


class Checkpoint(NamedTuple):
    """A signed head that was kept outside."""

    stream: str
    seq: int
    hash: bytes
    signature: bytes


def verify(
    data_dir: Path,
    kek: KekSettings,
    checkpoints: Sequence[Checkpoint],
    public_key: bytes | None,
) -> Report:
    """Check a data directory's audit trail.

    Args:
        data_dir: The member's data directory.
        kek: Where the key-encryption key comes from.
        checkpoints: Heads that were kept elsewhere; of several, those of other members' trails are
            passed over.
        public_key: The key that signs checkpoints, 32 bytes; None trusts the data directory's.

    Raises:
        BrokenTrail: A record is wrong or missing.
        StorageError: The trail cannot be checked; the text says why.
    """
    try:
        identity_file = data_dir / "member.json"
        identity = MemberIdentity.decode(identity_file.read_bytes(), identity_file)
        keyring = Keyring.open((data_dir / "keyring").read_bytes(), kek_source(kek))
        key = VerifyingKey(public_key) if public_key is not None else None
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}") from None
    except (KeyringError, ValueError) as error:
        raise StorageError(str(error)) from None
    place = SegmentPlace(data_dir / "audit", Kind.AUDIT, identity.cluster, identity.member)
    must_hold = None
    if checkpoints:
        must_hold = _checked(_own_of(checkpoints, place), place, keyring, key)
    return check_trail(place, keyring, must_hold=must_hold, key=key)


def _own_of(checkpoints: Sequence[Checkpoint], place: SegmentPlace) -> Checkpoint:
    """Return the one of a trail; a single one is meant to be."""
    own = [each for each in checkpoints if each.stream == stream_of(place.member)]
    if len(checkpoints) > 1 and not own:
        raise StorageError(f"none of the heads is of {stream_of(place.member)}")
    # The newest pins all that were before.
    return max(own or checkpoints, key=lambda each: each.seq)


def _checked(
    checkpoint: Checkpoint, place: SegmentPlace, keyring: Keyring, key: VerifyingKey | None
) -> Head:
    """Return a checkpoint's head, if it is signed and of this trail."""
    head = Head(checkpoint.seq, checkpoint.hash)
    verifying = key or signing_key(keyring).public
    try:
        verifying.verify(checkpoint.signature, checkpoint_text(checkpoint.stream, head))
    except Tampered:
        raise StorageError("the checkpoint is not signed by this cluster") from None
    if checkpoint.stream != stream_of(place.member):
        raise StorageError(f"the checkpoint is of {checkpoint.stream}, another member's trail")
    return head
