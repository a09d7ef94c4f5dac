"""Request heads: header fields decoded and checked.

Owns: what makes a request well-formed (RFC 9113 sections 8.2 and 8.3), and remembering the heads of
    header blocks that decode to the same every time.
Never: knows gRPC; `Head.route` is for whoever routes requests.
Keeps: a block is remembered only while the dynamic table is what it was, because then the same
    bytes mean the same fields (RFC 7541 section 2.3.3).
"""

import re
from typing import Any, Final, final

from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.table import HeaderTable

__all__ = ["CompressionFailed", "Head", "HeadReader", "MalformedHead"]

_REMEMBERED_MAX: Final = 32
# A token in it is several hundred bytes long, and not every client lets the table keep it.
_REMEMBERED_BLOCK_BYTES_MAX: Final = 2_048
# A field may be one byte on the wire, and costs as much to decode and check as any other.
_FIELDS_MAX: Final = 100
# RFC 7541 section 4.2: one to the smallest size in between, and one to the last.
_RESIZES_MAX: Final = 2
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})


@final
class CompressionFailed(Exception):
    """A header block cannot be decoded; the compression state is lost with it."""


@final
class MalformedHead(Exception):
    """A header block was decoded, and is no request."""


@final
class Head:
    """A request's fields."""

    __slots__ = (
        "authority",
        "content_length",
        "fields",
        "method",
        "path",
        "route",
        "scheme",
        "takes_trailers",
    )

    def __init__(
        self,
        *,
        method: bytes,
        scheme: bytes,
        path: bytes,
        authority: bytes,
        fields: list[tuple[bytes, bytes]],
        content_length: int | None,
        takes_trailers: bool = False,
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.path = path
        self.authority = authority
        # Regular fields in the order they came.
        self.fields = fields
        self.content_length = content_length
        # Whether it says `te: trailers`, as every call of gRPC does.
        self.takes_trailers = takes_trailers
        # Whatever the layer above wants to remember with these exact fields.
        self.route: Any = None


@final
class _CountingTable(HeaderTable):
    """The dynamic table, with a count of its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Insert an entry."""
        self.changes += 1
        super().add(name, value)


@final
class HeadReader:
    """Decodes the header blocks of one connection."""

    __slots__ = ("_decoder", "_remembered", "_remembered_at", "_table")

    def __init__(self, list_bytes_max: int) -> None:
        self._decoder = Decoder(max_header_list_size=list_bytes_max)
        self._table = _CountingTable()
        self._decoder.header_table = self._table
        self._remembered: dict[bytes, Head] = {}
        self._remembered_at = 0

    def read(self, block: bytes) -> Head:
        """Return the head that a header block stands for.

        Raises:
            CompressionFailed: It cannot be decoded (a connection error, RFC 9113 section 4.3).
            MalformedHead: It is no request (a stream error, RFC 9113 section 8.1.1).
        """
        if self._table.changes != self._remembered_at:
            # By the request before this one, well-formed or not, or by trailers.
            self._remembered.clear()
            self._remembered_at = self._table.changes
        known = self._remembered.get(block)
        if known is not None:
            return known
        head = _check_request(self._decode(block))
        unchanged = self._table.changes == self._remembered_at
        if unchanged and len(block) <= _REMEMBERED_BLOCK_BYTES_MAX:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[block] = head
        return head

    def read_trailers(self, block: bytes) -> None:
        """Decode the fields behind a request's data, which nothing here needs.

        Raises:
            CompressionFailed: They cannot be decoded.
            MalformedHead: They hold what no trailers hold.
        """
        for name, value in self._decode(block):
            if name.startswith(b":"):
                raise MalformedHead("a pseudo-header field in trailers")
            _check_field(name, value)

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        if block[:1] and block[0] & 0xE0 == 0x20:
            # Entries may go with it.
            self._table.changes += 1
            _check_resizes(block)
        try:
            fields = [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except (HPACKError, UnicodeDecodeError, IndexError):
            # Not in the words of the library, which tell the peer where things are in memory.
            raise CompressionFailed("a header block that cannot be decoded") from None
        if len(fields) > _FIELDS_MAX:
            raise CompressionFailed("too many fields")
        return fields


def _check_resizes(block: bytes) -> None:
    """Refuse a block that changes the table's size over and over again."""
    count = offset = 0
    while offset < len(block) and block[offset] & 0xE0 == 0x20:
        count += 1
        if count > _RESIZES_MAX:
            raise CompressionFailed("too many changes of the table's size")
        is_long = block[offset] & 0x1F == 0x1F
        offset += 1
        while is_long and offset < len(block) and block[offset] & 0x80:
            offset += 1
        offset += is_long


def _check_request(fields: list[tuple[bytes, bytes]]) -> Head:
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[bytes, bytes]] = []
    content_length: int | None = None
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name not in _PSEUDO or name in pseudo:
                raise MalformedHead("a pseudo-header field that is late, unknown or repeated")
            if _BAD_VALUE.search(value):
                raise MalformedHead("a pseudo-header field with forbidden characters")
            pseudo[name] = value
            continue
        _check_field(name, value)
        if name == b"content-length":
            content_length = _length_of(value, content_length)
        regular.append((name, value))
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    scheme = pseudo.get(b":scheme", b"")
    if not method or not path or not scheme:
        raise MalformedHead("a request without method, scheme or path")
    return Head(
        method=method,
        scheme=scheme,
        path=path,
        authority=pseudo.get(b":authority", b""),
        fields=regular,
        content_length=content_length,
        takes_trailers=(b"te", b"trailers") in regular,
    )


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise MalformedHead("a field name with forbidden characters")
    if name in _CONNECTION_FIELDS or (name == b"te" and value != b"trailers"):
        raise MalformedHead("a field that belongs to a connection of HTTP/1.1")
    if _BAD_VALUE.search(value):
        raise MalformedHead("a field value with forbidden characters")


def _length_of(value: bytes, earlier: int | None) -> int:
    if not value.isdigit() or len(value) > 18:
        raise MalformedHead("a content-length that is no number")
    length = int(value)
    if earlier is not None and earlier != length:
        raise MalformedHead("two different content-lengths")
    return length
