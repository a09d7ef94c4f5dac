"""The server's configuration: flags, variables and a file in, one frozen value out.

Owns: `load`, and the names that the rest of the server needs of this package.
Never: more than passing them on.
"""

from kvsecure.server.config.load import load
from kvsecure.server.config.model import ServerConfig
from kvsecure.server.config.outcome import ConfigError, Early, ExitStatus
from kvsecure.server.config.reference import USAGE

__all__ = ["USAGE", "ConfigError", "Early", "ExitStatus", "ServerConfig", "load"]
