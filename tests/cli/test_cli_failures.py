"""How commands fail: the status, one clear line, a hint, and a quiet end."""

import signal
import subprocess
from collections.abc import Callable

import grpc
import pytest
from click.testing import Result
from support.certificates import Authority
from support.etcd import ScriptedServer
from support.processes import free_ports
from support.servers import ROOT_PASSWORD, EtcdMember, Member

from kvsecure.model.errors import Failure
from kvsecure.proto import kv_pb2, lease_pb2, mvcc_pb2

__all__: list[str] = []

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[bytes]"]


def test_unreachable_server_is_status_3(run: Run) -> None:
    """When nobody answers and nothing was changed, the status says so, with one line."""
    (nobody,) = free_ports(1)

    done = run("--endpoint", f"http://127.0.0.1:{nobody}", "put", "a", "b")

    assert done.exit_code == 3
    error, hint = done.stderr.splitlines()
    assert error == f"Error: cannot reach http://127.0.0.1:{nobody}: Connection refused"
    assert hint.startswith("Hint: is the server running")


def test_lost_answer_to_a_change_is_status_4(run: Run, scripted: ScriptedServer) -> None:
    """When a change may have been made, the status and the hint say so."""
    scripted.script("/etcdserverpb.KV/Put", (grpc.StatusCode.UNAVAILABLE, Failure.STOPPED.text))

    done = run("--endpoint", scripted.endpoint, "put", "a", "b")

    assert done.exit_code == 4
    assert Failure.STOPPED.text in done.stderr
    assert "may or may not" in done.stderr


def test_lost_answer_to_a_read_is_status_3(run: Run, scripted: ScriptedServer) -> None:
    """When a read was not answered, nothing was changed."""
    gone = (grpc.StatusCode.UNAVAILABLE, Failure.NO_LEADER.text)
    scripted.script("/etcdserverpb.KV/Range", *[gone] * 50)

    done = run("--endpoint", scripted.endpoint, "--timeout", "0.3", "get", "a")

    assert done.exit_code == 3
    assert Failure.NO_LEADER.text in done.stderr


def test_refusal_is_status_1_with_the_servers_text(run: Run, scripted: ScriptedServer) -> None:
    """A refusal carries the server's own text."""
    scripted.script(
        "/etcdserverpb.KV/Range", (grpc.StatusCode.INVALID_ARGUMENT, Failure.USER_EMPTY.text)
    )

    done = run("--endpoint", scripted.endpoint, "get", "a")

    assert done.exit_code == 1
    assert done.stderr.splitlines()[0] == f"Error: {Failure.USER_EMPTY.text}"
    assert "kvsecure login" in done.stderr


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--cacert", "nowhere.crt"], "nowhere.crt: No such file", ""),
        (["--cert", "a.crt"], "go together", ""),
        (["--endpoint", "ftp://a"], "not an endpoint", ""),
        (["--context", "nowhere"], "no context 'nowhere'", "context list"),
    ],
)
def test_impossible_settings_are_one_clear_line(
    *, run: Run, options: list[str], message: str, hint: str
) -> None:
    """Settings that cannot work are named before anything is sent."""
    done = run(*options, "get", "a")

    assert done.exit_code == 1
    assert message in done.stderr.splitlines()[0]
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_foreign_authority_is_explained(
    start: Start, etcd: Member, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A server that the CA file does not vouch for is not talked to, and two lines say why."""
    other = Authority(tmp_path_factory.mktemp("other"))

    process = start("--endpoint", etcd.endpoint, "--cacert", str(other.certificate), "get", "a")
    _, errors = process.communicate(timeout=30)

    error, hint = errors.decode().splitlines()
    assert process.returncode == 3
    assert error.startswith(f"Error: cannot reach {etcd.endpoint}: ")
    assert "CERTIFICATE_VERIFY_FAILED" in error
    assert "--cacert" in hint


def test_missing_client_certificate_is_explained(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A server that asks for a certificate and gets none is explained by a hint."""
    with EtcdMember(tmp_path_factory.mktemp("mtls"), client_certificates=True) as member:
        ca = str(member.authority.certificate)

        without = run("--endpoint", member.endpoint, "--cacert", ca, "get", "a")
        pair = member.authority.client("root")
        certified = ("--cert", str(pair.certificate), "--key", str(pair.key))
        run("--endpoint", member.endpoint, "--cacert", ca, *certified, "put", "a", "b")
        found = run("--endpoint", member.endpoint, "--cacert", ca, *certified, "get", "a")

    assert without.exit_code == 3
    assert "--cert" in without.stderr
    assert found.stdout_bytes == b"b"


def test_certificate_names_the_user_in_a_refusal(
    run: Run, scripted: ScriptedServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who may not do something is read from the certificate when no user was named."""
    denied = (grpc.StatusCode.PERMISSION_DENIED, Failure.PERMISSION_DENIED.text)
    scripted.script("/etcdserverpb.KV/Put", denied, denied)
    authority = Authority(tmp_path_factory.mktemp("pki"))
    lines = []

    for tenant in ("default", "acme"):
        pair = authority.client("web", tenant)
        done = run(
            "--endpoint",
            scripted.endpoint,
            "--cert",
            str(pair.certificate),
            "--key",
            str(pair.key),
            "put",
            "/app/x",
            "1",
        )
        lines.append(done.stderr.strip())

    assert lines == [
        "Error: user web may not write /app/x (etcdserver: permission denied)",
        "Error: user acme/web may not write /app/x (etcdserver: permission denied)",
    ]


def test_environment_stands_in_for_options(run: Run, scripted: ScriptedServer) -> None:
    """Each option before the command may come from the environment instead."""
    scripted.script("/etcdserverpb.KV/Range", kv_pb2.RangeResponse(count=7))

    done = run(
        "get", "a", "--count-only", environ={"KVSECURE_ENDPOINT": f"{scripted.endpoint},b:1"}
    )

    assert done.stdout == "7\n"


def test_closed_pipe_ends_the_program_quietly(start: Start, scripted: ScriptedServer) -> None:
    """When whoever reads the output goes away, nothing is complained about."""
    answer = kv_pb2.RangeResponse(
        kvs=[mvcc_pb2.KeyValue(key=b"k%d" % number, value=bytes(100)) for number in range(5_000)]
    )
    scripted.script("/etcdserverpb.KV/Range", answer)

    process = start("--endpoint", scripted.endpoint, "get", "--prefix", "k")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read()

    assert process.wait(30) == 141
    assert errors == b""


@pytest.mark.parametrize(
    "command", [["watch", "a", "--rev", "1"], ["lease", "keep-alive", "000000000000000a"]]
)
def test_interrupt_ends_the_program_quietly(
    start: Start, etcd: Member, *, command: list[str]
) -> None:
    """Ctrl-C stops a command that goes on, with no words and the shell's status."""
    with etcd.client() as client:
        client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=10, TTL=60))
        client.kv.Put(kv_pb2.PutRequest(key=b"a", value=b"1"))
    login = start(
        "--endpoint",
        etcd.endpoint,
        "--cacert",
        str(etcd.authority.certificate),
        "login",
        "--user",
        "root",
        "--password-stdin",
    )
    login.communicate(ROOT_PASSWORD.encode(), timeout=30)
    process = start(*command)
    assert process.stdout is not None
    first = process.stdout.readline()

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)

    assert first.startswith((b"PUT\ta\t1", b"lease 000000000000000a kept alive"))
    assert process.returncode == 130
    assert (output, errors.strip()) == (b"", b"")
