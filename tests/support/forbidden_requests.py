"""Requests that are wrong for who sends them: strangers, limited users, and root in error.

Owns: the tables of auth calls and of calls by users who may not make them.
Never: states what etcd answers, except where kvsecure answers otherwise.
Follows: etcd 3.7's rules of who may do what; etcd 3.5.1 lets several of these pass.
"""

from typing import Any, Final

from support.bad_requests import LEASE, Case, EtcdAnswer
from support.pair import NOBODY
from support.rpc import Refusal

from kvsecure.proto import auth_pb2 as auth
from kvsecure.proto import authstore_pb2 as store
from kvsecure.proto import cluster_pb2 as cluster
from kvsecure.proto import health_pb2 as health
from kvsecure.proto import kv_pb2 as kv
from kvsecure.proto import lease_pb2 as lease
from kvsecure.proto import maintenance_pb2 as maintenance

__all__ = [
    "ADMIN_CALLS",
    "DENIED",
    "FORBIDDEN_REQUESTS",
    "LEASE_CALLS",
    "NO_USER",
    "PUBLIC_CALLS",
    "USER_CALLS",
]

DENIED: Final = Refusal("PERMISSION_DENIED", "etcdserver: permission denied")
NO_USER: Final = Refusal("INVALID_ARGUMENT", "etcdserver: user name is empty")
_AUTH_FAILED: Final = Refusal(
    "INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password"
)
_BAD_AUTH: Final = Refusal("INVALID_ARGUMENT", "etcdserver: invalid auth management")


_Rows = dict[str, tuple[str, Any]]


def _user_rows() -> _Rows:
    long = "long-enough-password"
    return {
        "user-add-empty-name": ("UserAdd", auth.AuthUserAddRequest(password=long)),
        "user-add-existing": ("UserAdd", auth.AuthUserAddRequest(name="web", password=long)),
        "user-get-missing": ("UserGet", auth.AuthUserGetRequest(name="missing")),
        "user-get-empty": ("UserGet", auth.AuthUserGetRequest()),
        "user-delete-missing": ("UserDelete", auth.AuthUserDeleteRequest(name="missing")),
        "user-delete-root": ("UserDelete", auth.AuthUserDeleteRequest(name="root")),
        "user-passwd-missing": (
            "UserChangePassword",
            auth.AuthUserChangePasswordRequest(name="missing", password=long),
        ),
        "grant-role-missing-user": (
            "UserGrantRole",
            auth.AuthUserGrantRoleRequest(user="missing", role="app"),
        ),
        "grant-role-missing-role": (
            "UserGrantRole",
            auth.AuthUserGrantRoleRequest(user="web", role="missing"),
        ),
        "grant-role-missing-both": (
            "UserGrantRole",
            auth.AuthUserGrantRoleRequest(user="missing", role="missing"),
        ),
        "revoke-role-missing-user": (
            "UserRevokeRole",
            auth.AuthUserRevokeRoleRequest(name="missing", role="app"),
        ),
        "revoke-role-not-granted": (
            "UserRevokeRole",
            auth.AuthUserRevokeRoleRequest(name="web", role="root"),
        ),
        "revoke-root-from-root": (
            "UserRevokeRole",
            auth.AuthUserRevokeRoleRequest(name="root", role="root"),
        ),
        "authenticate-wrong-password": (
            "Authenticate",
            auth.AuthenticateRequest(name="web", password="wrong"),
        ),
        "authenticate-no-password": ("Authenticate", auth.AuthenticateRequest(name="web")),
        "authenticate-unknown-user": (
            "Authenticate",
            auth.AuthenticateRequest(name="missing", password=long),
        ),
        "authenticate-empty": ("Authenticate", auth.AuthenticateRequest()),
        "auth-enable-again": ("AuthEnable", auth.AuthEnableRequest()),
    }


def _role_rows() -> _Rows:
    return {
        "role-add-empty": ("RoleAdd", auth.AuthRoleAddRequest()),
        "role-add-existing": ("RoleAdd", auth.AuthRoleAddRequest(name="app")),
        "role-add-root": ("RoleAdd", auth.AuthRoleAddRequest(name="root")),
        "role-get-missing": ("RoleGet", auth.AuthRoleGetRequest(role="missing")),
        "role-get-root": ("RoleGet", auth.AuthRoleGetRequest(role="root")),
        "role-delete-missing": ("RoleDelete", auth.AuthRoleDeleteRequest(role="missing")),
        "role-delete-root": ("RoleDelete", auth.AuthRoleDeleteRequest(role="root")),
        "grant-permission-missing-role": (
            "RoleGrantPermission",
            auth.AuthRoleGrantPermissionRequest(name="missing", perm=store.Permission(key=b"k")),
        ),
        "grant-permission-none": (
            "RoleGrantPermission",
            auth.AuthRoleGrantPermissionRequest(name="app"),
        ),
        "revoke-permission-missing-role": (
            "RoleRevokePermission",
            auth.AuthRoleRevokePermissionRequest(role="missing", key=b"k"),
        ),
        "revoke-permission-not-granted": (
            "RoleRevokePermission",
            auth.AuthRoleRevokePermissionRequest(role="app", key=b"/app/"),
        ),
    }


