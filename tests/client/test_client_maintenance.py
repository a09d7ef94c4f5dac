"""Members and their state through the client."""

from collections.abc import Callable

import grpc
import pytest
from support.etcd import ScriptedServer
from support.processes import free_ports
from support.servers import Member

from kvsecure.client import Client, ClientError, Endpoint, Secret
from kvsecure.client.maintenance import Alarm
from kvsecure.client.tenants import Tenant
from kvsecure.model.errors import Failure
from kvsecure.proto import kv_pb2, maintenance_pb2, tenant_pb2

__all__: list[str] = []

_ALARM = "/etcdserverpb.Maintenance/Alarm"
_RANGE = "/etcdserverpb.KV/Range"


def test_status_describes_the_member(root: Client, member: Member) -> None:
    """The status of a single member names itself as the leader and its store's size."""
    status = root.maintenance.status(Endpoint.parse(member.endpoint))

    assert status.leader == status.header.member_id
    assert status.size_bytes > 0
    assert status.version.startswith("3.")
    assert (status.errors, status.is_learner) == ((), False)


def test_working_member_is_healthy(root: Client, member: Member) -> None:
    """A member that decides reads and has no alarm is healthy."""
    (health,) = root.maintenance.every_health()

    assert (health.healthy, health.error) == (True, "")
    assert health.endpoint.target == member.endpoint


def test_user_without_rights_may_ask_for_health(
    root: Client, as_user: Callable[[str, str], Client]
) -> None:
    """Health does not depend on what the asking user may read."""
    root.users.add("prober", Secret.of_text("pond-Lantern-zebra-9931"))

    (health,) = as_user("prober", "pond-Lantern-zebra-9931").maintenance.every_health()

    assert health.healthy


def test_unreachable_member_is_unhealthy() -> None:
    """A member that does not answer is reported, not raised."""
    (nobody,) = free_ports(1)

    with Client.open(f"http://127.0.0.1:{nobody}", timeout_s=0.3) as client:
        (health,) = client.maintenance.every_health()

    assert not health.healthy
    assert "refused" in health.error


def test_alarm_makes_a_member_unhealthy(scripted: ScriptedServer) -> None:
    """A raised alarm is named in the health of the member."""
    raised = maintenance_pb2.AlarmMember(memberID=255, alarm="NOSPACE")
    scripted.script(_RANGE, kv_pb2.RangeResponse())
    scripted.script(_ALARM, maintenance_pb2.AlarmResponse(alarms=[raised]))

    with Client.open(scripted.endpoint) as client:
        (health,) = client.maintenance.every_health()

    assert (health.healthy, health.error) == (False, "alarm NOSPACE on member ff")


def test_alarm_is_taken_back_by_its_name(scripted: ScriptedServer) -> None:
    """Disarming names the member and the alarm, and answers what was taken back."""
    raised = maintenance_pb2.AlarmMember(memberID=255, alarm="NOSPACE")
    scripted.script(_ALARM, maintenance_pb2.AlarmResponse(alarms=[raised]))
    alarm = Alarm(member_id=255, alarm="NOSPACE")

    with Client.open(scripted.endpoint) as client:
        disarmed = client.maintenance.disarm(alarm)

    (seen,) = scripted.calls_of(_ALARM)
    assert disarmed == (alarm,)
    assert seen.request == maintenance_pb2.AlarmRequest(
        action="DEACTIVATE", memberID=255, alarm="NOSPACE"
    )


def test_no_alarm_is_raised_at_first(root: Client) -> None:
    """A fresh member has no alarm."""
    assert root.maintenance.alarms() == ()


def test_tenants_are_asked_for_by_name(scripted: ScriptedServer) -> None:
    """Each call on tenants sends what it was given and returns what was answered."""
    path = "/kvsecurepb.Tenants/Tenant"
    message = tenant_pb2.Tenant(id=16, name="acme", key_count=3, user_count=1, auth_revision=2)
    tenant = Tenant(tenant_id=16, name="acme", key_count=3, user_count=1, auth_revision=2)
    added = tenant_pb2.TenantAddResponse(tenant=message)
    scripted.script(f"{path}Add", added, added)
    scripted.script(f"{path}List", tenant_pb2.TenantListResponse(tenants=[message]))
    scripted.script(f"{path}Get", tenant_pb2.TenantGetResponse(tenant=message))
    scripted.script(f"{path}Delete", tenant_pb2.TenantDeleteResponse())

    with Client.open(scripted.endpoint) as client:
        with_password = client.tenants.add("acme", Secret.of_text("secret words"))
        client.tenants.add("acme", None)
        listed = client.tenants.list()
        found = client.tenants.get("acme")
        client.tenants.delete("acme")

    assert (with_password, listed, found) == (tenant, (tenant,), tenant)
    assert [seen.request for seen in scripted.seen] == [
        tenant_pb2.TenantAddRequest(name="acme", root_password="secret words"),
        tenant_pb2.TenantAddRequest(name="acme", root_no_password=True),
        tenant_pb2.TenantListRequest(),
        tenant_pb2.TenantGetRequest(name="acme"),
        tenant_pb2.TenantDeleteRequest(name="acme"),
    ]


def test_server_without_tenants_says_so(scripted: ScriptedServer) -> None:
    """Against a server that has no tenants, like etcd, the call is refused by its code."""
    scripted.script(
        "/kvsecurepb.Tenants/TenantList",
        (grpc.StatusCode.UNIMPLEMENTED, Failure.UNKNOWN_SERVICE.text),
    )

    with Client.open(scripted.endpoint) as client, pytest.raises(ClientError) as refused:
        client.tenants.list()

    assert refused.value.failure is Failure.UNKNOWN_SERVICE
