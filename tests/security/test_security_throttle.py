"""Guessing gets slower with every wrong guess, and nobody is locked out for good."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from kvsecure.security.throttle import Throttle

_S: Final = 1_000_000_000
_FREE: Final = 5


def _failed(
    times: int, *, name: str = "web", source: str = "192.0.2.1", now_ns: int = 0
) -> Throttle:
    throttle = Throttle()
    for _ in range(times):
        throttle.failed(name, source, now_ns)
    return throttle


def test_a_few_mistakes_are_free() -> None:
    """Five wrong guesses in a row cost no time."""
    assert _failed(_FREE).wait_ns("web", "192.0.2.1", 0) == 0
    assert Throttle().wait_ns("web", "192.0.2.1", 0) == 0


def test_the_wait_doubles() -> None:
    """From the sixth failure on the wait is one second, then twice as long each time."""
    waits = [_failed(_FREE + number).wait_ns("web", "192.0.2.1", 0) // _S for number in range(1, 9)]

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128]


def test_the_wait_has_an_end() -> None:
    """Nobody waits longer than a quarter of an hour, however often it failed."""
    throttle = _failed(5_000)

    assert throttle.wait_ns("web", "192.0.2.1", 0) == 900 * _S
    assert throttle.wait_ns("web", "192.0.2.1", 900 * _S) == 0


def test_waiting_is_over_when_the_time_is_over() -> None:
    """The wait is counted from the failure."""
    throttle = _failed(_FREE + 3, now_ns=10 * _S)

    assert throttle.wait_ns("web", "192.0.2.1", 12 * _S) == 2 * _S
    assert throttle.wait_ns("web", "192.0.2.1", 14 * _S) == 0


def test_a_clock_that_is_set_back_lets_nobody_wait_longer() -> None:
    """Who failed while the clock was hours ahead waits from now on, and no longer than before."""
    throttle = _failed(_FREE + 3, now_ns=36_000 * _S)

    assert throttle.wait_ns("web", "192.0.2.1", 10 * _S) == 4 * _S
    assert throttle.wait_ns("web", "192.0.2.1", 12 * _S) == 2 * _S
    assert throttle.wait_ns("web", "192.0.2.1", 14 * _S) == 0


def test_a_right_guess_forgets_the_wrong_ones() -> None:
    """Whoever knows the password starts again from nothing."""
    throttle = _failed(_FREE + 4)

    throttle.succeeded("web", "192.0.2.1")
    throttle.failed("web", "192.0.2.1", 0)

    assert throttle.wait_ns("web", "192.0.2.1", 0) == 0


def test_others_do_not_wait() -> None:
    """Another name, and the same name from elsewhere, are not slowed: nobody can lock one out."""
    throttle = _failed(100)

    assert throttle.wait_ns("root", "192.0.2.1", 0) == 0
    assert throttle.wait_ns("web", "198.51.100.1", 0) == 0


@given(st.sampled_from(["WEB", "Web", " web", "web ", "\tweB\n", "\u2009web"]))
def test_spellings_of_a_name_count_together(spelling: str) -> None:
    """A name written otherwise is no fresh start (OpenBao CVE-2025-54998)."""
    throttle = _failed(_FREE + 1)

    assert throttle.wait_ns(spelling, "192.0.2.1", 0) == _S


def test_memory_is_bounded_and_the_newest_stay() -> None:
    """A flood of names pushes out what failed longest ago, and grows nothing."""
    throttle = Throttle()
    for number in range(10_050):
        for _ in range(_FREE + 1):
            throttle.failed(f"user{number}", "192.0.2.1", 0)

    assert len(throttle._failures) == 10_000
    assert throttle.wait_ns("user0", "192.0.2.1", 0) == 0
    assert throttle.wait_ns("user10049", "192.0.2.1", 0) == _S
