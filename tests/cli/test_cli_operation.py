"""`lease`, `endpoint`, `member` and `alarm` against a real server."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result
from support.etcd import ScriptedServer
from support.processes import free_ports
from support.servers import Member

from kvsecure.proto import kv_pb2, maintenance_pb2

__all__: list[str] = []

Run = Callable[..., Result]

_ALARM = "/etcdserverpb.Maintenance/Alarm"


def _done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_lease_has_a_life(root: Run) -> None:
    """A lease is granted, renewed, looked at, listed and revoked, always by the same id."""
    granted = json.loads(_done(root("lease", "grant", "60", "--format", "json")).stdout)
    lease = granted["lease"]
    _done(root("put", "/leased", "1", "--lease", lease))

    renewed = _done(root("lease", "keep-alive", lease, "--once"))
    state = _done(root("lease", "ttl", lease, "--keys"))
    form = json.loads(_done(root("lease", "ttl", lease, "--keys", "--format", "json")).stdout)
    listed = _done(root("lease", "list")).stdout.splitlines()
    revoked = _done(root("lease", "revoke", lease))
    gone = root("lease", "ttl", lease)

    assert granted["ttl_s"] == 60
    assert renewed.stdout == f"lease {lease} kept alive with TTL(60)\n"
    assert state.stdout.startswith(f"lease {lease} granted with TTL(60s), remaining(")
    assert state.stdout.splitlines()[1:] == ["/leased"]
    assert form["keys"] == [{"key": "L2xlYXNlZA==", "key_utf8": "/leased"}]
    assert lease in listed
    assert revoked.stdout == f"lease {lease} revoked\n"
    assert (gone.exit_code, gone.stderr) == (
        1,
        f"Error: lease {lease} is unknown or has expired\n",
    )
    assert root("get", "/leased").exit_code == 1


def test_lease_may_be_named(root: Run) -> None:
    """A lease is granted under the id that was asked for, in hexadecimal."""
    done = _done(root("lease", "grant", "60", "--id", "0xBEEF"))

    assert done.stdout == "lease 000000000000beef granted with TTL(60s)\n"
    assert (
        "000000000000beef"
        in json.loads(_done(root("lease", "list", "--format", "json")).stdout)["leases"]
    )


@pytest.mark.parametrize(
    "command", [["revoke", "1234"], ["keep-alive", "1234"], ["keep-alive", "1234", "--once"]]
)
def test_unknown_lease_is_refused(root: Run, command: list[str]) -> None:
    """What is asked of a lease that is not there fails with the server's text."""
    done = root("lease", *command)

    assert done.exit_code == 1
    assert "etcdserver: requested lease not found" in done.stderr


@pytest.mark.parametrize("text", ["", "xyz", "0" * 17, "-1"])
def test_lease_id_must_be_hexadecimal(root: Run, text: str) -> None:
    """What is not an id is wrong usage."""
    assert root("lease", "ttl", "--", text).exit_code == 2


def test_health_is_told_for_each_endpoint(root: Run, member: Member) -> None:
    """A working endpoint is healthy; one that nobody serves is not, and makes status 1."""
    (nobody,) = free_ports(1)

    good = _done(root("endpoint", "health"))
    both = root("--endpoint", f"{member.endpoint},127.0.0.1:{nobody}", "endpoint", "health")
    form = json.loads(
        root("--endpoint", f"127.0.0.1:{nobody}", "endpoint", "health", "--format", "json").stdout
    )

    assert good.stdout.startswith(f"{member.endpoint} is healthy (")
    assert both.exit_code == 1
    assert f"127.0.0.1:{nobody} is unhealthy: " in both.stdout
    assert both.stderr == "Error: 1 of 2 endpoints unhealthy\n"
    assert form["endpoints"][0]["healthy"] is False


def test_status_describes_the_member(root: Run, member: Member) -> None:
    """The status names the member, its version and its place in the cluster."""
    table = _done(root("endpoint", "status")).stdout.splitlines()
    (form,) = json.loads(_done(root("endpoint", "status", "--format", "json")).stdout)["endpoints"]

    assert table[0].split()[:3] == ["ENDPOINT", "ID", "VERSION"]
    assert table[1].split()[:3] == [member.endpoint, form["header"]["member_id"], form["version"]]
    assert form["is_leader"] is True
    assert form["leader"] == form["header"]["member_id"]
    assert form["size_bytes"] > 0


def test_members_are_listed(root: Run, member: Member) -> None:
    """The list names the only member and where clients reach it."""
    table = _done(root("member", "list")).stdout.splitlines()
    (form,) = json.loads(_done(root("member", "list", "--format", "json")).stdout)["members"]

    assert table[1].split()[:3] == [form["id"], "started", "m1"]
    assert form["client_urls"] == [member.url]
    assert form["is_learner"] is False


