"""History: the versions of one key that there are, and what time a revision was.

Owns: the answers of `kvsecurepb.Versions` that change nothing.
Never: decides who may ask, or answers with more than a page.
Follows: docs/adr/0012-versions.md.
"""

from typing import Final

from kvsecure.core.mvcc.index import is_tombstone, main_of
from kvsecure.core.mvcc.space import Space
from kvsecure.core.mvcc.store import Store
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import HISTORY_BYTES_MAX, HISTORY_VERSIONS_MAX
from kvsecure.proto.mvcc_pb2 import KeyValue
from kvsecure.proto.version_pb2 import (
    DestroyStatusResponse,
    HistoryRequest,
    HistoryResponse,
    RetentionListResponse,
    RetentionPolicy,
    RevisionAtRequest,
    RevisionAtResponse,
    Version,
)

__all__ = ["answer_destroyed", "answer_history", "answer_policies", "answer_revision_at"]

_NEWEST: Final = 1 << 63


def answer_history(store: Store, space: Space, request: HistoryRequest) -> bytes:
    """Return the versions of a key, newest first, without the header.

    Raises:
        DamagedRecord: What is stored cannot be read.
    """
    limit = min(request.limit if request.limit > 0 else HISTORY_VERSIONS_MAX, HISTORY_VERSIONS_MAX)
    before = request.before_revision if request.before_revision > 0 else _NEWEST
    places = store.history(space, request.key, before, limit + 1)
    answer = HistoryResponse(compact_revision=max(store.compacted, 0))
    read_bytes = 0
    for count, place in enumerate(places):
        if count == limit or read_bytes >= HISTORY_BYTES_MAX:
            answer.more = True
            break
        revision = main_of(place)
        version = answer.versions.add(
            mod_revision=revision, time_s=store.timeline.time_of(revision)
        )
        if is_tombstone(place):
            version.deleted = True
            continue
        record = store.records.get(place, space.tenant)
        read_bytes += len(record)
        _fill(version, KeyValue.FromString(record), keys_only=request.keys_only)
    return answer.SerializeToString()


def answer_revision_at(store: Store, request: RevisionAtRequest) -> bytes:
    """Return the newest revision that was written in a second or before, without the header.

    Raises:
        Refused: Nothing is known of a time so early.
    """
    revision = store.timeline.revision_at(request.time_s, store.revision)
    if revision is None:
        raise Refused(Failure.TIME_UNKNOWN)
    return RevisionAtResponse(
        revision=revision, compact_revision=max(store.compacted, 0)
    ).SerializeToString()


def answer_policies(space: Space) -> bytes:
    """Return the retention policies of a tenant, in the order of their prefixes."""
    policies = [
        RetentionPolicy(prefix=prefix, keep_versions=policy.versions, keep_for_s=policy.for_s)
        for prefix, policy in sorted(space.retention.items())
    ]
    return RetentionListResponse(policies=policies).SerializeToString()


def answer_destroyed(store: Store, space: Space) -> bytes:
    """Return how many destroyed keys of a tenant may have bytes on the disk."""
    pending = sum(each.tenant == space.tenant for each in store.destructions.values())
    return DestroyStatusResponse(
        pending=pending, stalled=bool(pending) and store.destruction_stalled
    ).SerializeToString()


def _fill(version: Version, kv: KeyValue, *, keys_only: bool) -> None:
    version.create_revision = kv.create_revision
    version.version = kv.version
    version.lease = kv.lease
    version.value_bytes = len(kv.value)
    if not keys_only:
        version.value = kv.value
