"""`audit heads` against a script, and its output as what a trail is checked against."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from security.lab import keyring
from security.trail import Trail
from support.etcd import ScriptedServer

from kvsecure.cli.audit import _checkpoints
from kvsecure.cli.failures import CommandFailure
from kvsecure.proto import tenant_pb2
from kvsecure.security.audit import Head, signing_key
from kvsecure.server.audit_verify import Checkpoint, StorageError, _checked, _own_of

Run = Callable[..., Result]
_TOLD = tenant_pb2.AuditToldHead(
    member_id=0xBEEF,
    name="m1",
    stream="node/beef",
    seq=51,
    hash=b"h" * 32,
    signature=b"s" * 64,
    time_s=1_800_000_000,
    is_missing=True,
)
_SILENT = tenant_pb2.AuditToldHead(member_id=0xFACE, name="m2", stream="node/face")


def test_heads_are_told_of_every_member(run: Run, scripted: ScriptedServer) -> None:
    """The table is for people, JSON for programs; who has told nothing is listed as well."""
    answer = tenant_pb2.AuditHeadsResponse(heads=[_TOLD, _SILENT])
    scripted.script("/kvsecurepb.Audit/Heads", *[answer] * 2)
    there = ("--endpoint", scripted.endpoint, "audit", "heads")

    table, form = run(*there), run(*there, "--format=json")

    _, told, silent = table.stdout.splitlines()
    assert told.split()[:4] == ["000000000000beef", "m1", "51", "2027-01-15T08:00:00Z"]
    assert told.endswith("LOST")
    assert silent.split() == ["000000000000face", "m2"]
    first, second = json.loads(form.stdout)["heads"]
    assert (first["seq"], first["hash"], first["lost"]) == (51, (b"h" * 32).hex(), True)
    assert (second["seq"], second["told"], second["lost"]) == (0, None, False)
    assert [seen.request for seen in scripted.seen] == [tenant_pb2.AuditHeadsRequest()] * 2


def test_what_heads_prints_is_a_checkpoint(
    run: Run, scripted: ScriptedServer, tmp_path: Path
) -> None:
    """`verify` reads it as it was printed, without those who have told nothing."""
    answer = tenant_pb2.AuditHeadsResponse(heads=[_TOLD, _SILENT])
    scripted.script("/kvsecurepb.Audit/Heads", answer)
    kept = tmp_path / "heads.json"
    kept.write_text(run("--endpoint", scripted.endpoint, "audit", "heads", "--format=json").stdout)

    found = _checkpoints(kept)

    assert found == [Checkpoint("node/beef", 51, b"h" * 32, b"s" * 64)]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "7", '{"heads": 7}', '{"heads": [7]}', '{"heads": []}', '{"heads": [{"seq": 1}]}'],
)
def test_what_is_no_head_cannot_be_checked_against(tmp_path: Path, content: str) -> None:
    """A file that is something else says so, with the status of what cannot be checked."""
    kept = tmp_path / "heads.json"
    kept.write_text(content)

    with pytest.raises(CommandFailure) as failed:
        _checkpoints(kept)

    assert failed.value.exit_code == 2


def test_trail_is_checked_against_its_own_newest_head(tmp_path: Path) -> None:
    """Of the heads of several members the one of the trail counts, if its own key has signed it."""
    keys = keyring()
    trail = Trail(tmp_path / "audit", keys, turns=3)
    stream, heads = trail.open.stream, trail.heads()

    def kept(seq: int) -> Checkpoint:
        head = Head(seq, heads[seq])
        return Checkpoint(stream, seq, head.hash, trail.open.sign(head))

    other = Checkpoint("node/1", 99, b"h" * 32, b"s" * 64)

    chosen = _own_of([kept(1), other, kept(2)], trail.place)

    assert chosen == kept(2)
    assert _checked(chosen, trail.place, keys, signing_key(keys).public) == Head(2, heads[2])
    with pytest.raises(StorageError, match="none of the heads"):
        _own_of([other, other], trail.place)
    with pytest.raises(StorageError, match="not signed"):
        _checked(_own_of([other], trail.place), trail.place, keys, None)
