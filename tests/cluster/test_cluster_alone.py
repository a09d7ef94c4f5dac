"""What becomes of a cluster whose majority will never come back."""

from pathlib import Path

import pytest
from cluster.members import RealCluster, eventually, places_on_loopback
from support.processes import ProcessFailedError

from kvsecure.proto import cluster_pb2

_FORCED = "--force-new-cluster"


def _names(cluster: RealCluster, name: str) -> list[str]:
    listed = cluster.client(name).cluster.MemberList(cluster_pb2.MemberListRequest())
    return sorted(each.name for each in listed.members)


def test_last_member_goes_on_alone_and_is_grown_again(tmp_path: Path) -> None:
    """All that was acknowledged is there, the others are out for good, and new ones come in."""
    with RealCluster(tmp_path, places_on_loopback(3)) as cluster:
        keys = [b"/alone/%d" % number for number in range(50)]
        for key in keys:
            cluster.put("m1", key, key)
        cluster.assert_alike()
        last, *lost = cluster.followers()
        lost = [*lost, cluster.leader()]
        survivors_id = cluster.member_id(last.name)
        for member in cluster.members:
            member.kill9()
        cluster.forget_token()

        line = cluster.line_of(last.name)
        last.redirect([*line, _FORCED])
        last.process.start()

        cluster.log_in(last.name)
        assert _names(cluster, last.name) == [last.name]
        assert cluster.member_id(last.name) == survivors_id
        assert [eventually(lambda at=key: cluster.value(last.name, at)) for key in keys] == keys
        cluster.put(last.name, b"/alone/after", b"v")
        # Without the flag, and killed, it is what it was.
        last.kill9()
        last.redirect(line)
        last.process.start()
        assert cluster.value(last.name, b"/alone/after") == b"v"
        with pytest.raises(ProcessFailedError, match="removed from the cluster"):
            lost[0].process.start()
        for member in lost:
            cluster.forget(member.name)
        (place,) = places_on_loopback(1)
        newcomer = cluster.make_newcomer("m4", place)
        cluster.client(last.name).cluster.MemberAdd(
            cluster_pb2.MemberAddRequest(peerURLs=[place.peer_url])
        )
        newcomer.process.start()
        cluster.put("m4", b"/alone/m4", b"v")
        cluster.assert_alike()
        assert _names(cluster, "m4") == sorted((last.name, "m4"))
