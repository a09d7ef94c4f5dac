"""The reference of the commands is what the commands say."""

from cli.reference import reference
from house.source import ROOT

__all__: list[str] = []


def test_reference_is_in_step_with_the_commands() -> None:
    """Running `cli.reference` again would change nothing."""
    assert (ROOT / "docs" / "reference" / "cli.md").read_text() == reference()
