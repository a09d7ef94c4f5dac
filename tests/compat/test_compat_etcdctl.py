"""Stock etcdctl cannot tell kvsecure from etcd: the same commands, the same words.

Owns: the run of every scenario file against both servers, side by side.
Never: knows a right answer; etcd, running beside it, is the answer.
"""

import difflib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.scenario import Played, parse, play
from support.servers import Member

_SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.fixture
def subject(subject_type: type[Member], tmp_path: Path) -> Iterator[Member]:
    """The server under test, open to etcdctl 3.5.1, which speaks TLS 1.2 and nothing newer."""
    with subject_type(tmp_path / "subject", flags=subject_type.old_tls_flags) as member:
        yield member


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda path: path.stem)
def test_etcdctl_prints_what_it_prints_against_etcd(
    scenario: Path, etcd: Member, subject: Member
) -> None:
    """Output, errors and exit status of every command are etcd's, but for ids, times and sizes."""
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(lambda member: play(scenario, member), (etcd, subject))

    complaints = [
        complaint
        for their, our in zip(theirs, ours, strict=True)
        for complaint in _complaints(their, our, subject)
    ]
    assert not complaints, "\n".join(complaints)


def _complaints(their: Played, our: Played, subject: Member) -> list[str]:
    where = f"line {our.step.line}: {our.step.text}"
    expected = their.printed
    if our.step.ours and subject.product == "kvsecure":
        expected = list(our.step.ours)
        if expected == their.printed:
            return [where, "  is marked as different on purpose, but etcd prints the same"]
    difference = difflib.unified_diff(expected, our.printed, n=1, lineterm="")
    lines = [f"  {line}" for line in difference if not line.startswith(("---", "+++", "@@"))]
    return [where, *lines] if lines else []


def test_scenarios_cover_what_they_promise() -> None:
    """Every scenario file has commands, so that an empty glob cannot pass for agreement."""
    commands = [len(parse(path.read_text())) for path in _SCENARIOS]

    assert len(commands) >= 9
    assert min(commands) >= 5
    assert sum(commands) >= 400
