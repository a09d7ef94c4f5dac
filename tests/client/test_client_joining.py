"""The first connection of a newcomer: it trusts nobody, and takes one authority alone."""

import base64
import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from kvsecure.client.joining import NobodyAnswers, UntrustedCluster, fetch_authority
from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.certificates import (
    certificate_pem,
    certificates_of,
    check_authorities,
    key_of,
)
from kvsecure.pki.files import read_private, write_private, write_public
from kvsecure.pki.profiles import ProfileName


class _Answering(http.server.BaseHTTPRequestHandler):
    """Answers every request alike, and keeps what was sent."""

    answer: ClassVar[bytes] = b""
    seen: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        """Answer."""
        size = int(self.headers["Content-Length"])
        self.seen.append(self.requestline.encode() + bytes(self.headers) + self.rfile.read(size))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def prod(tmp_path: Path) -> Authority:
    """The authority that the token is of."""
    return create_authority(tmp_path / "prod", "prod")


@contextlib.contextmanager
def _served(directory: Path, authority: Authority, answer: bytes) -> Iterator[str]:
    """Serve an answer over TLS; yield where."""
    issued = authority.issue(ProfileName.SERVER, "s", ttl=timedelta(hours=1))
    write_public(directory / "s.crt", issued.certificate_pem)
    write_private(directory / "s.key", issued.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "s.crt", directory / "s.key")
    handler = type("Answering", (_Answering,), {"answer": answer, "seen": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
    for request in handler.seen:
        assert b"secret" not in request
        assert base64.urlsafe_b64encode(_SECRET)[:40] not in request


_SECRET = b"secret-of-exactly-32-bytes-here!"


def _token(address: str, authority: Authority) -> JoinToken:
    return JoinToken(
        address=address,
        fingerprint=authority.fingerprint,
        token_id="0" * 16,
        secret=Secret(_SECRET),
    )


def _answer(pem: bytes) -> bytes:
    return json.dumps({"certificates": base64.b64encode(pem).decode()}).encode()


def test_authority_of_the_token_is_taken(tmp_path: Path, prod: Authority) -> None:
    """What has the token's fingerprint is what is trusted from then on."""
    with _served(tmp_path, prod, _answer(prod.trust_pem)) as address:
        found = fetch_authority(_token(address, prod), timeout_s=5)

    assert found == prod.trust_pem


def test_other_authority_is_not_taken(tmp_path: Path, prod: Authority) -> None:
    """Whoever is in between has an authority of another fingerprint, and gets nothing."""
    other = create_authority(tmp_path / "other", "prod")

    with (
        _served(tmp_path, other, _answer(other.trust_pem)) as address,
        pytest.raises(UntrustedCluster, match="another authority than the token says"),
    ):
        fetch_authority(_token(address, prod), timeout_s=5)


def test_authority_beside_the_right_one_is_not_taken(tmp_path: Path, prod: Authority) -> None:
    """An authority that is slipped in beside the token's is not trusted with it."""
    other = create_authority(tmp_path / "other", "prod")
    for pem in (prod.trust_pem + other.trust_pem, other.trust_pem + prod.trust_pem):
        with (
            _served(tmp_path, prod, _answer(pem)) as address,
            pytest.raises(UntrustedCluster),
        ):
            fetch_authority(_token(address, prod), timeout_s=5)


def test_authority_above_the_right_one_is_not_taken(tmp_path: Path, prod: Authority) -> None:
    """Nobody puts an authority of their own above the token's by certifying its key once more."""
    evil = create_authority(tmp_path / "evil", "prod")
    (right,), (above,) = certificates_of(prod.trust_pem), certificates_of(evil.trust_pem)
    evil_key = key_of(read_private(evil.directory / "ca.key"))
    between = x509.CertificateBuilder(
        issuer_name=above.subject,
        subject_name=right.subject,
        public_key=right.public_key(),
        serial_number=7,
        not_valid_before=right.not_valid_before_utc,
        not_valid_after=right.not_valid_after_utc,
        extensions=list(right.extensions),
    ).sign(evil_key, SHA256())
    chain = [right, between, above]
    check_authorities(chain)
    pem = b"".join(map(certificate_pem, chain))

    with (
        _served(tmp_path, evil, _answer(pem)) as address,
        pytest.raises(UntrustedCluster, match="another authority than the token says"),
    ):
        fetch_authority(_token(address, prod), timeout_s=5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[]",
        b"5",
        b'"error"',
        b"\xff",
        b"[" * 50_000,
        b'{"certificates":5}',
        b'{"certificates":"!"}',
        b'{"certificates":"AAAA"}',
        b'{"error":"kvsecure: joining rejected: \\u001b[2J"}',
    ],
)
def test_any_answer_is_an_authority_or_an_error(
    tmp_path: Path, prod: Authority, answer: bytes
) -> None:
    """Nothing but UntrustedCluster comes of what is no authority, fit for a terminal."""
    with (
        _served(tmp_path, prod, answer) as address,
        pytest.raises(UntrustedCluster) as raised,
    ):
        fetch_authority(_token(address, prod), timeout_s=5)

    assert str(raised.value).isprintable()


def test_nobody_is_told_from_somebody_else(prod: Authority) -> None:
    """A member that is not up is worth another try; one with another authority is not."""
    with pytest.raises(NobodyAnswers, match="refused"):
        fetch_authority(_token("127.0.0.1:1", prod), timeout_s=5)
