"""Transactions of nothing but plain puts: quicker, and in no other way different."""

from typing import Final

import pytest
from api.watching import Bench
from core import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from security.lab import Asked

from kvsecure.api.kv import txn as serve_txn
from kvsecure.api.shape import check_txn, plain_puts
from kvsecure.model.burst import PutTxn
from kvsecure.model.errors import Refused
from kvsecure.proto.kv_pb2 import Compare, PutRequest, RangeRequest, RequestOp, TxnRequest
from kvsecure.security.describe import describe

_OPS_MAX: Final = 4


def _txn(*puts: PutRequest) -> TxnRequest:
    return TxnRequest(success=[RequestOp(request_put=put) for put in puts])


def _serve(bench: Bench, request: TxnRequest, user: str = "root") -> Asked:
    asked = Asked(bench.world.turn, bench.world.peer(user), b"")
    serve_txn(bench.services, asked, request, request.SerializeToString())
    bench.end_turn()
    return asked


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        requests.txns(),
        st.lists(st.builds(PutRequest, key=requests.keys, value=st.binary(max_size=2))).map(
            lambda puts: _txn(*puts)
        ),
    )
)
def test_plain_is_what_only_puts(request: TxnRequest) -> None:
    """What is taken for plain passes every check, and is the same transaction when written out."""
    plain = plain_puts(request, _OPS_MAX)

    if plain is not None:
        check_txn(request, _OPS_MAX)
        assert _txn(*(PutRequest(key=key, value=value) for key, value in plain.puts)) == request


@pytest.mark.parametrize(
    "request_",
    [
        TxnRequest(),
        _txn(PutRequest(value=b"v")),
        _txn(PutRequest(key=b"a"), PutRequest(key=b"a")),
        _txn(*(PutRequest(key=b"%d" % number) for number in range(_OPS_MAX + 1))),
        _txn(PutRequest(key=b"a", lease=1)),
        _txn(PutRequest(key=b"a", prev_kv=True)),
        _txn(PutRequest(key=b"a", ignore_value=True)),
        _txn(PutRequest(key=b"a", ignore_lease=True)),
        TxnRequest(success=[RequestOp(request_range=RangeRequest(key=b"a"))]),
        TxnRequest(success=[RequestOp(request_txn=_txn(PutRequest(key=b"a")))]),
        TxnRequest(failure=[RequestOp(request_put=PutRequest(key=b"a"))]),
        TxnRequest(
            success=[RequestOp(request_put=PutRequest(key=b"a"))],
            failure=[RequestOp(request_put=PutRequest(key=b"b"))],
        ),
        TxnRequest(
            compare=[Compare(key=b"a")],
            success=[RequestOp(request_put=PutRequest(key=b"a"))],
        ),
    ],
)
def test_what_does_more_is_not_plain(request_: TxnRequest) -> None:
    """A condition, another operation, a put that asks for more, or a mistake: no such way."""
    assert plain_puts(request_, _OPS_MAX) is None


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary(max_size=3)), min_size=1, max_size=4))
def test_trail_says_the_same_of_it(puts: list[tuple[bytes, bytes]]) -> None:
    """The trail describes it in the words that it has for any transaction."""
    whole = _txn(*(PutRequest(key=key, value=value) for key, value in puts))

    assert describe(PutTxn(puts)) == describe(whole)


def test_long_key_is_shortened_as_elsewhere() -> None:
    """A key that is too long for the trail is shown as everywhere."""
    whole = _txn(PutRequest(key=b"k" * 2_000, value=b"v"))

    assert describe(PutTxn([(b"k" * 2_000, b"v")])) == describe(whole)


def test_plain_transaction_is_taken_as_one_command(bench: Bench) -> None:
    """It goes through the log as it came, in one revision, with an intent and an outcome."""
    before = bench.revision
    request = _txn(PutRequest(key=b"a", value=b"1"), PutRequest(key=b"b", value=b"2"))

    asked = _serve(bench, request)
    bench.end_turn()

    assert asked.body is not None
    assert bench.revision == before + 1
    assert isinstance(bench.world.engine.applied[-1], PutTxn)
    intent, outcome = bench.world.last(2)
    assert (intent["stage"], outcome["stage"]) == ("intent", "outcome")
    assert [one["request_put"]["key"] for one in intent["op"]["success"]] == ["a", "b"]
    assert outcome["done"][0]["intent"] == intent["seq"]


def test_forbidden_plain_transaction_is_denied_and_recorded(bench: Bench) -> None:
    """One key that may not be written denies all of them, with a record of what was asked."""
    bench.world.role("web", b"a", b"")
    bench.world.user("web", "web")
    before = bench.revision

    asked = _serve(bench, _txn(PutRequest(key=b"a"), PutRequest(key=b"b")), "web")

    assert (asked.why, bench.revision) == ("PERMISSION_DENIED", before)
    (denied,) = bench.world.last()
    assert (denied["stage"], denied["op"]["rpc"]) == ("denied", "Txn")


def test_plain_transaction_may_be_too_large(bench: Bench) -> None:
    """A request above the limit is refused whatever is in it."""
    with pytest.raises(Refused, match="too large"):
        _serve(bench, _txn(PutRequest(key=b"a", value=bytes(1_000_001))))
