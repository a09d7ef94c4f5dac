"""Certificates, authorities and revocation lists are exchanged while stock clients are served."""

import contextlib
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from server.rotating import CUT_S, Busy, Idle, Rotating, Slow, Watching
from server.swift import Swift
from support.certificates import CLUSTER, KeyPair
from support.processes import free_ports, wait_until
from support.servers import ROOT_PASSWORD
from wire.socket_peer import client_tls

from kvsecure.pki.authority import create_authority
from kvsecure.proto import kv_pb2

_DAY = timedelta(days=1)
_TAKEN_UP = "revocation lists taken up"
# As much as a list may have, and more than the member can have in that test.
_LIST_BYTES = 4 << 20
_VITAL = b"a task failed that the member cannot be without"
_REFUSED = "new certificates cannot be used"


@pytest.fixture
def rotating(tmp_path: Path) -> Iterator[Rotating]:
    """A member with one authority and its list."""
    with Rotating(tmp_path / "rotating") as made:
        yield made


def test_everything_is_exchanged_while_clients_are_served(rotating: Rotating) -> None:
    """Trusted clients lose nothing; a revoked one, and later an authority's, are out at once."""
    old, _ = rotating.root()
    lost, lost_serial = rotating.root()
    with (
        rotating.client(old) as old_client,
        rotating.client(lost) as lost_client,
        Busy(old_client, b"old") as busy,
    ):
        watch, lost_watch = Watching(old_client, b"old"), Watching(lost_client, b"old")
        second = rotating.second()
        new, _ = rotating.root(second)
        assert rotating.refusal(new)

        # The server's certificate, then the authorities, then the lists.
        serial = rotating.show(second)
        wait_until(lambda: rotating.shown(old) == serial, deadline_s=20, what="the new certificate")
        busy.more(50)
        rotating.publish(_DAY, rotating.first, second)
        rotating.trust(rotating.first, second)
        wait_until(lambda: not rotating.refusal(new), deadline_s=20, what="the new authority")
        busy.more(50)

        with rotating.client(new) as new_client, Busy(new_client, b"new") as new_busy:
            new_watch = Watching(new_client, b"new")
            rotating.revoke(lost_serial)
            rotating.publish(_DAY, rotating.first, second)
            since = time.monotonic()
            assert lost_watch.wait_end(since) < CUT_S
            assert rotating.refusal(lost) == "SSLV3_ALERT_CERTIFICATE_REVOKED"
            busy.more(50)
            assert busy.failures == []
            assert not watch.ended

            rotating.trust(second)
            since = time.monotonic()
            assert watch.wait_end(since) < CUT_S
            assert busy.wait_failure(since) < CUT_S
            assert rotating.refusal(old) == "TLSV1_ALERT_UNKNOWN_CA"
            new_busy.more(50)
            assert new_busy.failures == []
            assert not new_watch.ended
            assert new_watch.events > 20
            cut = rotating.records(new_client, "connection-cut")
            new_watch.close()

    reasons = [record["note"]["reason"] for record in cut]
    assert reasons == ["certificate revoked", "authority not trusted"]
    assert {record["actor"]["user"] for record in cut} == {"root"}
    assert all(record["source"]["cert"] for record in cut)
    for each in (watch, lost_watch):
        each.close()


@pytest.mark.campaign
def test_everything_is_exchanged_under_load(rotating: Rotating) -> None:
    """At 2,000 calls a second nobody who is trusted loses one, and a revoked client is out."""
    first, _ = rotating.root()
    lost, lost_serial = rotating.root()
    with contextlib.ExitStack() as running, rotating.client(lost) as lost_client:

        def start(pair: KeyPair, key: bytes) -> Swift:
            context = client_tls(rotating.known, pair)
            return running.enter_context(Swift(rotating.member.port, context, key, 250))

        second = rotating.second()
        kept = [start(first, b"first-%d" % number) for number in range(3)]
        revoked = start(lost, b"lost")
        lost_watch = Watching(lost_client, b"first-0")
        serial = rotating.show(second)
        wait_until(lambda: rotating.shown(first) == serial, deadline_s=20, what="the certificate")
        new, _ = rotating.root(second)
        rotating.publish(_DAY, rotating.first, second)
        rotating.trust(rotating.first, second)
        wait_until(lambda: not rotating.refusal(new), deadline_s=20, what="the new authority")
        kept += [start(new, b"second-%d" % number) for number in range(4)]

        # All of them run; everything is exchanged once more meanwhile, and one is revoked.
        began_s, done = time.monotonic(), sum(each.done for each in (*kept, revoked))
        for _ in range(4):
            serial = rotating.show(second)
            rotating.publish(_DAY, rotating.first, second)
            rotating.trust(second, rotating.first)
            wait_until(
                lambda shown=serial: rotating.shown(new) == shown,
                deadline_s=20,
                what="the next one",
            )
            time.sleep(0.5)
        rate = (sum(each.done for each in (*kept, revoked)) - done) / (time.monotonic() - began_s)
        assert revoked.failures == []
        rotating.revoke(lost_serial)
        rotating.publish(_DAY, rotating.first, second)
        since = time.monotonic()
        out_s = lost_watch.wait_end(since)
        wait_until(lambda: revoked.failures, deadline_s=CUT_S, what="the revoked client to be out")
        call_s = revoked.failed_at - since
        time.sleep(1)

    slowest_ms = max(each.slowest_s for each in kept) * 1_000
    print(f"{rate:.0f} calls/s, out after {call_s:.2f} s, its watch after {out_s:.2f} s")
    print(f"slowest batch of those that stay: {slowest_ms:.0f} ms")
    assert [each.failures for each in kept] == [[]] * 7
    assert rate > 1_900
    assert max(out_s, call_s) < CUT_S
    lost_watch.close()


