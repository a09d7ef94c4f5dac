"""Clusters of real processes, one for the tests of a module.

Owns: how a cluster comes to a test, and what must be true when the test is over.
Never: breaks anything; the tests do.
"""

from collections.abc import Iterator

import pytest
from cluster.members import RealCluster, places_on_loopback

__all__: list[str] = []


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Three members with TLS everywhere; etcdctl 3.5.1 speaks no TLS 1.3.

    In the end all have the same history.
    """
    places = places_on_loopback(3)
    directory = tmp_path_factory.mktemp("trio")
    with RealCluster(directory, places, ("--tls-min-version=TLS1.2",)) as cluster:
        yield cluster
        cluster.mend()
        cluster.assert_alike()


@pytest.fixture
def calm(founded: RealCluster) -> RealCluster:
    """Three members that serve, for a test that does them no harm."""
    founded.mend()
    return founded


@pytest.fixture
def trio(founded: RealCluster) -> Iterator[RealCluster]:
    """Three members that serve; in the end all have the same history, whatever was done to them."""
    founded.mend()
    yield founded
    founded.mend()
    founded.assert_alike()
