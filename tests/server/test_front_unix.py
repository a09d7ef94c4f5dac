"""Unix sockets as clients use them, and what is told of who came over one."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from support.processes import ProcessFailedError
from support.servers import ROOT_PASSWORD, KvsecureServer, etcd_program
from wire.socket_peer import ANSWER_S

from kvsecure.proto import auth_pb2, kv_pb2, tenant_pb2

_GET = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Sockets(NamedTuple):
    """A member on unix sockets, and where they are."""

    member: KvsecureServer
    plain: Path
    # etcdctl takes the last part of the path for the name of the server.
    secured: Path
    both: Path
    metrics: Path


def _sockets(directory: Path) -> Sockets:
    plain, both, metrics = (directory / name for name in ("plain", "both", "metrics"))
    secured = directory / "localhost"
    urls = (f"unix://{plain}", f"unixs://{secured}", f"unix://{both}", f"unixs://{both}")
    flags = (
        f"--listen-client-urls={','.join(urls)}",
        f"--advertise-client-urls=unix://{plain}",
        f"--listen-metrics-urls=unix://{metrics}",
        "--tls-min-version=TLS1.2",
    )
    return Sockets(KvsecureServer(directory / "m", flags=flags), plain, secured, both, metrics)


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sockets]:
    """A member that listens on unix sockets alone."""
    made = _sockets(tmp_path_factory.mktemp("unix"))
    with made.member:
        yield made


def _ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        sock.connect(str(path))
        sock.sendall(_GET)
        return b"".join(iter(lambda: sock.recv(4_096), b""))


def _etcdctl(sockets: Sockets, url: str, *arguments: str) -> str:
    command = [etcd_program("etcdctl"), "--endpoints", url, "--user", f"root:{ROOT_PASSWORD}"]
    if url.startswith("unixs"):
        command += ["--cacert", str(sockets.member.authority.certificate)]
    done = subprocess.run([*command, *arguments], capture_output=True, check=True, timeout=30)
    return done.stdout.decode()


@pytest.mark.parametrize("name", ["plain", "secured", "both"])
def test_etcdctl_works_over_a_unix_socket(sockets: Sockets, name: str) -> None:
    """With `unix://` and `unixs://` as with etcd; a socket may speak both."""
    path: Path = getattr(sockets, name)
    url = f"{'unixs' if name == 'secured' else 'unix'}://{path}"

    assert _etcdctl(sockets, url, "put", name, "value") == "OK\n"
    assert _etcdctl(sockets, url, "get", name) == f"{name}\nvalue\n"


def _channel(sockets: Sockets, path: Path, *, tls: bool) -> grpc.Channel:
    if not tls:
        return grpc.insecure_channel(f"unix:{path}")
    trusted = sockets.member.authority.certificate.read_bytes()
    options = [("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(
        f"unix:{path}", grpc.ssl_channel_credentials(trusted), options=options
    )


def _call(channel: grpc.Channel, path: str, request: bytes, token: str = "") -> bytes:
    metadata = (("token", token),) if token else ()
    return bytes(channel.unary_unary(path)(request, timeout=ANSWER_S, metadata=metadata))


def _login(channel: grpc.Channel) -> str:
    request = auth_pb2.AuthenticateRequest(name="root", password=ROOT_PASSWORD)
    answer = _call(channel, "/etcdserverpb.Auth/Authenticate", request.SerializeToString())
    return auth_pb2.AuthenticateResponse.FromString(answer).token


@pytest.mark.parametrize(
    ("name", "tls"), [("plain", False), ("secured", True), ("both", False), ("both", True)]
)
def test_stock_grpc_works_over_a_unix_socket(sockets: Sockets, name: str, *, tls: bool) -> None:
    """Targets of the form `unix:path`, with and without TLS, on one socket too."""
    with _channel(sockets, getattr(sockets, name), tls=tls) as channel:
        token = _login(channel)
        put = kv_pb2.PutRequest(key=b"k", value=b"v" * 100_000).SerializeToString()
        _call(channel, "/etcdserverpb.KV/Put", put, token)
        found = _call(
            channel,
            "/etcdserverpb.KV/Range",
            kv_pb2.RangeRequest(key=b"k").SerializeToString(),
            token,
        )

    assert kv_pb2.RangeResponse.FromString(found).kvs[0].value == b"v" * 100_000


@pytest.mark.parametrize("name", ["plain", "both", "metrics"])
def test_pages_are_served_over_a_unix_socket(sockets: Sockets, name: str) -> None:
    """HTTP/1.1 is spoken there as well."""
    assert _ask(getattr(sockets, name)).endswith(b"\r\n\r\nok\n")


def test_trail_says_which_user_came_over_a_unix_socket(sockets: Sockets) -> None:
    """There is no address; the kernel knows the user and the process."""
    with _channel(sockets, sockets.plain, tls=False) as channel:
        token = _login(channel)
        get = kv_pb2.RangeRequest(key=b"of-this-process").SerializeToString()
        _call(channel, "/etcdserverpb.KV/Range", get, token)
        tail = channel.unary_stream("/kvsecurepb.Audit/Tail")
        request = tenant_pb2.AuditTailRequest(count=10).SerializeToString()
        answers = [
            tenant_pb2.AuditTailResponse.FromString(answer)
            for answer in tail(request, timeout=ANSWER_S, metadata=(("token", token),))
        ]

    records = [json.loads(record) for answer in answers for record in answer.records]
    (source,) = [one["source"] for one in records if one["stage"] == "read"][-1:]
    assert source == {"ip": f"unix:{os.geteuid()}", "port": os.getpid()}


def test_sockets_go_with_the_member_and_are_replaced_after_a_crash(tmp_path: Path) -> None:
    """A stopped member leaves no file; one that was killed does, and the next takes it over."""
    sockets = _sockets(tmp_path)
    paths = (sockets.plain, sockets.secured, sockets.both, sockets.metrics)
    with sockets.member as member:
        member.kill9()
        assert all(path.is_socket() for path in paths)
        member.restart()
        assert _ask(sockets.plain).endswith(b"ok\n")
        member.stop()
        assert not any(path.exists() for path in paths)


def test_second_member_leaves_the_sockets_of_the_first(sockets: Sockets, tmp_path: Path) -> None:
    """It says who is in the way, removes what it has opened so far, and the first goes on."""
    own = tmp_path / "a"
    flags = (
        f"--listen-client-urls=unix://{own}",
        "--advertise-client-urls=https://localhost:1",
        f"--listen-metrics-urls=unix://{sockets.plain}",
    )
    second = KvsecureServer(tmp_path / "second", flags=flags)
    with pytest.raises(ProcessFailedError) as caught, second:
        pass

    assert f"unix socket {sockets.plain}: another server listens there" in str(caught.value)
    assert not own.exists()
    assert _ask(sockets.plain).endswith(b"ok\n")