def test_revocation_counts_on_every_listener(tmp_path: Path) -> None:
    """All listeners have one policy, for new connections and open ones (GHSA-3wh4-j44w-pg92)."""
    pages, metrics = free_ports(2)
    flags = (
        f"--listen-client-http-urls=https://127.0.0.1:{pages}",
        f"--listen-metrics-urls=https://127.0.0.1:{metrics}",
    )
    with Rotating(tmp_path / "rotating", flags=flags) as rotating:
        lost, serial = rotating.root()
        kept, _ = rotating.root()
        ports = (pages, metrics)
        open_ones = [Idle(rotating, lost, port) for port in (*ports, rotating.member.port)]
        assert [rotating.refusal(lost, port) for port in ports] == ["", ""]

        rotating.revoke(serial)
        rotating.publish(_DAY, rotating.first)

        for each in open_ones:
            assert each.is_cut()
        assert {rotating.refusal(lost, port) for port in (*ports, rotating.member.port)} == {
            "SSLV3_ALERT_CERTIFICATE_REVOKED"
        }
        assert [rotating.refusal(kept, port) for port in ports] == ["", ""]
        with rotating.client(kept) as client:
            assert len(rotating.records(client, "connection-cut")) == 3


def test_certificate_that_expires_is_cut(rotating: Rotating) -> None:
    """A connection lives no longer than the certificate that opened it, its watch included."""
    brief, _ = rotating.root(ttl=timedelta(seconds=3))
    ends = time.monotonic() + 3
    kept, _ = rotating.root()
    with rotating.client(brief) as client, rotating.client(kept) as other:
        watch = Watching(client, b"k")
        wait_until(lambda: watch.ended, deadline_s=3 + CUT_S, what="the watch to end")

        assert watch.ended_at > ends - 1.5
        assert rotating.refusal(brief) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        (record,) = rotating.records(other, "connection-cut")
        assert record["note"] == {"reason": "certificate expired"}
        name = 'kvsecure_tls_connections_cut_total{reason="certificate expired"}'
        assert rotating.metric(kept, name) == 1
        watch.close()


def test_replacement_that_is_half_written_changes_nothing(rotating: Rotating) -> None:
    """Half a key leaves the old pair in force, is told everywhere, and is mended by the rest."""
    pair, _ = rotating.root()
    before = rotating.shown(pair)
    old_key = rotating.key.read_bytes()
    with rotating.client(pair) as client, Busy(client, b"k") as busy:
        rotating.key.write_bytes(old_key[:100])
        rotating.wait_log(_REFUSED)
        assert rotating.shown(pair) == before
        assert rotating.metric(pair, "kvsecure_tls_reload_failures_total") == 1
        (record,) = rotating.records(client, "credentials-refused")
        assert str(rotating.key) in record["note"]["reason"]
        assert old_key[100:120].decode() not in rotating.member.process.log().decode()

        serial = rotating.show(rotating.first)
        wait_until(
            lambda: rotating.shown(pair) == serial, deadline_s=20, what="the new certificate"
        )
        # Some looks later it has still been taken up once.
        busy.more(120)

        assert rotating.metric(pair, "kvsecure_tls_reloads_total") == 1
        assert busy.failures == []
        taken = rotating.records(client, "credentials-reloaded")
        assert taken[-1]["note"]["serial"] == f"{serial:040x}"


