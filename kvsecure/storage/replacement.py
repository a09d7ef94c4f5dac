"""Tables that take the place of others: another member's state, between two lives of this one.

    tables.incoming     being written; of no use to anybody until it has another name
    tables.installed    whole and durable: the next start removes the tables, and these are them

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
    """Let installed tables take the place of those that are there; remove incoming ones.

    To be called at every start, before the tables are opened.

    Returns:
        Whether there were any.

    Raises:
        OSError: It is not done, and can be begun again.
    """
    tables, installed = directory / _TABLES, directory / _INSTALLED
    is_installed = installed.is_dir()
    if is_installed:
        # Whoever gave it this name may have been killed before that was durable. Once it is, the
        # tables may go: whatever a crash leaves of them, the next start begins here again.
        sync_directory(directory, disk)
        remove_tree(tables, disk)
        disk.rename(installed, tables)
    # What stays takes room and does no harm; the next start tries again.
    with contextlib.suppress(OSError):
        discard_incoming(directory, disk)
    return is_installed
