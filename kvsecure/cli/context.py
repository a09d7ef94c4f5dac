"""Contexts: where the commands go and who they are there, kept between them.

Owns: the file `context.json`, its form, and how it is changed by several commands at once.
Never: prints a token, or leaves the file readable for others.
Keeps: a reader sees a whole file; of two writers the second builds on what the first wrote.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, final

from kvsecure.model.secret import Secret
from kvsecure.pki.files import UnsafeFile, ensure_directory, read_private, write_private

__all__ = ["Context", "ContextError", "ContextStore", "Contexts", "home_directory"]

_FILE: Final = "context.json"
_LOCK: Final = "context.lock"
_PATH_FIELDS: Final = ("cacert", "cert", "key", "data_dir", "kek_file")


@final
class ContextError(Exception):
    """The contexts cannot be read or written; the text names the file and says why."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One place to go to.

    Attributes:
        endpoints: The members, as `Endpoint.parse` reads them.
        cacert: The authorities that may vouch for the server.
        cert: The client certificate.
        key: Its key.
        user: Who uses it; empty when the certificate says so.
        tenant: The user's tenant; empty for the default tenant.
        token: From the last log-in.
        token_expiry_s: When the token ends, in seconds of Unix time; 0 when that is not known.
        data_dir: The data directory, where the server is a local one.
        kek_file: Its key-encryption key.
    """

    endpoints: tuple[str, ...] = ()
    cacert: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    tenant: str = ""
    token: Secret = field(default_factory=lambda: Secret(b""))
    token_expiry_s: int = 0
    data_dir: str = ""
    kek_file: str = ""

    @property
    def owner(self) -> str:
        """The user with their tenant, as a person reads it."""
        return f"{self.tenant}/{self.user}" if self.tenant else self.user

    def without_token(self) -> Self:
        """Return the context, logged out."""
        return dataclasses.replace(self, token=Secret(b""), token_expiry_s=0)

    def as_json(self) -> dict[str, Any]:
        """Return the form in the file; it holds the token."""
        return {
            "endpoints": list(self.endpoints),
            "cacert": self.cacert,
            "cert": self.cert,
            "key": self.key,
            "user": self.user,
            "tenant": self.tenant,
            "token": self.token.reveal_text(),
            "token_expiry": self.token_expiry_s,
            "data_dir": self.data_dir,
            "kek_file": self.kek_file,
        }

    @classmethod
    def of_json(cls, form: Mapping[str, Any]) -> Self:
        """Read the form in the file; what it does not know is left out.

        Raises:
            ContextError: A field has the wrong type.
        """
        endpoints = _typed(form, "endpoints", list, [])
        if not all(isinstance(endpoint, str) for endpoint in endpoints):
            raise ContextError("`endpoints` is not a list of texts")
        texts = {name: _typed(form, name, str, "") for name in (*_PATH_FIELDS, "user", "tenant")}
        try:
            token = Secret.of_text(_typed(form, "token", str, ""))
        except UnicodeEncodeError:
            raise ContextError("`token` is not text") from None
        return cls(
            endpoints=tuple(endpoints),
            token=token,
            token_expiry_s=_typed(form, "token_expiry", int, 0),
            **texts,
        )


def _typed(form: Mapping[str, Any], name: str, kind: type[Any], default: Any) -> Any:
    value = form.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ContextError(f"`{name}` has the wrong type")
    return value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All contexts, and which of them is used.

    Attributes:
        current: The name of the one in use; empty when there is none.
        contexts: They by name.
    """

    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def with_context(self, name: str, context: Context) -> Self:
        """Return all contexts with this one added or replaced; the first one becomes current."""
        contexts = {**self.contexts, name: context}
        return dataclasses.replace(self, current=self.current or name, contexts=contexts)

    def using(self, name: str) -> Self:
        """Return all contexts with another one in use.

        Raises:
            ContextError: There is none of that name.
        """
        self.named(name)
        return dataclasses.replace(self, current=name)

    def named(self, name: str) -> Context:
        """Return the context of that name.

        Raises:
            ContextError: There is none.
        """
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise ContextError(f"no context {name!r} (there is: {known})")
        return self.contexts[name]


def home_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of contexts: `$KVSECURE_HOME`, or `~/.kvsecure`."""
    home = (os.environ if environ is None else environ).get("KVSECURE_HOME")
    return Path(home).absolute() if home else Path.home() / ".kvsecure"


@final
class ContextStore:
    """The file with the contexts of one person."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.path = home / _FILE

    @classmethod
    def of_environment(cls) -> Self:
        """Return the store that commands use."""
        return cls(home_directory())

    def load(self) -> Contexts:
        """Return what the file holds; nothing when there is no file.

        Raises:
            ContextError: It cannot be read, is not ours, or others can read it.
        """
        try:
            content = read_private(self.path).reveal()
        except FileNotFoundError:
            return Contexts()
        except UnsafeFile as error:
            raise ContextError(str(error)) from None
        except OSError as error:
            raise ContextError(f"{self.path}: {error.strerror}") from None
        try:
            return _parse(content)
        except ContextError as error:
            raise ContextError(f"{self.path}: {error}") from None

    def save(self, contexts: Contexts) -> None:
        """Replace everything in the file; to change a part of it use `change`.

        Raises:
            ContextError: It cannot be written.
        """
        with self._locked():
            self._write(contexts)

    def change(self, change: Callable[[Contexts], Contexts]) -> Contexts:
        """Change what the file holds, while no other command does; return the new content.

        Args:
            change: Makes the new contexts of the old ones.

        Raises:
            ContextError: The file cannot be read or written.
        """
        with self._locked():
            contexts = change(self.load())
            self._write(contexts)
        return contexts

    def _write(self, contexts: Contexts) -> None:
        form = {
            "current": contexts.current,
            "contexts": {name: context.as_json() for name, context in contexts.contexts.items()},
        }
        content = Secret.of_text(json.dumps(form, indent=2) + "\n")
        try:
            write_private(self.path, content)
        except OSError as error:
            raise ContextError(f"{self.path}: {error.strerror}") from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._home / _LOCK
        try:
            ensure_directory(self._home)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ContextError(f"{lock}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _parse(content: bytes) -> Contexts:
    try:
        form = json.loads(content)
    except (ValueError, RecursionError):
        raise ContextError("not JSON") from None
    if not isinstance(form, dict):
        raise ContextError("not an object")
    contexts = _typed(form, "contexts", dict, {})
    if not all(isinstance(context, dict) for context in contexts.values()):
        raise ContextError("`contexts` is not an object of objects")
    return Contexts(
        current=_typed(form, "current", str, ""),
        contexts={name: Context.of_json(context) for name, context in contexts.items()},
    )
