"""The law against an opinion of its own kind: every policy and request expanded to single keys."""

import random
from typing import Any, Final

import pytest
from access.oracle import (
    UNIVERSE,
    LeaseBook,
    Permission,
    may,
    policy_of,
    random_permission,
    random_request,
)

from kvsecure.access.decide import Decision, decide
from kvsecure.access.grants import Grants, Intervals
from kvsecure.core.accounts import Accounts
from kvsecure.model.burst import GetBurst, PutBurst, PutTxn
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.model.keys import span_of
from kvsecure.proto import authstore_pb2, kv_pb2

_CASES: Final = 48_000
_CASES_CAMPAIGN: Final = 2_000_000


def _grants_of(permissions: list[Permission]) -> Grants:
    """Compile the way a member does: from roles of an account."""
    accounts = Accounts()
    accounts.found()
    tenant = accounts.tenant(DEFAULT_TENANT)
    assert tenant is not None
    accounts.add_user(tenant, "web", "", no_password=True)
    for number, permission in enumerate(permissions):
        # Over two roles: the union counts, not the single role.
        role = f"role{number % 2}"
        if role not in tenant.roles:
            accounts.add_role(tenant, role)
            accounts.grant_role(tenant, "web", role)
        accounts.grant_permission(
            tenant,
            role,
            authstore_pb2.Permission(
                permType=permission.kind,  # type: ignore[arg-type]  # an enum is an int here
                key=permission.key,
                range_end=permission.range_end,
            ),
        )
    grants = tenant.grants_of("web")
    assert grants is not None
    return grants


def _permissions(rng: random.Random) -> list[Permission]:
    drawn = [random_permission(rng) for _ in range(rng.randrange(7))]
    # A later grant on the same range replaces the earlier one within a role.
    return list({(each.key, each.range_end): each for each in drawn}.values())


def _disagreement(rng: random.Random, cases: int) -> str:
    """Return the first case on which law and oracle differ, or nothing."""
    for _ in range(cases // 12):
        permissions = _permissions(rng)
        grants, policy = _grants_of(permissions), policy_of(permissions)
        book = LeaseBook.drawn(rng)
        for _ in range(12):
            request = random_request(rng)
            decided = decide(grants, request, book) is Decision.ALLOW
            if decided is not may(policy, request, book):
                return f"{permissions} {book.keys} {request!r}: the law says {decided}"
    return ""


def test_decide_agrees_with_single_keys() -> None:
    """What intervals allow is what allowing key by key allows, for requests of every kind."""
    seed = random.randrange(1 << 32)

    difference = _disagreement(random.Random(seed), _CASES)

    assert not difference, f"seed {seed}: {difference}"


def test_burst_is_allowed_where_each_of_its_requests_is() -> None:
    """The law says of a burst what it says of all of its requests, one by one."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    verdicts = set()

    for _ in range(3_000):
        grants, book = _grants_of(_permissions(rng)), LeaseBook.drawn(rng)
        keys = rng.choices(UNIVERSE, k=rng.randrange(1, 5))
        gets = [kv_pb2.RangeRequest(key=key) for key in keys]
        puts = [kv_pb2.PutRequest(key=key, value=b"v") for key in keys]
        for burst, requests in (
            (GetBurst(keys), gets),
            (PutBurst([(key, b"v") for key in keys]), puts),
            (PutTxn([(key, b"v") for key in keys]), puts),
        ):
            each = all(decide(grants, one, book) is Decision.ALLOW for one in requests)
            assert (decide(grants, burst, book) is Decision.ALLOW) is each, f"seed {seed}: {burst}"
            verdicts.add((type(burst), len(keys) > 1, each))

    assert len(verdicts) == 12


@pytest.mark.campaign
def test_decide_agrees_with_single_keys_for_long() -> None:
    """The same holds over millions of cases."""
    seed = random.randrange(1 << 32)

    difference = _disagreement(random.Random(seed), _CASES_CAMPAIGN)

    assert not difference, f"seed {seed}: {difference}"


def test_oracle_allows_and_denies_often_enough() -> None:
    """The drawn cases are not all of one kind, so agreement means something."""
    rng = random.Random(1)
    allowed: dict[tuple[str, bool], int] = {}

    for _ in range(3_000):
        policy, book, request = (
            policy_of(_permissions(rng)),
            LeaseBook.drawn(rng),
            random_request(rng),
        )
        verdict = (type(request).__name__, may(policy, request, book))
        allowed[verdict] = allowed.get(verdict, 0) + 1

    kinds = {kind for kind, _ in allowed}
    assert kinds >= {"RangeRequest", "PutRequest", "TxnRequest", "WatchCreateRequest"}
    for kind in kinds - {"LeaseGrantRequest"}:
        assert allowed.get((kind, True), 0) >= 20, kind
        assert allowed.get((kind, False), 0) >= 20, kind


def test_taking_a_permission_away_never_allows_more() -> None:
    """Whoever has fewer permissions may do no more."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)

    for _ in range(1_500):
        permissions = [*_permissions(rng), random_permission(rng)]
        permissions = list({(each.key, each.range_end): each for each in permissions}.values())
        fewer = permissions.copy()
        fewer.pop(rng.randrange(len(fewer)))
        book = LeaseBook.drawn(rng)
        whole, less = _grants_of(permissions), _grants_of(fewer)
        for _ in range(6):
            request = random_request(rng)
            if decide(less, request, book) is Decision.ALLOW:
                assert decide(whole, request, book) is Decision.ALLOW, (seed, fewer, request)


def test_asking_for_more_never_allows_more() -> None:
    """A transaction with one operation more is allowed only if it was without it."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)

    for _ in range(2_000):
        grants, book = _grants_of(_permissions(rng)), LeaseBook.drawn(rng)
        request: Any = random_request(rng)
        if not isinstance(request, kv_pb2.TxnRequest):
            continue
        more = kv_pb2.TxnRequest()
        more.CopyFrom(request)
        branch = rng.choice((more.success, more.failure))
        branch.add(request_range=kv_pb2.RangeRequest(key=rng.choice(UNIVERSE)))
        if decide(grants, more, book) is Decision.ALLOW:
            assert decide(grants, request, book) is Decision.ALLOW, (seed, request)


def test_the_order_of_permissions_does_not_matter() -> None:
    """The same permissions in another order, or over other roles, allow the same."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)

    for _ in range(500):
        permissions = _permissions(rng)
        shuffled = rng.sample(permissions, len(permissions))
        book = LeaseBook.drawn(rng)
        one, other = _grants_of(permissions), _grants_of(shuffled)
        for _ in range(6):
            request = random_request(rng)
            assert decide(one, request, book) is decide(other, request, book), (seed, request)


def test_intervals_cover_what_their_keys_cover() -> None:
    """A span is covered if and only if each of its keys is, whatever it was merged from."""
    rng = random.Random(random.randrange(1 << 32))

    for _ in range(3_000):
        permissions = [random_permission(rng) for _ in range(rng.randrange(5))]
        held = Intervals(span_of(each.key, each.range_end) for each in permissions)
        keys = {key for key in UNIVERSE if held.cover_key(key)}
        asked = random_permission(rng)
        span = span_of(asked.key, asked.range_end)
        wanted = {key for key in UNIVERSE if span.holds(key)} or {span.start}
        assert held.cover(span) is (wanted <= keys), (permissions, asked)
