"""Admission by token: who becomes a member, what it is told, and what is used up by it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import pytest
from api.watching import Timers
from google.protobuf.message import Message
from security.lab import Asked, World

from kvsecure.core.raft.status import Role
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import SYSTEM_TENANT, MemberId
from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.certificates import certificates_of, key_of, same_key
from kvsecure.pki.requests import new_private_key, request_of
from kvsecure.proto import state_pb2
from kvsecure.proto.joining_pb2 import (
    JoinRedeemRequest,
    JoinRedeemResponse,
    JoinTokenAddRequest,
    JoinTokenAddResponse,
)
from kvsecure.security.membership import Membership
from kvsecure.server.admission import TokenAdmission
from kvsecure.server.config import ServerConfig, load
from kvsecure.storage.files import StorageError

_KEY = new_private_key()
_REQUEST = request_of(_KEY)


def _configured(authority: Path | None, *flags: str) -> ServerConfig:
    config = load(
        [
            "--kek-file=/run/kek",
            "--name=m1",
            "--cluster-name=prod",
            "--cert-file=s.crt",
            "--key-file=s.key",
            "--listen-client-urls=https://127.0.0.1:2379",
            "--advertise-client-urls=https://10.0.0.1:2379",
            "--peer-cert-file=p.crt",
            "--peer-key-file=p.key",
            "--peer-trusted-ca-file=ca.crt",
            "--initial-cluster-token=tk",
            "--heartbeat-interval=50",
            *([] if authority is None else [f"--authority-dir={authority}"]),
            *flags,
        ],
        {},
    )
    assert isinstance(config, ServerConfig)
    return config


@final
@dataclass
class _Node:
    """What a leader tells of how far the others are."""

    progress: dict[MemberId, Any]
    role: Role = Role.LEADER

    def status(self) -> Any:
        """Return what is looked at."""
        return SimpleNamespace(peers=self.progress, durable=100)


@final
class _Bench:
    """A member with the cluster's authority, on the bench."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.authority = create_authority(directory / "authority", "prod")
        founder = state_pb2.Member(
            id=1, name="m1", peer_urls=["https://10.0.0.1:2380"], client_urls=["https://x:1"]
        )
        self.world.system(state_pb2.MemberAdd(member=founder))
        self.admit(learners_max=1)

    def admit(self, *, learners_max: int) -> None:
        """Begin to admit newcomers, with so many learners at once."""
        self.membership = Membership(
            self.world.gate,
            wall_ns=self.world.clock,
            later=Timers().later,
            active=lambda: frozenset(each.id for each in self.world.state.members),
            learners_max=learners_max,
        )
        self.admission = TokenAdmission(
            _configured(self.authority.directory),
            self.world.gate,
            self.membership,
            self.world.clock,
        )

    @property
    def names(self) -> list[str]:
        """The names of all members."""
        return sorted(each.name for each in self.world.state.members)

    def token(self) -> JoinToken:
        """Have root make a token."""
        asked = self.do([JoinTokenAddRequest()], user="root")[0]
        assert asked.body is not None, asked.why
        text = JoinTokenAddResponse.FromString(asked.body).token
        return JoinToken.parse(Secret.of_text(text))

    def redeem(self, token: JoinToken, name: str = "m2", **other: Any) -> Asked:
        """Have a stranger redeem a token."""
        return self.do([redeeming(token, name, **other)])[0]

    def do(self, requests: list[Message], user: str = "", ip: str = "192.0.2.7") -> list[Asked]:
        """Have somebody make all of these calls at once, and turns end until they are answered."""
        return asyncio.run(self._do(requests, user, ip))

    async def _do(self, requests: list[Message], user: str, ip: str) -> list[Asked]:
        world = self.world
        peer = world.peer(user, ip=ip)
        asked = [Asked(world.turn, peer, b"") for _ in requests]
        calls = asyncio.gather(
            *(
                world.gate.perform(each, request, lambda request=request: self._act(request, ip))
                for each, request in zip(asked, requests, strict=True)
            )
        )
        while not calls.done():
            world.turn.end()
            await asyncio.sleep(0)
        await calls
        world.turn.end()
        return asked

    async def _act(self, request: Message, source: str) -> Message:
        if isinstance(request, JoinTokenAddRequest):
            return await self.admission.add_token(request.ttl_s)
        assert isinstance(request, JoinRedeemRequest)
        return await self.admission.redeem(request, source)

    def trail(self) -> bytes:
        """Return the newest records of the audit trail."""
        return b"\n".join(self.world.trail.recent(100))


