"""What the fuzzer has found worth keeping goes through the very same targets with every run."""

import pytest
from fuzz.messages_target import attempt
from fuzz.program import CORPUS, DECODERS, load
from fuzz.target import Broken, places
from wire.rawframes import message

from kvsecure.wire.grpc import MessageReader

_CORPORA_BYTES_MAX = 100_000


@pytest.mark.parametrize("name", DECODERS)
def test_corpus_keeps_the_rule(name: str) -> None:
    """Any bytes give events or that layer's one error, however they are cut."""
    target = load(name)
    inputs = sorted((CORPUS / name).iterdir())

    for path in inputs:
        target.attempt(path.read_bytes())

    assert len(inputs) > 5


def test_corpora_are_small() -> None:
    """They are kept with the code, and replayed each time."""
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]

    assert sum(sizes) < _CORPORA_BYTES_MAX


class _Brittle:
    """A reader that cannot bear one byte."""

    def __init__(self, encoding: bytes, size_bytes_max: int) -> None:
        self._reader = MessageReader(encoding, size_bytes_max)
        self._pending = self._reader._pending

    @property
    def is_empty(self) -> bool:
        return self._reader.is_empty

    def feed(self, data: bytes) -> list[bytes]:
        if b"\x7f" in data:
            raise IndexError("the table ends before 127")
        return self._reader.feed(data)


class _Forgetful(_Brittle):
    """A reader that drops what is left of a read of a single byte."""

    def feed(self, data: bytes) -> list[bytes]:
        return [] if len(data) == 1 else self._reader.feed(data)


class _Generous(_Brittle):
    """A reader with another limit than it was given."""

    def __init__(self, encoding: bytes, size_bytes_max: int) -> None:
        super().__init__(encoding, 2 * size_bytes_max)

    def feed(self, data: bytes) -> list[bytes]:
        return self._reader.feed(data)


@pytest.mark.parametrize(
    ("broken", "content", "error"),
    [
        (_Brittle, message(b"a\x7fb"), IndexError),
        (_Forgetful, message(b"abc"), Broken),
        (_Generous, message(bytes(5_000)), Broken),
    ],
    ids=["another error", "cuts make a difference", "a limit that is not kept"],
)
def test_target_fails_where_the_rule_is_broken(
    broken: type[_Brittle], content: bytes, error: type[Exception]
) -> None:
    """A decoder that breaks any part of the rule is a finding, and the real one is not."""
    tried = b"\x00\x00" + content

    attempt(tried)
    with pytest.raises(error):
        attempt(tried, broken)  # type: ignore[arg-type]  # it is broken


def test_inputs_are_cut_in_many_ways() -> None:
    """The first byte of an input says where: everywhere, or at uneven places within it."""
    assert places(0, 5) == [1, 2, 3, 4]
    for how in range(1, 256):
        found = places(how, 1_000)
        assert found == sorted(set(found))
        assert all(0 < place < 1_000 for place in found)
        assert found
