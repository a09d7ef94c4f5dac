"""Hellos: what two members tell each other before anything else.

    hello     magic, lowest and highest version, purpose, cluster, sender, recipient, name
    welcome   version, cluster, member, name
    refusal   one byte that says why

Owns: their bytes, and agreeing on a version.
Never: judges who is who; the roster does.
Keeps: the layout of a hello never changes, so that every version can refuse every other one and be
    understood; later versions add behind the name, which is skipped here; any bytes are one of
    these or `Malformed`.
"""

import struct
from enum import Enum, IntEnum
from typing import Any, Final, NamedTuple, final

from kvsecure.server.peers.framing import Malformed

__all__ = ["VERSIONS", "Hello", "Purpose", "Refusal", "Versions", "Welcome", "agree", "refusal_of"]

_MAGIC: Final = b"kvsp"
_HELLO: Final = struct.Struct(">4sHHBQQQB")
_WELCOME: Final = struct.Struct(">HQQB")


class Versions(NamedTuple):
    """The versions of this protocol that a member speaks, lowest and highest."""

    lowest: int
    highest: int


VERSIONS: Final = Versions(1, 1)


class Purpose(IntEnum):
    """What a connection is for."""

    MESSAGES = 1
    BULK = 2
    # To be told who the members are: the only one with zeros for all ids.
    MEMBERS = 3


class Refusal(Enum):
    """Why a connection of a member is refused: the byte that says so, and the words."""

    OTHER = (0, "for a reason that this version does not know")
    MALFORMED = (1, "malformed frames")
    VERSION = (2, "no version in common")
    CLUSTER = (3, "another cluster")
    RECIPIENT = (4, "meant for another member")
    STRANGER = (5, "no member of the cluster")
    REMOVED = (6, "removed from the cluster")
    NAME = (7, "not the member that its certificate names")
    CERTIFICATE = (8, "no certificate of a member")
    PROTOCOL = (9, "another protocol")
    PLAINTEXT = (10, "plaintext from another machine")
    LATE = (11, "no hello in time")
    FAILED = (12, "failed at the receiver")
    UNREADY = (13, "does not know the members itself yet")

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        self.words = words


_REFUSALS: Final = {refusal.code: refusal for refusal in Refusal}


@final
class Hello(NamedTuple):
    """What whoever has connected says first."""

    versions: Versions
    purpose: Purpose
    cluster_id: int
    sender: int
    recipient: int
    name: str

    def encode(self) -> bytes:
        """Return its bytes."""
        name = self.name.encode()
        head = _HELLO.pack(
            _MAGIC,
            *self.versions,
            self.purpose,
            self.cluster_id,
            self.sender,
            self.recipient,
            len(name),
        )
        return head + name

    @classmethod
    def decode(cls, content: bytes) -> "Hello":
        """Return what bytes say.

        Raises:
            Malformed: They are no hello.
        """
        magic, lowest, highest, purpose, cluster, sender, recipient, length = _head(_HELLO, content)
        if magic != _MAGIC or lowest > highest:
            raise Malformed("what came first is no hello")
        try:
            meant = Purpose(purpose)
        except ValueError:
            raise Malformed("a hello has a purpose that is not known") from None
        name = _name(content, _HELLO.size, length)
        return cls(Versions(lowest, highest), meant, cluster, sender, recipient, name)


@final
class Welcome(NamedTuple):
    """What a member answers to a hello that it accepts."""

    version: int
    cluster_id: int
    member_id: int
    name: str

    def encode(self) -> bytes:
        """Return its bytes."""
        name = self.name.encode()
        return _WELCOME.pack(self.version, self.cluster_id, self.member_id, len(name)) + name

    @classmethod
    def decode(cls, content: bytes) -> "Welcome":
        """Return what bytes say.

        Raises:
            Malformed: They are no welcome.
        """
        version, cluster, member, length = _head(_WELCOME, content)
        return cls(version, cluster, member, _name(content, _WELCOME.size, length))


def agree(own: Versions, theirs: Versions) -> int | None:
    """Return the highest version that both speak, or None if there is none."""
    highest = min(own.highest, theirs.highest)
    return highest if highest >= max(own.lowest, theirs.lowest) else None


def refusal_of(content: bytes) -> Refusal:
    """Return what the payload of a refusal says.

    Raises:
        Malformed: It is empty.
    """
    if not content:
        raise Malformed("a refusal is empty")
    return _REFUSALS.get(content[0], Refusal.OTHER)


def _head(form: struct.Struct, content: bytes) -> tuple[Any, ...]:
    if len(content) < form.size:
        raise Malformed("a greeting is cut short")
    return form.unpack_from(content)


def _name(content: bytes, at: int, length: int) -> str:
    name = content[at : at + length]
    if len(name) < length:
        raise Malformed("a name is cut short")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Malformed("a name is not text") from None