def redeeming(token: JoinToken, name: str, **other: Any) -> JoinRedeemRequest:
    """Return the request of a newcomer; what it is called says where it is."""
    request = JoinRedeemRequest(
        token_id=token.token_id,
        secret=token.secret.reveal(),
        name=name,
        peer_urls=[f"https://{name}.internal:2380"],
        hosts=[f"{name}.internal", "10.0.0.9"],
        server_request=_REQUEST,
        peer_request=_REQUEST,
    )
    for field, content in other.items():
        setattr(request, field, content)
    return request


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[_Bench]:
    """A cluster of one, with its authority."""
    built = _Bench(tmp_path)
    yield built
    built.world.close()


def test_newcomer_is_declared_and_told_all_that_it_needs(bench: _Bench) -> None:
    """A token makes a learner that is to vote, and brings certificates for the newcomer's key."""
    token = bench.token()

    asked = bench.redeem(token)

    assert asked.body is not None, asked.why
    answer = JoinRedeemResponse.FromString(asked.body)
    record = bench.world.state.members.get(answer.member_id)
    assert record is not None
    assert (record.name, record.is_learner, record.is_joining) == ("m2", True, True)
    assert [(each.name, list(each.peer_urls)) for each in answer.members] == [
        ("m1", ["https://10.0.0.1:2380"]),
        ("m2", ["https://m2.internal:2380"]),
    ]
    assert (answer.cluster_name, answer.cluster_token, answer.heartbeat_ms) == ("prod", "tk", 50)
    for pem in (answer.server_certificate, answer.peer_certificate):
        assert same_key(certificates_of(pem)[0], key_of(_KEY))


def test_token_is_good_for_one(bench: _Bench) -> None:
    """Whoever brings a token again is refused, under whichever name, and nobody is declared."""
    token = bench.token()
    bench.redeem(token)

    again = [bench.redeem(token, name) for name in ("m2", "m3")]

    assert [each.why for each in again] == ["JOIN_TOKEN_REJECTED"] * 2
    assert bench.names == ["m1", "m2"]


def test_token_that_many_bring_at_once_is_good_for_one(bench: _Bench) -> None:
    """Of all that redeem one token at the same time one is declared and answered."""
    bench.admit(learners_max=8)
    token = bench.token()

    asked = bench.do([redeeming(token, f"m{number}") for number in range(2, 8)])

    assert sum(each.body is not None for each in asked) == 1
    assert len(bench.names) == 2
    assert len(bench.authority.issued().records) == 2


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"name": "m1"}, "JOIN_REJECTED"),
        ({"name": "a/b"}, "JOIN_REJECTED"),
        ({"server_request": b"no request"}, "JOIN_REJECTED"),
        ({"peer_request": _REQUEST[:-1] + b"x"}, "JOIN_REJECTED"),
    ],
)
def test_who_cannot_be_certified_uses_nothing_up(
    bench: _Bench, other: dict[str, Any], why: str
) -> None:
    """A newcomer that cannot be let in is not declared, and its token is as good as before."""
    token = bench.token()

    refused = bench.redeem(token, **other)

    assert refused.why == why
    assert bench.names == ["m1"]
    assert bench.authority.issued().records == ()
    assert bench.redeem(token).body is not None


def test_address_of_another_member_is_refused(bench: _Bench) -> None:
    """Nobody joins under the peer URL of a member."""
    token = bench.token()
    request = redeeming(token, "m2")
    request.peer_urls[:] = ["https://10.0.0.1:2380"]

    refused = bench.do([request])[0]

    assert refused.why == "PEER_URL_EXISTS"
    assert bench.redeem(token).body is not None


