"""Who a request comes from: certificates, tokens and passwords against the accounts as they are."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from security.lab import World

from kvsecure.crypto import passwords
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.limits import PASSWORD_BYTES_MAX, PASSWORD_QUEUE_MAX
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2, kv_pb2, tenant_pb2
from kvsecure.security.authn import split_name
from kvsecure.security.session import Peer

_GET: Final = kv_pb2.RangeRequest(key=b"/app/k")
_PUT: Final = kv_pb2.PutRequest(key=b"/app/k", value=b"v")
_PASSWORD: Final = "lantern-Orbit-zebra-4271"
_OTHER: Final = "another-Orbit-zebra-4271"


@pytest.fixture
def app(world: World) -> World:
    """A world with user `web`, who may read and write /app/, by password and by certificate."""
    world.role("app", b"/app/", b"/app0")
    world.user("web", "app", password=_PASSWORD)
    return world


# --- who it is ----------------------------------------------------------------------------------


def test_nobody_gets_nothing(app: World) -> None:
    """Without a certificate and without a token a request is refused by etcd's text."""
    asked = app.ask(_GET, app.peer())

    assert asked.why == "USER_EMPTY"
    record = next(app.last())
    assert (record["stage"], record["actor"]) == ("denied", {"via": "nobody"})
    assert record["op"]["key"] == "/app/k"


def test_a_certificate_names_its_user(app: World) -> None:
    """A certificate's user needs no token."""
    assert app.ask(_GET, app.peer("web")).body is not None
    assert app.ask(_GET, app.peer("stranger")).why == "PERMISSION_DENIED"
    assert app.ask(_GET, app.peer("web", tenant="missing")).why == "PERMISSION_DENIED"
    assert app.ask(_GET, app.peer("root", tenant="system")).why == "PERMISSION_DENIED"


def test_a_token_names_its_user(app: World) -> None:
    """A token that a log-in gave is as good as its user."""
    token = app.token("web", _PASSWORD)

    assert app.ask(_GET, app.peer(), token).body is not None
    assert next(app.last())["actor"]["via"] == "token"
    assert app.ask(_GET, app.peer(), token + b"x").why == "INVALID_AUTH_TOKEN"


def test_a_bad_token_is_not_made_good_by_a_certificate(app: World) -> None:
    """Whoever shows a token is judged by it (absence of an identity is not another identity)."""
    assert app.ask(_GET, app.peer("web"), b"garbage").why == "INVALID_AUTH_TOKEN"


def test_two_identities_are_refused_together(app: World) -> None:
    """A certificate and a token that name different users make no request."""
    token = app.token("web", _PASSWORD)
    app.user("other", "app")
    app.tenant("acme")
    app.user("web", tenant="acme")

    for peer in (app.peer("root"), app.peer("other"), app.peer("web", tenant="acme")):
        assert app.ask(_GET, peer, token).why == "IDENTITY_CONFLICT"
    assert app.ask(_GET, app.peer("web"), token).body is not None


def test_compat_lets_the_token_win(tmp_path: Path) -> None:
    """That a token beats a certificate, as in etcd, is so under `--compat etcd` and only there."""
    world = World(tmp_path, compat=True)
    world.role("app", b"/app/", b"/app0")
    world.user("web", "app", password=_PASSWORD)
    token = world.token("web", _PASSWORD)

    assert world.ask(_GET, world.peer("root"), token).body is not None
    assert next(world.last())["actor"]["user"] == "web"
    world.close()


def test_a_token_is_bound_to_the_certificate_it_was_given_to(app: World) -> None:
    """A stolen token is of no use without the certificate (RFC 8705; OpenBao CVE-2026-39388)."""
    bound = app.token("web", _PASSWORD, app.peer("web", mark=b"first"))

    assert app.ask(_GET, app.peer("web", mark=b"first"), bound).body is not None
    for thief in (app.peer(), app.peer("web", mark=b"second"), app.peer("root")):
        assert app.ask(_GET, thief, bound).why == "INVALID_AUTH_TOKEN"


def test_a_token_of_nobodys_certificate_works_with_the_users_own(app: World) -> None:
    """A token from a connection without a certificate goes with the same user's certificate."""
    token = app.token("web", _PASSWORD)

    assert app.ask(_GET, app.peer("web"), token).body is not None


# --- what ends a session ------------------------------------------------------------------------


