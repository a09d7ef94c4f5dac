"""What keys were: the versions that are kept of a key, and which revision a time was.

Owns: `kvsecurepb.Versions`.
Never: changes a key.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self, final

from kvsecure.client.connection import Connection
from kvsecure.client.errors import ClientError
from kvsecure.client.values import KeyValue
from kvsecure.model.errors import Failure
from kvsecure.proto import version_pb2

__all__ = ["Remains", "Retention", "Version", "Versions"]

_SERVICE: Final = "/kvsecurepb.Versions"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a key was from one revision on.

    Attributes:
        key: The key.
        mod_revision: The revision that wrote or deleted it.
        is_deleted: From then on the key did not exist; the rest is 0 and empty.
        create_revision: The revision that created the key.
        version: How often it had been written since; 1 after creation.
        lease: The lease it had; 0 for none.
        time_s: The second in which it was written, since 1970; 0 if that is not known.
        value: The value; empty where it was not asked for.
        value_bytes: How long the value is.
    """

    key: bytes
    mod_revision: int
    is_deleted: bool
    create_revision: int
    version: int
    lease: int
    time_s: int
    # Whatever prints this must not print a secret.
    value: bytes = field(repr=False)
    value_bytes: int

    @classmethod
    def of(cls, key: bytes, message: version_pb2.Version) -> Self:
        """Return the value of a message."""
        return cls(
            key=key,
            mod_revision=message.mod_revision,
            is_deleted=message.deleted,
            create_revision=message.create_revision,
            version=message.version,
            lease=message.lease,
            time_s=message.time_s,
            value=message.value,
            value_bytes=message.value_bytes,
        )

    def key_value(self) -> KeyValue:
        """Return it as a range at its revision has it."""
        return KeyValue(
            key=self.key,
            value=self.value,
            create_revision=self.create_revision,
            mod_revision=self.mod_revision,
            version=self.version,
            lease=self.lease,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What compactions leave of the versions of keys under a prefix.

    Attributes:
        prefix: The beginning of the keys; of several policies the longest one counts for a key.
        keep_versions: How many of the newest, the present one included; 0 for none by number.
        keep_for_s: For how long after they were superseded or deleted; 0 for none by age.
    """

    prefix: bytes
    keep_versions: int = 0
    keep_for_s: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left of destroyed keys of the tenant on the disk of the member that answers.

    Attributes:
        pending: Of how many keys there may be bytes.
        is_stalled: The disk did not let the member get rid of them; it tries again.
    """

    pending: int
    is_stalled: bool


@final
class Versions:
    """Versions. Every method raises `ClientError` when it is refused or not answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def history(
        self, key: bytes, *, limit: int = 0, before_revision: int = 0, values: bool = True
    ) -> Iterator[Version]:
        """Yield the versions that are kept of a key, newest first; they are fetched page by page.

        Args:
            key: The key.
            limit: At most so many; 0 for all.
            before_revision: Only those that are older than this; 0 for all.
            values: Whether to fetch the values.
        """
        left = limit
        while True:
            page = self._page(key, left, before_revision, values=values)
            yield from (Version.of(key, version) for version in page.versions)
            left -= len(page.versions)
            if not page.more or (limit and left <= 0):
                return
            before_revision = page.versions[-1].mod_revision

    def at(self, key: bytes, revision: int) -> Version | None:
        """Return what a key was at a revision, None if nothing was ever written to it by then.

        Raises:
            ClientError: COMPACTED, if what it was then was not kept.
        """
        page = self._page(key, 1, revision + 1, values=True)
        if page.versions:
            return Version.of(key, page.versions[0])
        if revision < page.compact_revision:
            raise ClientError(Failure.COMPACTED.code, Failure.COMPACTED.text)
        return None

    def numbered(self, key: bytes, number: int) -> Version | None:
        """Return the newest version of a key that has this number, None if none is kept.

        Numbers begin with 1 again when a key that was deleted is created anew.
        """
        for version in self.history(key, values=False):
            if version.version == number and not version.is_deleted:
                return self.at(key, version.mod_revision)
        return None

    def revision_at(self, time_s: int) -> int:
        """Return the newest revision that was written in a second or before.

        Args:
            time_s: Seconds since 1970.

        Raises:
            ClientError: TIME_UNKNOWN, if nothing is known of a time so early.
        """
        answer = self._connection.call(
            f"{_SERVICE}/RevisionAt",
            version_pb2.RevisionAtRequest(time_s=time_s),
            version_pb2.RevisionAtResponse,
        )
        return answer.revision

    def retention(self) -> tuple[Retention, ...]:
        """Return the retention policies of the tenant, in the order of their prefixes."""
        answer = self._connection.call(
            f"{_SERVICE}/RetentionList",
            version_pb2.RetentionListRequest(),
            version_pb2.RetentionListResponse,
        )
        return tuple(
            Retention(
                prefix=policy.prefix,
                keep_versions=policy.keep_versions,
                keep_for_s=policy.keep_for_s,
            )
            for policy in answer.policies
        )

    def retain(self, policy: Retention) -> None:
        """Have compactions keep versions; a policy of the same prefix is replaced."""
        self._connection.call(
            f"{_SERVICE}/RetentionSet",
            version_pb2.RetentionSetRequest(
                prefix=policy.prefix,
                keep_versions=policy.keep_versions,
                keep_for_s=policy.keep_for_s,
            ),
            version_pb2.RetentionSetResponse,
        )

    def stop_retaining(self, prefix: bytes) -> None:
        """Delete the policy of exactly this prefix; the next compaction acts on it."""
        self._connection.call(
            f"{_SERVICE}/RetentionDelete",
            version_pb2.RetentionDeleteRequest(prefix=prefix),
            version_pb2.RetentionDeleteResponse,
        )

    def destroy(self, key: bytes) -> bool:
        """Forget every version of a key for good, and return whether it existed.

        From the answer on nobody can read any of them; `remains` tells when their bytes are gone.
        """
        answer = self._connection.call(
            f"{_SERVICE}/Destroy",
            version_pb2.DestroyRequest(key=key),
            version_pb2.DestroyResponse,
        )
        return answer.deleted

    def remains(self) -> Remains:
        """Return what is left of destroyed keys."""
        answer = self._connection.call(
            f"{_SERVICE}/DestroyStatus",
            version_pb2.DestroyStatusRequest(),
            version_pb2.DestroyStatusResponse,
        )
        return Remains(pending=answer.pending, is_stalled=answer.stalled)

    def _page(
        self, key: bytes, limit: int, before_revision: int, *, values: bool
    ) -> version_pb2.HistoryResponse:
        request = version_pb2.HistoryRequest(
            key=key, limit=limit, before_revision=before_revision, keys_only=not values
        )
        return self._connection.call(f"{_SERVICE}/History", request, version_pb2.HistoryResponse)
