"""Import: everything that a running etcd shows of itself, copied into a kvsecure and compared.

    copy_keys()       keys, values and leases, of one revision, in batches     resumed from a state
    copy_accounts()   roles, permissions, users; passwords stay where they are
    compare()         the keys of both, one by one

Owns: what is copied in which order, and what has to be remembered to go on after an interruption.
Never: changes the source; takes a key that is there already for one of its own without being told.
Follows: etcd's API, which shows neither the verifiers of passwords nor the past of revisions.
Keeps: a batch is remembered as copied once the target has acknowledged it; doing it twice comes to
    the same.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar, final

from google.protobuf.message import Message

from kvsecure.client.connection import Connection
from kvsecure.client.errors import ClientError
from kvsecure.model.errors import Code, Failure
from kvsecure.pki.files import Existing, write_private
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2, mvcc_pb2

__all__ = ["AccountsCopied", "Compared", "Importer", "Place", "Unusable"]

Answer = TypeVar("Answer", bound=Message)

_FORMAT: Final = 1
_FROM: Final = b"\0"
_PAGE_KEYS: Final = 512
# Half of what a transaction may have, in operations and in bytes.
_BATCH_OPERATIONS: Final = 64
_BATCH_BYTES: Final = 768 * 1024
_ROOT: Final = "root"
_EXISTS: Final = frozenset({Failure.ROLE_EXISTS, Failure.USER_EXISTS, Failure.LEASE_EXISTS})

type_progress = Callable[[int, int], None]


@final
class Unusable(Exception):
    """An import cannot begin or go on; the text says why and what to do."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far an import has come: all that is needed to go on.

    Attributes:
        source: The id of the cluster that is copied.
        target: The id of the one it is copied into.
        revision: The source's revision that is copied.
        total: How many keys there are at it.
        copied: How many of them have been copied.
        key: The last of them; empty for none.
    """

    source: int
    target: int
    revision: int
    total: int
    copied: int = 0
    key: bytes = b""

    def save(self, path: Path) -> None:
        """Write it to a file; it names a key."""
        fields = {
            "format": _FORMAT,
            "source": f"{self.source:x}",
            "target": f"{self.target:x}",
            "revision": self.revision,
            "total": self.total,
            "copied": self.copied,
            "key": base64.b64encode(self.key).decode(),
        }
        write_private(path, json.dumps(fields, indent=1).encode() + b"\n", Existing.REPLACE)

    @classmethod
    def load(cls, path: Path) -> "Place":
        """Read what `save` wrote.

        Raises:
            Unusable: It is not that.
            OSError: It cannot be read.
        """
        try:
            fields = json.loads(path.read_bytes())
            if fields["format"] != _FORMAT:
                raise Unusable(f"{path} is of another version of this program")
            return cls(
                source=int(fields["source"], 16),
                target=int(fields["target"], 16),
                revision=int(fields["revision"]),
                total=int(fields["total"]),
                copied=int(fields["copied"]),
                key=base64.b64decode(fields["key"], validate=True),
            )
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
            raise Unusable(f"{path} does not say how far an import has come") from None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AccountsCopied:
    """What came of users and roles."""

    roles: int
    users: int
    # Those who need a password before they can log in by one.
    without_password: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of comparing."""

    equal: int
    different: int
    missing: int
    # Keys of the source whose lease ended while they were copied.
    expired: int
    # In the target only.
    extra: int
    # Where the source has gone on to meanwhile.
    source_revision: int

    @property
    def is_whole(self) -> bool:
        """Whether the target has all that the source had."""
        return not self.different and not self.missing


