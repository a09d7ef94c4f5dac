"""From the command line, the environment and the file to the configuration.

Owns: the order of the sources, and which of them counts.
Never: prints, exits, or reads a file other than the one that --config-file names.
Follows: etcd: a file excludes everything else; a flag and a variable for one option are an error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kvsecure.server.config.build import build
from kvsecure.server.config.environment import read_environment, variables_set
from kvsecure.server.config.goflags import CommandLine, HelpWanted, parse_command_line
from kvsecure.server.config.model import ServerConfig
from kvsecure.server.config.outcome import ConfigError, Early
from kvsecure.server.config.reference import help_text, version_text
from kvsecure.server.config.removed_flags import OLD_SPELLINGS
from kvsecure.server.config.settings import Settings

__all__ = ["load"]

_FILE_VARIABLE: Final = "ETCD_CONFIG_FILE"
_SUBCOMMANDS: Final = frozenset({"gateway", "grpc-proxy"})


def load(argv: Sequence[str], environ: Mapping[str, str]) -> ServerConfig | Early:
    """Return the configuration, or the text that was asked for instead.

    Args:
        argv: The arguments without the program's name.
        environ: The process's environment.

    Raises:
        ConfigError: The server cannot start like this; the text and the exit status say why.
    """
    try:
        line = parse_command_line(argv)
    except HelpWanted:
        return Early(text=help_text())
    if line.rest:
        raise _not_a_flag(line.rest[0])
    version = line.settings.pop("version", None)
    if version is not None and version.value is True:
        return Early(text=version_text())
    warnings = [f"--{name} is ignored: no such option any more" for name in line.legacy]
    warnings += [f"--{name} is called --{OLD_SPELLINGS[name]} now" for name in line.old_spellings]
    named = line.settings.pop("config-file", None)
    path = named.value if named is not None and named.value else environ.get(_FILE_VARIABLE, "")
    if path:
        return _from_file(Path(str(path)), line, environ, warnings)
    from_environment, unknown = read_environment(environ, line.settings)
    return build(Settings({**from_environment, **line.settings}), [*warnings, *unknown])


def _from_file(
    path: Path, line: CommandLine, environ: Mapping[str, str], warnings: list[str]
) -> ServerConfig:
    # PyYAML costs more than the rest of this package; without a file nobody waits for it.
    from kvsecure.server.config.file import read_file

    settings, about_file = read_file(path)
    ignored = [f"--{name}" for name in line.settings]
    ignored += [name for name in variables_set(environ) if name != _FILE_VARIABLE]
    if ignored:
        warnings = [
            *warnings,
            f"the configuration file {path} is all that counts; ignored: {', '.join(ignored)}",
        ]
    return build(Settings(settings), [*warnings, *about_file])


def _not_a_flag(argument: str) -> ConfigError:
    text = f"'{argument[:100]}' is not a valid flag"
    if argument in _SUBCOMMANDS:
        text += f": etcd's {argument} is not in this release"
    return ConfigError(text)
