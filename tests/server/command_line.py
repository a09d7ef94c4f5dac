"""What a command line comes to, for tests of flags.

Owns: the one flag that every command line has to have, and the way a refusal is read.
Never: reads the environment.
"""

import pytest

from kvsecure.server.config import ConfigError, ServerConfig, load

__all__ = ["configured", "refused"]


def configured(*arguments: str) -> ServerConfig:
    """Return the configuration of a command line that names a key file."""
    config = load(["--kek-file=/run/kek", *arguments], {})
    assert isinstance(config, ServerConfig)
    return config


def refused(*arguments: str) -> str:
    """Return why a command line is refused with status 1."""
    with pytest.raises(ConfigError) as caught:
        configured(*arguments)
    assert caught.value.status == 1
    return str(caught.value)
