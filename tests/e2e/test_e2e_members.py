"""Members of a real server: what is declared outlives it, and what it says is on the record."""

from pathlib import Path

from e2e.world import Fortress

from kvsecure.proto import cluster_pb2, maintenance_pb2

_URL = "https://127.0.0.1:9"


def test_declared_members_outlive_the_process(tmp_path: Path) -> None:
    """A learner is there after a crash, and so are the member's own name, URLs and key."""
    with Fortress(tmp_path / "fortress") as fortress:
        root = fortress.root()
        added = root.cluster.MemberAdd(
            cluster_pb2.MemberAddRequest(peerURLs=[_URL], isLearner=True)
        )
        fortress.server.kill9()
        fortress.server.restart()

        again = fortress.root()
        listed = again.cluster.MemberList(cluster_pb2.MemberListRequest(linearizable=True))
        assert list(listed.members) == list(added.members)
        (own,) = (each for each in listed.members if each.ID != added.member.ID)
        assert listed.header.member_id == own.ID
        assert (own.name, list(own.clientURLs)) == ("m1", [fortress.server.url])
        assert fortress.put(again, b"/app/a", b"1") > 0
        status = again.maintenance.Status(maintenance_pb2.StatusRequest())
        assert (status.leader, status.isLearner) == (own.ID, False)
        again.cluster.MemberRemove(cluster_pb2.MemberRemoveRequest(ID=added.member.ID))

        asked = [
            (record["actor"]["via"], record["op"]["rpc"])
            for record in fortress.records()
            if record["stage"] == "intent"
        ]
        # Once: after the crash the state has it.
        assert asked.count(("system", "SigningKeyAdd")) == 1
        assert asked.count(("system", "MemberPublish")) == 1
        assert ("certificate", "MemberAdd") in asked
        assert ("certificate", "MemberRemove") in asked
        assert fortress.verify().returncode == 0
