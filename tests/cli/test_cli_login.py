"""`login`, `logout` and `context`: a token is kept privately, and nobody's certificate is lost."""

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from support.certificates import Authority
from support.etcd import ScriptedServer
from support.servers import ROOT_PASSWORD, Member

from kvsecure.cli.context import Context, Contexts, ContextStore
from kvsecure.model.errors import Failure
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2, kv_pb2

__all__: list[str] = []

Run = Callable[..., Result]

_LOGIN = "/etcdserverpb.Auth/Authenticate"
_RANGE = "/etcdserverpb.KV/Range"
_PASSWORD = b"pond-Lantern-zebra-9931"


def _jwt(expiry_s: int) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"exp": expiry_s}).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


@pytest.fixture
def store(home: Path) -> ContextStore:
    """The contexts of the person who runs the commands."""
    return ContextStore(home)


def test_log_in_makes_the_next_commands_short(root: Run, home: Path) -> None:
    """After a log-in no options are needed, and the token is private."""
    done = root("put", "/login", "1")

    assert done.exit_code == 0
    assert stat.S_IMODE((home / "context.json").stat().st_mode) == 0o600


def test_password_is_not_kept(root: Run, home: Path) -> None:
    """Nothing in the home holds the password."""
    contents = b"".join(path.read_bytes() for path in home.iterdir())

    assert root("context", "show").exit_code == 0
    assert ROOT_PASSWORD.encode() not in contents


def test_log_out_forgets_the_token(root: Run, store: ContextStore) -> None:
    """After a log-out the server asks who it is, and the context is still there."""
    done = root("logout")
    refused = root("get", "a")

    assert done.stdout == "logged out of context default\n"
    assert not store.load().named("default").token
    assert store.load().named("default").user == "root"
    assert refused.exit_code == 1
    assert "kvsecure login" in refused.stderr


def test_wrong_password_keeps_nothing(run: Run, member: Member, store: ContextStore) -> None:
    """A refused log-in leaves the contexts as they were."""
    done = run(
        "--endpoint",
        member.endpoint,
        "--cacert",
        str(member.authority.certificate),
        "login",
        "--user",
        "root",
        "--password-stdin",
        stdin=b"not the password",
    )

    assert (done.exit_code, done.stderr) == (1, f"Error: {Failure.AUTH_FAILED.text}\n")
    assert store.load() == Contexts()


def test_log_in_keeps_what_was_given_before_it(
    run: Run, scripted: ScriptedServer, store: ContextStore
) -> None:
    """Endpoint, user, tenant, token and its end are in the context afterwards."""
    token = _jwt(1_900_000_000)
    scripted.script(_LOGIN, auth_pb2.AuthenticateResponse(token=token))

    done = run(
        "--context",
        "acme",
        "--endpoint",
        scripted.endpoint,
        "login",
        "--tenant",
        "acme",
        "--user",
        "web",
        "--password-stdin",
        stdin=_PASSWORD,
    )

    (login,) = scripted.calls_of(_LOGIN)
    assert login.request == auth_pb2.AuthenticateRequest(
        name="acme/web", password=_PASSWORD.decode()
    )
    assert store.load() == Contexts(
        current="acme",
        contexts={
            "acme": Context(
                endpoints=(scripted.endpoint,),
                user="web",
                tenant="acme",
                token=Secret.of_text(token),
                token_expiry_s=1_900_000_000,
            )
        },
    )
    assert done.stdout.startswith(
        "logged in as user acme/web in context acme; the token ends at 20"
    )
    assert token not in done.output


def test_token_is_sent_afterwards(run: Run, scripted: ScriptedServer) -> None:
    """The token of the context goes with every call, and no password is asked for."""
    scripted.script(_LOGIN, auth_pb2.AuthenticateResponse(token="one"))
    scripted.script(_RANGE, kv_pb2.RangeResponse())
    run(
        "--endpoint",
        scripted.endpoint,
        "login",
        "--user",
        "web",
        "--password-stdin",
        stdin=_PASSWORD,
    )

    run("get", "--prefix", "a")

    assert [seen.token for seen in scripted.calls_of(_RANGE)] == ["one"]


def test_ended_token_is_answered_with_how_to_log_in(
    run: Run, scripted: ScriptedServer, store: ContextStore
) -> None:
    """When the server no longer knows the token, the hint is to log in."""
    refusal = (grpc.StatusCode.UNAUTHENTICATED, Failure.INVALID_AUTH_TOKEN.text)
    scripted.script(_RANGE, refusal)
    context = Context(endpoints=(scripted.endpoint,), user="web", token=Secret(b"old"))
    store.save(Contexts().with_context("dev", context))

    done = run("get", "a")

    assert done.exit_code == 1
    assert "the log-in has ended: `kvsecure login`" in done.stderr


def test_token_with_password_file_is_renewed(
    run: Run, scripted: ScriptedServer, store: ContextStore, password_file: Callable[[str], Path]
) -> None:
    """With the password at hand an ended token is replaced without a word."""
    refusal = (grpc.StatusCode.UNAUTHENTICATED, Failure.INVALID_AUTH_TOKEN.text)
    scripted.script(_RANGE, refusal, kv_pb2.RangeResponse(count=1))
    scripted.script(_LOGIN, auth_pb2.AuthenticateResponse(token="new"))
    context = Context(endpoints=(scripted.endpoint,), user="web", token=Secret(b"old"))
    store.save(Contexts().with_context("dev", context))

    done = run(
        "--password-file",
        str(password_file(_PASSWORD.decode())),
        "get",
        "--prefix",
        "a",
        "--count-only",
    )

    assert done.stdout == "1\n"
    assert [seen.token for seen in scripted.calls_of(_RANGE)] == ["old", "new"]


