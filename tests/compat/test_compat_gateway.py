"""The JSON gateway beside etcd's own: the same requests, and status and JSON of every answer.

Owns: one round through all calls, who is nobody, what is no request, a watch and an observation.
Never: compares the words of errors about JSON, which are Go's.
"""

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest
from support.gateway import Gateway, Said
from support.pair import Pair
from support.servers import EtcdMember, Member

_USER_PASSWORD: Final = "a password that is long enough"
# What each member has its own of.
_OWN: Final = frozenset(
    {
        "cluster_id", "member_id", "raft_term", "token", "version", "dbSize", "dbSizeInUse",
        "leader", "raftIndex", "raftTerm", "raftAppliedIndex", "storageVersion", "dbSizeQuota",
        "peerURLs", "clientURLs", "authRevision",
    }
)  # fmt: skip


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _plain(value: Any) -> Any:
    """Take out what each member has its own of, and keep that it was there."""
    if isinstance(value, dict):
        kept = {}
        for name, content in value.items():
            if name not in _OWN and not (name == "ID" and "peerURLs" in value):
                kept[name] = _plain(content)
            elif name not in {"storageVersion", "dbSizeQuota"}:
                # etcd 3.5 has no field for these two.
                kept[name] = type(content).__name__
        return kept
    return [_plain(one) for one in value] if isinstance(value, list) else value


_A: Final = _b64(b"gw/a")
_B: Final = _b64(b"gw/b")
_END: Final = _b64(b"gw0")

