"""The token by which a machine becomes a member: what it says, and its one line of text.

    kvjoin1/10.0.0.1:2379/<base64url of fingerprint, id, secret and checksum>

Owns: the grammar of tokens.
Never: says whether a token is good; reads a clock; shows a secret but where the text is made.
Keeps: `parse` and `text` are inverse; of the text of a token, no other text is that token.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self, final

from kvsecure.model.secret import Secret

__all__ = ["FINGERPRINT_BYTES", "ID_BYTES", "SECRET_BYTES", "JoinToken"]

FINGERPRINT_BYTES: Final = 32
ID_BYTES: Final = 8
SECRET_BYTES: Final = 32

_SORT: Final = "kvjoin1"
# So that half a token is told from a wrong one; against malice it does nothing.
_CHECKSUM_BYTES: Final = 5
_ENCODED_CHARACTERS: Final = (
    (FINGERPRINT_BYTES + ID_BYTES + SECRET_BYTES + _CHECKSUM_BYTES) * 8 + 5
) // 6
_ADDRESS_CHARACTERS_MAX: Final = 300
_ADDRESS: Final = re.compile(
    r"(\[[0-9a-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[1-9][0-9]{0,4}", re.ASCII
)
_ID: Final = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}", re.ASCII)
_ENCODED: Final = re.compile(rf"[A-Za-z0-9_-]{{{_ENCODED_CHARACTERS}}}", re.ASCII)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A token.

    Attributes:
        address: Where clients reach the member that knows it, HOST:PORT.
        fingerprint: SHA-256 of the certificates of the authority, in DER.
        token_id: Tells tokens apart, in hexadecimal; no secret.
        secret: Whoever knows it may become a member.

    Raises:
        ValueError: One of them is not of that form.
    """

    address: str
    fingerprint: bytes
    token_id: str
    secret: Secret

    def __post_init__(self) -> None:
        if _ADDRESS.fullmatch(self.address) is None or len(self.address) > _ADDRESS_CHARACTERS_MAX:
            raise ValueError("a token has an address, HOST:PORT")
        if len(self.fingerprint) != FINGERPRINT_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError("a token has a fingerprint and a secret of 32 bytes each")
        if _ID.fullmatch(self.token_id) is None:
            raise ValueError("a token has an id of 8 bytes, in hexadecimal")

    def text(self) -> Secret:
        """Return the line that people copy."""
        content = self.fingerprint + bytes.fromhex(self.token_id) + self.secret.reveal()
        content += _checksum(self.address, content)
        encoded = base64.urlsafe_b64encode(content).decode().rstrip("=")
        return Secret.of_text(f"{_SORT}/{self.address}/{encoded}")

    @classmethod
    def parse(cls, text: Secret) -> Self:
        """Return the token that a line stands for; spaces around it do not count.

        Raises:
            ValueError: It stands for none; nothing of it is in the error.
        """
        try:
            sort, address, encoded = text.reveal_text().strip().split("/")
        except ValueError:
            raise ValueError("it is not a join token, or not a whole one") from None
        if sort != _SORT or _ENCODED.fullmatch(encoded) is None:
            raise ValueError("it is not a join token, or not a whole one")
        try:
            content = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
            )
        except binascii.Error:
            raise ValueError("it is not a join token, or not a whole one") from None
        content, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        if checksum != _checksum(address, content):
            raise ValueError("the join token was changed on its way: copy it again")
        token = cls(
            address=address,
            fingerprint=content[:FINGERPRINT_BYTES],
            token_id=content[FINGERPRINT_BYTES : FINGERPRINT_BYTES + ID_BYTES].hex(),
            secret=Secret(content[FINGERPRINT_BYTES + ID_BYTES :]),
        )
        if token.text().reveal_text() != text.reveal_text().strip():
            raise ValueError("the join token was changed on its way: copy it again")
        return token


def _checksum(address: str, content: bytes) -> bytes:
    return hashlib.sha256(address.encode() + b"/" + content).digest()[:_CHECKSUM_BYTES]
