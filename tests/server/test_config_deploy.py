"""What is in deploy/ starts a server: checked by the code that reads it at start."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kvsecure.server.config import ServerConfig, load
from kvsecure.server.config.model import ClientCertMode
from kvsecure.server.config.urls import Scheme

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "deploy/config/kvsecure.yaml"
UNITS = (
    ROOT / "deploy/systemd/kvsecure.service",
    ROOT / "deploy/systemd/kvsecure.service.d/first-start.conf",
)
COMPOSE = ROOT / "deploy/container/compose.yaml"


def compose_service() -> dict[str, list[str]]:
    """Return the one service of the compose file."""
    tree = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    service: dict[str, list[str]] = tree["services"]["kvsecure"]
    return service


def sample() -> ServerConfig:
    """Return what the sample file configures."""
    config = load(["--config-file", str(SAMPLE)], {})
    assert isinstance(config, ServerConfig)
    return config


def composed() -> ServerConfig:
    """Return what the compose file's command line configures."""
    config = load(compose_service()["command"][1:], {})
    assert isinstance(config, ServerConfig)
    return config


@pytest.mark.parametrize("configure", [sample, composed])
def test_deployment_is_secure_and_needs_no_warning(configure: Callable[[], ServerConfig]) -> None:
    """TLS with required client certificates, plaintext on loopback only, nothing to warn about."""
    config = configure()

    assert config.warnings == ()
    assert config.security.client_certificates is ClientCertMode.REQUIRED
    assert all(endpoint.scheme is Scheme.HTTPS for endpoint in config.listen.client)
    assert config.limits.compaction is not None


def test_unit_loads_every_credential_that_the_sample_names() -> None:
    """A path below /run/credentials exists only when the unit or its drop-in loads it."""
    units = "\n".join(unit.read_text(encoding="utf-8") for unit in UNITS)

    named = set(
        re.findall(r"/run/credentials/kvsecure\.service/(\S+)", SAMPLE.read_text(encoding="utf-8"))
    )
    loaded = set(re.findall(r"^LoadCredential=([^:]+):", units, re.MULTILINE))

    assert named == loaded == {"kek", "server-key", "root-password"}


def test_unit_starts_the_server_with_the_sample() -> None:
    """The unit's command is the server and the file's place."""
    (command,) = re.findall(r"^ExecStart=(.*)$", UNITS[0].read_text(encoding="utf-8"), re.MULTILINE)

    assert shlex.split(command)[1:] == [
        "server",
        "--config-file",
        "/etc/kvsecure/kvsecure.yaml",
    ]


def test_unit_can_write_where_the_sample_stores() -> None:
    """The data directory lies in the unit's state directory."""
    assert sample().member.data_dir.is_relative_to("/var/lib/kvsecure")
    assert "StateDirectory=kvsecure\n" in UNITS[0].read_text(encoding="utf-8")


def test_compose_brings_every_secret_that_its_command_names() -> None:
    """A path below /run/secrets exists only when the service lists the secret."""
    service = compose_service()

    named = set(re.findall(r"/run/secrets/(\S+)", " ".join(service["command"])))

    assert named == set(service["secrets"])


def test_container_asks_for_health_where_the_server_listens() -> None:
    """The image's health check and the compose file's metrics listener are one address."""
    containerfile = (ROOT / "deploy/container/Containerfile").read_text(encoding="utf-8")

    (endpoint,) = composed().listen.metrics

    assert f"urlopen('{endpoint.url}/health'" in containerfile