def _auth_cases() -> list[Case]:
    rows = {**_user_rows(), **_role_rows()}
    return [Case(name=key, method=f"auth.{row[0]}", request=row[1]) for key, row in rows.items()]


def _limited_cases() -> list[Case]:
    inside, outside = kv.RangeRequest(key=b"/app/w"), kv.RangeRequest(key=b"/ops/x")
    get = kv.RequestOp(request_range=inside)
    peek = kv.RequestOp(request_range=outside)
    put = kv.RequestOp(request_put=kv.PutRequest(key=b"/app/read-only"))
    rows: _Rows = {
        "range-inside": ("kv.Range", inside),
        "range-outside": ("kv.Range", outside),
        "range-serializable-outside": (
            "kv.Range",
            kv.RangeRequest(key=b"/ops/x", serializable=True),
        ),
        "range-whole-permission": ("kv.Range", kv.RangeRequest(key=b"/app/", range_end=b"/app0")),
        "range-wider": ("kv.Range", kv.RangeRequest(key=b"/app/", range_end=b"/app1")),
        "range-from-key": ("kv.Range", kv.RangeRequest(key=b"/app/", range_end=b"\0")),
        "range-everything": ("kv.Range", kv.RangeRequest(key=b"\0", range_end=b"\0")),
        "range-empty-interval-outside": (
            "kv.Range",
            kv.RangeRequest(key=b"/z", range_end=b"/a"),
        ),
        "range-count-outside": ("kv.Range", kv.RangeRequest(key=b"/ops/x", count_only=True)),
        "put-read-only": ("kv.Put", kv.PutRequest(key=b"/app/read-only")),
        "put-outside": ("kv.Put", kv.PutRequest(key=b"/ops/x")),
        "put-foreign-lease": ("kv.Put", kv.PutRequest(key=b"/app/w", lease=LEASE)),
        "delete-read-only": ("kv.DeleteRange", kv.DeleteRangeRequest(key=b"/app/read-only")),
        "delete-wider": ("kv.DeleteRange", kv.DeleteRangeRequest(key=b"/app/w", range_end=b"/b")),
        "txn-inside": ("kv.Txn", kv.TxnRequest(success=[get], failure=[get])),
        "txn-compare-outside": (
            "kv.Txn",
            kv.TxnRequest(compare=[kv.Compare(key=b"/ops/x")], success=[get]),
        ),
        "txn-compare-wider": (
            "kv.Txn",
            kv.TxnRequest(compare=[kv.Compare(key=b"/app/", range_end=b"\0")], success=[get]),
        ),
        "txn-success-outside": ("kv.Txn", kv.TxnRequest(success=[get, peek])),
        "txn-failure-outside": ("kv.Txn", kv.TxnRequest(failure=[peek])),
        "txn-put-read-only": ("kv.Txn", kv.TxnRequest(failure=[put])),
        "user-get-self": ("auth.UserGet", auth.AuthUserGetRequest(name="web")),
        "user-get-other": ("auth.UserGet", auth.AuthUserGetRequest(name="certificate")),
        "role-get-own": ("auth.RoleGet", auth.AuthRoleGetRequest(role="app")),
        "role-get-other": ("auth.RoleGet", auth.AuthRoleGetRequest(role="root")),
    }
    return [
        Case(name=f"{user or 'nobody'}-{name}", method=row[0], request=row[1], user=user)
        for user in ("web", NOBODY)
        for name, row in rows.items()
    ]