@final
class Importer:
    """One import. Methods raise `ClientError` when either side refuses or does not answer."""

    def __init__(self, source: Connection, target: Connection) -> None:
        self._source = source
        self._target = target
        # Leases of the source: the time they were granted with, or 0 once they are gone.
        self._leases: dict[int, int] = {}

    def begin(self, *, merge: bool) -> Place:
        """Look at both sides.

        Args:
            merge: Whether the target may have keys.

        Raises:
            Unusable: It has.
        """
        source, target = self._count(self._source), self._count(self._target)
        if source.header.cluster_id == target.header.cluster_id:
            raise Unusable("source and target are the same cluster")
        if target.count and not merge:
            raise Unusable(
                f"the target has {target.count} keys: import into an empty one, or give --merge to "
                "write over keys of the same name"
            )
        return Place(
            source=source.header.cluster_id,
            target=target.header.cluster_id,
            revision=source.header.revision,
            total=source.count,
        )

    def go_on(self, place: Place) -> Place:
        """Check that a place is one of these two clusters.

        Raises:
            Unusable: It is not.
        """
        source, target = self._count(self._source), self._count(self._target)
        if (source.header.cluster_id, target.header.cluster_id) != (place.source, place.target):
            raise Unusable("the import that is to go on was between other clusters")
        return place

    def copy_keys(
        self, place: Place, remember: Callable[[Place], None], progress: type_progress
    ) -> Place:
        """Copy what is left of the keys.

        Args:
            place: Where to go on.
            remember: Told whenever a batch is in the target.
            progress: Told how many keys are, and of how many.

        Raises:
            Unusable: The source has compacted the revision.
        """
        batch: list[mvcc_pb2.KeyValue] = []
        size_bytes = read = 0
        for kv in self._at_revision(place):
            if batch and (
                len(batch) >= _BATCH_OPERATIONS or size_bytes + len(kv.value) > _BATCH_BYTES
            ):
                place = self._write(place, batch, read)
                remember(place)
                progress(place.copied, place.total)
                batch, size_bytes, read = [], 0, 0
            batch.append(kv)
            read += 1
            size_bytes += len(kv.key) + len(kv.value)
        if batch:
            place = self._write(place, batch, read)
            remember(place)
        progress(place.copied, place.total)
        return place

    def copy_accounts(self) -> AccountsCopied:
        """Copy roles with their permissions, and users with their roles and no passwords."""
        roles = self._call(
            self._source,
            "Auth/RoleList",
            auth_pb2.AuthRoleListRequest(),
            auth_pb2.AuthRoleListResponse,
        ).roles
        for role in roles:
            if role != _ROOT:
                self._copy_role(role)
        users = self._call(
            self._source,
            "Auth/UserList",
            auth_pb2.AuthUserListRequest(),
            auth_pb2.AuthUserListResponse,
        ).users
        without = tuple(user for user in users if user != _ROOT and self._copy_user(user))
        return AccountsCopied(
            roles=len(set(roles) - {_ROOT}),
            users=len(set(users) - {_ROOT}),
            without_password=without,
        )

    def compare(self, place: Place, progress: type_progress) -> Compared:
        """Compare every key of the source's revision with what the target has now.

        Raises:
            Unusable: The source has compacted the revision.
        """
        counts = dict.fromkeys(("equal", "different", "missing", "expired", "extra"), 0)
        ours = self._pages(self._target, revision=0)
        mine = next(ours, None)
        for number, theirs in enumerate(self._at_revision(replace(place, key=b"")), 1):
            while mine is not None and mine.key < theirs.key:
                counts["extra"] += 1
                mine = next(ours, None)
            if mine is not None and mine.key == theirs.key:
                same = (mine.value, mine.lease) == (theirs.value, theirs.lease)
                counts["equal" if same else "different"] += 1
                mine = next(ours, None)
            elif theirs.lease and not self._granted_s(theirs.lease):
                counts["expired"] += 1
            else:
                counts["missing"] += 1
            if number % _PAGE_KEYS == 0:
                progress(number, place.total)
        while mine is not None:
            counts["extra"] += 1
            mine = next(ours, None)
        progress(place.total, place.total)
        now = self._count(self._source).header.revision
        return Compared(source_revision=now, **counts)

    # --- keys -----------------------------------------------------------------------------------

    def _count(self, side: Connection) -> kv_pb2.RangeResponse:
        request = kv_pb2.RangeRequest(key=_FROM, range_end=_FROM, count_only=True)
        return self._call(side, "KV/Range", request, kv_pb2.RangeResponse)

    def _at_revision(self, place: Place) -> Iterator[mvcc_pb2.KeyValue]:
        """Yield the source's keys behind the place's."""
        try:
            yield from self._pages(self._source, revision=place.revision, behind=place.key)
        except ClientError as error:
            if error.failure is Failure.COMPACTED:
                raise Unusable(
                    f"the source has compacted revision {place.revision}, which is copied: switch "
                    "its compaction off for a while, and begin anew with --restart"
                ) from None
            raise

    def _pages(
        self, side: Connection, *, revision: int, behind: bytes = b""
    ) -> Iterator[mvcc_pb2.KeyValue]:
        limit = _PAGE_KEYS
        start = behind + b"\0" if behind else _FROM
        more = True
        while more:
            request = kv_pb2.RangeRequest(
                key=start, range_end=_FROM, revision=revision, limit=limit
            )
            try:
                page = self._call(side, "KV/Range", request, kv_pb2.RangeResponse)
            except ClientError as error:
                # Large values: a page of them is more than a message may have.
                if error.code is not Code.RESOURCE_EXHAUSTED or limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            yield from page.kvs
            more = page.more and bool(page.kvs)
            if more:
                start = page.kvs[-1].key + b"\0"

    def _write(self, place: Place, batch: list[mvcc_pb2.KeyValue], read: int) -> Place:
        puts = [
            kv_pb2.PutRequest(key=kv.key, value=kv.value, lease=kv.lease)
            for kv in batch
            if not kv.lease or self._lease_is_there(kv.lease)
        ]
        if puts:
            request = kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_put=put) for put in puts])
            self._call(self._target, "KV/Txn", request, kv_pb2.TxnResponse)
        return replace(place, copied=place.copied + read, key=batch[-1].key)

    # --- leases ---------------------------------------------------------------------------------

    def _granted_s(self, lease: int) -> int:
        """Return what a lease of the source was granted with; 0 if it has ended."""
        request = lease_pb2.LeaseTimeToLiveRequest(ID=lease)
        found = self._call(
            self._source, "Lease/LeaseTimeToLive", request, lease_pb2.LeaseTimeToLiveResponse
        )
        return int(found.grantedTTL) if found.TTL > 0 else 0

    def _lease_is_there(self, lease: int) -> bool:
        """See to it that a lease of the source is in the target, unless it has ended."""
        if lease not in self._leases:
            granted_s = self._leases[lease] = self._granted_s(lease)
            if granted_s:
                self._make(
                    "Lease/LeaseGrant",
                    lease_pb2.LeaseGrantRequest(ID=lease, TTL=granted_s),
                    lease_pb2.LeaseGrantResponse,
                )
        return bool(self._leases[lease])

    # --- accounts -------------------------------------------------------------------------------

    def _copy_role(self, role: str) -> None:
        found = self._call(
            self._source,
            "Auth/RoleGet",
            auth_pb2.AuthRoleGetRequest(role=role),
            auth_pb2.AuthRoleGetResponse,
        )
        self._make(
            "Auth/RoleAdd", auth_pb2.AuthRoleAddRequest(name=role), auth_pb2.AuthRoleAddResponse
        )
        for permission in found.perm:
            self._call(
                self._target,
                "Auth/RoleGrantPermission",
                auth_pb2.AuthRoleGrantPermissionRequest(name=role, perm=permission),
                auth_pb2.AuthRoleGrantPermissionResponse,
            )

    def _copy_user(self, user: str) -> bool:
        """Copy a user; tell whether it was made, and so has no password."""
        found = self._call(
            self._source,
            "Auth/UserGet",
            auth_pb2.AuthUserGetRequest(name=user),
            auth_pb2.AuthUserGetResponse,
        )
        made = self._make(
            "Auth/UserAdd",
            auth_pb2.AuthUserAddRequest(
                name=user, options=authstore_pb2.UserAddOptions(no_password=True)
            ),
            auth_pb2.AuthUserAddResponse,
        )
        for role in found.roles:
            self._call(
                self._target,
                "Auth/UserGrantRole",
                auth_pb2.AuthUserGrantRoleRequest(user=user, role=role),
                auth_pb2.AuthUserGrantRoleResponse,
            )
        return made

    # --- calls ----------------------------------------------------------------------------------

    def _make(self, method: str, request: Message, answer: type[Answer]) -> bool:
        """Make something in the target; tell whether it was not there already."""
        try:
            self._call(self._target, method, request, answer)
        except ClientError as error:
            if error.failure not in _EXISTS:
                raise
            return False
        return True

    @staticmethod
    def _call(side: Connection, method: str, request: Message, answer: type[Answer]) -> Answer:
        return side.call(f"/etcdserverpb.{method}", request, answer)
