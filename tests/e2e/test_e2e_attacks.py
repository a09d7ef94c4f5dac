"""What went wrong in OpenBao, ZooKeeper and older etcd, tried here: names, identities, sessions.

Each test names the item of the attack corpus (security.md H) that it turns into a regression test.
"""

import base64
import json
import time
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
from e2e.world import (
    DENIED,
    INVALID_TOKEN,
    LOGIN_FAILED,
    NOBODY,
    PASSWORD,
    Fortress,
    refused,
)
from support.certificates import KeyPair
from support.processes import wait_until
from support.rpc import Client, Refusal
from support.streams import WatchScript

from kvsecure.model.errors import Failure
from kvsecure.pki.authority import create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.profiles import ProfileName
from kvsecure.proto import auth_pb2, authstore_pb2, kv_pb2, lease_pb2, tenant_pb2

_GET: Final = kv_pb2.RangeRequest(key=b"/app/k")
_CONFLICT: Final = Refusal("UNAUTHENTICATED", Failure.IDENTITY_CONFLICT.text)


def _call(client: Client, name: str, request: Any) -> Refusal | None:
    return refused(lambda: client.call(name, request))


# --- 8: passwords, older etcd -------------------------------------------------------------------


@pytest.mark.parametrize("password", ["", "x", "fourteen chars", "correct horse battery staple"])
def test_a_weak_password_is_not_set(fortress: Fortress, password: str) -> None:
    """H8, GHSA-4993-m7g5-r9hh: there is a minimum, for new users, for changes and for tenants."""
    root = fortress.root()
    for request, name in (
        (auth_pb2.AuthUserAddRequest(name="weak", password=password), "auth.UserAdd"),
        (
            auth_pb2.AuthUserChangePasswordRequest(name="web", password=password),
            "auth.UserChangePassword",
        ),
        (
            tenant_pb2.TenantAddRequest(name="weak", root_password=password),
            "tenants.TenantAdd",
        ),
    ):
        answer = _call(root, name, request)
        assert answer is not None
        assert answer.code == "INVALID_ARGUMENT"
        assert answer.text.startswith("kvsecure: password rejected")
    assert fortress.bearer("web").token


def test_a_hash_of_an_unknown_kind_is_not_stored(fortress: Fortress) -> None:
    """H8: what a client brings as a verifier is one that log-ins can be checked against."""
    root = fortress.root()
    for text in ("", "plain", "$1$abc$def", "$2b$04$short", "$argon2id$", "\xff"):
        encoded = base64.b64encode(text.encode()).decode()
        for hashed in (encoded, text, encoded + "!"):
            if not hashed:
                continue
            answer = _call(
                root, "auth.UserAdd", auth_pb2.AuthUserAddRequest(name="h", hashedPassword=hashed)
            )
            assert answer is not None, hashed
            assert answer.code == "INVALID_ARGUMENT"
    answer = _call(root, "auth.UserGet", auth_pb2.AuthUserGetRequest(name="h"))
    assert answer == Refusal("FAILED_PRECONDITION", Failure.USER_NOT_FOUND.text)


def test_a_tenants_root_does_not_keep_others_from_logging_in(fortress: Fortress) -> None:
    """H17: a hash that takes hours to check, or all memory, is refused when it is brought."""
    globex = fortress.tenant("h17")
    costly = (
        "$2b$31$" + "a" * 53,
        "$argon2id$v=19$m=4194304,t=9,p=1$c29tZXNhbHQxMjM0NQ$" + "a" * 43,
        "$argon2id$v=19$m=65536,t=4000000000,p=1$c29tZXNhbHQxMjM0NQ$" + "a" * 43,
    )

    for verifier in costly:
        encoded = base64.b64encode(verifier.encode()).decode()
        for name, request in (
            ("auth.UserAdd", auth_pb2.AuthUserAddRequest(name="slow", hashedPassword=encoded)),
            (
                "auth.UserChangePassword",
                auth_pb2.AuthUserChangePasswordRequest(name="root", hashedPassword=encoded),
            ),
        ):
            answer = _call(globex, name, request)
            assert answer is not None
            assert answer.code == "INVALID_ARGUMENT"
            assert "more work" in answer.text
    assert fortress.bearer("web").token