def test_new_context_is_made_from_the_current_one(
    run: Run, scripted: ScriptedServer, store: ContextStore
) -> None:
    """A second user of the same server needs to name no endpoint, and gets no certificate."""
    scripted.script(_LOGIN, auth_pb2.AuthenticateResponse(token="one"))
    dev = Context(endpoints=(scripted.endpoint,), user="root", cert="/r.crt", key="/r.key")
    store.save(Contexts().with_context("dev", dev))

    done = run("--context", "web", "login", "--user", "web", "--password-stdin", stdin=_PASSWORD)

    assert done.exit_code == 0, done.output
    contexts = store.load()
    assert contexts.current == "dev"
    assert contexts.named("dev") == dev
    assert contexts.named("web") == Context(
        endpoints=(scripted.endpoint,), user="web", token=Secret(b"one")
    )


def test_certificate_of_a_context_is_not_lost(
    run: Run, scripted: ScriptedServer, store: ContextStore
) -> None:
    """Logging in as somebody else does not take root's certificate out of root's context."""
    dev = Context(endpoints=(scripted.endpoint,), user="root", cert="/r.crt", key="/r.key")
    store.save(Contexts().with_context("dev", dev))

    done = run("login", "--user", "web", "--password-stdin", stdin=_PASSWORD)

    assert done.exit_code == 1
    assert "kvsecure --context web login --user web" in done.stderr
    assert store.load().named("dev") == dev
    assert scripted.seen == []


def test_password_never_goes_out_in_clear(run: Run, store: ContextStore) -> None:
    """A log-in over the network without TLS is refused before anything is sent."""
    done = run(
        "--endpoint",
        "http://db.example:2379",
        "login",
        "--user",
        "a",
        "--password-stdin",
        stdin=b"p",
    )

    assert done.exit_code == 1
    assert "in clear" in done.stderr
    assert store.load() == Contexts()


def test_server_without_authentication_needs_no_log_in(
    run: Run, scripted: ScriptedServer, store: ContextStore
) -> None:
    """Where authentication is off a log-in is refused with that explanation."""
    off = (grpc.StatusCode.FAILED_PRECONDITION, Failure.AUTH_NOT_ENABLED.text)
    scripted.script(_LOGIN, off)

    done = run(
        "--endpoint", scripted.endpoint, "login", "--user", "a", "--password-stdin", stdin=b"p"
    )

    assert done.exit_code == 1
    assert "no log-in is needed" in done.stderr
    assert store.load() == Contexts()


def test_contexts_are_listed_used_and_shown(run: Run, store: ContextStore) -> None:
    """The list marks the one in use, another may be used, and none shows its token."""
    token = "tokentokentoken"
    dev = Context(
        endpoints=("a:1", "b:2"), user="root", token=Secret.of_text(token), token_expiry_s=1
    )
    acme = Context(endpoints=("a:1",), user="web", tenant="acme", cert="/w.crt", key="/w.key")
    store.save(Contexts().with_context("dev", dev).with_context("acme", acme))

    listed = run("context", "list")
    form = json.loads(run("context", "list", "--format", "json").stdout)
    used = run("context", "use", "acme")
    shown = run("context", "show")
    shown_json = json.loads(run("context", "show", "dev", "--format", "json").stdout)
    unknown = run("context", "use", "nowhere")

    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [
        ["acme", "a:1"],
        ["*", "dev"],
    ]
    assert form["current"] == "dev"
    assert set(form["contexts"]) == {"dev", "acme"}
    assert used.stdout == "using context acme\n"
    assert shown.stdout.splitlines()[0] == "context     acme"
    assert "logged_in   by certificate" in shown.stdout
    assert shown_json["logged_in"].startswith("ended ")
    assert (unknown.exit_code, "kvsecure context list" in unknown.stderr) == (1, True)
    for done in (listed, shown, run("context", "show", "dev")):
        assert token not in done.output
    assert token not in json.dumps([form, shown_json])


def test_context_before_the_first_log_in_says_so(run: Run) -> None:
    """Without any context the commands on contexts say how one is made."""
    done = run("context", "show")

    assert done.exit_code == 1
    assert "kvsecure login" in done.stderr
    assert run("context", "list").exit_code == 0


def test_context_names_the_files_of_tls(
    run: Run, member: Member, store: ContextStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files given by relative paths are kept by absolute ones."""
    authority = Authority(tmp_path_factory.mktemp("relative"))
    relative = Path(str(member.authority.certificate)).relative_to("/")

    done = run(
        "--endpoint",
        member.endpoint,
        "--cacert",
        f"//{relative}",
        "login",
        "--user",
        "root",
        "--password-stdin",
        stdin=ROOT_PASSWORD.encode(),
    )

    assert done.exit_code == 0, done.output
    assert authority.certificate.exists()
    assert Path(store.load().named("default").cacert).is_absolute()
