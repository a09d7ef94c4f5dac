"""The meeting under a token, in a real etcd: who is in time, who is too late, and who is nobody."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import free_ports, wait_until
from support.rpc import Client
from support.servers import EtcdMember

from kvsecure.model.ids import MemberId
from kvsecure.pki.files import write_private
from kvsecure.proto import kv_pb2
from kvsecure.server.config.model import TokenDiscovery
from kvsecure.server.discovery.failure import DiscoveryFailed
from kvsecure.server.discovery.meeting import meet
from kvsecure.server.discovery.registry import Registry

_S = 1_000_000_000


class _Impatient(Exception):
    """A test does not wait any longer."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    """An etcd in plaintext, without users."""
    directory = tmp_path_factory.mktemp("registry")
    with EtcdMember(directory, tls=False, auth=False) as member:
        yield member


@pytest.fixture
def store(etcd: EtcdMember) -> Iterator[Client]:
    """A client of it, and nothing in it."""
    with etcd.anonymous() as client:
        client.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        yield client


def _settings(*endpoints: str) -> TokenDiscovery:
    return TokenDiscovery(
        token="blue",
        endpoints=endpoints,
        user="",
        password_file=None,
        ca_file=None,
        cert_file=None,
        key_file=None,
        dial_ns_max=2 * _S,
        request_ns_max=5 * _S,
        keepalive_ns=10 * _S,
        keepalive_ns_max=6 * _S,
    )


def _text(number: int) -> str:
    return f"m{number}=https://10.0.0.{number}:2380"


def _no_pause(pause_s: float) -> None:
    raise _Impatient(pause_s)


def _meet(
    settings: TokenDiscovery, number: int, text: str | None = None
) -> Mapping[str, tuple[str, ...]]:
    """Meet as the member of this number; a registry that does not answer is an error."""
    with Registry(settings) as registry:
        return meet(registry, "blue", MemberId(number), text or _text(number), pause=_no_pause)


def _size(store: Client, text: str) -> None:
    key = b"/_etcd/registry/blue/_config/size"
    store.kv.Put(kv_pb2.PutRequest(key=key, value=text.encode()))


def _register(store: Client, member: str, value: str) -> None:
    key = f"/_etcd/registry/blue/members/{member}".encode()
    store.kv.Put(kv_pb2.PutRequest(key=key, value=value.encode()))


def _registered(store: Client) -> dict[str, str]:
    prefix = b"/_etcd/registry/blue/members/"
    read = kv_pb2.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0")
    return {
        each.key.removeprefix(prefix).decode(): each.value.decode()
        for each in store.kv.Range(read).kvs
    }


def test_members_meet_in_the_order_of_arrival(etcd: EtcdMember, store: Client) -> None:
    """Each waits by watching until all are there, and all are told the same."""
    _size(store, "3")

    with ThreadPoolExecutor(3) as threads:
        waiting = []
        for number in (30, 20, 10):
            waiting.append(threads.submit(_meet, _settings(etcd.url), number))
            wait_until(
                lambda number=number: f"{number:x}" in _registered(store),
                deadline_s=20.0,
                what="a registration",
            )
        told = [each.result(20) for each in waiting]

    expected = {f"m{number}": (f"https://10.0.0.{number}:2380",) for number in (10, 20, 30)}
    assert told == [expected] * 3
    assert _registered(store) == {f"{number:x}": _text(number) for number in (10, 20, 30)}


def test_member_that_comes_too_late_is_told_so(etcd: EtcdMember, store: Client) -> None:
    """When as many as are wanted have come, a further one is refused and leaves nothing behind."""
    _size(store, "2")
    _register(store, "1", _text(1))
    _register(store, "2", _text(2))

    with pytest.raises(DiscoveryFailed, match=r"^discovery: cluster is full$"):
        _meet(_settings(etcd.url), 3)

    assert set(_registered(store)) == {"1", "2"}


def test_member_that_overtook_itself_is_still_too_late(etcd: EtcdMember, store: Client) -> None:
    """What counts is the order in which keys were made, whichever are changed later."""
    _size(store, "2")
    for number in (3, 2, 1):
        _register(store, str(number), _text(number))
    _register(store, "3", _text(3))

    assert set(_meet(_settings(etcd.url), 3)) == {"m2", "m3"}
    with pytest.raises(DiscoveryFailed, match="cluster is full"):
        _meet(_settings(etcd.url), 1)


def test_member_that_was_there_before_goes_on(etcd: EtcdMember, store: Client) -> None:
    """One that was killed after it had registered is the same when it comes again."""
    _size(store, "1")
    _register(store, "1", _text(1))

    assert _meet(_settings(etcd.url), 1) == {"m1": ("https://10.0.0.1:2380",)}


def test_member_whose_id_is_taken_ends(etcd: EtcdMember, store: Client) -> None:
    """The same URLs under another name are another member's mistake or ours: nothing is changed."""
    _size(store, "1")
    _register(store, "1", _text(1))

    with pytest.raises(DiscoveryFailed, match=r"registered as m1=.*, and this is m9="):
        _meet(_settings(etcd.url), 1, "m9=https://10.0.0.1:2380")

    assert _registered(store) == {"1": _text(1)}


