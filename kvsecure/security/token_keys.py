"""The keys of tokens: a member signs with its own, and every member knows those of all.

Owns: finding the key that a token names, among the member's own and those of the state.
Never: takes a key from anywhere else; a member that was removed has none.
Follows: docs/adr/0023-token-keys-of-members.md.
"""

from typing import final

from kvsecure.core.members import Members
from kvsecure.crypto.signing import VerifyingKey

__all__ = ["TokenKeys"]


@final
class TokenKeys:
    """Whose tokens are good, as of now."""

    __slots__ = ("_by_id", "_members", "_own", "_revision")

    def __init__(self, own: VerifyingKey, members: Members) -> None:
        """Begin to know the keys of members.

        Args:
            own: This member's, which is good whatever the state says: before the state has it, and
                where the cluster is not there to put it in.
            members: Of the state.
        """
        self._own = own
        self._members = members
        # As of this revision of the members.
        self._revision = -1
        self._by_id: dict[str, VerifyingKey] = {}

    def find(self, key_id: str) -> VerifyingKey | None:
        """Return the key of an id, or None if it is no key of a member's."""
        if key_id == self._own.key_id:
            return self._own
        if self._revision != self._members.revision:
            keys = map(VerifyingKey, self._members.keys.values())
            self._by_id = {key.key_id: key for key in keys}
            self._revision = self._members.revision
        return self._by_id.get(key_id)
