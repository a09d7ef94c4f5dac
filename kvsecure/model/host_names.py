"""Host names, in the one form in which they are compared.

Owns: which texts are host names.
Never: asks anybody where a host is.
Follows: RFC 1123, in lower case and without the dot at the end; with underscores, which some have.
"""

import re
from typing import Final

__all__ = ["host_name_of"]

_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?", re.ASCII)


def host_name_of(text: str) -> str | None:
    """Return a host name as it is compared; None if it is none."""
    name = text.lower().removesuffix(".")
    return name if _HOST.fullmatch(name) and ".." not in name else None
