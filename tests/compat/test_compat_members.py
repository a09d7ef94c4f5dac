"""Stock etcdctl changes members of kvsecure as it changes etcd's: one runs, others are names."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from support.etcdctl import Etcdctl
from support.normal import Normaliser
from support.servers import EtcdMember, Member

# `{own}` is the member that runs, `{new}` the one that was added last, `{url}` where it is reached.
_STEPS: Final = (
    "member list",
    "member list -w table",
    "member remove {own}",
    "member remove 1234",
    "member update 1234 --peer-urls=https://127.0.0.1:9",
    "member update {own} --peer-urls={url}",
    "member promote {own}",
    "move-leader {own}",
    "member add b",
    "member add b --peer-urls={url}",
    "member add b --peer-urls=https://host",
    "member add l --learner --peer-urls=https://127.0.0.1:9901",
    "member list",
    "member list -w json",
    "member list -w table",
    "endpoint status",
    "put a 1",
    "member add k --learner --peer-urls=https://127.0.0.1:9902",
    "member promote {new}",
    "move-leader {new}",
    "member update {new} --peer-urls=https://127.0.0.1:9903,https://127.0.0.1:9902",
    "member update {new} --peer-urls={url}",
    "member remove {new}",
    "member remove {new}",
    # Now two have to agree, and the second one is not there: etcd takes no log-in any more.
    "member add b --peer-urls=https://127.0.0.1:9905,https://127.0.0.1:9904",
)
_ADDED: Final = re.compile(r"Member +([0-9a-f]+) added")
_OWN: Final = re.compile(r"^ *([0-9a-f]+), started", re.MULTILINE)
_INITIAL: Final = re.compile(r'(ETCD_INITIAL_CLUSTER=)"(.*)"')
_FORMS: Final = re.compile(r'\{"ID".*?\}')


@pytest.fixture
def members(subject_type: type[Member], tmp_path: Path) -> Iterator[tuple[Member, Member]]:
    """Etcd and the server under test, which go by what is done to them."""
    with (
        EtcdMember(tmp_path / "etcd") as etcd,
        subject_type(tmp_path / "subject", flags=subject_type.old_tls_flags) as subject,
    ):
        yield etcd, subject


def _told(member: Member) -> list[list[str]]:
    """Return what each step printed, without what differs from one member to another."""
    etcdctl, normaliser = Etcdctl(member), Normaliser.of_member(member)
    own = _OWN.search(etcdctl.run(["member", "list"]).stdout.decode())
    assert own is not None
    words = {"own": own[1], "new": "", "url": f"http://127.0.0.1:{member.peer_port}"}
    known: list[str] = []
    told = []
    for step in _STEPS:
        done = etcdctl.run(step.format(**words).split())
        text = done.stdout.decode() + done.stderr.decode()
        added = _ADDED.search(text)
        if added is not None:
            words["new"] = added[1]
            known.append(added[1])
        for number, each in enumerate(known):
            for form in (each, str(int(each, 16))):
                text = text.replace(form, f"<new {number}>")
        # Ids are padded to 16 digits.
        text = re.sub(r"(Member) +", r"\1 ", normaliser.text(text))
        text = _INITIAL.sub(_sorted_cluster, text)
        # Members are told in the order of their ids, which are nobody's choice.
        lines = sorted(_FORMS.sub(r"\n\g<0>\n", text).splitlines())
        told.append([step, str(done.status), *lines])
    return told


def _sorted_cluster(found: re.Match[str]) -> str:
    return f"{found[1]}{sorted(found[2].split(','))}"


def test_members_are_changed_as_etcd_changes_them(members: tuple[Member, Member]) -> None:
    """Every command says what it says against etcd, down to the last one that gets an answer."""
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(_told, members)

    for their, our in zip(theirs, ours, strict=True):
        assert our == their
