"""The toolchains of other languages, and what tests build with them outside the tree.

    KVSECURE_REQUIRE_INTEROP=1   a toolchain that is missing fails its tests, and skips none
    KVSECURE_INTEROP_CACHE       where programs are built (default: ~/.cache/kvsecure-interop)

Owns: finding a toolchain, the cache, and building programs whose dependencies are pinned. Maven's
    downloads are in the cache too; once they are there it asks for no others.
Never: installs a toolchain; `.ci/run` does. Writes into the tree.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Never

import pytest

import kvsecure

__all__ = [
    "HERE",
    "PROTOS",
    "build_go",
    "build_java",
    "cache",
    "install_node",
    "install_python",
    "need",
    "run",
]

HERE: Final = Path(__file__).resolve().parent
# What kvsecure's own .proto files are named from.
PROTOS: Final = Path(kvsecure.__file__).resolve().parent.parent
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
    program = cache() / f"{_flat(module)}-program"
    run([go, "build", "-mod=readonly", "-o", str(program), package], HERE / module, _BUILD_S_MAX)
    return program


def install_node(package: str, program: str) -> list[str]:
    """Install what the lock of a Node package beside this file names; return its command line.

    Args:
        package: Directory of the package.
        program: Its file to run.
    """
    node, npm = need("node"), need("npm")
    source, installed = HERE / package, cache() / _flat(package)
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


def build_java(project: str, program: str, *, with_protos: bool) -> list[str]:
    """Build a Maven project beside this file with what its pom.xml pins; return the command line.

    Args:
        project: Directory of the project.
        program: Its class to run.
        with_protos: Whether it needs kvsecure's .proto files, in `protos`.
    """
    java, maven = need("java"), need("mvn")
    source, built = HERE / project, cache() / _flat(project)
    protos = sorted((PROTOS / "kvsecure" / "proto").glob("*.proto")) if with_protos else []
    digest = _digest([*sorted(path for path in source.rglob("*") if path.is_file()), *protos])
    # Written last, so that it says what has been built.
    stamp = built / "built-from"
    if not stamp.is_file() or stamp.read_text() != digest:
        shutil.rmtree(built, ignore_errors=True)
        shutil.copytree(source, built)
        if protos:
            copies = built / "protos" / "kvsecure" / "proto"
            copies.mkdir(parents=True)
            for path in protos:
                shutil.copyfile(path, copies / path.name)
        repository = cache() / "maven"
        fetched = repository / f"fetched-{_digest([source / 'pom.xml'])}"
        options = ["-q", "-B", "-ntp", f"-Dmaven.repo.local={repository}"]
        options += ["-o"] if fetched.is_file() else []
        # Maven's repository is for one build at a time, and tests run in several processes.
        with (cache() / "maven-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run([maven, *options, "compile"], built, _BUILD_S_MAX)
        fetched.touch()
        stamp.write_text(digest)
    classes = f"{built / 'target' / 'classes'}{os.pathsep}{built / 'target' / 'lib' / '*'}"
    # It runs for seconds: what compiles least is done first.
    return [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classes, program]


def install_python(package: str) -> list[str]:
    """Install what a requirements.txt beside this file pins; return its interpreter's command line.

    Args:
        package: Directory of the requirements, and of the programs that need them.
    """
    wanted = (HERE / package / "requirements.txt").read_text()
    installed = cache() / _flat(package)
    stamp = installed / "installed-requirements.txt"
    python = installed / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != wanted:
        run([sys.executable, "-m", "venv", "--clear", str(installed)], HERE, _BUILD_S_MAX)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r"]
        run([*install, "requirements.txt"], HERE / package, _BUILD_S_MAX)
        stamp.write_text(wanted)
    # Without what the environment says of other packages, and without a trace in the tree.
    return [str(python), "-E", "-B"]


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _digest(paths: Iterable[Path]) -> str:
    """Return what changes when one of some files does."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(b"%s\0%d\0" % (path.name.encode(), path.stat().st_size) + path.read_bytes())
    return digest.hexdigest()


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