# In the order in which they are made, of a fresh member.
_ROUND: Final[tuple[tuple[str, Any], ...]] = (
    ("kv/put", {"key": _A, "value": _b64(b"1")}),
    ("kv/put", {"key": _A, "value": _b64(b"2"), "prev_kv": True}),
    ("kv/put", {"key": _A, "value": _b64(b"2"), "prevKv": True, "nobody": {"knows": 1}}),
    ("kv/put", {"key": _b64(b"\xff\x00"), "value": _b64(bytes(range(256)))}),
    ("kv/put", {"key": _A, "lease": 99}),
    ("kv/put", {"key": _A, "value": _A, "ignore_value": True}),
    ("kv/put", b""),
    ("kv/put", b"{}"),
    ("kv/put", b"null"),
    ("kv/range", {"key": _A}),
    ("kv/range", {"key": _A, "range_end": _END, "limit": "5", "sort_order": "DESCEND"}),
    ("kv/range", {"key": _A, "rangeEnd": _END, "sort_order": 1, "sort_target": "VALUE"}),
    ("kv/range", {"key": _A, "count_only": True}),
    ("kv/range", {"key": _B}),
    ("kv/range", {"key": _A, "revision": 2}),
    ("kv/range", {"key": _A, "revision": "99"}),
    ("kv/range", {"key": _A, "limit": None, "serializable": True}),
    (
        "kv/txn",
        {
            "compare": [{"key": _A, "target": "VERSION", "result": "GREATER", "version": "0"}],
            "success": [
                {"request_range": {"key": _A}},
                {"requestPut": {"key": _B, "value": _b64(b"3")}},
                {"request_txn": {"success": [{"request_delete_range": {"key": _B}}]}},
            ],
        },
    ),
    ("kv/txn", {"compare": [{"key": _A, "value": _b64(b"no"), "target": 3}], "failure": []}),
    ("kv/txn", {"success": [{}]}),
    ("kv/txn", {"success": [{"request_put": {"key": _A}}, {"request_put": {"key": _A}}]}),
    ("kv/txn", {}),
    ("kv/deleterange", {"key": _A, "prev_kv": True}),
    ("kv/deleterange", {"key": _A}),
    ("kv/compaction", {"revision": "1000"}),
    ("kv/compaction", {"revision": "3", "physical": True}),
    ("kv/range", {"key": _A, "revision": 2}),
    ("lease/grant", {"TTL": 600, "ID": 123}),
    ("lease/grant", {"TTL": "600", "ID": "123"}),
    ("kv/put", {"key": _B, "lease": "123"}),
    ("lease/timetolive", {"ID": "123", "keys": True}),
    ("kv/lease/timetolive", {"ID": 124}),
    ("lease/leases", {}),
    ("kv/lease/leases", b""),
    ("lease/keepalive", b'{"ID":123}{"ID":"77"}'),
    ("lease/keepalive", b""),
    ("lease/revoke", {"ID": 123}),
    ("kv/lease/revoke", {"ID": 123}),
    ("lease/grant", {"TTL": 600, "ID": 161}),
    ("lock/lock", {"name": _B, "lease": "161"}),
    ("lock/lock", {"name": _B, "lease": 161}),
    ("lock/unlock", {"key": _b64(b"gw/b/a1")}),
    ("lock/unlock", {"key": _B}),
    ("election/leader", {"name": _B}),
    ("election/campaign", {"name": _B, "lease": "161", "value": _A}),
    ("election/leader", {"name": _B}),
    ("election/proclaim", {"value": _A}),
    ("election/proclaim", {"leader": {"key": _A, "rev": "1", "lease": 161}, "value": _A}),
    ("election/resign", {}),
    ("election/resign", {"leader": {"name": _B, "key": _A, "rev": 1, "lease": "161"}}),
    ("lease/revoke", {"ID": 161}),
    ("election/leader", {"name": _B}),
    ("cluster/member/list", {}),
    ("cluster/member/list", {"linearizable": True}),
    ("cluster/member/add", {}),
    ("cluster/member/add", {"peerURLs": ["x"]}),
    ("cluster/member/remove", {"ID": "5"}),
    ("cluster/member/update", {"ID": 5, "peerURLs": ["https://127.0.0.1:9"]}),
    ("cluster/member/promote", {"ID": "5"}),
    ("maintenance/transfer-leadership", {"targetID": "5"}),
    ("maintenance/status", {}),
    ("maintenance/alarm", {}),
    ("maintenance/alarm", {"action": "ACTIVATE", "memberID": 5, "alarm": "NOSPACE"}),
    ("maintenance/alarm", {"action": 0}),
    ("maintenance/alarm", {"action": "DEACTIVATE", "memberID": "5", "alarm": 1}),
    ("maintenance/defragment", {}),
    ("maintenance/transfer-leadership", {"targetID": "1"}),
    ("maintenance/downgrade", {"action": "VALIDATE", "version": "3.0"}),
    ("maintenance/downgrade", {"action": "CANCEL"}),
    ("auth/status", {}),
    ("auth/enable", {}),
    ("auth/user/add", {"name": "gw", "password": _USER_PASSWORD}),
    ("auth/user/add", {"name": "gw", "password": _USER_PASSWORD}),
    ("auth/user/add", {"name": "nopass", "options": {"no_password": True}}),
    ("auth/role/add", {"name": "gw"}),
    (
        "auth/role/grant",
        {"name": "gw", "perm": {"permType": "READWRITE", "key": _A, "range_end": _END}},
    ),
    ("auth/role/grant", {"name": "gw"}),
    ("auth/role/get", {"role": "gw"}),
    ("auth/role/get", {"role": "nobody"}),
    ("auth/role/list", {}),
    ("auth/user/grant", {"user": "gw", "role": "gw"}),
    ("auth/user/get", {"name": "gw"}),
    ("auth/user/list", {}),
    ("auth/user/changepw", {"name": "gw", "password": _USER_PASSWORD + "!"}),
    ("auth/authenticate", {"name": "gw", "password": _USER_PASSWORD + "!"}),
    ("auth/authenticate", {"name": "gw", "password": "wrong"}),
    ("auth/user/revoke", {"user": "gw", "role": "gw"}),
    ("auth/role/revoke", {"role": "gw", "key": _A, "range_end": _END}),
    ("auth/role/delete", {"role": "gw"}),
    ("auth/user/delete", {"name": "gw"}),
    ("auth/user/delete", {"name": "gw"}),
    ("nothing", {}),
)


def _compare(said: Said) -> tuple[int, Any]:
    if not said.fields.get("content-type", "").startswith("application/json"):
        return said.status, said.body
    lines = [_plain(json.loads(line)) for line in said.body.splitlines() if line]
    return said.status, lines


@pytest.mark.parametrize("prefix", ["v3", "v3beta"])
def test_every_call_is_answered_as_by_etcd(
    subject_type: type[Member], tmp_path: Path, prefix: str
) -> None:
    """Status and JSON of each call are those of etcd's own gateway, errors included."""
    with (
        EtcdMember(tmp_path / "etcd") as etcd,
        subject_type(tmp_path / "ours") as ours,
        Gateway(etcd) as theirs,
        Gateway(ours) as own,
    ):
        theirs.log_in()
        own.log_in()
        for number, (path, body) in enumerate(_ROUND):
            expected = _compare(theirs.ask(f"/{prefix}/{path}", body))
            found = _compare(own.ask(f"/{prefix}/{path}", body))
            assert found == expected, (number, path, body)


