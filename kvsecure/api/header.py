"""The header that nearly every answer begins with.

Owns: encoding etcdserverpb.ResponseHeader as field 1 of an answer.
Never: decides which revision it tells; each answer brings its own.
Follows: etcd-surface section 1.2.
"""

from typing import final

from kvsecure.model.ids import ClusterId, MemberId
from kvsecure.proto.encode import varint, varint_field

__all__ = ["HeaderEncoder"]


@final
class HeaderEncoder:
    """Encodes the headers of one member."""

    __slots__ = ("_begin", "_end", "_end_term", "_field", "_revision")

    def __init__(self, cluster: ClusterId, member: MemberId) -> None:
        self._begin = varint_field(b"\x08", cluster) + varint_field(b"\x10", member)
        self._end_term = 0
        self._end = b""
        self._revision = -1
        self._field = b""

    def field(self, revision: int, term: int) -> bytes:
        """Return the header as a field; a revision of 0 is left out."""
        if revision == self._revision and term == self._end_term:
            # Many reads are answered between two writes.
            return self._field
        if term != self._end_term:
            self._end_term = term
            self._end = varint_field(b"\x20", term)
        told = b"\x18" + varint(revision) if revision else b""
        length = len(self._begin) + len(told) + len(self._end)
        self._revision = revision
        # It is never as long as 128 bytes.
        self._field = b"\x0a%c%b%b%b" % (length, self._begin, told, self._end)
        return self._field