def test_a_verifier_of_etcd_works_and_is_made_stronger(fortress: Fortress) -> None:
    """D7: a bcrypt hash from etcd lets its user in, now and after it was replaced."""
    password = "a password that etcd has hashed"
    hashed = base64.b64encode(bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))).decode()
    root = fortress.root()
    root.auth.UserAdd(auth_pb2.AuthUserAddRequest(name="migrated", hashedPassword=hashed))

    for _ in range(2):
        client = fortress.bearer("migrated", password)
        assert _call(client, "kv.Range", _GET) == DENIED
    wrong = refused(lambda: fortress.bearer("migrated", password + "."))

    assert wrong == LOGIN_FAILED
    upgrades = [
        each for each in fortress.records(50) if each.get("op", {}).get("user") == "migrated"
    ]
    assert any(each["actor"] == {"via": "system"} for each in upgrades)


# --- 9: ids across tenants ----------------------------------------------------------------------


def test_ids_of_another_tenant_mean_nothing(fortress: Fortress) -> None:
    """H9, CVE-2026-45808: a lease's id, known or guessed, is no handle across tenants."""
    globex = fortress.tenant("h9")

    assert _call(globex, "lease.LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=777)) == Refusal(
        "NOT_FOUND", Failure.LEASE_NOT_FOUND.text
    )
    answer = globex.lease.LeaseTimeToLive(lease_pb2.LeaseTimeToLiveRequest(ID=777, keys=True))
    assert answer.TTL == -1
    assert not answer.keys
    [renewed] = globex.lease.LeaseKeepAlive(iter([lease_pb2.LeaseKeepAliveRequest(ID=777)]))
    assert renewed.TTL == 0
    assert not globex.lease.LeaseLeases(lease_pb2.LeaseLeasesRequest()).leases
    attach = kv_pb2.PutRequest(key=b"k", lease=777)
    assert _call(globex, "kv.Put", attach) == Refusal("NOT_FOUND", Failure.LEASE_NOT_FOUND.text)
    assert fortress.value(fortress.root(), b"/ops/leased") == b"x"


def test_a_token_of_one_tenant_is_none_of_another(fortress: Fortress) -> None:
    """H9, CVE-2026-40264: a session is of its tenant, whatever its user is called."""
    fortress.tenant("h9a")
    fortress.tenant("h9b")
    token = fortress.bearer("h9a/root").token

    for client in (fortress.certified("root"), fortress.certified("root", "h9b")):
        client.use_token(token)
        assert _call(client, "kv.Range", _GET) == _CONFLICT
    stranger = fortress.stranger()
    stranger.use_token(token)
    assert fortress.value(stranger, b"/app/k") is None
    assert _call(stranger, "auth.UserGet", auth_pb2.AuthUserGetRequest(name="web")) == Refusal(
        "FAILED_PRECONDITION", Failure.USER_NOT_FOUND.text
    )


# --- 10: one name, one spelling -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", "Root", "ROOT", "a b", "a/b", "..", ".", "a.b", "-a", "a-", "a_b", "x" * 64),
        *("\u0430cme", "acme\0", " acme", "acme ", "acme\n", "%61cme", "*"),
    ],
)
def test_a_tenants_name_has_one_spelling(fortress: Fortress, name: str) -> None:
    """H10, CVE-2026-3605: nothing that could be read as another name becomes a tenant."""
    request = tenant_pb2.TenantAddRequest(name=name, root_no_password=True)

    answer = _call(fortress.root(), "tenants.TenantAdd", request)

    assert answer is not None
    assert answer.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("name", ["default", "system"])
