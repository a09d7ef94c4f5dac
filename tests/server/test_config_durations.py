"""Go's notation of durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.server.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1\u03bcs", 1_000),
        ("100ms", 100_000_000),
        ("1m0s", 60_000_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("+5s", 5_000_000_000),
        ("-1.5s", -1_500_000_000),
        ("1h1m1s1ms1us1ns", 3_661_001_001_001),
        ("0.9ns", 0),
        ("9223372036854775807ns", (1 << 63) - 1),
    ],
)
def test_duration_reads_what_go_reads(text: str, duration_ns: int) -> None:
    """Numbers with units add up; fractions of a nanosecond are cut off."""
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "+",
        "5",
        "5 s",
        " 5s",
        "s",
        ".s",
        "1d",
        "1e3s",
        "--1s",
        "1s-1s",
        "1\u0661s",
        "9223372036854775808ns",
        "1h" * 40,
    ],
)
def test_duration_refuses_what_go_refuses(text: str) -> None:
    """A number without a unit, an unknown unit, an overflow: none is a duration."""
    with pytest.raises(ValueError, match="time: invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (999, "999ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (7_200_000_000_000, "2h0m0s"),
        (3_600_000_000_001, "1h0m0.000000001s"),
        (-1_000_000, "-1ms"),
    ],
)
def test_duration_prints_what_go_prints(duration_ns: int, text: str) -> None:
    """The shortest unit that keeps a digit before the point, hours down to seconds above it."""
    assert format_duration(duration_ns) == text


@given(st.integers(-(1 << 63) + 1, (1 << 63) - 1))
def test_duration_survives_printing_and_reading(duration_ns: int) -> None:
    """What is printed reads back as the same number of nanoseconds."""
    assert parse_duration(format_duration(duration_ns)) == duration_ns


@given(st.text(max_size=80))
def test_duration_of_any_text_is_a_number_or_a_value_error(text: str) -> None:
    """No text breaks the reading."""
    try:
        duration_ns = parse_duration(text)
    except ValueError:
        return

    assert isinstance(duration_ns, int)
