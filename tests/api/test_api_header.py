"""The header of answers: what a client reads is what was meant, however it was encoded before."""

from hypothesis import given
from hypothesis import strategies as st

from kvsecure.api.header import HeaderEncoder
from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.proto.kv_pb2 import PutResponse

_U64 = st.integers(0, 2**64 - 1)
_I63 = st.integers(0, 2**63 - 1)


@given(_U64, _U64, st.lists(st.tuples(st.sampled_from([0, 1, 2, 2**63 - 1]), _U64), max_size=8))
def test_header_is_what_was_meant(
    cluster: int, member: int, moments: list[tuple[int, int]]
) -> None:
    """Cluster, member, revision and term are read back, in whatever order moments come."""
    encoder = HeaderEncoder(ClusterId(cluster), MemberId(member))
    for revision, term in moments:
        header = PutResponse.FromString(encoder.field(revision, term)).header

        assert (header.cluster_id, header.member_id) == (cluster, member)
        assert (header.revision, header.raft_term) == (revision, term)


@given(_I63, _I63)
def test_revision_of_nothing_is_left_out(cluster: int, term: int) -> None:
    """A revision of 0 takes no byte: clients tell it from one that is there."""
    encoder = HeaderEncoder(ClusterId(cluster), MemberId(1))

    without, with_one = encoder.field(0, term), encoder.field(1, term)

    assert len(with_one) == len(without) + 2
