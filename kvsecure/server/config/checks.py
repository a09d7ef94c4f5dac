"""Rules that every flag obeys: its status and its bounds; and the texts of both.

Owns: what is refused, and what is warned about, by the table alone.
Never: knows what two flags mean together.
"""

from typing import Final

from kvsecure.server.config.durations import format_duration
from kvsecure.server.config.flag import Flag, Kind, Status, Value
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Setting, Settings
from kvsecure.server.config.values import default_of

__all__ = ["check_table", "shown"]

_FEATURE_GATES: Final = frozenset(
    {
        "AllAlpha",
        "AllBeta",
        "CompactHashCheck",
        "FastLeaseKeepAlive",
        "InitialCorruptCheck",
        "LeaseCheckpoint",
        "LeaseCheckpointPersist",
        "PriorityRequest",
        "SetMemberLocalAddr",
        "StopGRPCServiceOnDefrag",
        "TxnModeWriteWithSharedBuffer",
    }
)


def check_table(settings: Settings) -> list[str]:
    """Refuse what must not be set, and return warnings about what does nothing.

    Raises:
        ConfigError: A rejected flag is set, or a number is outside its bounds.
    """
    warnings = []
    for flag, value, _ in settings.settings():
        if value == default_of(flag) or value in {"", ()}:
            continue
        if flag.status is Status.REJECTED:
            raise ConfigError(f"--{flag.name}: {flag.help}")
        _check_bounds(flag, value)
        if flag.status is Status.ACCEPTED:
            warnings.append(f"--{flag.name} has no effect: {flag.help}")
    _check_feature_gates(settings)
    return warnings


def shown(setting: Setting) -> str:
    """Return a value as an operator would write it."""
    flag, value, _ = setting
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return format_duration(value) if flag.kind is Kind.DURATION else str(value)
    return value if isinstance(value, str) else ",".join(value)


def _check_bounds(flag: Flag, value: Value) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or flag.bounds is None:
        return
    if flag.bounds.minimum <= value <= flag.bounds.maximum:
        return
    if flag.name == "heartbeat-interval" and value < flag.bounds.minimum:
        raise ConfigError(f"--heartbeat-interval must be >0 (set to {value}ms)")
    if flag.name == "election-timeout" and value > flag.bounds.maximum:
        raise ConfigError(
            f"--election-timeout[{value}ms] is too long, and should be set less than "
            f"{flag.bounds.maximum}ms"
        )
    write = format_duration if flag.kind is Kind.DURATION else str
    raise ConfigError(
        f"--{flag.name} must be between {write(flag.bounds.minimum)} and "
        f"{write(flag.bounds.maximum)} (set to {write(value)})"
    )


def _check_feature_gates(settings: Settings) -> None:
    for part in settings.parts("feature-gates"):
        name, separator, switch = part.partition("=")
        if name not in _FEATURE_GATES:
            raise ConfigError("--feature-gates: unrecognized feature gate; etcd's are known here")
        if not separator or switch not in {"true", "false"}:
            raise ConfigError(f"--feature-gates: {name} must be true or false")
