"""What becomes of a cluster whose majority will never come back."""

import json
from pathlib import Path
from typing import Any

import pytest
from cluster.members import RealCluster, eventually, places_on_loopback
from support.processes import ProcessFailedError

from kvsecure.proto import cluster_pb2, tenant_pb2

_FORCED = "--force-new-cluster"


def _names(cluster: RealCluster, name: str) -> list[str]:
    listed = cluster.client(name).cluster.MemberList(cluster_pb2.MemberListRequest())
    return sorted(each.name for each in listed.members)


def _recorded(cluster: RealCluster, name: str, stage: str) -> list[dict[str, Any]]:
    """Return the newest records of a member's trail that are of a stage."""
    pages = cluster.client(name).audit.Tail(tenant_pb2.AuditTailRequest(count=100))
    records = (json.loads(record) for page in pages for record in page.records)
    return [record for record in records if record["stage"] == stage]


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
        lost_ids = [cluster.member_id(member.name) for member in lost]
        for member in cluster.members:
            member.kill9()
        cluster.forget_token()

        line = cluster.line_of(last.name)
        last.redirect([*line, _FORCED])
        last.process.start()

        cluster.log_in(last.name)
        assert _names(cluster, last.name) == [last.name]
        assert cluster.member_id(last.name) == survivors_id
        (forced,) = _recorded(cluster, last.name, "new-cluster-forced")
        assert set(forced["note"]["removed"]) == {f"{each:x}" for each in lost_ids}
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
