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
