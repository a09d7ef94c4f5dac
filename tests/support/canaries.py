"""Canaries: secrets that are told apart at a glance, in every form in which they may turn up.

Owns: the forms of a secret, and the search for them.
Never: knows where a secret must not be.
"""

import base64
import json
import urllib.parse
from collections.abc import Iterable, Mapping

__all__ = ["forms", "found"]


def forms(secret: bytes) -> list[bytes]:
    """Return how a secret may look.

    Plain, in hexadecimal, in both alphabets of base64 at any offset, quoted for URLs, Python and
    JSON, and in UTF-16 either way round.
    """
    shapes = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    shapes.append(urllib.parse.quote(secret).encode())
    shapes.append(repr(secret)[2:-1].encode())
    text = secret.decode("latin-1")
    shapes.append(json.dumps(text)[1:-1].encode())
    shapes.append("".join(f"\\u{ord(character):04x}" for character in text).encode())
    shapes += [text.encode("utf-8"), text.encode("utf-16-le"), text.encode("utf-16-be")]
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        # The first and last characters depend on what stands beside it.
        middle = encoded[4 if offset else 0 : -4]
        shapes += [middle, middle.replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(shapes))


def found(secrets: Mapping[str, bytes], contents: Iterable[bytes]) -> list[str]:
    """Return the names of the secrets that are in any of the contents, in any form."""
    shapes = {name: forms(secret) for name, secret in secrets.items()}
    return sorted(
        {
            name
            for content in contents
            for name, each in shapes.items()
            if any(form in content for form in each)
        }
    )
