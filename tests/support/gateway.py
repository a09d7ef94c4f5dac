"""A client of the JSON gateway, over HTTP/1.1 by the standard library and over HTTP/2 by curl.

Owns: requests in JSON to one member, and reading streams of lines.
Never: compares or judges answers.
"""

import contextlib
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self, final

from support.certificates import KeyPair
from support.servers import ROOT_PASSWORD, Member

__all__ = ["Gateway", "Said", "curl"]

_ANSWER_S = 10.0


@final
class Said(NamedTuple):
    """An answer."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """What the body says in JSON."""
        return json.loads(self.body)


@final
class Gateway:
    """One connection of HTTP/1.1 to one member; everything it asks goes through it."""

    def __init__(self, member: Member, certificate: KeyPair | None = None, port: int = 0) -> None:
        """Connect once something is asked.

        Args:
            member: Who is asked.
            certificate: What is shown.
            port: Another one than the member's own, without TLS.
        """
        self.fields: dict[str, str] = {}
        if port or not member.tls:
            self.connection = http.client.HTTPConnection(
                "127.0.0.1", port or member.port, timeout=_ANSWER_S
            )
            return
        tls = ssl.create_default_context(cafile=str(member.authority.certificate))
        if certificate is not None:
            tls.load_cert_chain(certificate.certificate, certificate.key)
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", member.port, timeout=_ANSWER_S, context=tls
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def log_in(self, user: str = "root", password: str = ROOT_PASSWORD, prefix: str = "") -> Self:
        """Send a user's token from now on, behind a prefix such as `Bearer `."""
        said = self.ask("/v3/auth/authenticate", {"name": user, "password": password})
        self.fields["Authorization"] = prefix + said.value["token"]
        return self

    def ask(
        self,
        path: str,
        body: Any = None,
        fields: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Said:
        """Make one request; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        self.connection.request(method, path, content, {**self.fields, **(fields or {})})
        answer = self.connection.getresponse()
        return Said(answer.status, _fields_of(answer), answer.read())

    @contextlib.contextmanager
    def lines(self, path: str, body: bytes) -> Iterator[Iterator[Any]]:
        """Make a request whose answer is a stream, and read it line by line."""
        self.connection.request("POST", path, body, self.fields)
        answer = self.connection.getresponse()
        assert answer.status == 200, answer.read()
        yield (json.loads(line) for line in iter(answer.readline, b"") if line.strip())
        self.connection.close()


def _fields_of(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}


def curl(member: Member, *arguments: str, path: str, body: str, seconds: int = 10) -> Said:
    """Make one request with curl and return what came within a time."""
    line = [
        "curl", "--silent", "--max-time", str(seconds), "--no-buffer",
        "--cacert", str(member.authority.certificate),
        "--write-out", "\n%{http_code} %{http_version}",
        "--data-binary", body, *arguments, member.url + path,
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, check=False)
    content, _, last = done.stdout.rpartition(b"\n")
    status, version = last.decode().split()
    return Said(int(status), {"version": version}, content)
