"""Secrets: values that cannot be printed by accident.

Owns: the one type that carries passwords, tokens and private keys between rooms.
Never: shows its content through repr, str, format, pickle or comparison by another type.
Keeps: `reveal` is the only way to the content, so that a search for it finds every use.
"""

import hmac
from typing import NoReturn, Self, final

__all__ = ["Secret"]


@final
class Secret:
    """Bytes that must not appear in logs, errors, metrics, traces or audit values."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return the secret whose content is the text in UTF-8."""
        return cls(text.encode())

    def reveal(self) -> bytes:
        """Return the content; call it where it is used and nowhere earlier."""
        return self._content

    def reveal_text(self) -> str:
        """Return the content as text.

        Raises:
            UnicodeDecodeError: The content is not UTF-8.
        """
        return self._content.decode()

    def __bool__(self) -> bool:
        return bool(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._content, other._content)

    def __hash__(self) -> NoReturn:
        raise TypeError("a secret is not a key")

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")