def test_one_joins_after_the_other(bench: _Bench) -> None:
    """While a newcomer is a learner the next one waits, with its token as good as before."""
    first, second = bench.token(), bench.token()
    bench.redeem(first)

    early = bench.redeem(second, "m3")
    bench.world.system(state_pb2.MemberPromote(id=bench.world.state.members.learners[0]))
    late = bench.redeem(second, "m3")

    assert early.why == "TOO_MANY_LEARNERS"
    assert late.body is not None, late.why
    assert bench.names == ["m1", "m2", "m3"]


def test_newcomer_whose_answer_was_lost_comes_again(bench: _Bench) -> None:
    """With another token it is the member that it was declared as, until it has started."""
    first = bench.redeem(bench.token())
    again = bench.redeem(bench.token())
    assert first.body is not None
    assert again.body is not None, again.why
    ids = [JoinRedeemResponse.FromString(each.body or b"").member_id for each in (first, again)]
    bench.world.system(
        state_pb2.MemberPublish(id=ids[0], name="m2", client_urls=["https://m2.internal:2379"])
    )

    late = bench.redeem(bench.token())

    assert ids[0] == ids[1]
    assert late.why == "JOIN_REJECTED"


def test_guessing_is_slowed_down_by_source(bench: _Bench) -> None:
    """After six wrong secrets a source has to wait; others do not."""
    token, wrong = bench.token(), []
    for number in range(7):
        guess = redeeming(token, "m2", token_id=f"{number:016x}", secret=b"w" * 32)
        wrong.append(bench.do([guess])[0].why)

    right = redeeming(token, "m2")
    slowed = bench.do([right])[0]
    other = bench.do([right], ip="198.51.100.1")[0]

    assert wrong == ["JOIN_TOKEN_REJECTED"] * 6 + ["TOO_MANY_REQUESTS"]
    assert slowed.why == "TOO_MANY_REQUESTS"
    assert other.body is not None, other.why


def test_only_root_makes_tokens(bench: _Bench) -> None:
    """A stranger and a user without the role root are refused."""
    bench.world.user("web")

    asked = [bench.do([JoinTokenAddRequest()], user=user)[0] for user in ("", "web", "root")]

    assert [each.why for each in asked] == ["USER_EMPTY", "PERMISSION_DENIED", ""]


def test_lifetime_is_what_was_asked_for(bench: _Bench) -> None:
    """An hour by default, what was asked for otherwise, and a week at most."""
    day = bench.do([JoinTokenAddRequest(ttl_s=86_400)], user="root")[0]
    hour = bench.do([JoinTokenAddRequest()], user="root")[0]
    month = bench.do([JoinTokenAddRequest(ttl_s=30 * 86_400)], user="root")[0]

    ends = [JoinTokenAddResponse.FromString(each.body or b"").expires_s for each in (hour, day)]
    assert 82_700 <= ends[1] - ends[0] <= 82_900
    assert month.why == "JOIN_REJECTED"


def test_trail_has_who_and_what_and_no_secret(bench: _Bench) -> None:
    """Tokens made, redeemed and refused are recorded, without anything that would be one."""
    token = bench.token()
    bench.redeem(token, secret=b"w" * 32)
    bench.redeem(token)

    trail = bench.trail()

    records = [json.loads(line) for line in trail.splitlines()]
    redeemed = [each for each in records if each.get("op", {}).get("rpc") == "JoinRedeem"]
    assert [each["op"]["name"] for each in redeemed] == ["m2", "m2"]
    assert all(each["op"]["secret_given"] for each in redeemed)
    assert all(each["op"]["token_id"] == token.token_id for each in redeemed)
    assert [each.get("op", {}).get("rpc") for each in records].count("JoinTokenAdd") == 1
    secret = token.secret.reveal()
    for form in (secret, secret.hex().encode(), token.text().reveal().rpartition(b"/")[2]):
        assert form not in trail


def test_authority_is_told_to_anybody(bench: _Bench) -> None:
    """Whom to trust is said before anybody is asked for a name."""
    told = bench.admission.authority()

    assert told.certificates == Authority.open(bench.authority.directory).trust_pem


