"""Figures, their medians, their ratios, and the goals they are held against.

Owns: the goals, and the tables that are printed.
Never: measures, or fails; a figure is for people to judge.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from bench.contestants import Contestant

__all__ = ["GOALS", "Figure", "Goal", "as_json", "costs", "table"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure of kvsecure is held against.

    Attributes:
        ratio_min: At least so many times etcd with TLS and auth.
        ratio_max: At most so many times etcd with TLS and auth; where less is better.
        plain_ratio_min: At least so many times etcd without TLS and auth.
        value_max: At most this, whatever etcd does.
    """

    ratio_min: float | None = None
    ratio_max: float | None = None
    plain_ratio_min: float | None = None
    value_max: float | None = None


# The budgets of the design, by work.
GOALS: Final[dict[str, Goal]] = {
    "put, 10 x 1": Goal(ratio_min=1.6),
    "put, 10 x 10": Goal(ratio_min=5.0, plain_ratio_min=1.0),
    "get, 10 x 10": Goal(ratio_min=6.0, plain_ratio_min=1.0),
    "events, 1,000 watchers, paced": Goal(ratio_min=3.0),
    "events, 1,000 watchers, burst": Goal(ratio_min=3.0),
    "get, command line, cold": Goal(value_max=0.35),
    "1,000,000 keys, memory": Goal(ratio_max=1.0),
    "1,000,000 keys, kept": Goal(ratio_min=1.0),
    "1,000,000 keys, served again after": Goal(ratio_max=1.0),
    "1,000,000 keys, memory after": Goal(ratio_max=1.0),
    "1,000,000 keys, written": Goal(ratio_min=1.0),
    "leader put, 10 x 10": Goal(ratio_min=4.0),
    "leader get, 10 x 10": Goal(ratio_min=5.0),
    "follower put, 10 x 10": Goal(ratio_min=1.0),
    "follower get, 10 x 10": Goal(ratio_min=1.0),
    "leader killed, no write for": Goal(ratio_max=1.0),
    "99th percentile, during to before": Goal(value_max=2.0),
}
_COLUMNS: Final = tuple(Contestant)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement of one contestant.

    Attributes:
        work: What was done, as in the goals.
        contestant: Who did it.
        value: How much.
        unit: Of the value; where it ends in "/s" more is better.
        processor_us: Processor time of the server per operation, where it was read.
        resident_mib: Memory of the server afterwards.
    """

    work: str
    contestant: Contestant
    value: float
    unit: str
    processor_us: float | None = None
    resident_mib: float | None = None


def table(figures: Iterable[Figure]) -> str:
    """Return the medians as text, a line for each work, with ratios and goals."""
    works: dict[tuple[str, str], dict[Contestant, list[Figure]]] = {}
    for figure in figures:
        row = works.setdefault((figure.work, figure.unit), defaultdict(list))
        row[figure.contestant].append(figure)
    heading = ["work", "unit", *(column.value for column in _COLUMNS), "ratio", "to plain", "goal"]
    return _aligned([heading, *(_row(*work, row) for work, row in works.items())])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            # Words stand to the left, figures to the right.
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in rows
    )


def costs(figures: Iterable[Figure]) -> str:
    """Return processor time per operation and memory as text, medians, a line for each work."""
    works: dict[str, dict[Contestant, list[Figure]]] = {}
    for figure in figures:
        if figure.processor_us is not None:
            works.setdefault(figure.work, defaultdict(list))[figure.contestant].append(figure)
    heading = ["us of processor per operation, MiB", "", *(column.value for column in _COLUMNS)]
    return _aligned(
        [heading, *([work, "", *map(_cost, map(row.get, _COLUMNS))] for work, row in works.items())]
    )


def _cost(figures: Sequence[Figure] | None) -> str:
    if not figures:
        return "-"
    processor_us = statistics.median(figure.processor_us or 0.0 for figure in figures)
    resident_mib = statistics.median(figure.resident_mib or 0.0 for figure in figures)
    return f"{processor_us:.1f} us, {resident_mib:,.0f} MiB"


def _row(work: str, unit: str, row: Mapping[Contestant, Sequence[Figure]]) -> list[str]:
    values = {column: _median(row.get(column, ())) for column in _COLUMNS}
    ours = values[Contestant.KVSECURE]
    ratio = _ratio(ours, values[Contestant.ETCD])
    to_plain = _ratio(ours, values[Contestant.PLAIN])
    goal = _judge(GOALS.get(work, Goal()), ours, ratio, to_plain)
    figures = [_text(values[column]) for column in _COLUMNS]
    return [work, unit, *figures, _times(ratio), _times(to_plain), goal]


def _judge(goal: Goal, ours: float | None, ratio: float | None, to_plain: float | None) -> str:
    checks = (
        (goal.ratio_min, ratio, ">= {:g}x"),
        (goal.ratio_max, ratio, "<= {:g}x"),
        (goal.plain_ratio_min, to_plain, ">= {:g}x plain"),
        (goal.value_max, ours, "<= {:g}"),
    )
    words = []
    for bound, value, text in checks:
        if bound is None:
            continue
        words.append(text.format(bound))
        if value is not None:
            met = value >= bound if text.startswith(">") else value <= bound
            words[-1] += " met" if met else " MISSED"
    return ", ".join(words) or "-"


def _median(figures: Iterable[Figure]) -> float | None:
    values = [figure.value for figure in figures]
    return statistics.median(values) if values else None


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def as_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Return every single measurement in a form for machines."""
    return [{**asdict(figure), "contestant": figure.contestant.name} for figure in figures]
