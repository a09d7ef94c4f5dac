"""Fixtures that every room of the tests may use, and what the command line may choose.

Owns: `--subject`, the members under test, and what is left out by default.
Never: starts a server that no test asked for.
"""

import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.servers import EtcdMember, KvsecureServer, Member

_INTEROP = Path(__file__).parent / "interop"
_LONGEST = Path(__file__).parent / "history"
_SAID = "said"
_SUBJECTS: dict[str, type[Member]] = {"etcd": EtcdMember, "kvsecure": KvsecureServer}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the other side of every comparison be chosen: etcd against itself proves the test."""
    parser.addoption(
        "--subject",
        choices=sorted(_SUBJECTS),
        default="kvsecure",
        help="which server is compared with etcd, crashed and measured (default: kvsecure)",
    )


def pytest_configure() -> None:
    """Take no time for a fault, and let programs be interrupted.

    A shell that runs the tests in the background has them not.
    """
    settings.register_profile(
        "no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("no-clock")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a member against etcd and, if it is another one, the server under test."""
    if "member_name" in metafunc.fixturenames:
        names = {"etcd", str(metafunc.config.getoption("--subject"))}
        metafunc.parametrize("member_name", sorted(names), scope="module")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Leave out what takes long: campaigns without `-m`, clients in other languages without a word.

    The latter have to be built: CI asks for them by a variable, a person by their directory. Of the
    rest what takes longest begins first, so that no process is left alone with it in the end.
    """
    # Others shuffle.
    yield
    left_out: list[pytest.Item] = []
    if "campaign" not in str(config.getoption("-m")):
        left_out += [item for item in items if item.get_closest_marker("campaign")]
    wants_interop = os.environ.get("KVSECURE_REQUIRE_INTEROP", "") not in ("", "0")
    if not wants_interop and not any("interop" in argument for argument in config.args):
        left_out += [item for item in items if item.path.parent == _INTEROP]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.path.parent != _LONGEST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to say, whichever process ran them."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == _SAID and report.when == "teardown":
                    terminalreporter.write_line(text)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have a line printed when all is over: what was counted belongs into the log of a run."""
    return lambda text: request.node.user_properties.append((_SAID, text))


@pytest.fixture(scope="session")
def subject_type(request: pytest.FixtureRequest) -> type[Member]:
    """The server under test, not started."""
    return _SUBJECTS[str(request.config.getoption("--subject"))]


@pytest.fixture
def subject(subject_type: type[Member], tmp_path: Path) -> Iterator[Member]:
    """The server under test, serving, with TLS and auth."""
    with subject_type(tmp_path / "subject") as member:
        yield member


@pytest.fixture(scope="module")
def member(member_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A serving member with TLS and auth, for all tests of a module."""
    with _SUBJECTS[member_name](tmp_path_factory.mktemp(member_name)) as serving:
        yield serving


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Member]:
    """etcd, serving, with TLS and auth."""
    with EtcdMember(tmp_path / "etcd") as member:
        yield member