def _sessions(app: World) -> Iterator[tuple[Peer, bytes]]:
    """Return an open session by token and one by certificate, both used before."""
    token = app.token("web", _PASSWORD)
    for peer, shown in ((app.peer(), token), (app.peer("web"), b"")):
        assert app.ask(_GET, peer, shown).body is not None
        yield peer, shown


def test_a_deleted_user_is_gone_at_once(app: World) -> None:
    """Sessions of a user end with the user, also those that were resolved before."""
    sessions = list(_sessions(app))

    app.system(auth_pb2.AuthUserDeleteRequest(name="web"))

    assert [app.ask(_GET, *each).why for each in sessions] == [
        "INVALID_AUTH_TOKEN",
        "PERMISSION_DENIED",
    ]


def test_another_user_of_the_same_name_is_another_user(app: World) -> None:
    """A token does not outlive its user, even if the name is given to somebody else."""
    (peer, token), _ = _sessions(app)

    app.system(auth_pb2.AuthUserDeleteRequest(name="web"))
    app.user("web", "app", password=_PASSWORD)

    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"


def test_a_new_password_ends_the_old_sessions(app: World) -> None:
    """Tokens of before a password was changed are refused; the certificate still names the user."""
    (peer, token), (certified, _) = _sessions(app)

    app.system(auth_pb2.AuthUserChangePasswordRequest(name="web", hashedPassword="x"))

    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"
    assert app.ask(_GET, certified).body is not None


def test_a_revoked_role_counts_from_the_next_request(app: World) -> None:
    """Rights are looked up live: nothing that was cached outlives the role."""
    sessions = list(_sessions(app))

    app.system(auth_pb2.AuthUserRevokeRoleRequest(name="web", role="app"))

    for each in sessions:
        assert app.ask(_GET, *each).why == "PERMISSION_DENIED"
        assert app.ask(_PUT, *each).why == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "command",
    [
        auth_pb2.AuthRoleDeleteRequest(role="app"),
        auth_pb2.AuthRoleRevokePermissionRequest(role="app", key=b"/app/", range_end=b"/app0"),
    ],
    ids=["role deleted", "permission revoked"],
)
def test_what_happens_to_a_role_happens_to_its_users(app: World, command: Any) -> None:
    """A role that is gone or emptied gives nothing to those who had it."""
    sessions = list(_sessions(app))

    app.system(command)

    assert {app.ask(_GET, *each).why for each in sessions} == {"PERMISSION_DENIED"}


def test_an_expired_token_is_refused_also_where_it_was_resolved(app: World) -> None:
    """A session that was resolved on a connection ends with its token."""
    (peer, token), (certified, _) = _sessions(app)

    app.clock.forward(599)
    assert app.ask(_GET, peer, token).body is not None
    app.clock.forward(1)

    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"
    assert app.ask(_GET, certified).body is not None


def test_a_deleted_tenant_takes_its_sessions_along(app: World) -> None:
    """No session of a deleted tenant goes on, and none comes back with a tenant of its name."""
    app.tenant("acme")
    app.user("web", "root", password=_PASSWORD, tenant="acme")
    token = app.token("acme/web", _PASSWORD)
    peer, certified = app.peer(), app.peer("web", tenant="acme")
    assert app.ask(_PUT, peer, token).body is not None
    assert app.ask(_PUT, certified).body is not None

    app.ask(tenant_pb2.TenantDeleteRequest(name="acme"))
    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"
    assert app.ask(_GET, certified).why == "PERMISSION_DENIED"
    app.tenant("acme")
    app.user("web", "root", password=_PASSWORD, tenant="acme")

    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"
    # The certificate names tenant and user, and both are there again; the keys are not.
    answered = app.ask(_GET, certified)
    assert answered.body is not None
    assert kv_pb2.RangeResponse.FromString(answered.body).count == 0


# --- authentication off, and on again -----------------------------------------------------------


def test_disabling_opens_the_default_tenant_and_ends_its_sessions(app: World) -> None:
    """While authentication is off anybody is let in; tokens of before are not good afterwards."""
    token = app.token("web", _PASSWORD)
    peer = app.peer()

    app.system(auth_pb2.AuthDisableRequest())
    assert app.ask(_PUT, peer).body is not None
    assert app.ask(_PUT, peer, token).body is not None
    assert app.ask(_PUT, peer, b"garbage").body is not None
    assert app.log_in("web", _PASSWORD).why == "AUTH_NOT_ENABLED"
    app.system(auth_pb2.AuthEnableRequest())

    assert app.ask(_GET, peer).why == "USER_EMPTY"
    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"
    assert app.ask(_GET, peer, app.token("web", _PASSWORD)).body is not None


