"""Grants against sets of single keys, and what roles compile to."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from kvsecure.access.grants import EVERYTHING, NOTHING, Grants, Intervals
from kvsecure.core.accounts import ROOT, Accounts, Tenant
from kvsecure.model.ids import DEFAULT_TENANT, TenantId
from kvsecure.model.keys import FROM_KEY, Span, prefix_end, span_of
from kvsecure.proto import authstore_pb2

# Every key of at most three letters; an interval over this alphabet ends between two of them.
_LETTERS = (b"\0", b"a", b"b", b"\xff")
_UNIVERSE = sorted(b"".join(letters) for n in range(4) for letters in product(_LETTERS, repeat=n))
_SMALL = st.sampled_from([key for key in _UNIVERSE if len(key) < 3])
_ENDS = st.one_of(st.just(b""), st.just(FROM_KEY), _SMALL)
_SPANS = st.builds(span_of, _SMALL, _ENDS)
_Type = authstore_pb2.Permission


def _meant(key: bytes, range_end: bytes) -> set[bytes]:
    if not range_end:
        return {key}
    if range_end == b"\0":
        return {each for each in _UNIVERSE if each >= key}
    return {each for each in _UNIVERSE if key <= each < range_end}


def _keys_of(spans: list[Span]) -> set[bytes]:
    return {key for key in _UNIVERSE if any(span.holds(key) for span in spans)}


@given(spans=st.lists(_SPANS, max_size=6))
def test_intervals_cover_the_keys_of_their_spans(spans: list[Span]) -> None:
    """A key is covered if it lies in one of the spans, and only then."""
    intervals = Intervals(spans)

    covered = {key for key in _UNIVERSE if intervals.cover_key(key)}

    assert covered == _keys_of(spans)


@settings(max_examples=300)
@given(spans=st.lists(_SPANS, max_size=6), asked=_SPANS)
def test_intervals_cover_spans_whose_every_key_they_cover(spans: list[Span], asked: Span) -> None:
    """A span is covered if all of it lies in the union, adjacent and overlapping pieces merged."""
    intervals = Intervals(spans)

    covered = intervals.cover(asked)

    if asked.empty:
        assert covered == intervals.cover_key(asked.start)
        return
    if covered:
        assert _keys_of([asked]) <= _keys_of(spans)
    if asked.end is None and covered:
        assert any(span.end is None for span in spans)
    if not covered:
        # Whatever is not covered has a hole; it may be a key of any length.
        assert _hole(spans, asked)


def _hole(spans: list[Span], asked: Span) -> bool:
    """Walk from the start of the span to its end, each time as far as any other span reaches."""
    at = asked.start
    while asked.end is None or at < asked.end:
        reaching = [span for span in spans if span.holds(at)]
        if not reaching:
            return True
        if any(span.end is None for span in reaching):
            return False
        furthest = max(span.end for span in reaching if span.end is not None)
        at = furthest
    return False


@given(spans=st.lists(_SPANS, max_size=6))
def test_intervals_are_disjoint_and_not_adjacent(spans: list[Span]) -> None:
    """Whatever comes in, what is kept is sorted and has a gap between any two."""
    intervals = Intervals(spans)
    starts, ends = intervals._starts, intervals._ends

    assert starts == sorted(set(starts))
    for end, start in zip(ends, starts[1:], strict=False):
        assert end is not None
        assert end < start


def test_everything_covers_everything_and_nothing_covers_nothing() -> None:
    """The two constants mean what they say."""
    for span in (Span(b"", None), Span(b"\0", None), Span(b"a", b"b")):
        assert EVERYTHING.cover(span)
        assert not NOTHING.cover(span)
    assert EVERYTHING.cover_key(b"")
    assert not NOTHING.cover_key(b"")


@given(key=_SMALL, range_end=_ENDS)
def test_span_holds_what_the_wire_means(key: bytes, range_end: bytes) -> None:
    """A key and a range end mean one key, everything from it on, or a half-open interval."""
    span = span_of(key, range_end)

    assert {each for each in _UNIVERSE if span.holds(each)} == _meant(key, range_end)


@given(prefix=st.binary(max_size=3), key=st.binary(max_size=5))
def test_prefix_end_spans_the_prefix(prefix: bytes, key: bytes) -> None:
    """From a prefix to its end lies every key that begins with it, and no other."""
    span = span_of(prefix, prefix_end(prefix))

    assert span.holds(key) == key.startswith(prefix)


# --- compiling ----------------------------------------------------------------------------------


def _tenant() -> tuple[Accounts, Tenant]:
    accounts = Accounts()
    accounts.found()
    tenant = accounts.tenant(DEFAULT_TENANT)
    assert tenant is not None
    return accounts, tenant


_PERMISSIONS = st.lists(
    st.tuples(st.sampled_from((_Type.READ, _Type.WRITE, _Type.READWRITE)), _SMALL, _ENDS),
    max_size=4,
)


@settings(max_examples=150)
@given(roles=st.lists(_PERMISSIONS, min_size=1, max_size=3), held=st.sets(st.integers(0, 2)))
def test_grants_are_the_union_of_held_roles(
    roles: list[list[tuple[int, bytes, bytes]]], held: set[int]
) -> None:
    """A user may do what the permissions of its roles allow together, and nothing else."""
    accounts, tenant = _tenant()
    accounts.add_user(tenant, "u", "h", no_password=False)
    reads: set[bytes] = set()
    writes: set[bytes] = set()
    for number, permissions in enumerate(roles):
        accounts.add_role(tenant, f"r{number}")
        # The last one on the same range counts.
        given_last = {(key, end): kind for kind, key, end in permissions}
        for kind, key, end in permissions:
            permission = _Type(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]  # an enum
            accounts.grant_permission(tenant, f"r{number}", permission)
        if number in held:
            accounts.grant_role(tenant, "u", f"r{number}")
            for (key, end), kind in given_last.items():
                if kind in (_Type.READ, _Type.READWRITE):
                    reads |= _meant(key, end)
                if kind in (_Type.WRITE, _Type.READWRITE):
                    writes |= _meant(key, end)

    grants = tenant.grants_of("u")

    assert grants is not None
    assert {key for key in _UNIVERSE if grants.read.cover_key(key)} == reads
    assert {key for key in _UNIVERSE if grants.write.cover_key(key)} == writes
    assert not grants.admin
    assert not grants.cluster_admin


def _granted(tenant: Tenant, user: str) -> Grants:
    grants = tenant.grants_of(user)
    assert grants is not None
    return grants


def test_grants_follow_every_change() -> None:
    """What was compiled is compiled again after each change of users, roles and permissions."""
    accounts, tenant = _tenant()
    accounts.add_user(tenant, "u", "h", no_password=False)
    accounts.add_role(tenant, "r")
    seen = [_granted(tenant, "u").read.cover_key(b"k")]
    accounts.grant_role(tenant, "u", "r")
    seen.append(_granted(tenant, "u").read.cover_key(b"k"))
    accounts.grant_permission(tenant, "r", _Type(permType=_Type.READ, key=b"k"))
    seen.append(_granted(tenant, "u").read.cover_key(b"k"))
    accounts.grant_permission(tenant, "r", _Type(permType=_Type.WRITE, key=b"k"))
    seen.append(_granted(tenant, "u").read.cover_key(b"k"))
    accounts.grant_permission(tenant, "r", _Type(permType=_Type.READWRITE, key=b"k"))
    seen.append(_granted(tenant, "u").read.cover_key(b"k"))
    accounts.revoke_permission(tenant, "r", b"k", b"")
    seen.append(_granted(tenant, "u").read.cover_key(b"k"))
    accounts.delete_user(tenant, "u")

    assert seen == [False, False, True, False, True, False]
    assert tenant.grants_of("u") is None


def test_root_of_a_named_tenant_is_not_root_of_the_cluster() -> None:
    """Whoever has the role root may do all in its tenant; cluster rights are the default's."""
    accounts, default = _tenant()
    named = accounts.add_tenant("x")
    for tenant in (default, named):
        accounts.add_user(tenant, "u", "h", no_password=False)
        accounts.grant_role(tenant, "u", ROOT)

    assert _granted(default, "u").cluster_admin
    assert _granted(named, "u").admin
    assert not _granted(named, "u").cluster_admin
    assert named.id == TenantId(16)
    assert not named.open_grants().cluster_admin
