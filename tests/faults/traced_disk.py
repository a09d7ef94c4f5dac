"""A real disk under a directory, of which every step is told, and that fails where it is told to.

    TracedDisk     a `Disk`
    Trace          what was told, in order, by numbers instead of names; with marks in it
    Faults         at which call what happens

Owns: what is done of a call that fails, and finding out what LMDB wrote, which asks nobody.
Never: decides what a crash leaves; `disk_model` does.
Follows: LMDB's order in one commit, as `test_faults_lmdb.py` finds it in its system calls: pages,
    sync, the page that says which ones count, sync.
"""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from faults.disk_model import (
    ROOT,
    Create,
    Image,
    Lost,
    Rename,
    Resize,
    Step,
    Sync,
    Unlink,
    Write,
)

__all__ = ["Fault", "Faults", "Killed", "Told", "Trace", "TracedDisk"]

_PAGE_BYTES: Final = 4_096
_META_PAGES: Final = 2
_LMDB: Final = "data.mdb"


class Killed(KeyboardInterrupt):
    """The process is killed here; an event loop lets nothing but this through."""


class Fault(Enum):
    """What happens at a call."""

    KILL = auto()
    # It fails; of a write nothing goes, of a sync what is not durable is forgotten.
    BROKEN = auto()
    FULL = auto()
    # A write goes in part.
    SHORT = auto()


Faults = Mapping[int, Fault]


class Told(NamedTuple):
    """A step, by names and by the tokens that open files were given."""

    kind: str
    # A token or a path.
    what: "str | int"
    rest: tuple[Any, ...] = ()