def test_learner_is_added_with_what_to_start_it_with(root: Run, member: Member) -> None:
    """What is printed is what etcdctl prints: variables that the new member reads."""
    peers = f"http://127.0.0.1:{member.peer_port}"
    url = "https://127.0.0.1:9"
    (own,) = json.loads(_done(root("member", "list", "--format", "json")).stdout)["members"]

    added = _done(root("member", "add", "m2", "--learner", "--peer-urls", url)).stdout
    words = added.split()
    update = root(
        "member", "update", words[1], "--peer-urls", "https://127.0.0.1:8,https://[::1]:8"
    )
    listed = json.loads(_done(root("member", "list", "--format", "json")).stdout)["members"]
    promoted = root("member", "promote", words[1])
    removed = _done(root("member", "remove", words[1], "--format", "json")).stdout

    first, *settings = added.splitlines()
    assert first == f"Member {words[1]} added as learner to cluster {words[-5]}"
    cluster = {f"m1={peers}", f"m2={url}"}
    assert settings[:2] == ["", 'ETCD_NAME="m2"']
    assert set(settings[2].removeprefix("ETCD_INITIAL_CLUSTER=").strip('"').split(",")) == cluster
    assert settings[3:] == [
        f'ETCD_INITIAL_ADVERTISE_PEER_URLS="{url}"',
        'ETCD_INITIAL_CLUSTER_STATE="existing"',
    ]
    assert _done(update).stdout == f"Member {words[1]} updated in cluster {words[-5]}\n"
    assert {tuple(each["peer_urls"]) for each in listed} == {
        (peers,),
        ("https://127.0.0.1:8", "https://[::1]:8"),
    }
    assert promoted.exit_code == 1
    assert "etcdserver: can only promote a learner member which is in sync" in promoted.stderr
    assert json.loads(removed)["members"] == [own]


def test_the_only_member_stays(root: Run) -> None:
    """A cluster is not left without its quorum by a slip."""
    (own,) = json.loads(_done(root("member", "list", "--format", "json")).stdout)["members"]

    done = root("member", "remove", own["id"])

    assert done.exit_code == 1
    assert "not enough started members" in done.stderr


def test_leadership_is_moved(root: Run) -> None:
    """Both sides of a transfer are told; who is no member cannot lead."""
    (own,) = json.loads(_done(root("member", "list", "--format", "json")).stdout)["members"]

    moved = _done(root("move-leader", own["id"])).stdout
    refused = root("move-leader", "5")

    assert moved == f"Leadership transferred from {own['id']} to {own['id']}\n"
    assert refused.exit_code == 1
    assert "bad leader transferee" in refused.stderr


def test_leadership_is_not_moved_by_a_follower(run: Run, scripted: ScriptedServer) -> None:
    """If no endpoint is the leader's, that is what is wrong."""
    status = maintenance_pb2.StatusResponse(leader=2)
    status.header.member_id = 1
    scripted.script("/etcdserverpb.Maintenance/Status", status)

    done = run("--endpoint", scripted.endpoint, "move-leader", "3")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: none of the endpoints is the leader's\n")


@pytest.mark.parametrize("command", [["member", "remove"], ["member", "promote"], ["move-leader"]])
@pytest.mark.parametrize("text", ["", "xyz", "0" * 17, "-1"])
def test_member_id_must_be_hexadecimal(run: Run, command: list[str], text: str) -> None:
    """What is not an id is wrong usage."""
    assert run(*command, "--", text).exit_code == 2


def test_no_alarm_is_no_output(root: Run) -> None:
    """Without alarms there is nothing to print."""
    assert _done(root("alarm", "list")).stdout == ""
    assert json.loads(_done(root("alarm", "list", "--format", "json")).stdout) == {"alarms": []}


def test_alarms_are_listed_and_taken_back(run: Run, scripted: ScriptedServer) -> None:
    """Each raised alarm is taken back by its member and name."""
    raised = maintenance_pb2.AlarmResponse(
        alarms=[maintenance_pb2.AlarmMember(memberID=255, alarm="NOSPACE")]
    )
    scripted.script(_ALARM, raised, raised, raised)

    listed = _done(run("--endpoint", scripted.endpoint, "alarm", "list"))
    disarmed = _done(run("--endpoint", scripted.endpoint, "alarm", "disarm"))

    assert listed.stdout == disarmed.stdout == "00000000000000ff\tNOSPACE\n"
    assert [seen.request for seen in scripted.calls_of(_ALARM)][2] == (
        maintenance_pb2.AlarmRequest(action="DEACTIVATE", memberID=255, alarm="NOSPACE")
    )


def test_alarm_makes_health_fail(run: Run, scripted: ScriptedServer) -> None:
    """An alarm is named as the reason why an endpoint is unhealthy."""
    raised = maintenance_pb2.AlarmResponse(
        alarms=[maintenance_pb2.AlarmMember(memberID=255, alarm="NOSPACE")]
    )
    scripted.script("/etcdserverpb.KV/Range", kv_pb2.RangeResponse())
    scripted.script(_ALARM, raised)

    done = run("--endpoint", scripted.endpoint, "endpoint", "health")

    assert done.exit_code == 1
    assert "alarm NOSPACE on member ff" in done.stdout
