"""`crypto` against a script: what is sent, what is printed, and the exit status."""

import json
import time
from collections.abc import Callable

import pytest
from click.testing import Result
from support.etcd import ScriptedServer

from kvsecure.proto import crypto_pb2

Run = Callable[..., Result]
_PATH = "/kvsecurepb.Crypto/"
_OLD = crypto_pb2.CryptoTerm(term=1, record_rows=4, index_rows=2, log_segments=1, audit_segments=3)
_NEW = crypto_pb2.CryptoTerm(term=2, made_s=1_800_000_000, current=True, record_rows=9)
_RETIRED = crypto_pb2.CryptoTerm(term=1, retired=True, audit_segments=3)
_Progress = crypto_pb2.CryptoProgress


def _status(
    *terms: crypto_pb2.CryptoTerm, state: int = _Progress.NONE, why: str = ""
) -> crypto_pb2.CryptoStatusResponse:
    return crypto_pb2.CryptoStatusResponse(
        provider="kms",
        kek_id="abcd",
        kms_key_id="key-1",
        terms=terms,
        progress=_Progress(state=state, term=2, rows=6, why=why),  # type: ignore[arg-type]  # an enum is an int here
        counted=True,
    )


def test_status_tells_keys_ages_and_what_is_under_them(run: Run, scripted: ScriptedServer) -> None:
    """The table is for people, JSON for programs; both have everything."""
    scripted.script(f"{_PATH}Status", *[_status(_OLD, _NEW)] * 2)
    there = ("--endpoint", scripted.endpoint, "crypto", "status")

    table, form = run(*there), run(*there, "--format=json")

    lines = table.stdout.splitlines()
    assert lines[0] == "key-encryption key abcd (kms, key-1)"
    assert lines[2].split()[:5] == ["1", "in", "use", "unknown", "unknown"]
    assert lines[3].split()[:4] == ["2", "current", "2027-01-15", "08:00:00Z"]
    said = json.loads(form.stdout)
    assert [term["state"] for term in said["terms"]] == ["in use", "current"]
    assert said["terms"][0]["audit_segments"] == 3
    assert said["reencryption"]["state"] == "none"
    assert [seen.request for seen in scripted.seen] == [
        crypto_pb2.CryptoStatusRequest(count=True)
    ] * 2


def test_age_is_told_in_days(run: Run, scripted: ScriptedServer) -> None:
    """A key that was made three days ago is three days old."""
    made_s = int(time.time()) - 3 * 86_400 - 60
    term = crypto_pb2.CryptoTerm(term=1, made_s=made_s, current=True)
    scripted.script(f"{_PATH}Status", _status(term))

    done = run("--endpoint", scripted.endpoint, "crypto", "status")

    assert "3 days" in done.stdout


@pytest.mark.parametrize(("words", "kek"), [((), False), (("--kek",), True)])
def test_rotate_says_what_is_new(
    run: Run, scripted: ScriptedServer, words: tuple[str, ...], *, kek: bool
) -> None:
    """A new data key is told by its term, a new key-encryption key by its id."""
    answer = crypto_pb2.CryptoRotateResponse(term=5, provider="file", kek_id="beef")
    scripted.script(f"{_PATH}Rotate", answer)

    done = run("--endpoint", scripted.endpoint, "crypto", "rotate", *words)

    assert scripted.seen[0].request == crypto_pb2.CryptoRotateRequest(kek=kek)
    assert ("beef (file)" if kek else "term 5") in done.stdout


def test_reencrypt_waits_and_prints_the_proof(run: Run, scripted: ScriptedServer) -> None:
    """It looks until it is done, and then counts."""
    running = crypto_pb2.CryptoReencryptResponse(progress=_Progress(state="RUNNING", term=2))
    scripted.script(f"{_PATH}Reencrypt", running)
    scripted.script(
        f"{_PATH}Status",
        _status(state=_Progress.RUNNING),
        _status(state=_Progress.DONE),
        _status(_RETIRED, _NEW, state=_Progress.DONE),
    )

    done = run("--endpoint", scripted.endpoint, "crypto", "reencrypt", "--rows-per-second=7")

    assert done.exit_code == 0
    assert scripted.seen[0].request == crypto_pb2.CryptoReencryptRequest(rows_per_second=7)
    assert done.stdout.splitlines()[-1] == (
        "ok: 6 rows sealed anew; nothing of tables and log is under a term before 2"
    )


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (_status(state=_Progress.FAILED, why="a row does not open"), "a row does not open"),
        (_status(_OLD, _NEW, state=_Progress.DONE), "7 rows and segments are under older terms"),
    ],
    ids=["failed", "left"],
)
def test_reencrypt_that_did_not_come_to_its_end_fails(
    run: Run, scripted: ScriptedServer, last: crypto_pb2.CryptoStatusResponse, why: str
) -> None:
    """What could not be done, and what a count finds after all, is an exit status."""
    failed = crypto_pb2.CryptoReencryptResponse(progress=last.progress)
    scripted.script(f"{_PATH}Reencrypt", failed)
    scripted.script(f"{_PATH}Status", last)

    done = run("--endpoint", scripted.endpoint, "crypto", "reencrypt")

    assert done.exit_code == 1
    assert why in done.stderr


def test_key_is_not_retired_without_being_told_twice(run: Run, scripted: ScriptedServer) -> None:
    """Without a terminal --yes is needed; nothing is sent before."""
    there = ("--endpoint", scripted.endpoint, "crypto", "retire")
    scripted.script(f"{_PATH}Retire", crypto_pb2.CryptoRetireResponse())

    refused, done = run(*there, "1"), run(*there, "1", "--yes")

    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert done.stdout == "term 1 is retired: its key is destroyed\n"
    assert [seen.request for seen in scripted.seen] == [crypto_pb2.CryptoRetireRequest(term=1)]
