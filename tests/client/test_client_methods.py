"""The table of methods: complete, and careful with what it lets be repeated."""

import pytest

from kvsecure.client.methods import Repeat, Shape, every_method, method_at
from kvsecure.proto import kv_pb2

__all__: list[str] = []

# Everything that changes something, or may; a method that is in neither list breaks the test.
_CHANGES = {
    "etcdserverpb.KV": ["Put", "DeleteRange", "Txn", "Compact"],
    "etcdserverpb.Lease": ["LeaseGrant", "LeaseRevoke"],
    "etcdserverpb.Cluster": ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"],
    "etcdserverpb.Maintenance": ["Alarm", "Defragment", "MoveLeader", "Downgrade"],
    "etcdserverpb.Auth": [
        "AuthEnable",
        "AuthDisable",
        "UserAdd",
        "UserDelete",
        "UserChangePassword",
        "UserGrantRole",
        "UserRevokeRole",
        "RoleAdd",
        "RoleDelete",
        "RoleGrantPermission",
        "RoleRevokePermission",
    ],
    "v3lockpb.Lock": ["Lock", "Unlock"],
    "v3electionpb.Election": ["Campaign", "Proclaim", "Resign"],
    "kvsecurepb.Tenants": ["TenantAdd", "TenantDelete"],
    "kvsecurepb.Crypto": ["Rotate", "Reencrypt", "Retire"],
    "kvsecurepb.Joining": ["TokenAdd", "Redeem"],
    "kvsecurepb.Versions": ["RetentionSet", "RetentionDelete", "Destroy"],
}


def test_methods_that_change_are_never_repeated() -> None:
    """Exactly the methods without effect may be repeated."""
    forbidden = {method.path for method in every_method() if method.repeat is Repeat.FORBIDDEN}

    assert forbidden == {f"/{service}/{name}" for service in _CHANGES for name in _CHANGES[service]}


def test_method_knows_its_messages() -> None:
    """A path leads to the classes of its request and its answer."""
    method = method_at("/etcdserverpb.KV/Range")

    assert (method.request, method.answer) == (kv_pb2.RangeRequest, kv_pb2.RangeResponse)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/etcdserverpb.KV/Put", Shape.UNARY),
        ("/etcdserverpb.Maintenance/Snapshot", Shape.ANSWER_STREAM),
        ("/etcdserverpb.Watch/Watch", Shape.BOTH_STREAM),
    ],
)
def test_method_knows_its_shape(path: str, shape: Shape) -> None:
    """The shape is read from the descriptor."""
    assert method_at(path).shape is shape


def test_unknown_method_is_an_error() -> None:
    """A path that no service has is not made up."""
    with pytest.raises(KeyError):
        method_at("/etcdserverpb.KV/Nothing")