def test_member_without_the_authority_makes_no_members(bench: _Bench) -> None:
    """Where the authority is not, there is nothing to be had."""
    token = bench.token()
    bench.admission = TokenAdmission(
        _configured(None), bench.world.gate, bench.membership, bench.world.clock
    )

    asked = [
        *bench.do([redeeming(token, "m2")]),
        *bench.do([JoinTokenAddRequest()], user="root"),
    ]
    with pytest.raises(Refused) as refused:
        bench.admission.authority()

    assert [each.why for each in asked] == ["JOIN_REJECTED"] * 2
    assert refused.value.failure is Failure.JOIN_REJECTED


@pytest.mark.parametrize("flags", [("--cluster-name=test",), ("--authority-dir=/nowhere",)])
def test_authority_that_cannot_be_used_is_found_out_at_the_start(
    bench: _Bench, flags: tuple[str, ...]
) -> None:
    """A member does not start with an authority that is not there, or of another cluster."""
    directory = None if "nowhere" in flags[0] else bench.authority.directory
    config = _configured(directory, *flags)

    with pytest.raises(StorageError, match="--authority-dir"):
        TokenAdmission(config, bench.world.gate, bench.membership, bench.world.clock)


# --- from learner to voter ----------------------------------------------------------------------


def _in_step(match: int, *, is_active: bool = True) -> Any:
    return SimpleNamespace(match=match, is_active=is_active)


@pytest.mark.parametrize(
    ("match", "is_active", "is_started", "is_joining", "votes"),
    [
        (100, True, True, True, True),
        (90, True, True, True, True),
        (89, True, True, True, False),
        (100, False, True, True, False),
        (100, True, False, True, False),
        (100, True, True, False, False),
    ],
)
def test_newcomer_votes_once_it_is_in_step(
    bench: _Bench,
    *,
    match: int,
    is_active: bool,
    is_started: bool,
    is_joining: bool,
    votes: bool,
) -> None:
    """Who came to vote, has started and is in step is promoted by the leader; nobody else is."""
    learner = state_pb2.Member(
        id=2,
        name="m2",
        peer_urls=["https://m2:2380"],
        client_urls=["https://m2:2379"] if is_started else [],
        is_learner=True,
        is_joining=is_joining,
    )
    bench.world.system(state_pb2.MemberAdd(member=learner, learners_max=1), SYSTEM_TENANT)
    node = _Node({MemberId(2): _in_step(match, is_active=is_active)})
    bench.world.engine.replica = SimpleNamespace(node=node)  # type: ignore[attr-defined]  # a leader's

    bench.membership.promote_joined()
    bench.world.turn.end()

    assert (2 in bench.world.state.members.voters) is votes


def test_follower_promotes_nobody(bench: _Bench) -> None:
    """Whoever does not lead does not know how far a newcomer is."""
    bench.redeem(bench.token())
    node = _Node({each: _in_step(100) for each in bench.world.state.members.learners})
    node.role = Role.FOLLOWER
    bench.world.engine.replica = SimpleNamespace(node=node)  # type: ignore[attr-defined]  # a follower's

    bench.membership.promote_joined()
    bench.world.turn.end()

    assert bench.world.state.members.voters == (1,)


def test_promotion_that_fails_is_tried_again(bench: _Bench) -> None:
    """A newcomer that could not be promoted is at the next look."""
    bench.redeem(bench.token())
    (newcomer,) = bench.world.state.members.learners
    bench.world.system(
        state_pb2.MemberPublish(id=newcomer, name="m2", client_urls=["https://m2:2379"])
    )
    node = _Node({newcomer: _in_step(100)})
    bench.world.engine.replica = SimpleNamespace(node=node)  # type: ignore[attr-defined]  # a leader's
    bench.world.engine.refusal = Refused(Failure.NO_LEADER)
    bench.membership.promote_joined()
    bench.world.turn.end()
    bench.world.engine.refusal = None
    before = bench.world.state.members.voters

    bench.membership.promote_joined()
    bench.world.turn.end()

    assert before == (1,)
    assert newcomer in bench.world.state.members.voters
