"""The gate: what is recorded, in which form and order, and streams whose rights are gone."""

import json
import random
from typing import Any, Final

import pytest
from access.oracle import random_request
from security.lab import Asked, World

from kvsecure.core.watch import Watcher
from kvsecure.model.errors import Failure, Refused
from kvsecure.proto import auth_pb2, kv_pb2, lease_pb2, tenant_pb2, watch_pb2
from kvsecure.security.canonical import canonical
from kvsecure.security.feeds import Compacted, Ended, Feed
from kvsecure.security.session import Peer, source_fragment

_GET: Final = kv_pb2.RangeRequest(key=b"/app/k")
_PUT: Final = kv_pb2.PutRequest(key=b"/app/k", value=b"v")


@pytest.fixture
def app(world: World) -> World:
    """A world with user `web`, who may read and write /app/."""
    world.role("app", b"/app/", b"/app0")
    world.user("web", "app")
    return world


# --- the form of records ------------------------------------------------------------------------


def test_every_record_is_canonical(app: World) -> None:
    """Records that are put together by hand are the canonical form of what they say."""
    rng = random.Random(random.randrange(1 << 32))
    names = ("web", "w\u00e9b", "w\u20acb", 'w"e\\b', "\U0001f511", "w b", "<web>&")
    app.tenant("acme")
    for name in names[1:]:
        app.user(name, "app")
        app.user(name, tenant="acme")
    peers = [app.peer(name) for name in names]
    peers += [app.peer(name, tenant="acme", ip="2001:db8::7") for name in names[1:]]
    peers += [app.peer(), app.peer("root"), app.peer("nobody")]
    requests = (
        lambda: random_request(rng),
        lambda: kv_pb2.PutRequest(key=rng.randbytes(rng.randrange(1, 9)), value=b"v"),
        lambda: kv_pb2.RangeRequest(key=rng.randbytes(rng.randrange(1, 9))),
        lambda: kv_pb2.PutRequest(key='/app/"\\\n\x7f\u20ac\U0001f511'.encode(), value=b"v"),
        lambda: auth_pb2.AuthRoleAddRequest(name=rng.choice(names)),
        lambda: kv_pb2.CompactionRequest(revision=1),
    )

    for _ in range(1_500):
        request = rng.choice(requests)()
        if not isinstance(request, watch_pb2.WatchCreateRequest):
            app.clock.forward(rng.random())
            app.begin(request, rng.choice(peers))
            if rng.random() < 0.3:
                app.turn.end()
    app.gate.events.note("start", settings={"name": "\u20ac", "n": 1}, compat="")
    app.gate.events.note_handshake_failure("2001:db8::1", 1, "NO_SHARED_CIPHER")
    app.turn.end()

    records = app.trail.recent(10_000)
    stages = {json.loads(each)["stage"] for each in records}
    assert stages >= {"read", "intent", "outcome", "denied", "start", "handshake-failed", "segment"}
    for record in records:
        assert record == canonical(json.loads(record)), record


def test_a_record_says_who_what_where_and_what_came_of_it(app: World) -> None:
    """PCI DSS 10.2.2 and NIST AU-3: identity, event, time, source, result, resource."""
    app.ask(_GET, app.peer("web"))

    record = next(app.last())

    assert record["actor"] == {"user": "web", "via": "certificate"}
    assert record["tenant"] == "default"
    assert record["op"] == {"key": "/app/k", "rpc": "Range"}
    assert record["decision"]["allow"] is True
    assert record["result"]["code"] == "OK"
    assert record["source"] == {
        "ip": "192.0.2.7",
        "port": 4711,
        "tls": "TLSv1.3 X",
        "cert": b"web".ljust(32, b".").hex(),
    }
    assert record["ts"].endswith("Z")
    assert (record["stage"], record["stream"], record["v"]) == ("read", app.trail.stream, 1)


def test_a_command_has_an_intent_and_an_outcome(app: World) -> None:
    """A change is recorded before it is proposed, and what came of it before it is answered."""
    app.ask(_PUT, app.peer("web"))

    intent, outcome = app.last(2)

    assert (intent["stage"], outcome["stage"]) == ("intent", "outcome")
    (done,) = outcome["done"]
    assert (done["intent"], done["rev"]) == (intent["seq"], app.state.store.revision)
    assert outcome["result"] == {"code": "OK"}
    assert "value" not in intent["op"]
    assert intent["op"]["value_bytes"] == 1


