"""The same mistakes, made with a real etcd: the same words, the same exit status."""

import subprocess
import sys
from pathlib import Path

import pytest

from kvsecure.server.config import ConfigError, load

ETCD = Path(sys.executable).with_name("etcd")
KEK = "--kek-file=/run/kek"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--frob"],
        ["--name"],
        ["---name"],
        ["-=3"],
        ["extra"],
        ["--", "extra"],
        ["--snapshot", "x"],
        ["--version=false", "x"],
        ["--heartbeat-interval=abc"],
        ["--heartbeat-interval=0"],
        ["--election-timeout=100"],
        ["--election-timeout=60000"],
        ["--client-cert-auth=maybe"],
        ["--snapshot-count=-1"],
        ["--snapshot-count=99999999999999999999"],
        ["--grpc-keepalive-timeout=5"],
        ["--listen-client-urls=ftp://127.0.0.1:1"],
        ["--listen-client-urls=http://127.0.0.1:1/x"],
        ["--listen-client-urls=http://127.0.0.1"],
        ["--listen-client-urls=http://example.com:1", "--advertise-client-urls=http://a:1"],
        ["--listen-client-urls=http://127.0.0.1:1"],
        ["--listen-client-urls="],
        ["--initial-cluster=b=http://localhost:2381,c=http://localhost:2382"],
        ["--initial-cluster=default=http://localhost:2381,b=http://localhost:2382"],
        ["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
        ["--listen-peer-urls=https://127.0.0.1:2380"],
        ["--listen-peer-urls=http://example.com:1"],
        ["--auto-compaction-mode=frob"],
        ["--config-file=/nonexistent"],
    ],
    ids=" ".join,
)
def test_mistake_is_answered_as_etcd_answers_it(arguments: list[str], tmp_path: Path) -> None:
    """Our text is in etcd's output, and the exit status is the same."""
    with pytest.raises(ConfigError) as ours:
        load([KEK, *arguments], {})

    theirs = subprocess.run(
        [ETCD, f"--data-dir={tmp_path}/etcd", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={},
    )

    # etcd logs as JSON; Go says "no such file" in lower case.
    said = theirs.stderr.replace('\\"', '"').lower()
    assert str(ours.value).lower() in said
    assert ours.value.status == theirs.returncode


def test_conflict_of_variable_and_flag_is_answered_as_etcd_answers_it(tmp_path: Path) -> None:
    """The same words around the variable's name, the same exit status."""
    with pytest.raises(ConfigError) as ours:
        load([KEK, "--name=a"], {"ETCD_NAME": "b"})

    theirs = subprocess.run(
        [ETCD, f"--data-dir={tmp_path}/etcd", "--name=a"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"ETCD_NAME": "b"},
    )

    before, _, after = str(ours.value).partition(' "ETCD_NAME" ')
    assert f"{before} {after.removesuffix(')')}" in theirs.stderr
    assert ours.value.status == theirs.returncode
