"""The reference of the commands is what the commands say."""

from pathlib import Path

from cli.reference import reference

import kvsecure

__all__: list[str] = []


def test_reference_is_in_step_with_the_commands() -> None:
    """Running `cli.reference` again would change nothing."""
    path = Path(kvsecure.__file__).parent.parent / "docs" / "reference" / "cli.md"

    assert path.read_text() == reference()
