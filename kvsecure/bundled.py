"""Shipped data: certificate profiles and policy bundles.

Owns: where files that are data and not code are found, installed or in a source tree.
Never: reads them, or looks anywhere but beside this package.
"""

from pathlib import Path
from typing import Final

__all__ = ["resource"]

_PACKAGE: Final = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Return the path of a shipped file or directory.

    An installed wheel has the data inside the package, under `resources`; a source tree has it at
    the top. The top is only looked at when it is one, because the directory above an installed
    package belongs to everybody.

    Args:
        parts: Path below the shipped data, such as `"pki", "profiles", "server.yaml"`.

    Raises:
        FileNotFoundError: This installation lacks the file; it is damaged or incomplete.
    """
    places = [_PACKAGE / "resources"]
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        places.append(_PACKAGE.parent)
    for place in places:
        found = place.joinpath(*parts)
        if found.exists():
            return found
    raise FileNotFoundError(f"{'/'.join(parts)} is missing from this installation of kvsecure")
