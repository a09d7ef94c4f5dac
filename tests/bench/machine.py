"""What a process and its children cost: processor time and memory, from /proc.

Owns: reading /proc.
Never: samples; it reads before and after.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

__all__ = ["Cost", "cost_of", "describe_machine"]

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor time since its start, and memory now, of a process tree.

    Attributes:
        processor_s: Seconds in user and in kernel mode.
        resident_bytes: Pages that several processes share are shared out among them (Pss), so
            that a sum counts them once.
    """

    processor_s: float
    resident_bytes: int


def cost_of(pid: int) -> Cost:
    """Return what a process and everything it started have cost so far."""
    processor_s, resident = 0.0, 0
    for member in (pid, *_children(pid)):
        # Fields 14 to 17 of stat, counted after the command in its parentheses: own time in user
        # and kernel mode, and that of children that have ended.
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        processor_s += sum(int(field) for field in fields[11:15]) / _TICKS_PER_S
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Pss":
                resident += int(rest.split()[0]) * 1024
    return Cost(processor_s=processor_s, resident_bytes=resident)


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _children(int(child))


def describe_machine() -> str:
    """Return what a reader of the figures must know about this machine."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    return f"{os.cpu_count()} x {processor}, {os.uname().sysname} {os.uname().release}"
