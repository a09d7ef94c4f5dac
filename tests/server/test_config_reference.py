"""The texts that are made from the table."""

import subprocess
import sys
from pathlib import Path

import pytest

from kvsecure.server.config.reference import help_text, markdown
from kvsecure.server.config.table import FLAGS

ROOT = Path(__file__).parents[2]


def test_reference_page_is_in_step_with_the_table() -> None:
    """docs/reference/flags.md is what the table says now."""
    page = (ROOT / "docs/reference/flags.md").read_text(encoding="utf-8")

    assert markdown() == page


@pytest.mark.parametrize("text", [help_text(), markdown()], ids=["help", "page"])
def test_reference_mentions_every_flag(text: str) -> None:
    """Nothing that can be set is secret."""
    words = text.replace("`", " ").replace(",", " ").split()

    assert [name for name in FLAGS if f"--{name}" not in words] == []


def test_help_names_the_variable_and_the_default_of_what_is_honoured() -> None:
    """An operator finds all three ways to set an option in one place."""
    text = " ".join(help_text().split())

    assert "[default 600, ETCD_AUTH_TOKEN_TTL; 1 to 86400]" in text
    assert "[default kvsecure, KVSECURE_CLUSTER_NAME]" in text


def test_help_is_no_wider_than_a_terminal() -> None:
    """Lines fit into 100 columns."""
    assert [line for line in help_text().splitlines() if len(line) > 100] == []


def test_version_needs_none_of_the_heavy_libraries() -> None:
    """The version is asked for often: it costs no library beyond the standard one."""
    program = (
        "import sys\n"
        "from kvsecure.server.config import load\n"
        "print(load(['--version'], {}).text, end='')\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}\n"
        "    & {'yaml', 'grpc', 'google', 'cryptography', 'structlog', 'click', 'asyncio'}))\n"
    )

    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        cwd=ROOT,
    )

    assert answer.stdout.splitlines()[0] == "etcd Version: 3.5.21"
    assert answer.stdout.splitlines()[2:] == [""]
