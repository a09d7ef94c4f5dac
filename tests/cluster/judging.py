"""Whether what clients of a real cluster were told can be true.

    judge        what is wrong with one round, in words; nothing if all is well

Owns: comparing what clients were told with the history of the store, and with one copy.
Never: asks the cluster anything.
Keeps: what was not answered counts as done if its value is in the history, and otherwise as not
    done: after the cluster has come to rest nothing of it can happen any more.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cluster.watching import Change
from cluster.workload import Told
from support.linearizability import UNANSWERED, Operation, Verdict, check
from support.models import LIST, LOCK, REGISTER, SET

__all__ = ["judge"]

_MODELS = {"register": REGISTER, "list": LIST, "set": SET, "lock": LOCK}
_TOLD_MAX = 5


def judge(
    told: Told, history: Sequence[Change], watched: Mapping[str, Sequence[Change]]
) -> list[str]:
    """Return what is wrong.

    Args:
        told: What clients asked and were told.
        history: All changes since before the first of them asked, as the cluster tells them now.
        watched: The same, as somebody saw it who watched at each member meanwhile.
    """
    wrong = [*_lost(told, history), *_phantoms(told, history), *_unwatched(history, watched)]
    for kind, model in _MODELS.items():
        operations = [each for each in _operations(told, history) if _kind(each) == kind]
        finding = check(model, operations)
        if finding.verdict is not Verdict.LINEARIZABLE:
            wrong.append(f"{finding.verdict.value}: {finding.text}")
    return wrong


def _kind(operation: Operation) -> str:
    return operation.key.partition("/")[0]


def _lost(told: Told, history: Sequence[Change]) -> Iterator[str]:
    """Find every acknowledged write at the revision that was told."""
    there = {(each.revision, each.key): each.value for each in history}
    for _, write in told.steps:
        if write is not None and write.revision:
            found = there.get((write.revision, write.key), b"nothing")
            if found != write.value:
                yield f"lost: {write} was acknowledged, and {found!r} is there"


def _phantoms(told: Told, history: Sequence[Change]) -> Iterator[str]:
    """Find nothing that nobody wrote, and nothing twice."""
    tried = Counter((step.write.key, step.write.value) for step in told.steps if step.write)
    things = {step.operation.key for step in told.steps}
    for change, count in Counter((each.key, each.value) for each in history).items():
        key, value = change
        is_ours = any(part in things for part in _prefixes(key.decode()))
        if value is not None and is_ours and count > tried[change]:
            yield f"phantom: {value!r} of {key!r} was put {count} times, {tried[change]} wanted"


def _prefixes(key: str) -> tuple[str, str]:
    return key, key.rpartition("/")[0]


def _unwatched(history: Sequence[Change], watched: Mapping[str, Sequence[Change]]) -> Iterator[str]:
    """Find that everybody saw everything once, in order."""
    for name, seen in watched.items():
        if list(seen) != list(history):
            missing = [each for each in history if each not in set(seen)]
            extra = [each for each, count in Counter(seen).items() if count > 1]
            yield (
                f"a watcher at {name} saw {len(seen)} of {len(history)} changes; "
                f"missing {missing[:_TOLD_MAX]}, more than once {extra[:_TOLD_MAX]}"
            )


def _operations(told: Told, history: Sequence[Change]) -> Iterator[Operation]:
    """Return what can have happened, leases' ends included."""
    happened = {(each.key, each.value) for each in history}
    for operation, write in told.steps:
        is_known = operation.answer is not UNANSWERED
        if is_known or write is None or (write.key, write.value) in happened:
            yield operation
    for lease in told.leases.values():
        yield Operation(lease.client, lease.key, "expire", (lease.owner,), lease.ends_at)