def test_commands_that_succeed_together_share_an_outcome(app: World) -> None:
    """One record of a turn names every command of a tenant that succeeded, and its revision."""
    peer = app.peer("web")
    asked = [app.begin(kv_pb2.PutRequest(key=b"/app/k", value=b"v"), peer) for _ in range(3)]

    app.turn.end()

    *intents, outcome = app.last(4)
    assert [each.body is not None for each in asked] == [True] * 3
    assert [each["intent"] for each in outcome["done"]] == [each["seq"] for each in intents]
    revision = app.state.store.revision
    assert [each["rev"] for each in outcome["done"]] == [revision - 2, revision - 1, revision]


def test_a_command_that_fails_has_an_outcome_that_says_so(app: World) -> None:
    """What the state refuses is recorded with its code."""
    asked = app.ask(lease_pb2.LeaseRevokeRequest(ID=9), app.peer("web"))

    intent, outcome = app.last(2)

    assert asked.why == "LEASE_NOT_FOUND"
    assert outcome["intent"] == intent["seq"]
    assert outcome["result"] == {"code": "NOT_FOUND"}


def test_a_read_of_what_is_damaged_is_data_loss(app: World) -> None:
    """A record that is missing from the tables is told and recorded, and costs nobody else."""
    app.ask(_PUT, app.peer("web"))
    app.lose_records()
    app.ask(kv_pb2.PutRequest(key=b"/app/other", value=b"v"), app.peer("web"))

    lost = app.ask(_GET, app.peer("web"))
    record = next(app.last())
    other = app.ask(kv_pb2.RangeRequest(key=b"/app/other"), app.peer("web"))

    assert lost.why == "CORRUPT"
    assert (record["stage"], record["result"]) == ("read", {"code": "DATA_LOSS"})
    assert other.body is not None


def test_a_denial_is_recorded_with_its_reason(app: World) -> None:
    """Who was refused, what, and by which part of the law, is in the trail before the answer."""
    app.tenant("acme")
    cases: tuple[tuple[Any, Peer, str], ...] = (
        (kv_pb2.RangeRequest(key=b"/ops/k"), app.peer("web"), "deny-keys"),
        (auth_pb2.AuthRoleAddRequest(name="x"), app.peer("web"), "deny-not-admin"),
        (
            tenant_pb2.TenantListRequest(),
            app.peer("root", tenant="acme"),
            "deny-not-cluster-admin",
        ),
    )

    for request, peer, reason in cases:
        asked = app.ask(request, peer)
        record = next(app.last())
        assert asked.refused is not None
        assert asked.refused.text == Failure.PERMISSION_DENIED.text
        assert (record["stage"], record["decision"]["reason"]) == ("denied", reason)
        assert record["decision"]["allow"] is False
        assert record["result"] == {"code": "PERMISSION_DENIED"}


def test_nothing_that_is_denied_reaches_the_log(app: World) -> None:
    """The gate decides before the core: a refused command is not proposed."""
    for request in (
        kv_pb2.PutRequest(key=b"/ops/k"),
        kv_pb2.TxnRequest(failure=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"/ops/k"))]),
        auth_pb2.AuthUserAddRequest(name="x"),
    ):
        assert app.ask(request, app.peer("web")).why == "PERMISSION_DENIED"
        assert app.ask(request, app.peer()).why == "USER_EMPTY"

    assert app.engine.applied == []


def test_what_is_carried_out_for_a_session_is_decided_too(app: World) -> None:
    """That somebody was let in for one thing does not carry another past the law."""
    asked = Asked(app.turn, app.peer("web"), b"")
    session = app.gate.admit(asked, _GET)
    assert session is not None
    command = kv_pb2.PutRequest(key=b"/ops/k")

    app.gate.carry_out(asked, session, command, command.SerializeToString())
    app.turn.end()

    record = next(app.last())
    assert asked.why == "PERMISSION_DENIED"
    assert app.engine.applied == []
    assert (record["stage"], record["op"]["rpc"]) == ("denied", "Put")


def test_what_was_asked_is_decided_even_if_it_says_nothing(app: World) -> None:
    """A command is decided by the request that it comes from, also where that is empty."""
    asked = Asked(app.turn, app.peer("web"), b"")

    app.gate.submit(asked, _PUT, _PUT.SerializeToString(), auth_pb2.AuthEnableRequest())
    app.turn.end()

    assert asked.why == "PERMISSION_DENIED"
    assert app.engine.applied == []


