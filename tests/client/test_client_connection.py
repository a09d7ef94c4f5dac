"""The connection: what is repeated, what is not, and what never shows a secret."""

import threading
import time
import traceback
from collections.abc import Callable

import grpc
import pytest
from support.certificates import Authority
from support.etcd import ScriptedServer
from support.processes import free_ports, wait_until
from support.servers import ROOT_PASSWORD, EtcdMember, Member

from kvsecure.client import Client, ClientError, Keys, Outcome, Range, Secret
from kvsecure.model.errors import Code, Failure
from kvsecure.proto import auth_pb2, kv_pb2

__all__: list[str] = []

_RANGE = "/etcdserverpb.KV/Range"
_PUT = "/etcdserverpb.KV/Put"
_LOGIN = "/etcdserverpb.Auth/Authenticate"
_PASSWORD = "a password nobody uses"  # of a scripted server
_NO_LEADER = (grpc.StatusCode.UNAVAILABLE, Failure.NO_LEADER.text)
_BAD_TOKEN = (grpc.StatusCode.UNAUTHENTICATED, Failure.INVALID_AUTH_TOKEN.text)


def _token(text: str) -> auth_pb2.AuthenticateResponse:
    return auth_pb2.AuthenticateResponse(token=text)


def _client(*servers: ScriptedServer, timeout_s: float = 5.0) -> Client:
    return Client.open([server.endpoint for server in servers], timeout_s=timeout_s)


def _client_with_password(server: ScriptedServer) -> Client:
    return Client.open(server.endpoint, user="web", password=Secret.of_text(_PASSWORD))


def test_read_is_repeated_when_no_server_could_answer(scripted: ScriptedServer) -> None:
    """A read goes out again after UNAVAILABLE, until it is answered."""
    scripted.script(_RANGE, _NO_LEADER, _NO_LEADER, kv_pb2.RangeResponse(count=3))

    with _client(scripted) as client:
        found = client.connection.call(_RANGE, kv_pb2.RangeRequest(), kv_pb2.RangeResponse)

    assert found.count == 3
    assert len(scripted.calls_of(_RANGE)) == 3


def test_write_is_not_repeated_once_it_was_sent(scripted: ScriptedServer) -> None:
    """A write that reached a server goes out once, and its outcome is called uncertain."""
    scripted.script(_PUT, _NO_LEADER, kv_pb2.PutResponse())

    with _client(scripted) as client, pytest.raises(ClientError) as failed:
        client.kv.put(b"k", b"v")

    assert failed.value.outcome is Outcome.UNCERTAIN
    assert failed.value.failure is Failure.NO_LEADER
    assert len(scripted.calls_of(_PUT)) == 1


def test_write_moves_on_while_no_server_was_reached(scripted: ScriptedServer) -> None:
    """A write that could not be sent to one endpoint is sent to the next."""
    (nobody,) = free_ports(1)
    scripted.script(_PUT, kv_pb2.PutResponse(), kv_pb2.PutResponse())

    with Client.open([f"http://127.0.0.1:{nobody}", scripted.endpoint]) as client:
        client.kv.put(b"k", b"v")
        client.kv.put(b"k", b"v")

    assert len(scripted.calls_of(_PUT)) == 2


def test_read_moves_on_to_the_next_member(make_scripted: Callable[[], ScriptedServer]) -> None:
    """After UNAVAILABLE a read is asked of the next endpoint, and stays with who answered."""
    first, second = make_scripted(), make_scripted()
    first.script(_RANGE, _NO_LEADER)
    second.script(_RANGE, kv_pb2.RangeResponse(), kv_pb2.RangeResponse())

    with _client(first, second) as client:
        client.kv.get(b"k")
        client.kv.get(b"k")

    assert (len(first.calls_of(_RANGE)), len(second.calls_of(_RANGE))) == (1, 2)


def test_refusal_is_not_repeated(scripted: ScriptedServer) -> None:
    """A definite refusal is raised with the server's code and exact text."""
    scripted.script(_RANGE, (grpc.StatusCode.OUT_OF_RANGE, Failure.COMPACTED.text))

    with _client(scripted) as client, pytest.raises(ClientError) as failed:
        client.kv.get(b"k")

    assert (failed.value.code, failed.value.text) == (Code.OUT_OF_RANGE, Failure.COMPACTED.text)
    assert failed.value.endpoint == scripted.endpoint
    assert len(scripted.calls_of(_RANGE)) == 1


def test_unreachable_server_is_given_up_in_time() -> None:
    """When nobody can be reached the call fails within its bound and says what it tried."""
    (nobody,) = free_ports(1)
    start = time.monotonic()

    with (
        Client.open(f"http://127.0.0.1:{nobody}", timeout_s=0.5) as client,
        pytest.raises(ClientError) as failed,
    ):
        client.kv.put(b"k", b"v")

    assert failed.value.outcome is Outcome.UNANSWERED
    assert str(nobody) in failed.value.endpoint
    assert time.monotonic() - start < 5


