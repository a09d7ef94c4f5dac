"""Random operations, asked of etcd and of the server under test: every answer is the same.

Owns: the run, what of an answer is compared, and the history that both tell afterwards.
Never: knows a right answer; etcd is the model.
"""

from typing import Any, Final

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, Phase, given, seed, settings
from support.operations import Operation, operations, shifted
from support.pair import Answer, Pair
from support.rpc import Client
from support.streams import Observed, WatchScript

from kvsecure.proto import kv_pb2, lease_pb2

_EVERYTHING: Final[dict[str, Any]] = {"key": b"\0", "range_end": b"\0"}
_LAST: Final = b"~the-end"
# About 40 operations an example, and so some 2,000 in all.
_GROUPS: Final = 20
_EXAMPLES: Final = 55
_EXAMPLES_OF_A_CAMPAIGN: Final = 20_000


def _reset(client: Client) -> int:
    for status in client.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases:
        client.lease.LeaseRevoke(lease_pb2.LeaseRevokeRequest(ID=status.ID))
    answer = client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(**_EVERYTHING))
    for key in (b"a", b"ab", b"b"):
        client.kv.Put(kv_pb2.PutRequest(key=key, value=b"1"))
    return int(answer.header.revision)


def _told(answer: Answer, base: int) -> str:
    """Return an answer as text, without what may differ between two right servers."""
    if answer.refusal is not None:
        return f"{answer.refusal.code}: {answer.refusal.text}"
    message = shifted(answer.message, -base)
    header = message.header
    header.cluster_id = header.member_id = header.raft_term = 0
    if isinstance(message, lease_pb2.LeaseTimeToLiveResponse):
        message.TTL = min(message.TTL, 1)
        message.keys.sort()
    if isinstance(message, lease_pb2.LeaseLeasesResponse):
        message.leases.sort(key=lambda status: status.ID)
    return text_format.MessageToString(message)


def _history(client: Client, base: int, compacted: int) -> Observed:
    """Return every change that a watch from the first readable revision tells."""
    script = WatchScript(client)
    try:
        script.create(start_revision=base + max(1, compacted + 1), prev_kv=True, **_EVERYTHING)
        script.put(_LAST)
        script.wait_for_key(_LAST)
        return script.observed()
    finally:
        script.close()


def _agree(pair: Pair, plan: list[Operation]) -> None:
    clients = pair.clients()
    bases = [_reset(client) for client in clients]
    compacted = 0
    for position, (method, request) in enumerate(plan):
        answers = [
            pair.answer(client, method, shifted(request, base))
            for client, base in zip(clients, bases, strict=True)
        ]
        theirs, ours = (_told(answer, base) for answer, base in zip(answers, bases, strict=True))
        assert theirs == ours, f"operation {position}: {method}\n{request}"
        if method == "kv.Compact" and answers[0].refusal is None:
            compacted = request.revision
    histories = [
        _events(_history(client, base, compacted), base)
        for client, base in zip(clients, bases, strict=True)
    ]
    assert histories[0] == histories[1]


def _events(observed: Observed, base: int) -> list[str]:
    return [str(shifted(event, -base)) for event in observed.events[0]]


def _compare(pair: Pair, config: pytest.Config, examples: int) -> int:
    count = 0

    # The seed that pytest-randomly prints for the session is the seed of this run too.
    @seed(config.getoption("randomly_seed", 0))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(plan=operations(_GROUPS))
    def agree(plan: list[Operation]) -> None:
        nonlocal count
        count += len(plan)
        _agree(pair, plan)

    agree()
    return count


# Shrinking a failure may take five minutes.
@pytest.mark.timeout(600)
def test_random_operations_answer_like_etcd(pair: Pair, pytestconfig: pytest.Config) -> None:
    """Some two thousand random operations, and the history they leave, are answered alike."""
    count = _compare(pair, pytestconfig, _EXAMPLES)

    assert count >= 1_500


@pytest.mark.campaign
@pytest.mark.timeout(24 * 3600)
def test_random_campaign_answers_like_etcd(pair: Pair, pytestconfig: pytest.Config) -> None:
    """A million random operations, and the histories they leave, are answered alike."""
    count = _compare(pair, pytestconfig, _EXAMPLES_OF_A_CAMPAIGN)

    assert count >= _EXAMPLES_OF_A_CAMPAIGN