def test_a_request_of_the_wrong_shape_is_recorded(app: World) -> None:
    """What is refused before it is decided leaves a record of who sent it."""
    for peer, actor in (
        (app.peer("web"), {"user": "web", "via": "certificate"}),
        (app.peer(), {"via": "nobody"}),
    ):
        asked = Asked(app.turn, peer, b"")
        app.gate.reject(asked, kv_pb2.PutRequest(), Refused(Failure.EMPTY_KEY))
        app.turn.end()
        record = next(app.last())
        assert asked.why == "EMPTY_KEY"
        assert (record["stage"], record["actor"]) == ("rejected", actor)
        assert record["op"] == {"rpc": "Put"}


def test_what_the_member_does_by_itself_is_recorded(app: World) -> None:
    """An expired lease is revoked by the member, with a record like any other change."""
    app.ask(lease_pb2.LeaseGrantRequest(ID=5, TTL=5), app.peer("web"))
    app.ask(kv_pb2.PutRequest(key=b"/app/k", lease=5), app.peer("web"))

    app.clock.forward(6)
    app.gate.leases.scan()
    app.turn.end()

    intent, outcome = app.last(2)
    assert intent["actor"] == {"via": "system"}
    assert intent["op"] == {"rpc": "LeaseRevoke", "ID": 5}
    assert [each["intent"] for each in outcome["done"]] == [intent["seq"]]


def test_a_log_in_is_recorded_with_its_tenant(app: World) -> None:
    """Log-ins, good and bad, say whose they are and from where."""
    app.user("other", password="lantern-Orbit-zebra-4271")

    app.log_in("other", "lantern-Orbit-zebra-4271")
    good = next(app.last())
    app.log_in("other", "wrong")
    bad = next(app.last())

    assert (good["stage"], good["tenant"]) == ("login", "default")
    assert good["actor"] == bad["actor"] == {"user": "other", "via": "password"}
    assert bad["result"] == {"code": "INVALID_ARGUMENT"}
    assert bad["source"]["ip"] == "192.0.2.7"


def test_records_of_a_turn_stand_in_the_order_of_its_requests(app: World) -> None:
    """Numbers rise by one in the order in which requests came."""
    for number in range(20):
        app.begin(kv_pb2.RangeRequest(key=b"/app/%02d" % number), app.peer("web"))
    app.turn.end()

    records = list(app.last(20))

    assert [each["op"]["key"] for each in records] == [f"/app/{number:02}" for number in range(20)]
    assert [each["seq"] for each in records] == list(
        range(records[0]["seq"], records[0]["seq"] + 20)
    )


def test_where_a_request_comes_from_is_said_as_far_as_it_is_known() -> None:
    """A connection without TLS and certificate has an address and nothing else."""
    assert json.loads(source_fragment("192.0.2.1", 5, "", b"")) == {"ip": "192.0.2.1", "port": 5}


# --- streams ------------------------------------------------------------------------------------


def _watch(app: World, peer: Peer, woken: list[Watcher], key: bytes = b"/app/k") -> Feed:
    asked = Asked(app.turn, peer, b"")
    request = watch_pb2.WatchCreateRequest(key=key)
    feed = app.feeds.open(asked, request, woken.append)
    app.turn.end()
    assert feed is not None, asked.why
    assert feed.take() is None
    return feed


_ENDS: Final[dict[str, Any]] = {
    "role revoked": auth_pb2.AuthUserRevokeRoleRequest(name="web", role="app"),
    "role deleted": auth_pb2.AuthRoleDeleteRequest(role="app"),
    "permission revoked": auth_pb2.AuthRoleRevokePermissionRequest(
        role="app", key=b"/app/", range_end=b"/app0"
    ),
    "user deleted": auth_pb2.AuthUserDeleteRequest(name="web"),
}


@pytest.mark.parametrize("why", sorted(_ENDS))
def test_a_watch_hands_out_nothing_after_its_right_is_gone(app: World, why: str) -> None:
    """An event that was queued before a right was revoked is not handed out after it."""
    woken: list[Watcher] = []
    feed = _watch(app, app.peer("web"), woken)

    app.ask(_PUT)
    assert woken
    app.system(_ENDS[why])

    assert feed.is_stale
    assert isinstance(feed.take(), Ended)
    record = next(iter(_flushed(app)[-1:]))
    assert record["stage"] == "denied"


