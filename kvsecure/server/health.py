"""Health: whether this member lives, is ready, and why not.

Owns: the checks behind `/health`, `/livez` and `/readyz`, their counts, and what they are told.
Never: needs an identity, tells a name, key or value, or changes anything.
Follows: etcd 3.5's health checks, their order, names and texts; differs: who asks for a check that
    does not exist is told so, instead of being told that all is well.
Keeps: a check does what a client would ask for; none of them takes longer than a small read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final
from urllib.parse import parse_qs

from kvsecure.core.mvcc.records import DamagedRecord
from kvsecure.core.state import State
from kvsecure.model.errors import Failure
from kvsecure.model.ids import DEFAULT_TENANT, MemberId
from kvsecure.model.keys import span_of
from kvsecure.proto import maintenance_pb2
from kvsecure.storage.files import StorageError
from kvsecure.telemetry.snapshot import HealthOutcome

__all__ = ["Health", "HealthCounts", "Verdict"]

_EVERYTHING: Final = span_of(b"\0", b"\0")
_FINE: Final = ""
_OK: Final = "ok\n"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a probe is told.

    Attributes:
        status: Of HTTP: 200, or 503 if something fails, or 400 if the question makes no sense.
        text: For people and for logs.
    """

    status: int
    text: str


class _Engine(Protocol):
    """What is asked of the engine."""

    @property
    def state(self) -> State:
        """The applied state."""
        ...

    @property
    def has_leader(self) -> bool:
        """Whether anybody leads."""
        ...

    def is_in_touch(self) -> bool:
        """Tell whether a majority has been heard from lately."""
        ...


class _Check(Protocol):
    """One check."""

    def __call__(self) -> str:
        """Return why it fails, or nothing."""
        ...


@final
class HealthCounts:
    """Plain counts for whoever shows them."""

    __slots__ = ("failures", "outcomes", "passing", "successes")

    def __init__(self) -> None:
        # Answers of /health.
        self.successes = 0
        self.failures = 0
        # Checks of the other two, and how each of them ended last, by (page, check).
        self.outcomes: dict[HealthOutcome, int] = {}
        self.passing: dict[tuple[str, str], bool] = {}

    def add(self, page: str, check: str, *, passed: bool) -> None:
        """Count how a check has ended."""
        outcome = HealthOutcome(page, check, "success" if passed else "error")
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.passing[page, check] = passed


@final
class Health:
    """The health of one member."""

    __slots__ = ("_engine", "_member", "_pages", "counts")

    def __init__(self, engine: _Engine, member: MemberId) -> None:
        """Begin to count.

        Args:
            engine: Is asked for the state, and about the others.
            member: Whose health it is.
        """
        self._engine = engine
        self._member = member
        self.counts = HealthCounts()
        self._pages: dict[str, dict[str, _Check]] = {
            "livez": {"serializable_read": self._local_read},
            "readyz": {
                "data_corruption": self._corruption,
                "serializable_read": self._local_read,
                "linearizable_read": self._agreed_read,
                "non_learner": self._learning,
            },
        }

    # --- pages ----------------------------------------------------------------------------------

    def overall(self, query: str) -> str:
        """Return why `/health` fails, or nothing: alarms, then the leader, then a read."""
        asked = parse_qs(query)
        is_local = asked.get("serializable", [""])[0] == "true"
        reason = self._alarm(frozenset(asked.get("exclude", ())))
        if not reason and not is_local and not self._engine.has_leader:
            reason = "RAFT NO LEADER"
        if not reason:
            failure = self._local_read() if is_local else self._agreed_read()
            reason = failure and f"RANGE ERROR:{failure}"
        if reason:
            self.counts.failures += 1
        else:
            self.counts.successes += 1
        return reason

    def verdict(self, path: str, query: str) -> Verdict | None:
        """Answer `/livez`, `/readyz`, or one check of them; None if there is no such page."""
        page, slash, name = path.removeprefix("/").partition("/")
        checks = self._pages.get(page)
        if checks is None or (slash and name not in checks):
            return None
        asked = parse_qs(query, keep_blank_values=True)
        is_verbose = "verbose" in asked
        if slash:
            return self._run(page, (name,), is_verbose=is_verbose)
        excluded, allowed = _names(asked, "exclude"), _names(asked, "allowlist")
        if excluded and allowed:
            return Verdict(status=400, text="exclude and allowlist cannot be used together\n")
        unknown = [each for each in allowed if each not in checks]
        if unknown:
            # Nothing would be checked, and nothing would fail.
            return Verdict(status=400, text=f"the checks are {', '.join(checks)}\n")
        # Whoever excludes a check that only another version has need not be told.
        chosen = [each for each in checks if each not in excluded]
        if allowed:
            chosen = [each for each in chosen if each in allowed]
        return self._run(page, chosen, is_verbose=is_verbose)

    def _run(self, page: str, names: Sequence[str], *, is_verbose: bool) -> Verdict:
        lines = []
        is_fine = True
        for name in names:
            reason = self._pages[page][name]()
            self.counts.add(page, name, passed=not reason)
            if reason:
                is_fine = False
                lines.append(f"[-]{name} failed: {reason}\n")
            else:
                lines.append(f"[+]{name} ok\n")
        if not is_fine:
            return Verdict(status=503, text="".join(lines))
        return Verdict(status=200, text="".join([*lines, _OK]) if is_verbose else _OK)

    # --- checks ---------------------------------------------------------------------------------

    def _alarm(self, excluded: frozenset[str]) -> str:
        for _, kind in sorted(self._engine.state.alarms):
            name = maintenance_pb2.AlarmType.Name(kind)
            if name not in excluded:
                return f"ALARM {name}"
        return _FINE

    def _corruption(self) -> str:
        is_raised = self._engine.state.is_raised(maintenance_pb2.CORRUPT)
        return "alarm activated: CORRUPT" if is_raised else _FINE

    def _local_read(self) -> str:
        """Read a key as it is here: from memory or the tables, and open what is sealed.

        It is the first there is; the record itself is looked up, which a range request for keys
        alone would not do, and handed to nobody, however large it is.
        """
        store = self._engine.state.store
        space = store.space(DEFAULT_TENANT)
        key = next(space.index.keys_now(_EVERYTHING), None)
        place = space.index.at(key, store.revision) if key is not None else None
        try:
            if place is not None:
                store.records.get(place, space.tenant)
        except (DamagedRecord, StorageError):
            # Nobody is told which row: anybody may ask here.
            return Failure.CORRUPT.text
        return _FINE

    def _agreed_read(self) -> str:
        """Read a key as a majority has it."""
        if not self._engine.has_leader:
            return Failure.NO_LEADER.text
        return self._local_read() if self._engine.is_in_touch() else Failure.TIMEOUT.text

    def _learning(self) -> str:
        """Tell whether this member has no vote: it answers next to nobody then."""
        is_learner = self._engine.state.members.is_learner(self._member)
        return "not supported for learner" if is_learner else _FINE


def _names(asked: dict[str, list[str]], key: str) -> frozenset[str]:
    return frozenset(filter(None, asked.get(key, ())))
