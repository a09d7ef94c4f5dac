"""Configuration from a YAML file.

Owns: the file's shape: flag names as keys, two groups for TLS, no key twice.
Never: takes a key it does not know for decoration: a misspelt security option must not pass.
Follows: etcd's configuration file; differs: etcd ignores unknown keys, and we only do where
    the file itself says `compat: etcd`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import yaml

from kvsecure.server.config.flag import Flag
from kvsecure.server.config.outcome import ConfigError, printable
from kvsecure.server.config.removed_flags import LEGACY_FLAGS, OLD_SPELLINGS
from kvsecure.server.config.settings import Setting, Source
from kvsecure.server.config.table import find
from kvsecure.server.config.values import parse_yaml

__all__ = ["read_file"]

_BYTES_MAX: Final = 1024 * 1024

_GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "client-transport-security": {
        "cert-file": "cert-file",
        "key-file": "key-file",
        "client-cert-file": "client-cert-file",
        "client-key-file": "client-key-file",
        "client-cert-auth": "client-cert-auth",
        "trusted-ca-file": "trusted-ca-file",
        "auto-tls": "auto-tls",
        "allowed-cn": "client-cert-allowed-cn",
        "allowed-cns": "client-cert-allowed-cn",
        "allowed-hostname": "client-cert-allowed-hostname",
        "allowed-hostnames": "client-cert-allowed-hostname",
    },
    "peer-transport-security": {
        "cert-file": "peer-cert-file",
        "key-file": "peer-key-file",
        "client-cert-file": "peer-client-cert-file",
        "client-key-file": "peer-client-key-file",
        "client-cert-auth": "peer-client-cert-auth",
        "trusted-ca-file": "peer-trusted-ca-file",
        "auto-tls": "peer-auto-tls",
        "allowed-cn": "peer-cert-allowed-cn",
        "allowed-cns": "peer-cert-allowed-cn",
        "allowed-hostname": "peer-cert-allowed-hostname",
        "allowed-hostnames": "peer-cert-allowed-hostname",
        "skip-client-san-verification": "peer-skip-client-san-verification",
    },
}
# PyYAML lets the errors of what it calls escape for values such as `!!bool x`.
_NOT_YAML: Final = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
# A file cannot ask for help, or for another file.
_NOT_IN_FILES: Final = frozenset({"config-file", "help", "version"})


@final
class _OnceLoader(yaml.SafeLoader):
    """YAML without repeated keys: of two, nobody can tell which one was meant."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's signature
    ) -> dict[object, object]:
        """Build a mapping, refusing a key that stands in it twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key.value!r} stands here for the second time")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_file(path: Path) -> tuple[dict[str, Setting], list[str]]:
    """Return what the file sets, and warnings about old and unknown keys.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has a key or a value it must not.
    """
    tree = _tree(path)
    permissive = tree.get("compat") == "etcd"
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    for key, flag, value in _entries(tree, path, warnings, permissive=permissive):
        if flag.name in settings:
            raise ConfigError(f"{path}: {flag.name} is set under two names, the second is {key}")
        try:
            settings[flag.name] = Setting(flag, parse_yaml(flag, value), Source.FILE)
        except (TypeError, ValueError) as reason:
            raise ConfigError(f"{path}: {key}: {reason}") from None
    return settings, warnings


def _tree(path: Path) -> Mapping[object, object]:
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError as reason:
        raise ConfigError(f"open {path}: {reason.strerror}") from None
    if len(content) > _BYTES_MAX:
        raise ConfigError(f"{path}: longer than {_BYTES_MAX} bytes")
    try:
        tree = yaml.load(content, Loader=_OnceLoader)  # noqa: S506 - SafeLoader is underneath
    except _NOT_YAML as reason:
        text = " ".join(str(reason).split()) or type(reason).__name__
        raise ConfigError(f"{path}: not the YAML of a configuration: {text}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of flag names to values")
    return tree


def _entries(
    tree: Mapping[object, object], path: Path, warnings: list[str], *, permissive: bool
) -> list[tuple[str, Flag, object]]:
    """Return key as written, flag, and value of everything that has a value."""
    entries = []
    for key, value in tree.items():
        if key in _GROUPS and isinstance(key, str):
            if value is not None and not isinstance(value, dict):
                raise ConfigError(f"{path}: {key} is a group and has keys below it")
            group = [
                (f"{key}.{inner}", _GROUPS[key].get(inner, ""), content)
                for inner, content in (value or {}).items()
            ]
        else:
            group = [(str(key), str(key), value)]
        for written, name, content in group:
            flag = find(name) if name not in _NOT_IN_FILES else None
            if flag is None:
                _unknown(written, path, warnings, permissive=permissive)
            elif content is not None:
                # A key without a value is etcd's way of showing that it exists.
                entries.append((written, flag, content))
                if name in OLD_SPELLINGS:
                    warnings.append(f"{path}: {written} is called {flag.name} now")
    return entries


def _unknown(key: str, path: Path, warnings: list[str], *, permissive: bool) -> None:
    if not permissive and key not in LEGACY_FLAGS:
        raise ConfigError(f"{path}: '{key[:100]}' is not a valid key")
    warnings.append(printable(f"{path}: '{key[:100]}' is ignored: no such option"))
