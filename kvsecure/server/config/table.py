"""The one table of everything that can be configured.

Owns: which names exist, under which spellings, on the command line, in variables and in files.
Never: holds a fact about a flag that is not in its row: help, page and checks read the same.
Keeps: a name has one row; a variable belongs to one flag; an old spelling leads to a row.
"""

from typing import Final

from kvsecure.model.errors import invariant
from kvsecure.server.config.cluster_flags import CLUSTER_FLAGS
from kvsecure.server.config.flag import Flag, Section
from kvsecure.server.config.member_flags import MEMBER_FLAGS
from kvsecure.server.config.observing_flags import OBSERVING_FLAGS
from kvsecure.server.config.own_flags import OWN_FLAGS
from kvsecure.server.config.removed_flags import OLD_SPELLINGS, REMOVED_FLAGS
from kvsecure.server.config.security_flags import SECURITY_FLAGS

__all__ = ["FLAGS", "VARIABLES", "find", "rows"]

_ROWS: Final = (
    *MEMBER_FLAGS,
    *CLUSTER_FLAGS,
    *SECURITY_FLAGS,
    *OBSERVING_FLAGS,
    *OWN_FLAGS,
    *REMOVED_FLAGS,
)

FLAGS: Final[dict[str, Flag]] = {flag.name: flag for flag in _ROWS}

# Environment variable to the name it stands for; old spellings have theirs too.
VARIABLES: Final[dict[str, str]] = {flag.variable: flag.name for flag in _ROWS if flag.variable} | {
    f"ETCD_{old.upper().replace('-', '_')}": old for old in OLD_SPELLINGS
}

invariant(len(FLAGS) == len(_ROWS), "a flag has two rows")
invariant(not OLD_SPELLINGS.keys() & FLAGS.keys(), "an old spelling has a row of its own")
invariant(set(OLD_SPELLINGS.values()) <= FLAGS.keys(), "an old spelling leads nowhere")


def find(name: str) -> Flag | None:
    """Return the row of a name or of an old spelling of one."""
    return FLAGS.get(OLD_SPELLINGS.get(name, name))


def rows(section: Section) -> tuple[Flag, ...]:
    """Return a section's rows in the order of the table."""
    return tuple(flag for flag in _ROWS if flag.section is section)