def test_disabling_does_not_open_other_tenants(app: World) -> None:
    """Users of a named tenant stay in it: what they write is not left in the open."""
    app.tenant("acme")
    app.user("web", "root", password=_PASSWORD, tenant="acme")
    token = app.token("acme/web", _PASSWORD)
    app.system(auth_pb2.AuthDisableRequest())

    certified = app.peer("web", tenant="acme")
    for peer, shown in ((app.peer(), token), (certified, b""), (certified, token)):
        assert app.ask(_PUT, peer, shown).body is not None

    answered = app.ask(_GET, app.peer()).body
    assert answered is not None
    assert kv_pb2.RangeResponse.FromString(answered).count == 0
    for foreign in (app.peer("stranger", tenant="acme"), app.peer("web", tenant="missing")):
        assert app.ask(_GET, foreign).why == "PERMISSION_DENIED"


def test_a_named_tenant_is_never_open(app: World) -> None:
    """The root of a tenant cannot switch its authentication off."""
    app.tenant("acme")

    asked = app.ask(auth_pb2.AuthDisableRequest(), app.peer("root", tenant="acme"))

    assert asked.why == "INVALID_AUTH_MANAGEMENT"
    assert app.ask(_GET, app.peer("nobody", tenant="acme")).why == "PERMISSION_DENIED"


# --- passwords ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("web", _OTHER),
        ("web", ""),
        ("web", _PASSWORD + " "),
        ("web", _PASSWORD.upper()),
        ("web ", _PASSWORD),
        ("Web", _PASSWORD),
        ("", _PASSWORD),
        ("missing", _PASSWORD),
        ("certified", _PASSWORD),
        ("certified", ""),
        ("acme/web", _PASSWORD),
        ("default/default/web", _PASSWORD),
        ("../default/web", _PASSWORD),
        ("DEFAULT/web", _PASSWORD),
        ("system/root", _PASSWORD),
        ("web", "x" * (PASSWORD_BYTES_MAX + 1)),
        ("web\0", _PASSWORD),
    ],
)
def test_a_failed_log_in_never_tells_why(app: World, name: str, password: str) -> None:
    """Whatever is wrong with a name or a password, there is one answer."""
    app.user("certified")
    app.tenant("acme")

    asked = app.log_in(name, password)

    assert asked.refused is not None
    assert asked.refused.failure is Failure.AUTH_FAILED
    record = next(app.last())
    assert (record["stage"], record["op"]) == ("denied", {"rpc": "Authenticate"})


@pytest.mark.parametrize("name", ["web", "/web", "default/web"])
def test_a_user_without_a_tenant_is_of_the_default_one(app: World, name: str) -> None:
    """All spellings of a user of the default tenant log in the same user."""
    assert app.log_in(name, _PASSWORD).body is not None


def test_names_are_split_at_the_first_slash() -> None:
    """A log-in name is `user` or `tenant/user`."""
    assert split_name("web") == ("", "web")
    assert split_name("acme/web") == ("acme", "web")
    assert split_name("acme/a/b") == ("acme", "a/b")


