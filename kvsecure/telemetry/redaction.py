"""What must not stand in a log, taken out of it.

Owns: which values and which names are secret, and what is written in their place.
Never: guesses from the look of a value; a secret is a `Secret`, or it has a telling name.
Keeps: bytes are never written: they are keys, values and tokens more often than not; objects of
    other types are named and not shown, because what they show is not known here.
"""

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Final

from kvsecure.model.secret import Secret

__all__ = ["REDACTED", "redact"]

REDACTED: Final = "<secret>"

# A name is telling when it ends in one of these, whatever stands before.
_TELLING: Final = (
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "key_material",
    "passphrase",
    "password",
    "passwd",
    "private_key",
    "secret",
    "token",
)
_DEPTH_MAX: Final = 8


def redact(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields with everything secret replaced, at any depth."""
    return {name: _value(name, value, _DEPTH_MAX) for name, value in fields.items()}


def _value(name: str, value: object, depth: int) -> object:
    if isinstance(value, Secret) or _telling(name):
        return REDACTED
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if not depth:
            return "<too deep>"
        if isinstance(value, Mapping):
            return {str(key): _value(str(key), inner, depth - 1) for key, inner in value.items()}
        return [_value("", inner, depth - 1) for inner in value]
    return _plain(value)


def _plain(value: object) -> object:
    """Return what can be written as it is; of any other object only its type is told."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return f"<{type(value).__name__}>"


def _telling(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return any(plain == word or plain.endswith(f"_{word}") for word in _TELLING)
