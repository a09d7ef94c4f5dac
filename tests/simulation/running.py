"""One run of a cluster by its seed, and what was seen in it.

    run(seed)       troubles, then calm; raises Failed if anything was wrong
    Tally           what was visited

Owns: the order of a run, and what must be true at its end.
Never: decides what is right at each step; `invariants` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from simulation.clients import LEASE_US, Histories, model_of
from simulation.cluster import Cluster
from simulation.kernel import MS, SECOND, Kernel
from simulation.machine import command
from simulation.nemesis import Nemesis, put_right
from simulation.profile import Profile, drawn
from simulation.watchers import Watchers
from support.linearizability import Operation, Verdict, check

__all__ = ["Failed", "Tally", "run"]

# Within so long after everything is well, everybody has to have everything.
_CALM_US_MAX: Final = 30 * SECOND
# Then nothing may happen any more for so long.
_REST_US: Final = 2 * SECOND
_LOOK_US: Final = 250 * MS
# No clock is faster than this.
_FASTEST: Final = 1.11


class Failed(AssertionError):
    """Something is wrong; the text begins with the seed."""


@final
@dataclass
class Tally:
    """What was visited."""

    seeds: int = 0
    steps: int = 0
    mishaps: int = 0
    messages_hurt: int = 0
    operations: int = 0
    unanswered: int = 0
    committed: int = 0
    elections: int = 0
    snapshots: int = 0
    torn: int = 0
    watched: int = 0
    unknown: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in vars(self).items())

    def add(self, other: "Tally") -> None:
        """Count what another has counted."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


def run(
    seed: int, *, profile: Profile | None = None, say: Callable[[str], None] | None = None
) -> Tally:
    """Let a cluster live through troubles and come to rest.

    Args:
        seed: Decides everything.
        profile: What the run is like; drawn by the seed if it is not said.
        say: Told what happens, in words.

    Raises:
        Failed: Something was wrong.
    """
    profile = profile or drawn(seed)
    kernel = Kernel(seed)
    cluster = Cluster(kernel, profile, say)
    nemesis = Nemesis(cluster, profile)
    watchers = Watchers(cluster)
    try:
        kernel.run(profile.troubled_us)
        nemesis.is_stopped = True
        put_right(cluster, profile)
        _come_to_rest(cluster)
        watchers.check()
        unknown = _check_histories(cluster)
    except Exception as error:
        text = f"seed {seed}, at {kernel.now_us / SECOND:.6f} s: {type(error).__name__}: {error}"
        raise Failed(text) from error
    histories, network = cluster.clients.histories, cluster.network.counts
    return Tally(
        seeds=1,
        steps=kernel.steps,
        mishaps=nemesis.counts.total(),
        messages_hurt=network.total(),
        operations=histories.counts.total(),
        unanswered=histories.counts["unanswered"],
        committed=cluster.invariants.highest,
        elections=cluster.invariants.elections,
        snapshots=cluster.counts["snapshots installed"],
        torn=sum(member.disk.counts["torn ends"] for member in cluster.members.values()),
        watched=watchers.seen,
        unknown=unknown,
    )


def _come_to_rest(cluster: Cluster) -> None:
    """Wait until everybody has everything, and see that this does not take too long."""
    kernel, invariants = cluster.kernel, cluster.invariants
    # What is late still comes.
    kernel.run(kernel.now_us + max(each.late_us_max for each in cluster.profile.weathers))
    if cluster.profile.ends_deaf:
        _do_without_the_deaf(cluster)
    last_us = kernel.now_us + _CALM_US_MAX
    target = invariants.highest + 1
    while True:
        kernel.run(kernel.now_us + _LOOK_US)
        leader = cluster.leader
        if leader is not None:
            entry = command(cluster.next_serial(), "put", "probe", 0)
            leader.try_to(lambda: leader.node and leader.node.propose([entry]), "probe")  # noqa: B023 - called at once
        wrong = _unrest(cluster, target)
        if not wrong:
            _stay_at_rest(cluster)
            return
        if kernel.now_us > last_us:
            raise AssertionError(f"no rest after {_CALM_US_MAX // SECOND} s of calm: {wrong}")


def _do_without_the_deaf(cluster: Cluster) -> None:
    """Let a leader be heard and hear nobody: the others have to find another one."""
    kernel, deaf = cluster.kernel, cluster.leader
    if deaf is None or deaf.node is None or len(deaf.node.configuration.voters) < 3:
        return
    if deaf.node.configuration.is_joint:
        return
    cluster.say(f"{deaf.member} is deaf")
    cluster.network.cut([each for each in cluster.members if each != deaf.member], [deaf.member])
    last_us = kernel.now_us + _CALM_US_MAX
    while cluster.leader in (deaf, None):
        assert kernel.now_us < last_us, f"nobody takes over from {deaf.member}, who hears nobody"
        kernel.run(kernel.now_us + _LOOK_US)
    cluster.network.heal()


def _stay_at_rest(cluster: Cluster) -> None:
    """See that nobody disturbs a leader whom all hear: neither who was cut off nor who is gone."""
    kernel, invariants = cluster.kernel, cluster.invariants
    elections = invariants.elections
    kernel.run(kernel.now_us + _REST_US)
    assert invariants.elections == elections, "somebody else was elected without any need"


def _unrest(cluster: Cluster, target: int) -> str:
    """Return what keeps a cluster from being at rest, or nothing."""
    invariants = cluster.invariants
    if cluster.leader is None:
        return "nobody leads"
    if invariants.highest < target:
        return f"nothing was committed after {invariants.highest}"
    configuration = invariants.configuration_before(invariants.highest + 1)
    if configuration.is_joint:
        return f"it stays between two configurations: {configuration}"
    for number in configuration.members:
        machine = cluster.members[number].machine
        applied = machine.applied if machine is not None else 0
        if applied < target:
            return f"{number} has applied {applied} and not {target}"
    return ""


def _check_histories(cluster: Cluster) -> int:
    """Check what clients were told; return how many keys were too hard to decide."""
    clients, now_us = cluster.clients, cluster.kernel.now_us
    clients.close()
    histories = clients.histories
    _check_leases(histories)
    # Whoever would read now would see everything that was committed.
    state = cluster.invariants.state()
    keys: dict[str, list[Operation]] = {}
    for operation in histories.operations:
        keys.setdefault(operation.key, []).append(operation)
    unknown = 0
    for key, operations in keys.items():
        name = "holder" if key.startswith("lock") else "get"
        final = Operation(-2, key, name, (), now_us, now_us, state.read(key))
        finding = check(model_of(key), [*operations, final])
        unknown += finding.verdict is Verdict.UNKNOWN
        assert finding.verdict is not Verdict.VIOLATED, finding.text
    return unknown


def _check_leases(histories: Histories) -> None:
    """Nobody was told that a lease lives on which ended too early for that."""
    for owner, kept_us in histories.kept_us.items():
        ended_us = histories.expired_us.get(owner)
        if ended_us is not None:
            lived_us = ended_us - kept_us
            assert lived_us * _FASTEST >= LEASE_US, (
                f"the lease of {owner} ended {lived_us} us after it was kept"
            )
