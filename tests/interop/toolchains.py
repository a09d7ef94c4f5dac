"""The toolchains of other languages, and what tests build with them outside the tree.

    KVSECURE_REQUIRE_INTEROP=1   a toolchain that is missing fails its tests, and skips none
    KVSECURE_INTEROP_CACHE       where programs are built (default: ~/.cache/kvsecure-interop)

Owns: finding a toolchain, the cache, and building programs whose dependencies are pinned.
Never: installs a toolchain; `.ci/run` does. Writes into the tree.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, Never

import pytest

__all__ = ["HERE", "build_go", "cache", "install_node", "need", "run"]

HERE: Final = Path(__file__).resolve().parent
_REQUIRED: Final = os.environ.get("KVSECURE_REQUIRE_INTEROP", "") not in ("", "0")
# From cold, modules have to be fetched first.
_BUILD_S_MAX: Final = 240


def need(program: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails where it must run."""
    found = shutil.which(program)
    if found is None:
        _missing(f"{program} is not installed")
    return found


def _missing(why: str) -> Never:
    if _REQUIRED:
        pytest.fail(f"{why}, and KVSECURE_REQUIRE_INTEROP is set")
    pytest.skip(why)


def cache() -> Path:
    """Return the directory, outside the tree, that keeps what tests build."""
    chosen = os.environ.get("KVSECURE_INTEROP_CACHE")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = Path(chosen) if chosen else default / "kvsecure-interop"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def build_go(module: str, package: str) -> Path:
    """Build one program of a Go module beside this file, as its go.sum says; return its path.

    Args:
        module: Directory of the module.
        package: Import path of the program, "." for the module's own.
    """
    go = need("go")
    program = cache() / f"{module}-program"
    run([go, "build", "-mod=readonly", "-o", str(program), package], HERE / module, _BUILD_S_MAX)
    return program


def install_node(package: str, program: str) -> list[str]:
    """Install what the lock of a Node package beside this file names; return its command line.

    Args:
        package: Directory of the package.
        program: Its file to run.
    """
    node, npm = need("node"), need("npm")
    source, installed = HERE / package, cache() / package
    lock = (source / "package-lock.json").read_bytes()
    # Written last, so that it says what has been installed.
    stamp = installed / "installed-lock.json"
    if not stamp.is_file() or stamp.read_bytes() != lock:
        shutil.rmtree(installed, ignore_errors=True)
        installed.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(source / name, installed / name)
        run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], installed, _BUILD_S_MAX)
        stamp.write_bytes(lock)
    shutil.copyfile(source / program, installed / program)
    return [node, str(installed / program)]


def run(command: list[str], directory: Path, deadline_s: float) -> str:
    """Run a command to its end and return what it printed.

    Args:
        command: Program and arguments.
        directory: Where it runs.
        deadline_s: Seconds after which it is given up.

    Raises:
        AssertionError: It failed; with the end of what it printed.
    """
    done = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=deadline_s,
        check=False,
    )
    printed = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{command} in {directory}:\n{printed[-6_000:]}"
    return printed
