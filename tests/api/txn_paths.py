"""A transaction as all the ways it can go: the plain meaning of the rule about keys.

Owns: listing the operations of every path, and telling whether one of them changes a key twice.
Never: is quick; it serves small transactions.
Follows: etcd-surface section 1.3: on no path may a key be put twice, or be put and deleted.
"""

from collections.abc import Iterator, Sequence
from itertools import product

from kvsecure.proto.kv_pb2 import RequestOp

__all__ = ["changes_a_key_twice"]


def changes_a_key_twice(branch: Sequence[RequestOp], keys: Sequence[bytes]) -> bool:
    """Tell whether a branch, with all that is nested in it, breaks the rule.

    Args:
        branch: The operations of one branch of a transaction.
        keys: Every key that matters; a deletion is the set of those that it deletes.
    """
    return any(_is_bad(path, keys) for path in _paths(branch))


def _paths(branch: Sequence[RequestOp]) -> Iterator[list[RequestOp]]:
    """Yield the operations that are carried out together, for every choice of branches."""
    choices: list[list[list[RequestOp]]] = []
    for operation in branch:
        if operation.WhichOneof("request") == "request_txn":
            nested = operation.request_txn
            choices.append([*_paths(nested.success), *_paths(nested.failure)])
        else:
            choices.append([[operation]])
    for chosen in product(*choices):
        yield [operation for part in chosen for operation in part]


def _is_bad(path: Sequence[RequestOp], keys: Sequence[bytes]) -> bool:
    puts = [one.request_put.key for one in path if one.WhichOneof("request") == "request_put"]
    deleted = {
        key
        for one in path
        if one.WhichOneof("request") == "request_delete_range"
        for key in keys
        if _deletes(one.request_delete_range.key, one.request_delete_range.range_end, key)
    }
    return len(puts) != len(set(puts)) or not deleted.isdisjoint(puts)


def _deletes(start: bytes, end: bytes, key: bytes) -> bool:
    if not end:
        return key == start
    if end == b"\0":
        return key >= start
    return start <= key < end
