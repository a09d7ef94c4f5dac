"""How fast a leader may send to one member."""

from kvsecure.core.raft.progress import Progress, Sending
from kvsecure.core.raft.settings import Settings
from kvsecure.model.ids import Index


def _replicating(*, in_flight_max: int = 3, in_flight_bytes_max: int = 100) -> Progress:
    progress = Progress(
        Settings(in_flight_max=in_flight_max, in_flight_bytes_max=in_flight_bytes_max), Index(5)
    )
    progress.stored(Index(4))
    progress.replicate()
    return progress


def test_probe_is_one_message_at_a_time() -> None:
    """While it is not known where the logs agree, one message is out."""
    progress = Progress(Settings(), Index(5))
    before = progress.is_open
    progress.sent(Index(4), 0)

    assert (before, progress.is_open) == (True, False)
    assert progress.next == 5


def test_window_is_bounded_in_messages_and_bytes() -> None:
    """What is sent ahead stops at so many messages, or so many bytes."""
    progress = _replicating()
    for index in (5, 6, 7):
        assert progress.is_open
        progress.sent(Index(index), 10)
    large = _replicating()
    large.sent(Index(5), 500)

    assert (progress.is_open, large.is_open) == (False, False)
    assert (progress.next, progress.in_flight_bytes) == (8, 30)


def test_window_opens_slowly_after_a_rejection() -> None:
    """What was sent ahead and rejected is not sent ahead in full again before something comes."""
    progress = _replicating(in_flight_max=8)
    progress.reject(Index(5))
    progress.replicate()
    allowed = []
    for index in range(5, 9):
        allowed.append(progress.allowed)
        progress.stored(Index(index))

    assert allowed == [1, 2, 4, 8]
    assert progress.allowed == 8


def test_answer_frees_everything_before_it() -> None:
    """One answer speaks for all messages up to its index."""
    progress = _replicating()
    for index in (6, 8, 9):
        progress.sent(Index(index), 10)

    assert progress.stored(Index(8))
    assert not progress.stored(Index(7))
    assert (len(progress.window), progress.in_flight_bytes, progress.match) == (1, 10, 8)


def test_message_without_entries_takes_no_room() -> None:
    """What carries the commit index alone needs no answer to go on."""
    progress = _replicating()
    progress.sent(Index(4), 0)

    assert (len(progress.window), progress.next) == (0, 5)


def test_guess_never_goes_behind_what_is_known() -> None:
    """A probe begins at the latest after what is known to be stored."""
    progress = _replicating()
    progress.probe(Index(2))

    assert (progress.sending, progress.next) == (Sending.PROBE, 5)


def test_rejections_of_what_was_settled_are_stale() -> None:
    """A rejection counts if it is about the probe that is out, or about what is not known yet."""
    progress = _replicating()
    progress.sent(Index(9), 1)
    replicating = [progress.is_stale(Index(index)) for index in (3, 4, 5)]
    progress.probe(Index(7))
    probing = [progress.is_stale(Index(index)) for index in (5, 6, 7)]
    progress.await_snapshot(Index(8))

    assert replicating == [True, True, False]
    assert probing == [True, False, True]
    assert progress.is_stale(Index(6))
    assert not progress.is_open
