"""The pair: etcd and the server under test, side by side, with the same content.

Owns: the life of the pair, and clients that ask both the same question.
Never: compares; the tests do.
"""

from collections.abc import Iterator

import pytest
from support.pair import Pair
from support.servers import EtcdMember, Member


@pytest.fixture(scope="module")
def pair(subject_type: type[Member], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Etcd and the server under test, serving; one pair for all tests of a module."""
    directory = tmp_path_factory.mktemp("pair")
    with EtcdMember(directory / "etcd") as etcd, subject_type(directory / "subject") as subject:
        pair = Pair(etcd, subject)
        yield pair
        pair.close()
