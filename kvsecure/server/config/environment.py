"""Configuration from environment variables.

Owns: which variables are ours, and that a variable and a flag may not both be set.
Never: writes the value of a variable it does not know; it may be somebody's secret.
Follows: etcd's rules for ETCD_* variables; KVSECURE_* follow the same rules.
"""

from collections.abc import Mapping
from typing import Final

from kvsecure.server.config.outcome import ConfigError, printable
from kvsecure.server.config.own_flags import CLIENT_VARIABLES
from kvsecure.server.config.settings import Setting, Source
from kvsecure.server.config.table import VARIABLES, find
from kvsecure.server.config.values import parse_text, quoted

__all__ = ["read_environment", "variables_set"]

# etcd's build for unsupported processors asks for it; its test harness always sets it.
_NOT_A_FLAG: Final = frozenset({"ETCD_UNSUPPORTED_ARCH"})


def variables_set(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that stand for flags and are not empty, sorted."""
    return tuple(sorted(name for name in VARIABLES if environ.get(name)))


def read_environment(
    environ: Mapping[str, str], on_command_line: Mapping[str, Setting]
) -> tuple[dict[str, Setting], list[str]]:
    """Return what the environment sets, and warnings about variables that nobody knows.

    Raises:
        ConfigError: A variable has a bad value, or sets what the command line sets as well.
    """
    settings: dict[str, Setting] = {}
    for variable in variables_set(environ):
        flag = find(VARIABLES[variable])
        if flag is None:
            continue
        if flag.name in on_command_line:
            raise ConfigError(
                f'conflicting environment variable "{variable}" is shadowed by corresponding '
                "command-line flag (either unset environment variable or disable flag)"
            )
        if flag.name in settings:
            raise ConfigError(f'environment variable "{variable}" is set under two names')
        try:
            value = parse_text(flag, environ[variable])
        except ValueError as reason:
            shown = quoted(flag, environ[variable])
            raise ConfigError(f"invalid value {shown} for {variable}: {reason}") from None
        settings[flag.name] = Setting(flag, value, Source.ENVIRONMENT)
    return settings, [
        f"unrecognized environment variable: {printable(name)}"
        for name in sorted(environ)
        if _unrecognised(name)
    ]


def _unrecognised(name: str) -> bool:
    return (
        name.startswith(("ETCD_", "KVSECURE_"))
        and name not in VARIABLES
        and name not in CLIENT_VARIABLES
        and name not in _NOT_A_FLAG
    )
