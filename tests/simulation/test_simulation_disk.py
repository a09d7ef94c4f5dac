"""The simulated disk and network do what real ones do, and nothing worse."""

import pytest
from simulation.disk import Pace, Recovered, SimulatedDisk
from simulation.kernel import SECOND, Kernel
from simulation.network import Network, Weather

from kvsecure.model.ids import MemberId


class _Lab:
    """A disk and what it has said."""

    def __init__(self, seed: int) -> None:
        self.kernel = Kernel(seed)
        self.told: list[str] = []
        self.disk = SimulatedDisk(
            self.kernel, MemberId(1), Pace(segment_bytes=400), lambda: self.told.append("broken")
        )

    def append(self, first: int, text: bytes) -> None:
        """Append a frame of one entry."""
        self.disk.append(first, 1, text, lambda: self.told.append(f"durable {first}"))

    def settle(self) -> None:
        """Let everything that was begun end."""
        self.kernel.run(self.kernel.now_us + SECOND)

    def restarted(self, *, is_power_lost: bool = True) -> Recovered:
        """Crash and start again."""
        self.disk.crash(is_power_lost=is_power_lost)
        return self.disk.recover()


@pytest.mark.parametrize("seed", range(20))
def test_what_was_said_to_be_durable_survives_the_loss_of_power(seed: int) -> None:
    """Frames that were synced are read back in order, over several segments and crashes."""
    lab = _Lab(seed)
    for index in range(1, 9):
        lab.append(index, b"%d" % index * 60)
        lab.settle()
        if index % 3 == 0:
            lab.restarted()

    found = lab.restarted()

    assert [frame.first for frame in found.frames] == list(range(1, 9))
    assert found.frames[-1].text == b"8" * 60


def test_an_unfinished_write_is_there_torn_or_lost() -> None:
    """Of a frame that was not synced a crash leaves all, nothing, or an end that is cut off."""
    kept = torn = 0
    for seed in range(60):
        lab = _Lab(seed)
        lab.append(1, b"a")
        lab.settle()
        lab.append(2, bytes(range(256)) * 8)

        found = lab.restarted()

        assert [frame.first for frame in found.frames][:1] == [1]
        kept += len(found.frames) == 2
        torn += lab.disk.counts["torn ends"]
        assert lab.told == ["durable 1"]
        lab.append(2, b"again")
        lab.settle()
        assert lab.restarted().frames[-1].text == b"again"
    assert 0 < kept < 60
    assert torn


def test_a_process_that_is_killed_leaves_its_writes_behind() -> None:
    """What was written and not synced is there after a kill: only the power takes it away."""
    for seed in range(20):
        lab = _Lab(seed)
        lab.append(1, b"a" * 2_000)

        assert len(lab.restarted(is_power_lost=False).frames) == 1


def test_a_sync_that_fails_is_not_a_sync() -> None:
    """The member is told to stop, and never that its write is durable."""
    lab = _Lab(1)
    lab.disk.is_failing = True
    lab.append(1, b"a")

    lab.settle()

    assert lab.told == ["broken"]


@pytest.mark.parametrize("seed", range(20))
def test_tables_are_replaced_whole(seed: int) -> None:
    """After a crash in the middle of it there are the old ones or the new ones."""
    lab = _Lab(seed)
    lab.disk.replace_tables(b"old" * 500, lambda: None)
    lab.settle()
    lab.disk.replace_tables(b"new" * 500, lambda: None)
    lab.kernel.run(lab.kernel.now_us + lab.kernel.chance.randrange(6_000))

    assert lab.restarted().tables in (b"old" * 500, b"new" * 500)


def test_a_purged_log_keeps_what_it_has_to() -> None:
    """Only segments whose entries are all in the tables go, and never the newest."""
    lab = _Lab(1)
    for index in range(1, 30):
        lab.append(index, b"x" * 60)
        lab.settle()

    lab.disk.purge(20)
    found = lab.restarted()
    assert 1 < found.frames[0].first <= 21
    assert found.frames[-1].first == 29

    lab.disk.purge(29)
    assert lab.restarted().frames[-1].first == 29


def _network(seed: int, weather: Weather) -> tuple[Kernel, Network, list[tuple[int, bytes, bool]]]:
    kernel = Kernel(seed)
    came: list[tuple[int, bytes, bool]] = []

    def deliver(receiver: int, _: int, content: bytes, is_whole: bool) -> None:  # noqa: FBT001 - the network calls by position
        came.append((receiver, content, is_whole))

    return kernel, Network(kernel, deliver, weather), came


def test_a_link_is_cut_one_way() -> None:
    """What is cut is cut in one direction until it is healed."""
    kernel, network, came = _network(1, Weather())
    network.cut([1], [2])
    network.send(1, 2, b"lost")
    network.send(2, 1, b"heard")
    kernel.run(SECOND)
    network.heal()
    network.send(1, 2, b"healed")
    kernel.run(2 * SECOND)

    assert came == [(1, b"heard", True), (2, b"healed", True)]


def test_weather_loses_doubles_overtakes_and_damages() -> None:
    """Each happens about as often as was wanted, and damage is told from what is whole."""
    weather = Weather(lost=0.2, doubled=0.2, late=0.2, damaged=0.2)
    kernel, network, came = _network(1, weather)
    sent = [b"message %d" % number for number in range(1_000)]
    for content in sent:
        network.send(1, 2, content)
    kernel.run(SECOND)

    whole = [content for _, content, is_whole in came if is_whole]
    assert all(100 < network.counts[what] < 350 for what in ("lost", "doubled", "late", "damaged"))
    assert set(whole) < set(sent)
    assert len(set(whole)) < len(whole)
    assert whole != sorted(whole, key=sent.index)