@pytest.mark.parametrize("name", ["trusted", "crl"])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN X509 CRL-----\nMII", None])
def test_broken_trust_changes_nothing(rotating: Rotating, name: str, content: bytes | None) -> None:
    """Authorities or lists that cannot be read, or are gone, leave those in force that were."""
    pair, _ = rotating.root()
    lost, serial = rotating.root()
    rotating.revoke(serial)
    rotating.publish(_DAY, rotating.first)
    wait_until(lambda: rotating.refusal(lost), deadline_s=20, what="the revocation")
    path: Path = getattr(rotating, name)

    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    rotating.wait_log(_REFUSED)
    assert rotating.refusal(pair) == ""
    assert rotating.refusal(lost) == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_list_that_is_overdue_lets_nobody_in(tmp_path: Path) -> None:
    """Without a fresh list no client of its issuer gets in; those that are in stay."""
    with Rotating(tmp_path / "rotating", lists=timedelta(seconds=4)) as rotating:
        pair, _ = rotating.root()
        with rotating.client(pair) as client, Busy(client, b"k") as busy:
            rotating.wait_log("a revocation list is overdue")
            assert "certificate" in rotating.refusal(pair).lower()
            busy.more(20)

            rotating.publish(_DAY, rotating.first)
            wait_until(lambda: not rotating.refusal(pair), deadline_s=20, what="the new list")

            assert busy.failures == []
            assert rotating.records(client, "revocation-list-overdue")


def test_member_that_cannot_take_up_revocations_ends(rotating: Rotating) -> None:
    """When reading the files fails in a way that nobody thought of, the member does not go on."""
    process = rotating.member.process
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    room_bytes = pages * os.sysconf("SC_PAGE_SIZE") + (1 << 20)

    resource.prlimit(process.pid, resource.RLIMIT_AS, (room_bytes, room_bytes))
    rotating.crl.write_bytes(bytes(_LIST_BYTES))

    assert process.wait_exit(deadline_s=10) == 1
    lines = [line for line in process.log().splitlines() if _VITAL in line]
    assert [json.loads(line)["task"] for line in lines] == ["the watch over certificates"]


def test_hang_up_signal_reads_the_files_again(rotating: Rotating) -> None:
    """SIGHUP does not end the member; it takes up its files, changed or not."""
    pair, _ = rotating.root()
    with rotating.client(pair) as client, Busy(client, b"k") as busy:
        os.kill(rotating.member.process.pid, signal.SIGHUP)
        rotating.wait_log(_TAKEN_UP)
        busy.more(20)

        assert busy.failures == []
        assert rotating.metric(pair, "kvsecure_tls_reloads_total") == 1


def test_token_dies_with_the_certificate_that_it_is_bound_to(rotating: Rotating) -> None:
    """What was got by password over a certificate that is revoked now opens nothing any more."""
    kept, _ = rotating.root()
    lost, serial = rotating.root()
    with rotating.client(lost) as client, rotating.client(kept) as other:
        token = client.login("root", ROOT_PASSWORD).token
        client.kv.Range(kv_pb2.RangeRequest(key=b"k"))
        rotating.revoke(serial)
        rotating.publish(_DAY, rotating.first)
        wait_until(lambda: rotating.refusal(lost), deadline_s=20, what="the revocation")

        with pytest.raises(grpc.RpcError) as own:
            client.kv.Range(kv_pb2.RangeRequest(key=b"k"))
        other.use_token(token)
        with pytest.raises(grpc.RpcError) as borrowed:
            other.kv.Range(kv_pb2.RangeRequest(key=b"k"))

    assert own.value.code() is grpc.StatusCode.UNAVAILABLE
    assert borrowed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_handshake_that_began_before_is_judged_by_what_is_in_force(rotating: Rotating) -> None:
    """Who drags out its handshake until it is revoked does not get in with the old list."""
    lost, serial = rotating.root()
    slow = Slow(rotating, lost)
    rotating.revoke(serial)
    rotating.publish(_DAY, rotating.first)
    rotating.wait_log(_TAKEN_UP)

    assert slow.finish() == b""

    rotating.wait_log('"error":"certificate revoked"')


def test_failed_handshakes_leave_nothing_open(rotating: Rotating, tmp_path: Path) -> None:
    """What is kept to say goodbye with is closed, also if the peer does not hang up."""
    kept, _ = rotating.root()
    foreign, _ = rotating.root(create_authority(tmp_path / "foreign", CLUSTER))
    descriptors = Path(f"/proc/{rotating.member.process.pid}/fd")
    before = len(list(descriptors.iterdir()))

    with contextlib.ExitStack() as stuck:
        for _ in range(20):
            peer = stuck.enter_context(
                socket.create_connection(("127.0.0.1", rotating.member.port))
            )
            peer.sendall(b"this is no handshake, and nobody hangs up" * 10)
            assert rotating.refusal(foreign) == "TLSV1_ALERT_UNKNOWN_CA"
        wait_until(
            lambda: len(list(descriptors.iterdir())) <= before + 1,
            deadline_s=20,
            what="descriptors to be closed",
        )

    assert rotating.refusal(kept) == ""


def test_alert_arrives_whatever_else_was_sent(rotating: Rotating, tmp_path: Path) -> None:
    """A client that has written much before it is judged is told why, and not reset."""
    foreign, _ = rotating.root(create_authority(tmp_path / "foreign", CLUSTER))
    eager = Slow(rotating, foreign)

    assert eager.told(bytes(200_000)) == "TLSV1_ALERT_UNKNOWN_CA"