def _otherwise_cases() -> list[Case]:
    peek = kv.RequestOp(request_range=kv.RangeRequest(key=b"/ops/x"))
    nested = kv.RequestOp(request_txn=kv.TxnRequest(success=[peek]))
    leased = kv.RequestOp(request_put=kv.PutRequest(key=b"/app/w", lease=LEASE))
    grant = auth.AuthRoleGrantPermissionRequest
    rows: tuple[tuple[str, str, Any, str, Refusal | None], ...] = (
        # CVE-2026-33343: nested transactions are not checked.
        ("nested-range-outside", "kv.Txn", kv.TxnRequest(success=[nested]), "web", DENIED),
        ("nested-failure-outside", "kv.Txn", kv.TxnRequest(failure=[nested]), "web", DENIED),
        # CVE-2026-44283: the lease of a put inside a transaction is not checked.
        ("txn-foreign-lease", "kv.Txn", kv.TxnRequest(failure=[leased]), "web", DENIED),
        # CVE-2023-32082: the keys of a lease are shown to those who may not read them.
        (
            "lease-keys-outside",
            "lease.LeaseTimeToLive",
            lease.LeaseTimeToLiveRequest(ID=LEASE, keys=True),
            "web",
            DENIED,
        ),
        # Such permissions can be stored and match nothing, or everything.
        (
            "grant-permission-without-key",
            "auth.RoleGrantPermission",
            grant(name="scratch", perm=store.Permission()),
            "root",
            _BAD_AUTH,
        ),
        # That the user exists and has no password is nobody's business.
        (
            "authenticate-passwordless",
            "auth.Authenticate",
            auth.AuthenticateRequest(name="certificate", password="x"),
            NOBODY,
            _AUTH_FAILED,
        ),
    )
    return [
        Case(name=name, method=method, request=request, user=user, etcd=EtcdAnswer.OTHER, ours=ours)
        for name, method, request, user, ours in rows
    ]


FORBIDDEN_REQUESTS: Final = (*_auth_cases(), *_limited_cases(), *_otherwise_cases())

# The keys of the tables are methods; words in parentheses tell two requests of one apart.

# What only an administrator may ask.
ADMIN_CALLS: Final[dict[str, Any]] = {
    "kv.Compact": kv.CompactionRequest(revision=5),
    "auth.AuthDisable": auth.AuthDisableRequest(),
    "auth.AuthEnable": auth.AuthEnableRequest(),
    "auth.UserAdd": auth.AuthUserAddRequest(name="new", password="long-enough-password"),
    "auth.UserGet": auth.AuthUserGetRequest(name="root"),
    "auth.UserList": auth.AuthUserListRequest(),
    "auth.UserDelete": auth.AuthUserDeleteRequest(name="certificate"),
    "auth.UserChangePassword": auth.AuthUserChangePasswordRequest(
        name="web", password="long-enough-password"
    ),
    "auth.UserGrantRole": auth.AuthUserGrantRoleRequest(user="web", role="root"),
    "auth.UserRevokeRole": auth.AuthUserRevokeRoleRequest(name="web", role="app"),
    "auth.RoleAdd": auth.AuthRoleAddRequest(name="new"),
    "auth.RoleGet": auth.AuthRoleGetRequest(role="root"),
    "auth.RoleList": auth.AuthRoleListRequest(),
    "auth.RoleDelete": auth.AuthRoleDeleteRequest(role="app"),
    "auth.RoleGrantPermission": auth.AuthRoleGrantPermissionRequest(
        name="app", perm=store.Permission(key=b"/ops")
    ),
    "auth.RoleRevokePermission": auth.AuthRoleRevokePermissionRequest(role="app", key=b"/app/w"),
    "maintenance.Hash": maintenance.HashRequest(),
    "maintenance.HashKV": maintenance.HashKVRequest(),
    "maintenance.Defragment": maintenance.DefragmentRequest(),
    "maintenance.MoveLeader": maintenance.MoveLeaderRequest(targetID=1),
    "maintenance.Downgrade": maintenance.DowngradeRequest(version="3.4"),
    "maintenance.Alarm": maintenance.AlarmRequest(
        action=maintenance.AlarmRequest.ACTIVATE, alarm=maintenance.NOSPACE
    ),
    "cluster.MemberAdd": cluster.MemberAddRequest(peerURLs=["http://127.0.0.1:1"]),
    "cluster.MemberRemove": cluster.MemberRemoveRequest(ID=1),
    "cluster.MemberUpdate": cluster.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:1"]),
    "cluster.MemberPromote": cluster.MemberPromoteRequest(ID=1),
}
# What any user may ask, and a stranger may not.
USER_CALLS: Final[dict[str, Any]] = {
    "maintenance.Status": maintenance.StatusRequest(),
    "maintenance.Alarm (get)": maintenance.AlarmRequest(),
    "cluster.MemberList": cluster.MemberListRequest(),
    "lease.LeaseGrant": lease.LeaseGrantRequest(TTL=600),
    "lease.LeaseTimeToLive": lease.LeaseTimeToLiveRequest(ID=LEASE),
}
# What only those may ask who may read, or write, every key that hangs on the lease.
LEASE_CALLS: Final[dict[str, Any]] = {
    "lease.LeaseLeases": lease.LeaseLeasesRequest(),
    "lease.LeaseTimeToLive (keys)": lease.LeaseTimeToLiveRequest(ID=LEASE, keys=True),
    "lease.LeaseRevoke": lease.LeaseRevokeRequest(ID=LEASE),
}
# What anybody may ask.
PUBLIC_CALLS: Final[dict[str, Any]] = {
    "auth.AuthStatus": auth.AuthStatusRequest(),
    "health.Check": health.HealthCheckRequest(),
}
