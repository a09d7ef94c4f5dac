"""Tables that take the place of others: another member's state, between two lives of this one.

    tables.incoming     being written; of no use to anybody until it has another name
    tables.installed    whole and durable: at the next start they are the tables
    tables.replaced     what they take the place of, on its way out

Owns: these names, and the order of the steps from one to the next.
Never: looks into tables.
Follows: the rename protocol of crash-safe writes.
Keeps: after a crash between any two steps the next start has the old tables or the new ones, whole;
    once the new ones were installed durably, it has those.
"""

import contextlib
from pathlib import Path
from typing import Final

from kvsecure.storage.disk import SYSTEM_DISK, Disk
from kvsecure.storage.files import remove_tree, sync_directory

__all__ = ["discard_incoming", "incoming_of", "install", "take_effect"]

_TABLES: Final = "tables"
_INCOMING: Final = "tables.incoming"
_INSTALLED: Final = "tables.installed"
_REPLACED: Final = "tables.replaced"


def incoming_of(directory: Path) -> Path:
    """Return where tables are written that may be installed in a data directory."""
    return directory / _INCOMING


def discard_incoming(directory: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Remove what was written and not installed.

    Raises:
        OSError: Some of it is left, of no use to anybody.
    """
    remove_tree(directory / _INCOMING, disk)


def install(directory: Path, disk: Disk = SYSTEM_DISK) -> None:
    """Decide that the incoming tables take effect at the next start.

    They must be durable, names included. From here on the present tables must not go further: what
    is in the log for them would be purged. It is not durable before the directory is synced.

    Raises:
        OSError: They will not.
    """
    disk.rename(directory / _INCOMING, directory / _INSTALLED)


def take_effect(directory: Path, disk: Disk = SYSTEM_DISK) -> bool:
    """Let installed tables take the place of those that are there, and remove what is left over.

    To be called at every start, before the tables are opened.

    Returns:
        Whether there were any.

    Raises:
        OSError: It is not done, and can be begun again.
    """
    tables, installed = directory / _TABLES, directory / _INSTALLED
    is_installed = installed.is_dir()
    if is_installed:
        if tables.is_dir():
            remove_tree(directory / _REPLACED, disk)
            disk.rename(tables, directory / _REPLACED)
            # One name after the other: what a crash leaves, a start has seen.
            sync_directory(directory, disk)
        disk.rename(installed, tables)
    # Whoever renamed them before may have been killed before that was durable.
    sync_directory(directory, disk)
    for left in (_REPLACED, _INCOMING):
        # What stays takes room and does no harm; the next start tries again.
        with contextlib.suppress(OSError):
            remove_tree(directory / left, disk)
    return is_installed