def test_entries_that_are_no_members_do_not_count(etcd: EtcdMember, store: Client) -> None:
    """What is no name with URLs under a hexadecimal id is passed over."""
    _size(store, "2")
    _register(store, "frob", _text(3))
    _register(store, "4", "nothing")
    _register(store, "5", "\xff")
    _register(store, "6", "a=http://a:1,b=http://b:1")
    _register(store, "2", _text(2))

    assert set(_meet(_settings(etcd.url), 1)) == {"m1", "m2"}


def test_members_with_one_name_are_refused(etcd: EtcdMember, store: Client) -> None:
    """A certificate has the name, so two members cannot have the same."""
    _size(store, "2")
    _register(store, "2", "m1=https://10.0.0.2:2380")

    with pytest.raises(DiscoveryFailed, match="two members have one name"):
        _meet(_settings(etcd.url), 1)


@pytest.mark.parametrize("size", ["0", "-1", "65", "x", "", "3.0", "1_0", "99999999999"])
def test_size_that_cannot_be_is_refused(etcd: EtcdMember, store: Client, size: str) -> None:
    """A size is a number from 1 to 64, and nobody registers under another one."""
    _size(store, size)

    with pytest.raises(DiscoveryFailed, match="discovery: size key is bad"):
        _meet(_settings(etcd.url), 1)

    assert not _registered(store)


def test_token_without_a_size_is_refused(etcd: EtcdMember, store: Client) -> None:
    """Somebody has to have prepared the meeting: a mistyped token founds no cluster."""
    with pytest.raises(DiscoveryFailed, match="discovery: size key not found"):
        _meet(_settings(etcd.url), 1)

    assert not _registered(store)


def test_endpoint_that_is_not_there_is_left_for_the_next(etcd: EtcdMember, store: Client) -> None:
    """One endpoint of several is enough."""
    _size(store, "1")
    (port,) = free_ports(1)
    settings = replace(_settings(f"http://127.0.0.1:{port}", etcd.url), dial_ns_max=_S // 10)

    assert set(_meet(settings, 1)) == {"m1"}


def test_registry_that_does_not_answer_is_asked_less_and_less_often() -> None:
    """The pauses double from two seconds to 256, and it is never given up."""
    (port,) = free_ports(1)
    settings = replace(_settings(f"http://127.0.0.1:{port}"), dial_ns_max=_S // 100)
    pauses: list[float] = []

    def pause(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 10:
            raise _Impatient

    with Registry(settings) as registry, pytest.raises(_Impatient):
        meet(registry, "blue", MemberId(1), _text(1), pause=pause)

    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]


def test_registry_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    """A member that waits finds the registry again, and the others there."""
    with EtcdMember(tmp_path / "etcd", tls=False, auth=False) as etcd:
        with etcd.anonymous() as store:
            _size(store, "2")
        was_lost, is_dead = False, threading.Event()

        def pause(_: float) -> None:
            nonlocal was_lost
            was_lost = True
            assert is_dead.wait(20)
            etcd.restart()
            with etcd.anonymous() as store:
                _register(store, "2", _text(2))

        with ThreadPoolExecutor(1) as threads, Registry(_settings(etcd.url)) as registry:
            waiting = threads.submit(
                lambda: meet(registry, "blue", MemberId(1), _text(1), pause=pause)
            )
            with etcd.anonymous() as store:
                wait_until(lambda: _registered(store), deadline_s=20.0, what="a registration")
            etcd.kill9()
            is_dead.set()
            found = waiting.result(30)

    assert was_lost
    assert set(found) == {"m1", "m2"}


def test_password_that_is_wrong_ends_it(tmp_path: Path) -> None:
    """Asking again would not help; and the password is nowhere in what is said."""
    password = tmp_path / "password"
    write_private(password, b"not-the-right-one-4711\n")
    with EtcdMember(tmp_path / "etcd") as etcd:
        settings = replace(
            _settings(etcd.url),
            user="root",
            password_file=password,
            ca_file=etcd.authority.certificate,
        )

        with pytest.raises(DiscoveryFailed, match="authentication failed") as caught:
            _meet(settings, 1)

    assert "4711" not in str(caught.value)


def test_server_that_is_not_certified_is_not_believed(tmp_path: Path, etcd: EtcdMember) -> None:
    """Without the right authority there is no connection, and nothing is sent."""
    with EtcdMember(tmp_path / "etcd") as stranger:
        settings = replace(
            _settings(stranger.url), ca_file=etcd.authority.certificate, dial_ns_max=_S
        )

        with pytest.raises(_Impatient):
            _meet(settings, 1)


def test_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A secret is its owner's alone, and is looked at before anybody is asked."""
    password = tmp_path / "password"
    password.write_bytes(b"lantern")
    password.chmod(0o644)

    with pytest.raises(DiscoveryFailed, match="password"):
        Registry(replace(_settings("http://127.0.0.1:1"), user="a", password_file=password))
