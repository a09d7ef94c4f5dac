"""Ids as etcd computes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.model.ids import MemberId
from kvsecure.server.config.identity import cluster_id_of, member_id_of


@pytest.mark.parametrize(
    ("url", "token", "member", "cluster"),
    [
        # etcd's own test of exact header bytes.
        ("https://localhost:20001", "new", "a8f3458387986d", "34c21a2d427db393"),
        # What etcd 3.5.1 logs when it is started without any flag.
        ("http://localhost:2380", "etcd-cluster", "8e9e05c52164694d", "cdf818194e3a8c32"),
    ],
)
def test_identity_is_the_one_that_etcd_computes(
    url: str, token: str, member: str, cluster: str
) -> None:
    """The first eight bytes of SHA-1 over URL and token, and over the member's id."""
    member_id = member_id_of([url], token)

    assert f"{member_id:x}" == member
    assert f"{cluster_id_of([member_id]):x}" == cluster


@given(st.permutations(["http://a:1", "http://b:2", "http://c:3"]))
def test_identity_ignores_the_order_of_urls(urls: list[str]) -> None:
    """A member is the same however its URLs are listed."""
    assert member_id_of(urls, "t") == member_id_of(sorted(urls), "t")


@given(st.permutations([MemberId(3), MemberId(1 << 63), MemberId(7)]))
def test_identity_ignores_the_order_of_members(members: list[MemberId]) -> None:
    """A cluster is the same however its members are listed."""
    assert cluster_id_of(members) == cluster_id_of(sorted(members))
