"""The audit trail, watched over: its file is where it was, and somebody hears when it fails.

Owns: looking now and then, telling the operator once when requests begin to be refused for want of
    a record, and once when that is over.
Never: writes around the trail, or lets anything pass because the trail fails.
Follows: docs/audit.md; OpenBao went on writing into an audit file that had been removed.
"""

from collections.abc import Callable
from typing import Final, final

from kvsecure.security.gate import Gate
from kvsecure.telemetry.log import log

__all__ = ["AuditWatch"]

_log: Final = log("audit")


@final
class AuditWatch:
    """Looks after one trail."""

    __slots__ = ("_failing", "_failures", "_gate", "_schedule")

    def __init__(self, gate: Gate, schedule: Callable[[], None]) -> None:
        """Begin to watch.

        Args:
            gate: Whose trail it is.
            schedule: Makes a turn end.
        """
        self._gate = gate
        self._schedule = schedule
        self._failures = gate.audit.failures
        self._failing = False

    def look(self) -> None:
        """Look whether the trail is in order; call this about once a second."""
        audit = self._gate.audit
        in_place = audit.check_in_place()
        failed = audit.failures - self._failures
        self._failures = audit.failures
        if not in_place or failed:
            if not self._failing:
                _log.error(
                    "the audit trail cannot be written: every request is refused until it can",
                    error=audit.last_failure if failed else "its file is not where it was",
                )
            self._failing = True
        elif self._failing:
            self._failing = False
            _log.info("the audit trail can be written again")
            self._gate.events.note("audit-recovered", failures=audit.failures)
            self._schedule()
