"""The five safety properties of Raft (figure 3), in clusters to which anything happens."""

import random

import pytest
from support.raft_cluster import TICKS, Cluster

from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.refusals import Refusal
from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import MemberId

_SMALL = Settings(
    election_ticks=TICKS,
    append_bytes_max=8,
    in_flight_max=3,
    in_flight_bytes_max=64,
    uncommitted_bytes_max=200,
    reads_max=50,
)


class _Storm:
    """One cluster, and everything that can happen to it, by one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        count = self.random.choice((1, 2, 3, 3, 5))
        members = list(range(1, count + 1))
        self.cluster = Cluster(members, settings=_SMALL, seed=seed)
        self.count = 0

    def rage(self, steps: int) -> None:
        """Let so many things happen, and look at everybody's whole log now and then."""
        for number in range(steps):
            self.step()
            if number % 50 == 0:
                self.cluster.check_logs()
        self.cluster.check_logs()

    def step(self) -> None:
        """Let one thing happen."""
        chance, cluster = self.random.random(), self.cluster
        members = sorted(cluster.running)
        if not members or chance < 0.008:
            self._turn_over(members)
        elif chance < 0.15:
            for member in members:
                cluster.tick(member, self.random.randint(0, 2))
        elif chance < 0.45:
            for member in self.random.sample(members, (len(members) + 1) // 2):
                if self.random.random() < 0.5:
                    cluster.finish_writing(member)
                    cluster.begin_writing(member)
                else:
                    cluster.persist(member)
        elif chance < 0.85:
            self._network()
        elif chance < 0.96:
            self._ask(self.random.choice(members))
        elif chance < 0.965:
            self._cut()
        elif chance < 0.975:
            cluster.compact(self.random.choice(members))
        elif chance < 0.985:
            self._snapshots(chance, members)
        elif chance < 0.99:
            self._change(self.random.choice(members))
        elif chance < 0.994:
            cluster.node(self.random.choice(members)).suspect_leader()

    def _snapshots(self, chance: float, members: list[int]) -> None:
        if chance < 0.98:
            self.cluster.install()
        else:
            # A snapshot that comes late, or from whoever had it.
            self.cluster.give_snapshot(self.random.choice(members), self.random.choice(members))

    def _turn_over(self, members: list[int]) -> None:
        down = sorted(set(self.cluster.disks) - set(members))
        if down and (not members or self.random.random() < 0.6):
            self.cluster.start(self.random.choice(down))
        elif members:
            self.cluster.crash(self.random.choice(members), is_written=self.random.random() < 0.5)

    def _network(self) -> None:
        cluster = self.cluster
        for _ in range(self.random.randint(1, 20)):
            if not cluster.wire:
                return
            # Out of order now and then, or twice, or never.
            place = 0 if self.random.random() < 0.8 else self.random.randrange(len(cluster.wire))
            message = cluster.wire[place]
            fate = self.random.random()
            if fate > 0.03:
                del cluster.wire[place]
            if fate > 0.06:
                cluster.hand_over(message)

    def _ask(self, member: int) -> None:
        self.count += 1
        node = self.cluster.node(member)
        try:
            if self.random.random() < 0.5:
                self.cluster.read(member, self.count)
            else:
                leader = self.cluster.leader or member
                if leader in self.cluster.running:
                    self.cluster.propose(leader, f"{self.count}")
            if self.random.random() < 0.02:
                node.transfer(MemberId(self.random.choice(sorted(self.cluster.disks))))
        except Refusal:
            pass

    def _cut(self) -> None:
        cluster = self.cluster
        if cluster.cut or self.random.random() < 0.3:
            cluster.heal()
            return
        members = sorted(cluster.disks)
        group = self.random.sample(members, self.random.randint(0, len(members) - 1))
        if self.random.random() < 0.5:
            cluster.isolate(group)
        else:
            cluster.cut = {(one, other) for one in group for other in members if other != one}

    def _change(self, member: int) -> None:
        cluster = self.cluster
        everybody = (
            sorted({*cluster.disks, max(cluster.disks) + 1})
            if len(cluster.disks) < 7
            else sorted(cluster.disks)
        )
        voters = self.random.sample(everybody, self.random.randint(1, min(5, len(everybody))))
        rest = [one for one in everybody if one not in voters]
        learners = [one for one in rest if self.random.random() < 0.3]
        try:
            cluster.change(cluster.leader or member, voters, learners)
        except Refusal:
            return
        for one in everybody:
            if one not in cluster.disks:
                cluster.start(one, configuration=Configuration(()))


@pytest.mark.parametrize("seed", range(40))
def test_anything_may_happen_figure_3(seed: int) -> None:
    """Whatever is lost, doubled, late, cut, crashed or changed, all five properties hold."""
    _Storm(seed).rage(1_500)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_anything_may_happen_for_long_figure_3() -> None:
    """Three hundred clusters go through six thousand steps each, and all properties hold."""
    start = random.SystemRandom().getrandbits(32)
    for seed in range(start, start + 300):
        print("seed", seed)
        _Storm(seed).rage(6_000)


@pytest.mark.parametrize("seed", range(20))
def test_cluster_recovers_when_nothing_is_wrong_any_more(seed: int) -> None:
    """After any storm, once all are up and connected, they agree, and commits and reads go on."""
    storm = _Storm(1_000 + seed)
    for _ in range(800):
        storm.step()
    cluster = storm.cluster
    cluster.heal()
    for member in cluster.disks:
        if member not in cluster.running:
            cluster.start(member)
    cluster.settle()
    cluster.pass_time(10 * TICKS)
    before = max(cluster.committed, default=0)
    configuration = cluster.node(cluster.leader).configuration
    agreed = {cluster.node(member).log.applied for member in configuration.members}

    for member in configuration.members:
        cluster.read(member, 10_000 + member)
    cluster.pass_time(2)
    cluster.propose(cluster.leader, "after")
    cluster.pass_time(3)

    cluster.check_logs()
    assert agreed == {before}
    assert {context - 10_000 for _, context, _ in cluster.reads if context > 10_000} == set(
        configuration.members
    )
    assert max(cluster.committed) > before
    assert not configuration.is_joint
    for member in configuration.members:
        assert cluster.applied(member) == cluster.applied(cluster.leader)