def _flushed(app: World) -> list[dict[str, Any]]:
    app.turn.end()
    return app.records()


def test_watches_are_looked_at_when_accounts_move(app: World) -> None:
    """A watch without any event is cut as well: somebody wakes it."""
    woken: list[Watcher] = []
    feed = _watch(app, app.peer("web"), woken)
    other = _watch(app, app.peer("root"), woken)

    app.feeds.wake_stale()
    assert not woken
    app.system(_ENDS["role revoked"])
    app.feeds.wake_stale()

    assert {id(each) for each in woken} == {id(feed.watcher), id(other.watcher)}
    assert isinstance(feed.take(), Ended)
    assert other.take() is None


def test_a_watch_goes_on_while_its_right_does(app: World) -> None:
    """A change of accounts that leaves the right alone leaves the watch alone."""
    feed = _watch(app, app.peer("web"), [])

    app.user("unrelated")
    app.system(auth_pb2.AuthRoleAddRequest(name="unrelated"))
    app.ask(_PUT)

    batch = feed.take()
    assert batch is not None
    assert not isinstance(batch, Ended | Compacted)
    assert len(batch.events) == 1
    assert not feed.is_stale


def test_a_watch_outlives_its_token_and_not_its_session(app: World) -> None:
    """That a token expires does not end a watch; that its sessions were ended does."""
    app.user("other", "app", password="lantern-Orbit-zebra-4271")
    token = app.token("other", "lantern-Orbit-zebra-4271")
    asked = Asked(app.turn, app.peer(), token)
    feed = app.feeds.open(asked, watch_pb2.WatchCreateRequest(key=b"/app/k"), lambda _: None)
    assert feed is not None

    app.clock.forward(601)
    app.user("unrelated")
    assert feed.take() is None
    app.system(auth_pb2.AuthUserChangePasswordRequest(name="other", hashedPassword="x"))

    assert isinstance(feed.take(), Ended)


def test_a_watch_of_a_deleted_tenant_is_cut(app: World) -> None:
    """Deleting a tenant ends its watches, and another tenant of its name does not revive them."""
    app.tenant("acme")
    woken: list[Watcher] = []
    feed = _watch(app, app.peer("root", tenant="acme"), woken)

    app.ask(tenant_pb2.TenantDeleteRequest(name="acme"))
    assert feed.watcher in woken
    app.tenant("acme")

    assert isinstance(feed.take(), Ended)


def test_a_watch_is_decided_on_the_range_that_was_sent(app: World) -> None:
    """GHSA-xg4h-6gfc-h4m8: a right on one key is no right on every later one."""
    app.role("point", b"/app/k", kind=0)
    app.user("reader", "point")
    peer = app.peer("reader")

    assert app.feeds.open(
        Asked(app.turn, peer, b""), watch_pb2.WatchCreateRequest(key=b"/app/k"), lambda _: None
    )
    for request in (
        watch_pb2.WatchCreateRequest(key=b"/app/k", range_end=b"\0"),
        watch_pb2.WatchCreateRequest(key=b"/app/k", range_end=b"/app/l"),
        watch_pb2.WatchCreateRequest(range_end=b"\0"),
        watch_pb2.WatchCreateRequest(),
    ):
        asked = Asked(app.turn, peer, b"")
        assert app.feeds.open(asked, request, lambda _: None) is None
        app.turn.end()
        assert asked.why == "PERMISSION_DENIED"


def test_an_open_tenant_that_closes_cuts_the_watches_of_strangers(world: World) -> None:
    """Whoever came while authentication was off has to go when it is on."""
    world.system(auth_pb2.AuthDisableRequest())
    feed = _watch(world, world.peer(), [])

    world.system(auth_pb2.AuthEnableRequest())

    assert isinstance(feed.take(), Ended)


def test_a_keep_alive_is_decided_each_time(app: World) -> None:
    """A lease is renewed only by whoever may write all that hangs on it, at that moment."""
    app.ask(lease_pb2.LeaseGrantRequest(ID=5, TTL=60), app.peer("web"))
    renew = lease_pb2.LeaseKeepAliveRequest(ID=5)

    assert app.ask(renew, app.peer("web")).body is not None
    app.ask(kv_pb2.PutRequest(key=b"/ops/k", lease=5))

    assert app.ask(renew, app.peer("web")).why == "PERMISSION_DENIED"
    assert app.ask(renew).body is not None
