"""What is refused, and with which code and text: clients match both.

Owns: the comparison of refusals, call by call, with etcd's.
Never: compares what is accepted; the random comparison does that.
"""

import grpc
import pytest
from support.bad_requests import BAD_REQUESTS, Case, EtcdAnswer, prepare
from support.forbidden_requests import FORBIDDEN_REQUESTS
from support.pair import Pair
from support.rpc import Refusal, refusal_of

from kvsecure.proto import kv_pb2

_CASES = (*BAD_REQUESTS, *FORBIDDEN_REQUESTS)


@pytest.fixture(scope="module")
def prepared(pair: Pair) -> Pair:
    """The pair with the content that the cases refer to."""
    prepare(pair)
    return pair


@pytest.mark.parametrize(
    "case",
    [case for case in _CASES if case.etcd is not EtcdAnswer.FATAL],
    ids=lambda case: case.name,
)
def test_refusal_is_etcds(prepared: Pair, case: Case) -> None:
    """A request is refused with etcd's code and text, or accepted where etcd accepts it."""
    theirs, ours = prepared.ask(case.method, case.request, case.user)

    if case.etcd is EtcdAnswer.SAME or prepared.subject.product == "etcd":
        assert theirs.refusal == ours.refusal
    else:
        assert case.ours == ours.refusal
        assert theirs.refusal != ours.refusal, "no difference any more"


@pytest.mark.parametrize(
    "case", [case for case in _CASES if case.etcd is EtcdAnswer.FATAL], ids=lambda case: case.name
)
def test_request_that_stops_etcd_is_refused(prepared: Pair, case: Case) -> None:
    """A request that makes etcd 3.5.1 panic is refused like any other bad request."""
    if prepared.subject.product == "etcd":
        pytest.skip("it would stop")
    subject = prepared.clients(case.user)[-1]

    with pytest.raises(grpc.RpcError) as caught:
        subject.call(case.method, case.request)

    assert case.ours == refusal_of(caught.value)


def test_case_names_are_unique() -> None:
    """No case of the table hides another."""
    names = [case.name for case in _CASES]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        pytest.param("/etcdserverpb.KV/Nope", b"", "UNIMPLEMENTED", id="unknown-method"),
        pytest.param("/etcdserverpb.Nope/Range", b"", "UNIMPLEMENTED", id="unknown-service"),
        pytest.param("/etcdserverpb.KV/Range", b"\xff\xff", "INTERNAL", id="malformed"),
        pytest.param("/etcdserverpb.KV/Range", b"\x0a\x05ab", "INTERNAL", id="truncated"),
        pytest.param(
            "/etcdserverpb.KV/Put", bytes(3_000_000), "RESOURCE_EXHAUSTED", id="too-large"
        ),
    ],
)
def test_call_outside_the_interface_has_etcds_code(
    prepared: Pair, path: str, body: bytes, code: str
) -> None:
    """An unknown method, a malformed and an oversized message have the code of grpc-go."""
    codes = []
    for client in prepared.clients():
        with pytest.raises(grpc.RpcError) as caught:
            client.raw(path)(body)
        codes.append(refusal_of(caught.value).code)

    assert [code, code] == codes


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "aaaaaaaaaaaaaaaa.7"])
def test_wrong_token_is_unauthenticated(prepared: Pair, token: str) -> None:
    """A token that nobody issued is refused with the text that makes clients log in again."""
    refusals = []
    for member in prepared.members:
        with member.anonymous() as client:
            client.use_token(token)
            with pytest.raises(grpc.RpcError) as caught:
                client.call("kv.Range", kv_pb2.RangeRequest(key=b"a"))
            refusals.append(refusal_of(caught.value))

    assert [Refusal("UNAUTHENTICATED", "etcdserver: invalid auth token")] * 2 == refusals