def test_password_is_exchanged_for_a_token_once(scripted: ScriptedServer) -> None:
    """The first call logs in, and every call carries the token; the log-in carries none."""
    scripted.script(_LOGIN, _token("one"))
    scripted.script(_RANGE, kv_pb2.RangeResponse(), kv_pb2.RangeResponse())

    with _client_with_password(scripted) as client:
        client.kv.get(b"k")
        client.kv.get(b"k")

    assert [seen.token for seen in scripted.calls_of(_RANGE)] == ["one", "one"]
    assert [seen.token for seen in scripted.calls_of(_LOGIN)] == [""]


@pytest.mark.parametrize(
    "refusal",
    [
        _BAD_TOKEN,
        (grpc.StatusCode.INVALID_ARGUMENT, Failure.USER_EMPTY.text),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
    ],
)
def test_refused_token_is_renewed_once(
    scripted: ScriptedServer, refusal: tuple[grpc.StatusCode, str]
) -> None:
    """A call whose token was refused is sent once more with a new one, also when it changes."""
    scripted.script(_LOGIN, _token("one"), _token("two"))
    scripted.script(_PUT, refusal, kv_pb2.PutResponse())

    with _client_with_password(scripted) as client:
        client.kv.put(b"k", b"v")

    assert [seen.token for seen in scripted.calls_of(_PUT)] == ["one", "two"]


def test_second_refusal_of_a_token_is_final(scripted: ScriptedServer) -> None:
    """A token that is refused right after a log-in is not renewed again."""
    scripted.script(_LOGIN, _token("one"), _token("two"), _token("three"))
    scripted.script(_PUT, _BAD_TOKEN, _BAD_TOKEN, kv_pb2.PutResponse())

    with _client_with_password(scripted) as client, pytest.raises(ClientError) as failed:
        client.kv.put(b"k", b"v")

    assert failed.value.failure is Failure.INVALID_AUTH_TOKEN
    assert len(scripted.calls_of(_PUT)) == 2


def test_given_token_is_not_renewed(scripted: ScriptedServer) -> None:
    """Without a password a refused token is an error at once."""
    scripted.script(_RANGE, _BAD_TOKEN)

    with (
        Client.open(scripted.endpoint, token=Secret(b"given")) as client,
        pytest.raises(ClientError),
    ):
        client.kv.get(b"k")

    assert [seen.token for seen in scripted.calls_of(_RANGE)] == ["given"]


def test_service_without_authentication_gets_no_token(scripted: ScriptedServer) -> None:
    """Where authentication is off, a client with a password works without a token."""
    scripted.script(_LOGIN, (grpc.StatusCode.FAILED_PRECONDITION, Failure.AUTH_NOT_ENABLED.text))
    scripted.script(_RANGE, kv_pb2.RangeResponse(), kv_pb2.RangeResponse())

    with _client_with_password(scripted) as client:
        client.kv.get(b"k")
        client.kv.get(b"k")

    assert [seen.token for seen in scripted.calls_of(_RANGE)] == ["", ""]
    assert len(scripted.calls_of(_LOGIN)) == 1


def test_wrong_password_is_a_refusal_without_secrets(scripted: ScriptedServer) -> None:
    """What is raised for a refused log-in shows the password nowhere, not even in its causes."""
    scripted.script(_LOGIN, (grpc.StatusCode.INVALID_ARGUMENT, Failure.AUTH_FAILED.text))

    with _client_with_password(scripted) as client, pytest.raises(ClientError) as failed:
        client.kv.get(b"k")

    assert failed.value.failure is Failure.AUTH_FAILED
    assert _PASSWORD not in "".join(traceback.format_exception(failed.value))
    assert failed.value.__cause__ is None
    assert failed.value.__context__ is None


def test_closed_client_says_so(scripted: ScriptedServer) -> None:
    """A call on a closed client is an error of its own, and nothing is sent."""
    client = _client(scripted)
    client.close()

    with pytest.raises(ClientError, match="closed"):
        client.kv.get(b"k")

    assert not scripted.seen


def test_tenant_goes_into_the_login_name(scripted: ScriptedServer) -> None:
    """A user of a named tenant logs in under `tenant/user`."""
    scripted.script(_LOGIN, _token("one"))
    scripted.script(_RANGE, kv_pb2.RangeResponse())

    with Client.open(
        scripted.endpoint, user="web", tenant="acme", password=Secret.of_text(_PASSWORD)
    ) as client:
        client.kv.get(b"k")

    (login,) = scripted.calls_of(_LOGIN)
    assert login.request == auth_pb2.AuthenticateRequest(name="acme/web", password=_PASSWORD)


def test_client_may_be_shared_by_threads(scripted: ScriptedServer) -> None:
    """Calls of many threads over one client all get their own answers."""
    count = 16
    scripted.script(_RANGE, *(kv_pb2.RangeResponse(count=number) for number in range(count)))
    counts: list[int] = []

    with _client(scripted) as client:

        def ask() -> None:
            answer = client.connection.call(_RANGE, kv_pb2.RangeRequest(), kv_pb2.RangeResponse)
            counts.append(answer.count)

        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(counts) == list(range(count))


