"""The import law: who may know whom.

Owns: the table of rooms, and of libraries that are kept in one room.
Never: excuses an import for standing in a function or behind TYPE_CHECKING.
"""

import ast
from collections.abc import Iterator
from typing import Final

from house.source import Offence, Source

__all__ = [
    "ENTRY_POINTS",
    "LAW",
    "LIBRARIES",
    "imported",
    "libraries_in_their_rooms",
    "rooms_know_their_place",
]

# What a room may import of kvsecure, besides itself.
LAW: Final[dict[str, frozenset[str]]] = {
    "model": frozenset(),
    "proto": frozenset(),
    "wire": frozenset(),
    # The log has to recognise a secret in order not to print it.
    "telemetry": frozenset({"model.secret"}),
    "crypto": frozenset({"model"}),
    "storage": frozenset({"model", "crypto"}),
    "access": frozenset({"model", "proto"}),
    # The engine counts how long the disk takes; it hands in the time, and logs nothing.
    "core": frozenset({"model", "proto", "access", "storage", "crypto", "telemetry.histogram"}),
    # The audit trail is written in the segments that the log is written in, and knows no more.
    "security": frozenset({"model", "proto", "access", "core", "crypto", "telemetry"})
    | {"storage.carried", "storage.files", "storage.segment", "storage.segments"},
    "api": frozenset({"model", "proto", "access", "security"}),
    # Names are asked for at either end.
    "lookup": frozenset({"model"}),
    "pki": frozenset({"model", "crypto", "bundled"}),
    "client": frozenset({"model", "proto", "pki"}),
    # A sandbox needs a key-encryption key, and is where a newcomer gets one.
    "cli": frozenset({"model", "proto", "client", "pki", "bundled", "lookup", "crypto.keyring"}),
    "server": frozenset(
        {"model", "proto", "wire", "telemetry", "crypto", "storage", "access", "core", "security"}
        | {"api", "pki", "bundled", "lookup"}
    ),
    "bundled": frozenset(),
    "__main__": frozenset({"cli"}),
}
# Where the command line starts a server; nothing else of it is known to the command line.
ENTRY_POINTS: Final = frozenset(
    {"server.lifecycle.run", "server.audit_verify", "server.backup_restore"}
)

# A library of consequence, and the rooms or modules that may use it.
LIBRARIES: Final[dict[str, frozenset[str]]] = {
    "cryptography": frozenset({"crypto", "pki"}),
    "argon2": frozenset({"crypto", "pki"}),
    "bcrypt": frozenset({"crypto"}),
    "passlib": frozenset({"crypto", "pki"}),
    "jwt": frozenset({"security.tokens"}),
    "lmdb": frozenset({"storage"}),
    # A member is a client too: of its KMS plugin, and of the store where first members meet.
    "grpc": frozenset({"client", "cli", "server.kms", "server.discovery"}),
    "dns": frozenset({"lookup", "server.discovery", "cli.discovery"}),
    "uvloop": frozenset({"server"}),
    "hpack": frozenset({"wire"}),
    "h11": frozenset({"wire", "server"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "structlog": frozenset({"telemetry"}),
    "prometheus_client": frozenset({"telemetry"}),
}


def imported(source: Source) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and the line of everything a file imports, wherever in the file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                yield f"{origin}.{alias.name}", node.lineno


def _is_within(name: str, rooms: frozenset[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def rooms_know_their_place(source: Source) -> Iterator[Offence]:
    """Report imports of kvsecure that the law does not allow."""
    own = source.module.removeprefix("kvsecure.")
    room = own.partition(".")[0]
    if source.module == "kvsecure":
        room, allowed = "kvsecure", frozenset[str]()
    elif room in LAW:
        allowed = LAW[room] | {room}
    else:
        yield Offence(source.path, 1, f"{room} is a room without a law")
        return
    if room == "cli":
        allowed |= ENTRY_POINTS
    for name, line in imported(source):
        if name.startswith("."):
            yield Offence(source.path, line, "relative import; say the whole name")
        elif name.startswith("kvsecure.") and name != "kvsecure.__version__":
            target = name.removeprefix("kvsecure.")
            if not _is_within(target, allowed):
                yield Offence(source.path, line, f"{room} must not know {target}")


def libraries_in_their_rooms(source: Source) -> Iterator[Offence]:
    """Report libraries used outside the room they are kept in."""
    own = source.module.removeprefix("kvsecure.")
    for name, line in imported(source):
        library = name.partition(".")[0]
        rooms = LIBRARIES.get(library)
        if rooms is not None and not _is_within(own, rooms):
            yield Offence(source.path, line, f"{library} is kept in {', '.join(sorted(rooms))}")
