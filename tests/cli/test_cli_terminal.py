"""On a terminal: secrets are asked for without an echo, and a table is for people."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.etcd import ScriptedServer
from support.terminal import Terminal

from kvsecure.cli.context import ContextStore
from kvsecure.model.secret import Secret
from kvsecure.proto import auth_pb2, kv_pb2, mvcc_pb2, tenant_pb2

__all__: list[str] = []

Sit = Callable[..., Terminal]


@pytest.fixture
def sit(environment: dict[str, str]) -> Iterator[Sit]:
    """A way to run the program on a terminal."""
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(list(arguments), environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def test_value_is_asked_for_twice_without_an_echo(sit: Sit, scripted: ScriptedServer) -> None:
    """Without a value `put` asks, and what is typed is not on the screen."""
    scripted.script("/etcdserverpb.KV/Put", kv_pb2.PutResponse())
    terminal = sit("--endpoint", scripted.endpoint, "put", "/app/db/password")

    terminal.expect(b"Value of /app/db/password:")
    terminal.type(b"typed secret\n")
    terminal.expect(b"Once more:")
    terminal.type(b"typed secret\n")

    assert terminal.end() == 0
    (seen,) = scripted.seen
    assert seen.request == kv_pb2.PutRequest(key=b"/app/db/password", value=b"typed secret")
    assert b"typed secret" not in terminal.screen


def test_different_answers_are_asked_again(sit: Sit, scripted: ScriptedServer) -> None:
    """A slip of the finger is not stored."""
    scripted.script("/etcdserverpb.KV/Put", kv_pb2.PutResponse())
    terminal = sit("--endpoint", scripted.endpoint, "put", "k")

    terminal.expect(b"Value of k:")
    terminal.type(b"one\n")
    terminal.expect(b"Once more:")
    terminal.type(b"other\n")
    terminal.expect(b"do not match")
    terminal.expect(b"Value of k:", count=2)
    terminal.type(b"two\n")
    terminal.expect(b"Once more:", count=2)
    terminal.type(b"two\n")

    assert terminal.end() == 0
    assert [seen.request.value for seen in scripted.seen] == [b"two"]  # type: ignore[attr-defined]  # a PutRequest


def test_interrupt_at_a_prompt_is_quiet(sit: Sit, scripted: ScriptedServer) -> None:
    """Ctrl-C at a prompt ends the program, and nothing is sent."""
    terminal = sit("--endpoint", scripted.endpoint, "put", "k")
    terminal.expect(b"Value of k:")

    terminal.type(b"\x03")

    assert terminal.end() == 130
    assert b"Traceback" not in terminal.screen
    assert scripted.seen == []


def test_log_in_asks_for_user_and_password(sit: Sit, scripted: ScriptedServer, home: Path) -> None:
    """`login` asks for what it was not told."""
    scripted.script(
        "/etcdserverpb.Auth/Authenticate", auth_pb2.AuthenticateResponse(token="thetoken")
    )
    terminal = sit("--endpoint", scripted.endpoint, "login")

    terminal.expect(b"User:")
    terminal.type(b"web\n")
    terminal.expect(b"Password of web:")
    terminal.type(b"typed password\n")

    assert terminal.end() == 0
    (seen,) = scripted.seen
    assert seen.request == auth_pb2.AuthenticateRequest(name="web", password="typed password")
    assert ContextStore(home).load().named("default").token == Secret(b"thetoken")
    assert b"typed password" not in terminal.screen
    assert b"thetoken" not in terminal.screen


def test_named_user_is_asked_for_the_password(sit: Sit, scripted: ScriptedServer) -> None:
    """A user who was named without a proof is asked for the password, once."""
    scripted.script(
        "/etcdserverpb.Auth/Authenticate", auth_pb2.AuthenticateResponse(token="thetoken")
    )
    scripted.script("/etcdserverpb.KV/Range", kv_pb2.RangeResponse())
    terminal = sit("--endpoint", scripted.endpoint, "--user", "web", "get", "--prefix", "a")

    terminal.expect(b"Password of web:")
    terminal.type(b"typed password\n")

    assert terminal.end() == 0
    assert [seen.token for seen in scripted.calls_of("/etcdserverpb.KV/Range")] == ["thetoken"]


def test_new_user_gets_a_confirmed_password(sit: Sit, scripted: ScriptedServer) -> None:
    """A new password is asked for twice."""
    scripted.script("/etcdserverpb.Auth/UserAdd", auth_pb2.AuthUserAddResponse())
    terminal = sit("--endpoint", scripted.endpoint, "user", "add", "web")

    terminal.expect(b"Password of web:")
    terminal.type(b"typed password\n")
    terminal.expect(b"Once more:")
    terminal.type(b"typed password\n")

    assert terminal.end() == 0
    assert b"typed password" not in terminal.screen


@pytest.mark.parametrize(("answer", "status", "count"), [(b"y\n", 0, 1), (b"n\n", 1, 0)])
def test_deleting_a_tenant_is_confirmed(
    *, sit: Sit, scripted: ScriptedServer, answer: bytes, status: int, count: int
) -> None:
    """A tenant is deleted after a yes, and only then."""
    scripted.script("/kvsecurepb.Tenants/TenantDelete", tenant_pb2.TenantDeleteResponse())
    terminal = sit("--endpoint", scripted.endpoint, "tenant", "delete", "acme")

    terminal.expect(b"with all its keys")
    terminal.type(answer)

    assert terminal.end() == status
    assert len(scripted.seen) == count


def test_terminal_gets_a_newline_and_a_table(sit: Sit, scripted: ScriptedServer) -> None:
    """For people one value ends with a newline, and several keys are a table without surprises."""
    evil = mvcc_pb2.KeyValue(key=b"k", value=b"\x1b]0;title\x07")
    scripted.script("/etcdserverpb.KV/Range", kv_pb2.RangeResponse(kvs=[evil]))
    scripted.script(
        "/etcdserverpb.KV/Range", kv_pb2.RangeResponse(kvs=[mvcc_pb2.KeyValue(value=b"v")])
    )

    many = sit("--endpoint", scripted.endpoint, "get", "--prefix", "k")
    many_status = many.end()
    one = sit("--endpoint", scripted.endpoint, "get", "k")

    assert (many_status, one.end()) == (0, 0)
    assert many.screen.startswith(b"KEY  VALUE")
    assert b"\x1b" not in many.screen
    assert b"\\x1b]0;title\\x07" in many.screen
    assert one.screen == b"v\r\n"


def test_password_may_come_through_a_pipe(
    environment: dict[str, str], scripted: ScriptedServer
) -> None:
    """A process substitution of the shell is a password file."""
    scripted.script(
        "/etcdserverpb.Auth/Authenticate", auth_pb2.AuthenticateResponse(token="thetoken")
    )
    line = (
        f"{sys.executable} -m kvsecure --endpoint {scripted.endpoint} login --user web "
        "--password-file <(echo piped-password)"
    )

    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=False)

    (seen,) = scripted.seen
    assert done.returncode == 0, done.stderr
    assert seen.request == auth_pb2.AuthenticateRequest(name="web", password="piped-password")