def test_client_outlives_a_restart(etcd: Member) -> None:
    """After a crash and a restart, which loses etcd's tokens, the same client goes on."""
    with Client.open(
        etcd.endpoint,
        ca_file=str(etcd.authority.certificate),
        user="root",
        password=Secret.of_text(ROOT_PASSWORD),
    ) as client:
        client.kv.put(b"before", b"1")
        etcd.kill9()
        etcd.restart()

        def reached() -> bool:
            # The first write after the crash may meet the old, broken socket.
            try:
                client.kv.put(b"after", b"2")
            except ClientError as error:
                if error.outcome is Outcome.REFUSED:
                    raise
                return False
            return True

        wait_until(reached, deadline_s=10, what="a write after the restart")
        found = client.kv.get(b"before")

    assert found is not None
    assert found.value == b"1"


def test_client_certificate_is_an_identity(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a client certificate no password is needed."""
    directory = tmp_path_factory.mktemp("mtls")
    with EtcdMember(directory, client_certificates=True) as member:
        pair = member.authority.client("root")

        with Client.open(
            member.endpoint,
            ca_file=str(member.authority.certificate),
            certificate_file=str(pair.certificate),
            key_file=str(pair.key),
        ) as client:
            client.kv.put(b"k", b"v")
            users = client.users.list()

    assert users == ("root",)


def test_foreign_server_is_not_reached(
    etcd: Member, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A server whose certificate another authority signed gets no request."""
    other = Authority(tmp_path_factory.mktemp("other"))

    with (
        Client.open(
            etcd.endpoint,
            ca_file=str(other.certificate),
            user="root",
            password=Secret.of_text(ROOT_PASSWORD),
            timeout_s=0.5,
        ) as client,
        pytest.raises(ClientError) as failed,
    ):
        client.kv.get(b"k")

    assert failed.value.outcome is Outcome.UNANSWERED
    assert "CERTIFICATE_VERIFY_FAILED" in failed.value.text


def test_renewed_certificate_is_used_for_the_next_connection(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """When the server refuses a certificate, the files are read again before the next attempt."""
    directory = tmp_path_factory.mktemp("rotation")
    with EtcdMember(directory / "member", client_certificates=True) as member:
        foreign = Authority(directory / "foreign").client("root")
        good = member.authority.client("root")
        client = Client.open(
            member.endpoint,
            ca_file=str(member.authority.certificate),
            certificate_file=str(foreign.certificate),
            key_file=str(foreign.key),
            timeout_s=1.0,
        )
        with client:
            with pytest.raises(ClientError) as failed:
                client.kv.get(b"k")
            foreign.certificate.write_bytes(good.certificate.read_bytes())
            foreign.key.write_bytes(good.key.read_bytes())

            users = client.users.list()

    assert users == ("root",)
    assert failed.value.outcome is Outcome.UNANSWERED


_RANGE_STREAM = "/etcdserverpb.KV/RangeStream"


def _part(count: int) -> kv_pb2.RangeStreamResponse:
    return kv_pb2.RangeStreamResponse(range_response=kv_pb2.RangeResponse(count=count))


def test_parts_are_asked_for_again_before_the_first_has_come(scripted: ScriptedServer) -> None:
    """A range in parts goes out again after UNAVAILABLE, and with a new token after a bad one."""
    scripted.script(_LOGIN, _token("one"), _token("two"))
    scripted.script(_RANGE_STREAM, _NO_LEADER, _BAD_TOKEN, [_part(1), _part(2)])

    with _client_with_password(scripted) as client:
        parts = client.kv.read_parts(Range(keys=Keys.prefix(b"k")))
        came = [next(parts).count, next(parts).count]
        parts.close()

    assert came == [1, 2]
    assert [seen.token for seen in scripted.calls_of(_RANGE_STREAM)] == ["one", "one", "two"]


def test_parts_are_not_begun_again_behind_the_first(scripted: ScriptedServer) -> None:
    """What broke off is said to have: another try would be of another revision."""
    scripted.script(_RANGE_STREAM, [_part(1), _NO_LEADER], [_part(1)])

    with _client(scripted) as client:
        parts = client.kv.read_parts(Range(keys=Keys.prefix(b"k")))
        first = next(parts)
        with pytest.raises(ClientError) as failed:
            next(parts)

    assert first.count == 1
    assert failed.value.code is Code.UNAVAILABLE
    assert len(scripted.calls_of(_RANGE_STREAM)) == 1


def test_server_without_parts_is_asked_for_the_whole(scripted: ScriptedServer) -> None:
    """UNIMPLEMENTED means Range, and one part that is all of it."""
    scripted.script(_RANGE_STREAM, (grpc.StatusCode.UNIMPLEMENTED, "unknown method"))
    scripted.script(_RANGE, kv_pb2.RangeResponse(count=7))

    with _client(scripted) as client:
        parts = list(client.kv.read_parts(Range(keys=Keys.prefix(b"k"))))

    assert [part.count for part in parts] == [7]