def test_reserved_tenants_are_neither_made_nor_deleted(fortress: Fortress, name: str) -> None:
    """H10, GHSA-mwr2-wmgp-crj6: the tenants that every cluster has cannot be taken over."""
    root = fortress.root()
    add = tenant_pb2.TenantAddRequest(name=name, root_no_password=True)

    assert _call(root, "tenants.TenantAdd", add) == Refusal(
        "FAILED_PRECONDITION", Failure.TENANT_EXISTS.text
    )
    assert _call(root, "tenants.TenantDelete", tenant_pb2.TenantDeleteRequest(name=name)) == (
        Refusal("INVALID_ARGUMENT", Failure.INVALID_AUTH_MANAGEMENT.text)
    )


def test_a_tenant_called_root_is_nobody_special(fortress: Fortress) -> None:
    """H10, GHSA-mwr2-wmgp-crj6: no name of a tenant carries rights over the cluster."""
    client = fortress.tenant("root")

    for name, request in (
        ("tenants.TenantList", tenant_pb2.TenantListRequest()),
        ("tenants.TenantGet", tenant_pb2.TenantGetRequest(name="default")),
        ("tenants.TenantAdd", tenant_pb2.TenantAddRequest(name="x", root_no_password=True)),
        ("tenants.TenantDelete", tenant_pb2.TenantDeleteRequest(name="root")),
        ("kv.Compact", kv_pb2.CompactionRequest(revision=1)),
    ):
        assert _call(client, name, request) == DENIED
    assert fortress.value(client, b"/app/k") is None


def test_names_of_users_are_compared_as_they_are(fortress: Fortress) -> None:
    """H10, CVE-2025-64761: another case, another form, another space is another user."""
    root = fortress.root()
    for spelling in ("WEB", "Web", "web ", " web", "w\u0435b", "web\u200b"):
        assert refused(lambda name=spelling: fortress.bearer(name)) == LOGIN_FAILED
    for bad in ("a/b", "/", "a\nb", "a\x00b", "a\u2028b", "x" * 257):
        answer = _call(
            root, "auth.UserAdd", auth_pb2.AuthUserAddRequest(name=bad, password=PASSWORD)
        )
        assert answer is not None
        assert answer.text.startswith("kvsecure: name rejected")
        answer = _call(root, "auth.RoleAdd", auth_pb2.AuthRoleAddRequest(name=bad))
        assert answer is not None
        assert answer.text.startswith("kvsecure: name rejected")


# --- 12: names are not patterns -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["*", "+", "we*", ".*", "a,b", "root,web", "{{user}}", "%s", "root;"]
)
def test_a_name_with_signs_is_only_a_name(fortress: Fortress, name: str) -> None:
    """H12, GHSA-59w7-v8rr-pr4p: what looks like a pattern or a list gives no more than a name."""
    fortress.user(name)
    client = fortress.bearer(name)

    assert _call(client, "kv.Range", _GET) == DENIED
    assert _call(client, "auth.UserList", auth_pb2.AuthUserListRequest()) == DENIED
    assert _call(client, "auth.UserGet", auth_pb2.AuthUserGetRequest(name=name)) is None
    assert _call(client, "auth.UserGet", auth_pb2.AuthUserGetRequest(name="web")) == DENIED


def test_keys_with_signs_are_only_keys(fortress: Fortress) -> None:
    """H12: a permission on a key with signs is on that key alone."""
    fortress.role("signs", (0, b"/*", b""), (0, b"/a/../", b"/a/../\xff"))
    fortress.user("signs", "signs")
    client = fortress.bearer("signs")

    assert _call(client, "kv.Range", kv_pb2.RangeRequest(key=b"/*")) is None
    assert _call(client, "kv.Range", kv_pb2.RangeRequest(key=b"/a/../b")) is None
    for key in (b"/x", b"/", b"/b", b"/a/b", b"/app/k"):
        assert _call(client, "kv.Range", kv_pb2.RangeRequest(key=key)) == DENIED


