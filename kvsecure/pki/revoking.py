"""Revoking: an authority takes certificates back, and says so in a list.

    <directory>/revoked.jsonl      what it took back, and when: one line of JSON for each

Owns: which certificates a name stands for, the format of `revoked.jsonl`, and making the list.
Never: forgets one; a certificate that was taken back stays so.
Follows: RFC 5280 section 5. The number of a list is the time it was made, in microseconds.
Keeps: a list that cannot name all that was taken back is not made.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from kvsecure.pki.authority import Authority, AuthorityError
from kvsecure.pki.files import write_private
from kvsecure.pki.index import IssuedRecord
from kvsecure.pki.profiles import duration_text

__all__ = ["LIST_TTL_MAX", "Revoked", "revocation_list", "revoke", "revoked_by"]

# A list that lasts longer than this leaves whoever copies an old one in its place too much time.
LIST_TTL_MAX: Final = timedelta(days=90)

_FORMAT: Final = 1
_SERIAL_HEX_MAX: Final = 40
# So that a machine whose clock is a little behind takes a list that was just made.
_BACKDATED: Final = timedelta(minutes=5)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """One certificate that was taken back, and when, in UTC."""

    serial: int
    moment: datetime


def revoked_by(authority: Authority) -> tuple[Revoked, ...]:
    """Return what an authority has taken back, in that order.

    Raises:
        AuthorityError: A line cannot be read, so that nobody knows what else was taken back.
    """
    path = _path(authority)
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise AuthorityError(f"what was revoked cannot be read: {error}") from None
    found: list[Revoked] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        revoked = _parse(line)
        if revoked is None:
            raise AuthorityError(
                f"{path}: line {number} cannot be read, so nobody knows what was revoked: mend it"
            )
        found.append(revoked)
    return tuple(found)


def revoke(authority: Authority, which: str) -> tuple[IssuedRecord, ...]:
    """Take certificates back; return those that were not taken back before.

    Args:
        authority: Who issued them.
        which: A serial number, 40 hexadecimal digits as `kvsecure pki list` shows them, or the name
            or the URI of somebody, all of whose certificates are taken back that have not ended.

    Raises:
        AuthorityError: There is none, the name is of several, or it could not be recorded.
    """
    now = authority.now()
    chosen = _chosen(authority.issued().records, which, now)
    try:
        with _alone(authority.directory):
            before = revoked_by(authority)
            known = {each.serial for each in before}
            fresh = tuple(record for record in chosen if record.serial not in known)
            added = [Revoked(serial=record.serial, moment=now) for record in fresh]
            if added:
                lines = b"".join(map(_line, (*before, *added)))
                write_private(_path(authority), lines)
    except OSError as error:
        raise AuthorityError(f"it could not be recorded: {error}") from None
    return fresh


def revocation_list(authority: Authority, ttl: timedelta) -> bytes:
    """Return the list of what the authority has taken back, in PEM.

    Args:
        authority: Who signs it.
        ttl: After which time the next one must be there, at most `LIST_TTL_MAX`.

    Raises:
        AuthorityError: It lasts too long, or what was taken back cannot be read.
    """
    if not timedelta() < ttl <= LIST_TTL_MAX:
        raise AuthorityError(f"a revocation list lasts at most {duration_text(LIST_TTL_MAX)}")
    now = authority.now()
    builder = (
        x509.CertificateRevocationListBuilder()
        .last_update(now - _BACKDATED)
        .next_update(now + ttl)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1_000_000)), critical=False)
    )
    for each in revoked_by(authority):
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(each.moment).build())
    return authority.sign_list(builder).public_bytes(serialization.Encoding.PEM)


def _chosen(records: tuple[IssuedRecord, ...], which: str, now: datetime) -> list[IssuedRecord]:
    chosen = [each for each in records if f"{each.serial:040x}" == which.lower()]
    if not chosen:
        named = [each for each in records if which in {each.name, each.subject}]
        chosen = [each for each in named if each.not_after >= now]
        holders = sorted({f"{each.profile.value} {each.subject}" for each in chosen})
        if len(holders) > 1:
            raise AuthorityError(f"{which} may be each of {', '.join(holders)}: give the serial")
        if named and not chosen:
            raise AuthorityError(f"every certificate of {which} has ended already")
    if not chosen:
        raise AuthorityError(f"no certificate of {which} was issued here")
    return chosen


def _path(authority: Authority) -> Path:
    return authority.directory / "revoked.jsonl"


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others from writing at the same time: what they add would be lost."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _line(revoked: Revoked) -> bytes:
    fields = {
        "format": _FORMAT,
        "serial": f"{revoked.serial:x}",
        "at": revoked.moment.isoformat(),
    }
    return json.dumps(fields).encode() + b"\n"


def _parse(line: bytes) -> Revoked | None:
    try:
        fields = json.loads(line)
        serial = fields["serial"]
        if fields["format"] != _FORMAT or len(serial) > _SERIAL_HEX_MAX:
            return None
        moment = datetime.fromisoformat(fields["at"]).astimezone(UTC)
        return Revoked(serial=int(serial, 16), moment=moment)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
