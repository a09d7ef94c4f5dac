"""Which keys a request is about.

Owns: the five ways to name keys, as the pair (key, range_end) of the wire.
Never: looks at what the keys hold.
Follows: etcd's range convention, in `kvsecure.model.keys`.
"""

from typing import NamedTuple, final

from kvsecure.model.keys import FROM_KEY, prefix_end

__all__ = ["Keys"]


@final
class Keys(NamedTuple):
    """A choice of keys; make it with one of the class methods."""

    key: bytes
    range_end: bytes

    @classmethod
    def one(cls, key: bytes) -> "Keys":
        """Choose exactly this key."""
        return cls(key, b"")

    @classmethod
    def prefix(cls, prefix: bytes) -> "Keys":
        """Choose every key that begins so; the empty prefix chooses every key."""
        # The wire has no empty start: the smallest key is a single zero byte.
        return cls(prefix or FROM_KEY, prefix_end(prefix))

    @classmethod
    def from_key(cls, start: bytes) -> "Keys":
        """Choose this key and every key after it."""
        return cls(start or FROM_KEY, FROM_KEY)

    @classmethod
    def between(cls, start: bytes, end: bytes) -> "Keys":
        """Choose the keys from start to end, without end; none when end is not after start."""
        return cls(start or FROM_KEY, end)

    @classmethod
    def every(cls) -> "Keys":
        """Choose every key."""
        return cls(FROM_KEY, FROM_KEY)

    @property
    def is_one(self) -> bool:
        """Whether exactly one key is chosen."""
        return not self.range_end
