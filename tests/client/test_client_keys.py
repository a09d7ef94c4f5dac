"""The choice of keys: what each way of naming them covers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.client.keys import Keys
from kvsecure.model.keys import span_of

__all__: list[str] = []

_SOME_KEYS = st.binary(min_size=1, max_size=4)


@given(prefix=st.binary(max_size=3), key=_SOME_KEYS)
def test_prefix_covers_exactly_the_keys_that_begin_so(prefix: bytes, key: bytes) -> None:
    """A prefix chooses a key exactly if the key begins with it, also at 0xff and when empty."""
    assert span_of(*Keys.prefix(prefix)).holds(key) == key.startswith(prefix)


@given(start=st.binary(max_size=3), key=_SOME_KEYS)
def test_from_key_covers_exactly_the_keys_not_before(start: bytes, key: bytes) -> None:
    """An open range chooses a key exactly if the key is not before its start."""
    assert span_of(*Keys.from_key(start)).holds(key) == (key >= start)


@given(start=_SOME_KEYS, end=st.binary(min_size=2, max_size=4), key=_SOME_KEYS)
def test_between_covers_the_half_open_interval(start: bytes, end: bytes, key: bytes) -> None:
    """A range with an end chooses a key exactly if it lies in the half-open interval."""
    assert span_of(*Keys.between(start, end)).holds(key) == (start <= key < end)


@given(chosen=_SOME_KEYS, key=_SOME_KEYS)
def test_one_covers_one(chosen: bytes, key: bytes) -> None:
    """A single key chooses itself and nothing else."""
    assert span_of(*Keys.one(chosen)).holds(key) == (key == chosen)


@given(_SOME_KEYS)
def test_every_covers_every_key(key: bytes) -> None:
    """All keys means all keys."""
    assert span_of(*Keys.every()).holds(key)


@pytest.mark.parametrize("keys", [Keys.prefix(b"a"), Keys.from_key(b"a"), Keys.every()])
def test_only_one_is_one(keys: Keys) -> None:
    """A range never counts as a single key."""
    assert not keys.is_one
    assert Keys.one(b"a").is_one
