"""Log-in throttling: guessing gets slower with every wrong guess.

Owns: how long a name from a source has to wait after failures.
Never: locks anybody out for good (that would let anybody lock out anybody), reads a clock.
Follows: NIST SP 800-63B-4 section 3.2.2 (limit the rate of failed attempts).
Keeps: a bounded number of entries; the least recently failed goes first. A clock that is set back
    makes nobody wait for longer than the failures do.
"""

from collections import OrderedDict
from typing import Final, final

__all__ = ["Throttle"]

_FREE_FAILURES: Final = 5
_DELAY_S_MAX: Final = 900
_ENTRIES_MAX: Final = 10_000
_NS: Final = 1_000_000_000


@final
class Throttle:
    """Failures by (name, source)."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        # -> (how many in a row, when the last one was, how long to wait from then)
        self._failures: OrderedDict[tuple[str, str], tuple[int, int, int]] = OrderedDict()

    def wait_ns(self, name: str, source: str, now_ns: int) -> int:
        """Return how long this name must wait before an attempt from this source, 0 for not."""
        key = _fold(name, source)
        found = self._failures.get(key)
        if found is None:
            return 0
        count, failed_ns, delay_ns = found
        if failed_ns > now_ns:
            # The clock was set back, perhaps by hours.
            failed_ns = now_ns
            self._failures[key] = (count, failed_ns, delay_ns)
        return max(0, failed_ns + delay_ns - now_ns)

    def failed(self, name: str, source: str, now_ns: int) -> None:
        """Take note of a wrong guess: from the sixth on the wait doubles from one second."""
        key = _fold(name, source)
        count = self._failures.pop(key, (0, 0, 0))[0] + 1
        delay_s = 0
        if count > _FREE_FAILURES:
            delay_s = min(_DELAY_S_MAX, 1 << min(count - _FREE_FAILURES - 1, 10))
        self._failures[key] = (count, now_ns, delay_s * _NS)
        if len(self._failures) > _ENTRIES_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, name: str, source: str) -> None:
        """Forget the failures: the name was right."""
        self._failures.pop(_fold(name, source), None)


def _fold(name: str, source: str) -> tuple[str, str]:
    """Spellings of one name count together (OpenBao CVE-2025-54998)."""
    return name.strip().casefold(), source
