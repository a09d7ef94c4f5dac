"""Stock etcdctl's `lock` and `elect`, which queue up by themselves, beside the services."""

from collections.abc import Iterator

import pytest
from support.etcdctl import Etcdctl
from support.processes import wait_until
from support.rpc import Client
from support.servers import Member

from kvsecure.proto import kv_pb2, lease_pb2
from kvsecure.proto.election_pb2 import CampaignRequest, LeaderRequest, ResignRequest
from kvsecure.proto.lock_pb2 import LockRequest, LockResponse, UnlockRequest

_DEADLINE_S = 15.0


@pytest.fixture(scope="module")
def subject(
    subject_type: type[Member], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Member]:
    """The server under test, open to etcdctl 3.5.1, which speaks TLS 1.2 and nothing newer."""
    directory = tmp_path_factory.mktemp("subject")
    with subject_type(directory, flags=subject_type.old_tls_flags) as member:
        yield member


@pytest.fixture(scope="module")
def root(subject: Member) -> Iterator[Client]:
    """A client of root, with lease 1."""
    with subject.client() as client:
        client.lease.LeaseGrant(lease_pb2.LeaseGrantRequest(ID=1, TTL=600))
        yield client


def _in_queue(client: Client, name: bytes, count: int) -> None:
    request = kv_pb2.RangeRequest(key=name + b"/", range_end=name + b"0", count_only=True)
    wait_until(
        lambda: client.kv.Range(request).count == count,
        deadline_s=_DEADLINE_S,
        what=f"{count} places",
    )


def test_command_of_etcdctl_runs_under_the_lock(subject: Member, root: Client) -> None:
    """It takes the lock, runs its command, and lets go."""
    done = Etcdctl(subject).run(["lock", "alone", "--", "sh", "-c", "echo $ETCD_LOCK_KEY; exit 3"])

    assert done.stdout.startswith(b"alone/")
    assert done.status != 0
    _in_queue(root, b"alone", 0)


def test_etcdctl_waits_for_a_lock_of_the_service(subject: Member, root: Client) -> None:
    """What the service gave to somebody, etcdctl does not have before it is released."""
    held = root.lock.Lock(LockRequest(name=b"ours", lease=1))
    theirs = Etcdctl(subject).start(["lock", "ours", "echo", "got it"])
    _in_queue(root, b"ours", 2)
    assert root.lock.Lock(LockRequest(name=b"ours", lease=1)).key == held.key

    root.lock.Unlock(UnlockRequest(key=held.key))
    theirs.wait_for(b"got it")

    assert theirs.stop().stdout == b"got it\n"


def test_service_waits_for_a_lock_of_etcdctl(subject: Member, root: Client) -> None:
    """What etcdctl holds, the service gives to nobody before its key is gone."""
    theirs = Etcdctl(subject).start(["lock", "theirs"])
    theirs.wait_for(b"theirs/")
    start = root.prepared("/v3lockpb.Lock/Lock")
    waiting = start(LockRequest(name=b"theirs", lease=1).SerializeToString())
    _in_queue(root, b"theirs", 2)
    assert not waiting.done()

    key = theirs.stop().stdout.split()[0]
    root.kv.DeleteRange(kv_pb2.DeleteRangeRequest(key=key))

    answer = LockResponse.FromString(waiting.result(timeout=_DEADLINE_S))
    assert answer.key == b"theirs/1"


def test_etcdctl_stands_and_listens_in_the_same_election(subject: Member, root: Client) -> None:
    """A candidate of etcdctl leads for the service, and a leader of the service for etcdctl."""
    etcdctl = Etcdctl(subject)
    listens = etcdctl.start(["elect", "-l", "e"])
    leads = root.election.Campaign(CampaignRequest(name=b"e", lease=1, value=b"ours")).leader
    listens.wait_for(b"ours")
    stands = etcdctl.start(["elect", "e", "theirs"])
    _in_queue(root, b"e", 2)

    root.election.Resign(ResignRequest(leader=leads))
    stands.wait_for(b"theirs")
    listens.wait_for(b"theirs")

    assert root.election.Leader(LeaderRequest(name=b"e")).kv.value == b"theirs"
    stands.stop()
    listens.stop()