# --- 14 and 15: sessions and guessing -----------------------------------------------------------


def test_a_session_is_of_one_certificate(fortress: Fortress) -> None:
    """H14, CVE-2026-39388: another certificate of the same user does not carry a session on."""
    authority = fortress.server.authority
    first = fortress.server.anonymous(authority.client("web")).login("web", PASSWORD)
    token = first.token
    assert fortress.value(first, b"/app/k") == b"application"

    renewed = fortress.certified("web")
    renewed.use_token(token)
    bare = fortress.stranger()
    bare.use_token(token)

    assert _call(renewed, "kv.Range", _GET) == INVALID_TOKEN
    assert _call(bare, "kv.Range", _GET) == INVALID_TOKEN
    first.close()


def test_unknown_users_are_refused_like_known_ones(fortress: Fortress) -> None:
    """H15, CVE-2025-54999: neither text nor code nor record tells whether a user exists."""
    fortress.root().auth.UserAdd(
        auth_pb2.AuthUserAddRequest(
            name="certified-only", options=authstore_pb2.UserAddOptions(no_password=True)
        )
    )
    for name in ("reader", "nobody-of-this-name", "certified-only", "h15/root", "system/root"):
        assert refused(lambda user=name: fortress.bearer(user, PASSWORD + "x")) == LOGIN_FAILED
    last = fortress.requests("Authenticate")[-5:]

    assert {json.dumps(each["result"]) for each in last} == {'{"code": "INVALID_ARGUMENT"}'}


# --- 16: the trail ------------------------------------------------------------------------------


def test_secrets_of_any_type_stay_out_of_the_trail(fortress: Fortress) -> None:
    """H16, CVE-2025-62513: values, passwords and hashes are not recorded in whatever form."""
    root = fortress.root()
    canary = "canary-value-4f1d"
    fortress.put(root, b"/ops/c1", canary.encode())
    fortress.put(root, b"/ops/c2", b"\xff\x00" + canary.encode())
    root.kv.Txn(
        kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(key=b"/ops/c1", target="VALUE", value=canary.encode())],
            success=[
                kv_pb2.RequestOp(
                    request_put=kv_pb2.PutRequest(key=b"/ops/c3", value=canary.encode())
                )
            ],
        )
    )
    fortress.user("canary", password=canary + "-password")
    fortress.bearer("canary", canary + "-password")
    refused(lambda: fortress.bearer("canary", canary + "-wrong"))
    text = json.dumps(fortress.records())

    assert "/ops/c1" in text
    assert canary not in text.replace("canary-value-4f1d-", canary)
    assert canary.encode().hex() not in text
    assert base64.b64encode(canary.encode()).decode() not in text


def test_every_operation_of_a_transaction_is_in_the_trail(fortress: Fortress) -> None:
    """H16, CVE-2026-46358: nobody hides one key behind a hundred others."""
    root = fortress.root()
    operations = [
        kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"/ops/many/%03d" % number))
        for number in range(127)
    ]
    operations.append(kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"/ops/k")))

    root.kv.Txn(kv_pb2.TxnRequest(success=operations))

    record = fortress.requests("Txn")[-1]
    keys = [each["request_range"]["key"] for each in record["op"]["success"]]
    assert len(keys) == 128
    assert keys[-1] == "/ops/k"


def test_a_stranger_does_not_fill_the_trail(fortress: Fortress) -> None:
    """H16: what a stranger sends, however long, leaves a short record."""
    huge = kv_pb2.RangeRequest(key=b"\x01" * 1_000_000)

    assert _call(fortress.stranger(), "kv.Range", huge) == NOBODY

    record = next(each for each in reversed(fortress.records(5)) if each["stage"] == "denied")
    assert record["op"]["key_bytes"] == 1_000_000
    assert len(json.dumps(record)) < 4_096


# --- 19: decided when it matters ----------------------------------------------------------------


