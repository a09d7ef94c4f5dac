"""A disk that remembers what is durable apart from what is only in the page cache.

    DiskModel      told of every step; says what a crash may leave behind
    Image          what a crash has left: names, each with content or another image

Owns: which bytes and names may be lost, kept or torn between two syncs.
Never: touches a file, but to write an image down; never knows what one means.
Keeps: what was synced is there; of what was not, any sectors and any names. A size may be there
    without content and content without its size; a name may be there without what it was before.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, final

__all__ = [
    "ROOT",
    "Create",
    "DiskModel",
    "Image",
    "Lost",
    "Rename",
    "Resize",
    "Step",
    "Sync",
    "Unlink",
    "Write",
    "write_down",
]

_SECTOR_BYTES: Final = 512
# The directory that all is in; it is durable from the beginning.
ROOT: Final = 0

Image = dict[str, "bytes | Image"]


class Create(NamedTuple):
    """A file or directory is made."""

    parent: int
    name: str
    node: int
    is_directory: bool


class Write(NamedTuple):
    """Bytes are written."""

    node: int
    offset: int
    content: bytes


class Resize(NamedTuple):
    """A file is cut off or lengthened."""

    node: int
    size: int


class Sync(NamedTuple):
    """A file or directory is made durable."""

    node: int


class Lost(NamedTuple):
    """A sync failed: what it was to make durable is taken for clean, and may never be."""

    node: int


class Rename(NamedTuple):
    """A name is moved."""

    parent: int
    name: str
    to_parent: int
    to_name: str
    node: int


class Unlink(NamedTuple):
    """A name is taken away."""

    parent: int
    name: str
    node: int


Step = Create | Write | Resize | Sync | Lost | Rename | Unlink


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)
    # What was done since the last sync.
    pending: list[Write | Resize] = field(default_factory=list)

    def left(self, chance: random.Random) -> bytes:
        """Return what a crash leaves."""
        return bytes(_some_of(self.content, self.pending, chance))


@dataclass
class _Directory:
    names: dict[str, int] = field(default_factory=dict)
    pending: list[Create | Rename | Unlink] = field(default_factory=list)


@final
class DiskModel:
    """All files and directories under one root."""

    def __init__(self, *, chance: random.Random, lies: float = 0.0) -> None:
        """Make an empty disk.

        Args:
            chance: Decides what is lost where a sync fails or lies.
            lies: Of how many syncs nothing is kept, from 0 to 1.
        """
        self._nodes: dict[int, _File | _Directory] = {ROOT: _Directory()}
        self._chance = chance
        self._lies = lies
        self.lie_count = 0

    def take(self, step: Step) -> None:
        """Carry out a step."""
        match step:
            case Create(parent=parent, node=node, is_directory=is_directory):
                self._nodes[node] = _Directory() if is_directory else _File()
                self._directory(parent).pending.append(step)
            case Rename(parent=parent, to_parent=to_parent):
                self._directory(parent).pending.append(step)
                if to_parent != parent:
                    self._directory(to_parent).pending.append(step)
            case Unlink(parent=parent):
                self._directory(parent).pending.append(step)
            case Write(node=node) | Resize(node=node):
                self._file(node).pending.append(step)
            case Sync(node=node):
                if self._chance.random() < self._lies:
                    self.lie_count += 1
                else:
                    self._settle(node)
            case Lost(node=node):
                self._lose(node)

    def crash(self, chance: random.Random) -> Image:
        """Return what may be left if the power goes now."""
        return self._image(ROOT, chance)

    def _settle(self, number: int) -> None:
        node = self._nodes[number]
        if isinstance(node, _File):
            for step in node.pending:
                _carry_out(node.content, step)
        else:
            for step in node.pending:
                _carry_names(node.names, step, number)
        node.pending.clear()

    def _lose(self, number: int) -> None:
        node = self._nodes[number]
        if isinstance(node, _File):
            node.content = _some_of(node.content, node.pending, self._chance)
            node.pending.clear()

    def _image(self, number: int, chance: random.Random) -> Image:
        directory = self._directory(number)
        names = dict(directory.names)
        kept = _share(chance)
        for step in directory.pending:
            if chance.random() < kept:
                _carry_names(names, step, number)
        image: Image = {}
        for name, each in names.items():
            node = self._nodes[each]
            is_file = isinstance(node, _File)
            image[name] = node.left(chance) if is_file else self._image(each, chance)
        return image

    def _file(self, node: int) -> _File:
        found = self._nodes[node]
        assert isinstance(found, _File)
        return found

    def _directory(self, node: int) -> _Directory:
        found = self._nodes[node]
        assert isinstance(found, _Directory)
        return found


def write_down(image: Image, path: Path) -> None:
    """Make the files of an image under a directory that is not there."""
    path.mkdir(mode=0o700)
    for name, content in image.items():
        if isinstance(content, dict):
            write_down(content, path / name)
        else:
            (path / name).touch(mode=0o600)
            (path / name).write_bytes(content)


def _share(chance: random.Random) -> float:
    """Draw how much of what was not synced is kept: mostly nothing, everything or half of it."""
    return chance.choice((0.0, 1.0, 0.5, chance.random()))


def _some_of(durable: bytearray, pending: list[Write | Resize], chance: random.Random) -> bytearray:
    """Return a file's content with some of the sectors that were written, and some size."""
    content = bytearray(durable)
    # Of a sector that was written several times any of its versions may be there.
    written = Counter(
        offset // _SECTOR_BYTES
        for step in pending
        if isinstance(step, Write)
        for offset, _ in _sectors(step)
    )
    kept = _share(chance)
    versions = {
        sector: chance.choice((count, chance.randint(1, count))) if chance.random() < kept else 0
        for sector, count in written.items()
    }
    # Sizes change in order; contents do not.
    sized = chance.choice((0, len(pending), chance.randint(0, len(pending))))
    size = len(content)
    for number, step in enumerate(pending):
        if isinstance(step, Resize):
            if number < sized:
                size = step.size
                _resize(content, size)
            continue
        if number < sized:
            size = max(size, step.offset + len(step.content))
        for offset, piece in _sectors(step):
            versions[offset // _SECTOR_BYTES] -= 1
            if versions[offset // _SECTOR_BYTES] >= 0:
                _put(content, offset, piece)
    _resize(content, size)
    return content


def _sectors(step: Write) -> list[tuple[int, bytes]]:
    """Return the parts of a write that are kept or lost together."""
    pieces = []
    start, end = step.offset, step.offset + len(step.content)
    while start < end:
        boundary = min(end, (start // _SECTOR_BYTES + 1) * _SECTOR_BYTES)
        pieces.append((start, step.content[start - step.offset : boundary - step.offset]))
        start = boundary
    return pieces


def _carry_out(content: bytearray, step: Write | Resize) -> None:
    if isinstance(step, Resize):
        _resize(content, step.size)
    else:
        _put(content, step.offset, step.content)


def _put(content: bytearray, offset: int, piece: bytes) -> None:
    if len(content) < offset:
        _resize(content, offset)
    content[offset : offset + len(piece)] = piece


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _carry_names(names: dict[str, int], step: Create | Rename | Unlink, number: int) -> None:
    match step:
        case Create(name=name, node=node):
            names[name] = node
        case Unlink(name=name, node=node):
            if names.get(name) == node:
                del names[name]
        case Rename(parent=parent, name=name, to_parent=to_parent, to_name=to_name, node=node):
            if parent == number and names.get(name) == node:
                del names[name]
            if to_parent == number:
                names[to_name] = node