@final
@dataclass
class Trace:
    """Steps by numbers, and marks between them."""

    root: Path
    steps: list[Step] = field(default_factory=list)
    # Behind how many steps something was said.
    marks: list[tuple[int, Any]] = field(default_factory=list)
    # How many calls there were; a fault is at one of them.
    calls: int = 0
    _nodes: dict[str, int] = field(default_factory=lambda: {"": ROOT})
    _tokens: dict[int, int] = field(default_factory=dict)
    _count: int = ROOT

    def adopt(self, image: Image, place: str = "") -> None:
        """Begin with what a crash has left, all of it durable."""
        for name, content in image.items():
            path = f"{place}/{name}" if place else name
            is_directory = isinstance(content, dict)
            self.take(Told("create", path, (is_directory,)))
            if isinstance(content, dict):
                self.adopt(content, path)
            else:
                self.take(Told("write", path, (0, content)))
            self.take(Told("sync", path))
        self.take(Told("sync", place))

    def know(self, root: Path) -> None:
        """Begin with what is under a directory."""
        for path in sorted(root.rglob("*")):
            if path.name != "LOCK":
                self.take(Told("create", str(path.relative_to(root)), (path.is_dir(),)))

    def mark(self, said: Any) -> None:
        """Take note that something is said here."""
        self.marks.append((len(self.steps), said))

    def take(self, told: Told) -> None:
        """Take a step."""
        kind, what, rest = told
        match kind:
            case "open":
                self._tokens[rest[0]] = self._nodes[str(what)]
            case "create":
                self._count += 1
                self._nodes[str(what)] = self._count
                self._step(Create(*self._place(str(what)), self._count, rest[0]))
            case "rename":
                self._rename(str(what), rest[0])
            case "unlink":
                node = self._nodes.pop(str(what))
                self._step(Unlink(*self._place(str(what)), node))
            case "write":
                self._step(Write(self._node(what), *rest))
            case "resize":
                self._step(Resize(self._node(what), *rest))
            case "sync" if isinstance(what, str) or what in self._tokens:
                self._step(Sync(self._node(what)))
            case "lost" if what in self._tokens:
                self._step(Lost(self._node(what)))

    def _step(self, step: Step) -> None:
        self.steps.append(step)

    def _rename(self, old: str, new: str) -> None:
        node = self._nodes.pop(old)
        for name in [name for name in self._nodes if name.startswith(old + "/")]:
            # What is in a directory goes with it.
            self._nodes[new + name[len(old) :]] = self._nodes.pop(name)
        self._nodes[new] = node
        self._step(Rename(*self._place(old), *self._place(new), node))

    def _place(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self._nodes[parent], name

    def _node(self, what: str | int) -> int:
        return self._tokens[what] if isinstance(what, int) else self._nodes[what]


@final
class TracedDisk:
    """The operating system's disk, with somebody who listens; see `Disk`."""

    def __init__(
        self,
        root: Path,
        tell: Callable[[Told], None],
        next_call: Callable[[], int],
        faults: Faults,
        *,
        has_tables: bool = False,
        tables: str = "tables",
    ) -> None:
        """Listen to everything under a directory.

        Args:
            root: The directory.
            tell: Told of each step.
            next_call: Counts calls.
            faults: What happens at which of them.
            has_tables: Whether LMDB writes in this process.
            tables: The directory in which it does.
        """
        self._has_tables = has_tables
        self._tables = tables
        self._root = root
        self._tell = tell
        self._next_call = next_call
        self._faults = faults
        self._lock = threading.RLock()
        self._open: dict[int, int] = {}
        self._token_count = 0
        # Descriptors that have still to be told of a sync that failed.
        self._owed: set[int] = set()
        self.is_killed = False
        # What is known of files that LMDB writes, by inode.
        self._seen: dict[int, bytes] = {}

    # --- Disk -----------------------------------------------------------------------------------

    def open(self, path: Path, flags: int) -> int:
        """Open a file; one that is made is told of."""
        with self._lock:
            # What LMDB has committed comes before whatever is done with the file now.
            self.observe()
            is_new = bool(flags & os.O_CREAT) and not path.exists()
            if flags & os.O_CREAT:
                self._call(takes_room=is_new)
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
            inode = os.fstat(descriptor).st_ino
            if is_new or (path.name == _LMDB and inode not in self._seen):
                self._say("create", path, False)
            if path.name == _LMDB:
                self._seen.setdefault(inode, b"")
            self._token_count += 1
            token = (os.getpid() << 32) + self._token_count
            self._open[descriptor] = token
            if path == self._root or self._root in path.parents:
                self._say("open", path, token)
            if not is_new and flags & os.O_TRUNC:
                self._tell(Told("resize", token, (0,)))
            return descriptor

    def close(self, descriptor: int) -> None:
        """Close it."""
        with self._lock:
            self._open.pop(descriptor, None)
            self._owed.discard(descriptor)
            os.close(descriptor)

    def write(self, descriptor: int, content: bytes | memoryview, /) -> int:
        """Write at the descriptor's place."""
        with self._lock:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR)
            content = self._short(content)
            count = os.write(descriptor, content)
            self._written(descriptor, offset, content[:count])
            return count

    def write_at(self, descriptor: int, content: bytes | memoryview, offset: int, /) -> int:
        """Write at an offset."""
        with self._lock:
            content = self._short(content)
            count = os.pwrite(descriptor, content, offset)
            self._written(descriptor, offset, content[:count])
            return count

    def resize(self, descriptor: int, size_bytes: int) -> None:
        """Cut off or lengthen."""
        with self._lock:
            self._call()
            os.ftruncate(descriptor, size_bytes)
            self._tell(Told("resize", self._open[descriptor], (size_bytes,)))

    def reserve(self, descriptor: int, size_bytes: int) -> None:
        """Make room."""
        with self._lock:
            self._call(takes_room=True)
            os.posix_fallocate(descriptor, 0, size_bytes)
            size = os.fstat(descriptor).st_size
            self._tell(Told("resize", self._open[descriptor], (size,)))

    def sync(self, descriptor: int, /) -> None:
        """Sync a file or directory."""
        with self._lock:
            self.observe(about_to_sync=descriptor)
            try:
                self._call()
            except OSError:
                self._lose(descriptor)
                raise
            if descriptor in self._owed:
                self._owed.discard(descriptor)
                raise OSError(errno.EIO, "it failed before, and this descriptor was not told")
            self._tell(Told("sync", self._open[descriptor]))

    sync_content = sync

    def rename(self, path: Path, to: Path) -> None:
        """Move a name."""
        with self._lock:
            self.observe(within=path.parent)
            self._call()
            self._forget(to)
            path.rename(to)
            self._say("rename", path, self._name(to))

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        with self._lock:
            self.observe(within=path.parent)
            self._call()
            self._forget(path)
            path.unlink()
            self._say("unlink", path)

    def make_directory(self, path: Path) -> None:
        """Make a directory."""
        with self._lock:
            self._call(takes_room=True)
            path.mkdir(mode=0o700)
            self._say("create", path, True)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        with self._lock:
            self._call()
            path.rmdir()
            self._say("unlink", path)

    def free_bytes(self, directory: Path) -> int:
        """Say how much room there is."""
        return shutil.disk_usage(directory).free

    # --- what asks nobody -----------------------------------------------------------------------

    def know(self) -> None:
        """Take what LMDB's files are now for known."""
        for path in self._root.rglob(_LMDB) if self._has_tables else ():
            self._seen[path.stat().st_ino] = path.read_bytes()

    def observe(self, *, within: Path | None = None, about_to_sync: int | None = None) -> None:
        """Find out what LMDB has written by now, and tell it.

        Args:
            within: A directory in which a copy is complete.
            about_to_sync: A descriptor: what was written to its file is not durable yet.
        """
        if not self._has_tables:
            return
        tables = next(self._root.glob(f"**/{self._tables}"), self._root)
        places = {tables / _LMDB, tables / "new" / _LMDB}
        if within is not None:
            places.add(within / _LMDB)
        inode = 0
        if about_to_sync is not None and stat.S_ISREG(os.fstat(about_to_sync).st_mode):
            inode = os.fstat(about_to_sync).st_ino
            places |= {path for path in tables.glob(f"*/{_LMDB}") if path.stat().st_ino == inode}
        with self._lock:
            # A thread that defragments may be exchanging the files.
            for path in places:
                if path.exists():
                    self._compare(path, is_commit=path.stat().st_ino != inode)

    def _compare(self, path: Path, *, is_commit: bool) -> None:
        number = path.stat().st_ino
        now, before = path.read_bytes(), self._seen.get(number)
        if now == before:
            return
        if before is None:
            self._say("create", path, False)
            before = b""
        self._seen[number] = now
        name = self._name(path)
        pages = [
            offset
            for offset in range(0, len(now), _PAGE_BYTES)
            if now[offset : offset + _PAGE_BYTES] != before[offset : offset + _PAGE_BYTES]
        ]
        for offset in pages:
            if offset >= _META_PAGES * _PAGE_BYTES or not before:
                self._tell(Told("write", name, (offset, now[offset : offset + _PAGE_BYTES])))
        if not is_commit:
            return
        self._tell(Told("sync", name))
        for offset in pages:
            if offset < _META_PAGES * _PAGE_BYTES and before:
                self._tell(Told("write", name, (offset, now[offset : offset + 512])))
        self._tell(Told("sync", name))

    # --- within ---------------------------------------------------------------------------------

    def _forget(self, path: Path) -> None:
        """Forget what a name that goes away stood for: its number may come again."""
        if path.exists():
            self._seen.pop(path.stat().st_ino, None)

    def _call(self, *, takes_room: bool = False) -> Fault | None:
        """Count a call, and let it fail if it is to."""
        if self.is_killed:
            raise Killed
        fault = self._faults.get(self._next_call())
        if fault is Fault.KILL:
            self.is_killed = True
            raise Killed
        if fault is Fault.BROKEN:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if fault is Fault.FULL and takes_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fault

    def _short(self, content: bytes | memoryview) -> bytes:
        fault = self._call(takes_room=True)
        return bytes(content[: (len(content) + 1) // 2] if fault is Fault.SHORT else content)

    def _written(self, descriptor: int, offset: int, content: bytes) -> None:
        self._tell(Told("write", self._open[descriptor], (offset, content)))

    def _lose(self, descriptor: int) -> None:
        token = self._open[descriptor]
        self._tell(Told("lost", token))
        self._owed.discard(descriptor)
        status = os.fstat(descriptor)
        for other in self._open:
            if other != descriptor and os.path.sameopenfile(other, descriptor):
                self._owed.add(other)
        # A directory's names are kept by the file system's journal, or it is read-only by now.
        assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)

    def _say(self, kind: str, path: Path, *rest: Any) -> None:
        self._tell(Told(kind, self._name(path), rest))

    def _name(self, path: Path) -> str:
        name = str(path.relative_to(self._root))
        return "" if name == "." else name