def test_a_watch_is_decided_when_it_speaks(fortress: Fortress) -> None:
    """H19, CVE-2024-23944: events after a right was revoked are not delivered, late or at all."""
    fortress.role("h19", (0, b"/h19/", b"/h190"))
    fortress.user("h19", "h19")
    script = WatchScript(fortress.bearer("h19"))
    root = fortress.root()
    try:
        script.create(b"/h19/", range_end=b"/h190")
        fortress.put(root, b"/h19/a", b"before")
        script.wait(controls=1, events=1)
        root.auth.UserRevokeRole(auth_pb2.AuthUserRevokeRoleRequest(name="h19", role="h19"))
        for number in range(50):
            fortress.put(root, b"/h19/%d" % number, b"after")
        script.wait(controls=2)
        seen = script.observed()
    finally:
        script.close()

    assert [each.kv.value for events in seen.events.values() for each in events] == [b"before"]
    assert seen.controls[1].canceled
    assert "permission denied" in seen.controls[1].cancel_reason


# --- 20: no identity is no identity -------------------------------------------------------------


def _issued(fortress: Fortress, directory: Path, profile: ProfileName, name: str) -> KeyPair:
    """Return a certificate of another profile from the authority that the server trusts."""
    from kvsecure.pki.authority import Authority

    authority = Authority.open(fortress.directory / "certificates" / "authority")
    issued = authority.issue(profile, name)
    pair = KeyPair(certificate=directory / f"{name}.crt", key=directory / f"{name}.key")
    write_public(pair.certificate, issued.certificate_pem)
    write_private(pair.key, issued.private_key)
    return pair


def test_a_members_certificate_is_no_user(fortress: Fortress, tmp_path: Path) -> None:
    """H20, CVE-2023-44981: a certificate that names no user gives no identity, and no default."""
    pair = _issued(fortress, tmp_path, ProfileName.PEER, "m1")

    with fortress.server.anonymous(pair) as client:
        assert _call(client, "kv.Range", _GET) == NOBODY


def test_a_servers_certificate_is_no_client(fortress: Fortress, tmp_path: Path) -> None:
    """H20: a certificate for serving does not open a connection as a client."""
    pair = _issued(fortress, tmp_path, ProfileName.SERVER, "web1")

    with fortress.server.anonymous(pair) as client:
        answer = refused(lambda: client.call("auth.AuthStatus", auth_pb2.AuthStatusRequest()))

    assert answer is not None
    assert answer.code == "UNAVAILABLE"


def test_a_certificate_of_another_authority_opens_nothing(
    fortress: Fortress, tmp_path: Path
) -> None:
    """A certificate that says root, from an authority that is not trusted, is refused in TLS."""
    authority = create_authority(tmp_path / "other", "kvsecure")
    issued = authority.issue(ProfileName.CLIENT, "root")
    pair = KeyPair(certificate=tmp_path / "root.crt", key=tmp_path / "root.key")
    write_public(pair.certificate, issued.certificate_pem)
    write_private(pair.key, issued.private_key)
    before = time.time()

    with fortress.server.anonymous(pair) as client:
        answer = refused(lambda: client.call("auth.AuthStatus", auth_pb2.AuthStatusRequest()))

    assert answer is not None
    assert answer.code == "UNAVAILABLE"
    wait_until(
        lambda: any(each["stage"] == "handshake-failed" for each in fortress.records(20)),
        deadline_s=20,
        what="a record of the failed handshake",
    )
    assert before


def test_an_identity_of_another_cluster_is_none(fortress: Fortress, tmp_path: Path) -> None:
    """H20: a user of another trust domain is nobody here, even under a trusted authority."""
    # The server believes the authority; the cluster in the URI is another one.
    with Fortress(tmp_path / "other", flags=("--cluster-name=elsewhere",)) as other:
        client = other.certified("root")
        assert _call(client, "kv.Range", _GET) == NOBODY
