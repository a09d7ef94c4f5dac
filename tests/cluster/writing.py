"""Clients that write to a cluster all the while, and what they were told.

Owns: the threads, the keys they write, and which writes were acknowledged.
Never: judges anything.
Keeps: no key is written twice, so a write whose answer was lost is not confused with another.
"""

import contextlib
from typing import Final, final

import grpc
from cluster.crew import Crew
from cluster.members import DEADLINE_S, RealCluster, eventually
from support.processes import wait_until

from kvsecure.proto import kv_pb2

__all__ = ["Load"]

_TIMEOUT_S: Final = 3.0


@final
class Load(Crew):
    """A thread for each of some members, which puts one key after the other."""

    def __init__(self, cluster: RealCluster, prefix: bytes) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self._cluster = cluster
        self._prefix = prefix
        super().__init__(self._run, [(member.name,) for member in cluster.answering])

    def wait_for_more(self, count: int) -> None:
        """Wait until that many more writes are acknowledged.

        Raises:
            TimeoutError: They are not.
        """
        target = len(self.acknowledged) + count
        wait_until(
            lambda: len(self.acknowledged) >= target,
            deadline_s=DEADLINE_S,
            what="acknowledged writes",
        )

    def lost(self, name: str) -> set[bytes]:
        """Return the keys whose write was acknowledged and that are not so at this member."""
        request = kv_pb2.RangeRequest(key=self._prefix, range_end=self._prefix + b"\xff")
        # A client that was refused while the member was away does not try again at once.
        kvs = eventually(lambda: self._cluster.client(name).kv.Range(request)).kvs
        there = {bytes(kv.key): kv.mod_revision for kv in kvs}
        return {key for key, told in self.acknowledged.items() if there.get(key) != told}

    def _run(self, name: str) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            key = b"%s/%s/%06d" % (self._prefix, name.encode(), number)
            request = kv_pb2.PutRequest(key=key, value=b"v")
            try:
                client = self._cluster.client(name)
                answer = client.kv.Put(request, timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    # The member's clock has jumped, or the token was of one that is no more.
                    with contextlib.suppress(grpc.RpcError, TimeoutError):
                        self._cluster.log_in(name)
                continue
            self.acknowledged[key] = answer.header.revision
