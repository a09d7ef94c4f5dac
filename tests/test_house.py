"""The house style, executed: every file of the tree against every check.

The checks are in tests/house, each with a planted offence that it must catch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest
from house.charter import charter_is_complete, exports_are_true
from house.documents import flags_exist, links_lead_somewhere
from house.form import FILE_LINES_MAX, LONG_FILES, names_mean, sizes_are_bounded
from house.imports import LAW, libraries_in_their_rooms, rooms_know_their_place
from house.life import leftovers_are_gone, modules_are_alive
from house.program import known_flags, started_modules
from house.proofs import proofs_are_sentences, proofs_use_the_real_thing
from house.purity import pure_rooms_are_pure
from house.remarks import exceptions_have_reasons, nothing_is_left_for_later, tree_is_portable
from house.source import ROOT, Offence, Source, file_names, python_files, text_files

Check = Callable[[Source], Iterator[Offence]]

_PROGRAM: tuple[Check, ...] = (
    rooms_know_their_place,
    libraries_in_their_rooms,
    pure_rooms_are_pure,
)
_PYTHON: tuple[Check, ...] = (
    charter_is_complete,
    exports_are_true,
    sizes_are_bounded,
    names_mean,
    exceptions_have_reasons,
)
_TESTS: tuple[Check, ...] = (proofs_are_sentences, proofs_use_the_real_thing)
_TEXT: tuple[Check, ...] = (nothing_is_left_for_later, tree_is_portable)


def _complain(offences: Iterable[Offence]) -> None:
    found = sorted(offences)
    assert not found, "\n" + "\n".join(map(str, found))


@pytest.mark.parametrize("check", _PROGRAM, ids=lambda check: check.__name__)
def test_program_keeps_the_house_law(check: Check) -> None:
    """Rooms know only what they may, libraries stay where they belong, pure rooms are pure."""
    _complain(offence for source in python_files("kvsecure") for offence in check(source))


@pytest.mark.parametrize("check", _PYTHON, ids=lambda check: check.__name__)
def test_python_files_keep_the_form(check: Check) -> None:
    """Modules say what they own, list what they offer, and are short and well named."""
    _complain(offence for source in python_files("kvsecure", "tests") for offence in check(source))


@pytest.mark.parametrize("check", _TESTS, ids=lambda check: check.__name__)
def test_tests_keep_the_form(check: Check) -> None:
    """Each test proves one sentence, on the real thing."""
    _complain(offence for source in python_files("tests") for offence in check(source))


@pytest.mark.parametrize("check", _TEXT, ids=lambda check: check.__name__)
def test_text_files_are_clean(check: Check) -> None:
    """Nothing is left for later, and nothing holds on one machine only."""
    _complain(offence for source in text_files() for offence in check(source))


def test_no_module_is_dead() -> None:
    """Every module of the program is reached from another one."""
    _complain(modules_are_alive(python_files("kvsecure"), started_modules()))


def test_no_tool_has_left_anything_behind() -> None:
    """What is in the tree was put there."""
    _complain(leftovers_are_gone(file_names()))


def _documents() -> list[Source]:
    return [source for source in text_files() if source.path.endswith(".md")]


def test_links_of_documents_lead_somewhere() -> None:
    """Every relative link in a document leads to a file, and to a heading if it names one."""
    _complain(offence for source in _documents() for offence in links_lead_somewhere(source, ROOT))


def test_commands_in_documents_exist() -> None:
    """Every command and flag that a document shows is one that the program has."""
    known: Mapping[tuple[str, ...], frozenset[str]] = known_flags()

    _complain(offence for source in _documents() for offence in flags_exist(source, known))


def test_every_room_has_a_law() -> None:
    """The table of rooms names every directory of the program, and none that is gone."""
    rooms = {path.name for path in (ROOT / "kvsecure").iterdir() if path.is_dir()}

    assert rooms - {"__pycache__", "resources"} <= LAW.keys()
    assert {room for room in LAW if (ROOT / "kvsecure" / room).is_dir()} >= rooms - {
        "__pycache__",
        "resources",
    }


def test_exceptions_to_length_are_still_needed() -> None:
    """A file in the list of long files is there, is long, and has a reason."""
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in LONG_FILES}

    assert all(length > FILE_LINES_MAX for length in lengths.values()), lengths
    assert all(LONG_FILES.values())
