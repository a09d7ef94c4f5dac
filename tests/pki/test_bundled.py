"""Shipped data is found, and only where it belongs."""

from pathlib import Path

import pytest

from kvsecure.bundled import resource
from kvsecure.pki.profiles import ProfileName


@pytest.mark.parametrize("name", list(ProfileName))
def test_resource_finds_every_profile(name: ProfileName) -> None:
    """All profiles ship."""
    assert resource("pki", "profiles", f"{name.value}.yaml").is_file()


def test_resource_finds_directories() -> None:
    """A whole directory can be asked for."""
    assert (resource("pki") / "README.md").is_file()


def test_resource_names_what_is_missing() -> None:
    """An incomplete installation says what it lacks."""
    with pytest.raises(FileNotFoundError, match="pki/nothing"):
        resource("pki", "nothing")


def test_resource_is_beside_the_package() -> None:
    """The working directory has no say in what is shipped."""
    import kvsecure

    tree = Path(kvsecure.__file__).resolve().parent.parent

    assert resource("pki", "profiles").is_relative_to(tree)
