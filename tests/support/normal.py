"""What two right servers may print differently: ids, times, sizes, terms and indexes.

Owns: the list of such differences, each with its reason; everything else is compared as it is.
Never: drops a line, or a value that a client decides by.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, Self, final

from google.protobuf import text_format
from support.servers import Member

from kvsecure.proto import auth_pb2, kv_pb2, lease_pb2, maintenance_pb2

__all__ = ["Normaliser"]

_SIGNED: Final = 1 << 63
_UNSIGNED: Final = 1 << 64

# (what, by what, why)
_RULES: Final[tuple[tuple[str, str, str], ...]] = (
    (r"127\.0\.0\.1:\d+", "<endpoint>", "each member has its own port"),
    (r"took = [0-9.]+(µs|ms|s)", "took = <time>", "time"),
    (r'"took":"[0-9.]+(µs|ms|s)"', '"took":"<time>"', "time"),
    (r'"Took" : [0-9.]+(µs|ms|s)', '"Took" : <time>', "time"),
    (r"\| +[0-9.]+(µs|ms|s) +\|", "| <time> |", "time"),
    (r'"ts":"[^"]*"', '"ts":"<time>"', "time"),
    (r"etcd-endpoints://0x[0-9a-f]+/", "etcd-endpoints://<address>/", "an address of the client"),
    (r"remaining\(\d+s\)", "remaining(<time>)", "time"),
    (r'"ttl":\d+,"granted-ttl"', '"ttl":<time>,"granted-ttl"', "time"),
    (r'("TTL" : )\d+(\n"GrantedTTL")', r"\1<time>\2", "time"),
    (r'"raft_term":\d+', '"raft_term":<term>', "terms count elections"),
    (r'"RaftTerm" : \d+', '"RaftTerm" : <term>', "terms count elections"),
    (r'"(raftIndex|raftAppliedIndex|raftTerm)":\d+', r'"\1":<index>', "what is in the log is ours"),
    (r'"(RaftIndex|RaftAppliedIndex)" : \d+', r'"\1" : <index>', "what is in the log is ours"),
    (r'"(dbSize|dbSizeInUse)":\d+', r'"\1":<size>', "how it is stored is ours"),
    (r'"(DBSize|DBSizeInUse)" : \d+', r'"\1" : <size>', "how it is stored is ours"),
    (r'"version":"\d[^"]*"', '"version":"<version>"', "each has its own version"),
    (r'"Version" : "\d[^"]*"', '"Version" : "<version>"', "each has its own version"),
    (r"[0-9.]+ [kMG]?B\b", "<size>", "how it is stored is ours"),
)
# endpoint, id, version, size, leader, learner, term, index, applied index, errors
_STATUS_LINE: Final = re.compile(
    r"^(<endpoint>|https?://<endpoint>), (\S+), [0-9.]+\S*, (<size>), (\w+), (\w+), \d+, \d+, \d+,",
    re.MULTILINE,
)
_STATUS_ROW: Final = re.compile(
    r"^\|( *\S+ +\|) +(\S+) +\| +[0-9.]+ +\| +(<size>) +\| +(\w+) +\| +(\w+) +"
    r"\| +\d+ +\| +\d+ +\| +\d+ +\|",
    re.MULTILINE,
)
_GRANTED: Final = re.compile(r'lease ([0-9a-f]{16}) granted|"ID" ?: ?(\d+)')
_ATTACHED: Final = re.compile(r"attached keys\(\[([^\]]*)\]\)")
_AUTH_REVISION: Final = re.compile(r'(AuthRevision: |"authRevision":|"AuthRevision" : )(\d+)')
_TABLE_LINE: Final = re.compile(r"^[|+].*[|+]$", re.MULTILINE)

_ANSWERS: Final[dict[str, type[Any]]] = {
    "get": kv_pb2.RangeResponse,
    "put": kv_pb2.PutResponse,
    "del": kv_pb2.DeleteRangeResponse,
    "txn": kv_pb2.TxnResponse,
    "compaction": kv_pb2.CompactionResponse,
    "lease": lease_pb2.LeaseGrantResponse,
    "user": auth_pb2.AuthUserListResponse,
    "role": auth_pb2.AuthRoleListResponse,
    "alarm": maintenance_pb2.AlarmResponse,
}


@final
class Normaliser:
    """Rewrites the output of commands against one member into what every member would print."""

    def __init__(self, *, names: dict[int, str], auth_revision: int) -> None:
        self._names = dict(names)
        self._auth_revision = auth_revision

    @classmethod
    def of_member(cls, member: Member) -> Self:
        """Return the normaliser that knows the ids of a running member."""
        with member.client() as client:
            header = client.maintenance.Status(maintenance_pb2.StatusRequest()).header
            revision = client.auth.AuthStatus(auth_pb2.AuthStatusRequest()).authRevision
        return cls(
            names={header.cluster_id: "cluster", header.member_id: "member"},
            auth_revision=revision,
        )

    def learn_lease(self, output: bytes) -> None:
        """Print the id of the lease that this output announces as a name from now on."""
        found = _GRANTED.search(output.decode(errors="backslashreplace"))
        if found is None:
            return
        identifier = int(found[1], 16) if found[1] else int(found[2])
        self._names.setdefault(identifier, f"lease {len(self._names) - 1}")

    def stdout(self, arguments: Sequence[str], output: bytes) -> list[str]:
        """Return the lines of a command's output, rewritten."""
        if "protobuf" in arguments or "--write-out=protobuf" in arguments:
            return self._message(arguments, output)
        return self.text(output.decode(errors="backslashreplace")).splitlines()

    def text(self, text: str) -> str:
        """Return text, rewritten."""
        text = self._identifiers(text)
        for pattern, replacement, _ in _RULES:
            text = re.sub(pattern, replacement, text)
        text = _STATUS_LINE.sub(r"\1, \2, <version>, \3, \4, \5, <term>, <index>, <index>,", text)
        text = _STATUS_ROW.sub(
            r"|\1 \2 | <version> | \3 | \4 | \5 | <term> | <index> | <index> |", text
        )
        text = _ATTACHED.sub(_sorted_keys, text)
        text = _AUTH_REVISION.sub(self._relative, text)
        return _TABLE_LINE.sub(_unpadded, text)

    def _identifiers(self, text: str) -> str:
        for identifier, name in self._names.items():
            signed = identifier - _UNSIGNED if identifier >= _SIGNED else identifier
            for form in (f"{identifier:016x}", f"{identifier:x}", str(identifier), str(signed)):
                text = re.sub(rf"(?<![0-9a-f]){form}(?![0-9a-f])", f"<{name}>", text)
        return text

    def _relative(self, found: re.Match[str]) -> str:
        # How many changes made user root and enabled auth is the business of each product.
        return f"{found[1]}base+{int(found[2]) - self._auth_revision}"

    def _message(self, arguments: Sequence[str], output: bytes) -> list[str]:
        answer = _ANSWERS[arguments[0]].FromString(output)
        answer.header.raft_term = 0
        return self._identifiers(text_format.MessageToString(answer)).splitlines()


def _sorted_keys(found: re.Match[str]) -> str:
    # etcd prints the keys of a lease in the order of a Go map: none.
    return f"attached keys([{' '.join(sorted(found[1].split()))}])"


def _unpadded(found: re.Match[str]) -> str:
    # A table is as wide as its widest cell.
    return re.sub(r"-+", "-", re.sub(r" +", " ", found[0]))