@pytest.mark.parametrize(
    ("fields", "status"),
    [({}, 400), ({"Authorization": "nobody.1"}, 401)],
)
def test_who_is_nobody_is_told_so_as_by_etcd(
    pair: Pair, fields: dict[str, str], status: int
) -> None:
    """Without a token, or with one that is none, the answers are etcd's."""
    answers = []
    for each in pair.members:
        with Gateway(each) as gateway:
            answers.append(gateway.ask("/v3/kv/put", {"key": _A}, fields))

    assert answers[0].status == answers[1].status == status
    assert answers[0].value == answers[1].value


@pytest.mark.parametrize(
    "body",
    [
        b'{"key":', b"[]", b'{"key":5}', b'{"key":"%%%"}', b'{"lease":"x"}', b'{"lease":5.0}',
        b'{"prev_kv":"true"}',
    ],
)  # fmt: skip
def test_what_is_no_request_has_the_status_of_etcd(pair: Pair, body: bytes) -> None:
    """Status, code and fields are etcd's; the words are not Go's."""
    answers = []
    for each in pair.members:
        with Gateway(each) as gateway:
            answers.append(gateway.log_in().ask("/v3/kv/put", body))

    assert answers[0].status == answers[1].status == 400
    assert answers[0].value.keys() == answers[1].value.keys()
    assert answers[0].value["code"] == answers[1].value["code"] == 3


def _watched(member: Member) -> list[Any]:
    """Watch with two watchers from one body, change something, and return five lines."""
    body = (
        b'{"create_request":{"key":"%b","start_revision":"1"}} {"createRequest":{"key":"%b"}}'
        b'{"progress_request":{}}'
    ) % (_b64(b"watched").encode(), _b64(b"other").encode())
    with Gateway(member) as watcher, Gateway(member) as writer:
        watcher.log_in()
        writer.log_in()
        first = writer.ask("/v3/kv/put", {"key": _b64(b"watched"), "value": _A})
        base = int(first.value["header"]["revision"])
        found = []
        with watcher.lines("/v3/watch", body) as lines:
            found += [next(lines) for _ in range(4)]
            writer.ask("/v3/kv/put", {"key": _b64(b"watched")})
            found.append(next(lines))
            writer.ask("/v3/kv/deleterange", {"key": _b64(b"watched")})
            found.append(next(lines))
    found.sort(key=lambda line: "events" in line["result"])
    return [_plain(_relative(line, base)) for line in found]


def _relative(value: Any, base: int) -> Any:
    if isinstance(value, list):
        return [_relative(one, base) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: int(content) - base if name.endswith("revision") else _relative(content, base)
        for name, content in value.items()
    }


def test_watch_is_streamed_as_by_etcd(pair: Pair) -> None:
    """Each message of a watch is a line of its own, as it happens, with the same content."""
    expected, found = (_watched(member) for member in pair.members)

    assert found == expected


def _observed(member: Member) -> list[Any]:
    """Observe an election while it is held, and return three lines."""
    name = _b64(b"observed")
    with Gateway(member) as observer, Gateway(member) as candidate:
        observer.log_in()
        candidate.log_in()
        candidate.ask("/v3/lease/grant", {"TTL": 600, "ID": 177})
        said = candidate.ask("/v3/election/campaign", {"name": name, "lease": 177, "value": _A})
        leader = said.value["leader"]
        base = int(leader["rev"])
        body = b'{"name":"%b"}' % name.encode()
        with observer.lines("/v3/election/observe", body) as lines:
            found = [next(lines)]
            candidate.ask("/v3/election/proclaim", {"leader": leader, "value": _B})
            found.append(next(lines))
            candidate.ask("/v3/election/resign", {"leader": leader})
            candidate.ask("/v3/election/campaign", {"name": name, "lease": 177, "value": _END})
            found.append(next(lines))
    return [_plain(_relative(line, base)) for line in found]


def test_observation_is_streamed_as_by_etcd(pair: Pair) -> None:
    """Each leader and each proclamation is a line of its own, with the same content."""
    expected, found = (_observed(member) for member in pair.members)

    assert found == expected