def _work_of(app: World, name: str, password: str) -> list[str]:
    """Return what a log-in made the workers do."""
    done: list[str] = []
    file = passwords.__file__

    def see(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == file:
            done.append(frame.f_code.co_name)

    # Threads that are started from here on are watched: the pool starts one for each task at first.
    app.authn._pool.shutdown()
    app.authn._pool = type(app.authn._pool)(1)
    threading.setprofile(see)
    try:
        app.log_in(name, password)
    finally:
        threading.setprofile(None)
    return done


@pytest.mark.parametrize(
    "name", ["missing", "acme/missing", "missing/web", "certified", "system/x"]
)
def test_an_unknown_user_takes_the_work_of_a_known_one(app: World, name: str) -> None:
    """A password is hashed by the same rules whether or not there is somebody of that name."""
    app.user("certified")
    app.tenant("acme")

    assert _work_of(app, "web", _OTHER) == ["verify_password"]
    assert _work_of(app, name, _OTHER) == ["verify_nobody"]


def test_the_verifier_of_nobody_costs_what_others_cost() -> None:
    """The dummy verifier has the parameters of real ones."""
    real = passwords.hash_password(Secret(b"x"))

    assert passwords._NOBODY.rsplit("$", 2)[0] == real.rsplit("$", 2)[0]
    assert "m=19456,t=2,p=1" in real


def test_guessing_gets_slow_for_all_spellings_of_a_name(app: World) -> None:
    """After five wrong guesses from one place even the right password has to wait."""
    spellings = ("web", "/web", "default/web", "WEB", " web", "default/Web")
    for spelling in spellings:
        assert app.log_in(spelling, _OTHER).why == "AUTH_FAILED"

    for spelling in spellings:
        assert app.log_in(spelling, _PASSWORD).why == "TOO_MANY_REQUESTS"
    assert app.log_in("web", _PASSWORD, app.peer(ip="198.51.100.9")).body is not None
    app.clock.forward(1)
    assert app.log_in("web", _PASSWORD).body is not None
    assert app.log_in("web", _OTHER).why == "AUTH_FAILED"


def test_waiting_costs_no_hash(app: World) -> None:
    """An attempt that comes too early is refused before any work is done for it."""
    for _ in range(6):
        app.log_in("web", _OTHER)

    assert _work_of(app, "web", _OTHER) == []


def test_a_flood_of_log_ins_is_refused(app: World) -> None:
    """When too many passwords wait to be hashed, the next one is refused at once."""
    app.authn._queued = PASSWORD_QUEUE_MAX

    assert app.log_in("web", _PASSWORD).why == "TOO_MANY_REQUESTS"
    with pytest.raises(Refused) as caught:
        app.run(app.authn.hash(Secret(b"x")))
    assert caught.value.failure is Failure.TOO_MANY_REQUESTS
    app.authn._queued = 0

    assert app.log_in("web", _PASSWORD).body is not None
    assert app.authn._queued == 0


def test_accounts_that_move_during_the_hash_are_looked_at_again(app: World) -> None:
    """A password that was changed while the old one was being checked does not let anybody in."""
    peer = app.peer()

    async def race() -> None:
        checking = asyncio.ensure_future(app.authn.log_in("web", Secret.of_text(_PASSWORD), peer))
        # The check has begun once it waits for its worker.
        await asyncio.sleep(0)
        changed = passwords.hash_password(Secret.of_text(_OTHER))
        app.system(auth_pb2.AuthUserChangePasswordRequest(name="web", hashedPassword=changed))
        with pytest.raises(Refused) as caught:
            await checking
        assert caught.value.failure is Failure.AUTH_FAILED

    app.run(race())


def test_a_connection_keeps_a_bounded_number_of_sessions(app: World) -> None:
    """A connection that shows many tokens does not make the member remember all of them."""
    peer = app.peer()
    tokens = [app.token("web", _PASSWORD) for _ in range(18)]

    for token in tokens:
        assert app.ask(_GET, peer, token).body is not None

    assert len(peer.sessions) == 16
    assert app.ask(_GET, peer, tokens[0]).body is not None


def test_passwords_and_tokens_are_in_no_record(app: World) -> None:
    """What was typed is not in the trail, right or wrong."""
    token = app.token("web", _PASSWORD)
    app.log_in("web", _OTHER)
    app.ask(_GET, app.peer(), token)
    app.ask(_GET, app.peer(), b"not-a-token-at-all")
    everything = b"".join(app.trail.recent(10_000))

    for secret in (_PASSWORD, _OTHER, token.decode(), token.decode()[-40:], "not-a-token-at-all"):
        assert secret.encode() not in everything


# --- what ends with a connection ------------------------------------------------------------------


def test_nothing_is_allowed_over_a_connection_that_was_cut(app: World) -> None:
    """A certificate that is not good any more has no sessions, whatever is under way."""
    token = app.token("web", _PASSWORD)
    peer = app.peer("web")
    assert app.ask(_PUT, peer).body is not None
    assert app.ask(_PUT, peer, token).body is not None

    peer.cut()

    assert app.ask(_PUT, peer).why == "INVALID_AUTH_TOKEN"
    assert app.ask(_GET, peer, token).why == "INVALID_AUTH_TOKEN"


def test_stream_over_a_connection_that_was_cut_is_not_renewed(app: World) -> None:
    """When accounts move, an open stream is decided again, and by then there is nobody to ask."""
    peer = app.peer("web")
    session = app.gate.authenticator.session(peer, b"")

    peer.cut()

    with pytest.raises(Refused) as caught:
        app.gate.authenticator.renewed(session, peer)
    assert caught.value.failure is Failure.INVALID_AUTH_TOKEN
