"""The catalogue of refusals: every way to say no, with its gRPC code and its exact text.

    Refused (raised)            carries one Failure, and a detail where the catalogue allows it
    Broken  (raised)            an invariant does not hold: the member stops

Owns: the closed set of failures a client can see.
Never: an exception's own text on the wire; what is not in the catalogue is INTERNAL and logged.
Follows: etcd's rpctypes; Go clients map the text back to a typed error, so it is matched exactly.
"""

from enum import Enum, IntEnum
from typing import Final, NoReturn, final

__all__ = ["Broken", "Code", "Failure", "Refused", "invariant"]


class Code(IntEnum):
    """gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Failure(Enum):
    """One refusal: its code and its text as clients match it."""

    EMPTY_KEY = (Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
    KEY_NOT_FOUND = (Code.INVALID_ARGUMENT, "etcdserver: key not found")
    VALUE_PROVIDED = (Code.INVALID_ARGUMENT, "etcdserver: value is provided")
    LEASE_PROVIDED = (Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
    TOO_MANY_OPS = (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
    DUPLICATE_KEY = (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
    INVALID_CLIENT_API_VERSION = (
        Code.INVALID_ARGUMENT,
        "etcdserver: invalid client api version",
    )
    STREAM_SORT_ORDER = (
        Code.UNIMPLEMENTED,
        "RangeStream does not support custom sort orders",
    )
    STREAM_FILTERS = (Code.UNIMPLEMENTED, "RangeStream does not support revision filters")
    INVALID_SORT_OPTION = (Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
    COMPACTED = (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    FUTURE_REVISION = (
        Code.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    )
    NO_SPACE = (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    LEASE_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: requested lease not found")
    LEASE_EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
    LEASE_TTL_TOO_LARGE = (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
    WATCH_CANCELED = (Code.CANCELLED, "etcdserver: watch canceled")
    REQUEST_TOO_LARGE = (Code.INVALID_ARGUMENT, "etcdserver: request is too large")
    TOO_MANY_REQUESTS = (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
    ROOT_USER_MISSING = (Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")
    ROOT_ROLE_MISSING = (
        Code.FAILED_PRECONDITION,
        "etcdserver: root user does not have root role",
    )
    USER_EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: user name already exists")
    USER_EMPTY = (Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
    USER_NOT_FOUND = (Code.FAILED_PRECONDITION, "etcdserver: user name not found")
    ROLE_EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: role name already exists")
    ROLE_NOT_FOUND = (Code.FAILED_PRECONDITION, "etcdserver: role name not found")
    ROLE_EMPTY = (Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
    AUTH_FAILED = (
        Code.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
    )
    PERMISSION_NOT_GIVEN = (Code.INVALID_ARGUMENT, "etcdserver: permission not given")
    PERMISSION_DENIED = (Code.PERMISSION_DENIED, "etcdserver: permission denied")
    ROLE_NOT_GRANTED = (
        Code.FAILED_PRECONDITION,
        "etcdserver: role is not granted to the user",
    )
    PERMISSION_NOT_GRANTED = (
        Code.FAILED_PRECONDITION,
        "etcdserver: permission is not granted to the role",
    )
    AUTH_NOT_ENABLED = (
        Code.FAILED_PRECONDITION,
        "etcdserver: authentication is not enabled",
    )
    INVALID_AUTH_TOKEN = (Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
    AUTH_OLD_REVISION = (
        Code.INVALID_ARGUMENT,
        "etcdserver: revision of auth store is old",
    )
    INVALID_AUTH_MANAGEMENT = (
        Code.INVALID_ARGUMENT,
        "etcdserver: invalid auth management",
    )
    MEMBER_EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: member ID already exist")
    PEER_URL_EXISTS = (Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
    # The code is a slip of etcd's; clients match the text.
    NOT_ENOUGH_STARTED = (
        Code.UNKNOWN,
        "etcdserver: re-configuration failed due to not enough started members",
    )
    MEMBER_BAD_URLS = (Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
    MEMBER_NOT_FOUND = (Code.NOT_FOUND, "etcdserver: member not found")
    MEMBER_NOT_LEARNER = (
        Code.FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member",
    )
    LEARNER_NOT_READY = (
        Code.FAILED_PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    )
    TOO_MANY_LEARNERS = (
        Code.FAILED_PRECONDITION,
        "etcdserver: too many learner members in cluster",
    )
    # The code of 3.5, by which its clients go on to another member; 3.6 has FAILED_PRECONDITION.
    NOT_FOR_LEARNERS = (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner")
    UNHEALTHY = (Code.UNAVAILABLE, "etcdserver: unhealthy cluster")
    NO_LEADER = (Code.UNAVAILABLE, "etcdserver: no leader")
    STOPPED = (Code.UNAVAILABLE, "etcdserver: server stopped")
    TIMEOUT = (Code.UNAVAILABLE, "etcdserver: request timed out")
    TIMEOUT_LEADER_LOST = (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, possibly due to previous leader failure",
    )
    CORRUPT = (Code.DATA_LOSS, "etcdserver: corrupt cluster")
    NOT_LEADER = (Code.FAILED_PRECONDITION, "etcdserver: not leader")
    BAD_LEADER_TRANSFEREE = (Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
    TRANSFER_TIMEOUT = (
        Code.UNKNOWN,
        "etcdserver: request timed out, leader transfer took too long",
    )
    WRONG_DOWNGRADE_FORMAT = (
        Code.INVALID_ARGUMENT,
        "etcdserver: wrong downgrade target version format",
    )
    INVALID_DOWNGRADE_TARGET = (
        Code.INVALID_ARGUMENT,
        "etcdserver: invalid downgrade target version",
    )
    NO_DOWNGRADE = (Code.FAILED_PRECONDITION, "etcdserver: no inflight downgrade job")
    UNKNOWN_ACTION = (Code.UNKNOWN, "etcdserver: unknown method")
    SESSION_EXPIRED = (Code.UNKNOWN, "mutex: session is expired")
    LEADER_NOT_GIVEN = (Code.UNKNOWN, '"leader" field must be provided')
    NO_ELECTED_LEADER = (Code.UNKNOWN, "election: no leader")
    NOT_ELECTED = (Code.UNKNOWN, "election: not leader")
    DEADLINE_EXCEEDED = (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    CANCELED = (Code.CANCELLED, "context canceled")

    # Not etcd's: what etcd has no word for.
    AUDIT_UNAVAILABLE = (
        Code.UNAVAILABLE,
        "kvsecure: audit unavailable: what was asked is not done, or done without a record",
    )
    # The detail says why; it is of the member's own disk, for an administrator of the cluster.
    MAINTENANCE_FAILED = (Code.UNAVAILABLE, "kvsecure: maintenance failed")
    NOT_LISTENING = (
        Code.FAILED_PRECONDITION,
        "kvsecure: this member does not listen for others: start it with --listen-peer-urls first",
    )
    IDENTITY_CONFLICT = (
        Code.UNAUTHENTICATED,
        "kvsecure: the client certificate and the token name different users",
    )
    PASSWORD_REJECTED = (Code.INVALID_ARGUMENT, "kvsecure: password rejected")
    NAME_REJECTED = (Code.INVALID_ARGUMENT, "kvsecure: name rejected")
    TENANT_EXISTS = (Code.FAILED_PRECONDITION, "kvsecure: tenant name already exists")
    TENANT_NOT_FOUND = (Code.FAILED_PRECONDITION, "kvsecure: tenant name not found")
    TOO_MANY_MEMBERS = (Code.FAILED_PRECONDITION, "kvsecure: too many members")
    # The detail is the same for a token that is not known and for a wrong secret.
    JOIN_TOKEN_REJECTED = (Code.PERMISSION_DENIED, "kvsecure: the join token is not good")
    JOIN_REJECTED = (Code.FAILED_PRECONDITION, "kvsecure: joining rejected")
    KEYS_UNCHANGED = (Code.FAILED_PRECONDITION, "kvsecure: the keys are as they were")
    RETENTION_REJECTED = (Code.INVALID_ARGUMENT, "kvsecure: retention policy rejected")
    RETENTION_NOT_FOUND = (Code.FAILED_PRECONDITION, "kvsecure: retention policy not found")
    TIME_UNKNOWN = (
        Code.OUT_OF_RANGE,
        "kvsecure: nothing is known of revisions that early",
    )
    UNKNOWN_HEALTH_SERVICE = (Code.NOT_FOUND, "unknown service")
    UNKNOWN_METHOD = (Code.UNIMPLEMENTED, "unknown method")
    UNKNOWN_SERVICE = (Code.UNIMPLEMENTED, "unknown service")
    MALFORMED_MESSAGE = (Code.INTERNAL, "grpc: error unmarshalling request")
    MALFORMED_JSON = (Code.INVALID_ARGUMENT, "kvsecure: malformed JSON request")
    CROSS_ORIGIN = (Code.PERMISSION_DENIED, "kvsecure: requests of web pages are not served")
    MESSAGE_TOO_LARGE = (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max")
    UNKNOWN_ENCODING = (
        Code.UNIMPLEMENTED,
        "grpc: Decompressor is not installed for grpc-encoding",
    )
    INTERNAL = (Code.INTERNAL, "kvsecure: internal error")

    @property
    def code(self) -> Code:
        """The gRPC status code."""
        return self.value[0]

    @property
    def text(self) -> str:
        """The text that goes into `grpc-message`."""
        return self.value[1]


# A detail is a fact about the caller's own request, or, for an administrator of the cluster, about
# the cluster's keys; these are the failures that may carry one.
_DETAILED: Final = frozenset(
    {
        Failure.MAINTENANCE_FAILED,
        Failure.PASSWORD_REJECTED,
        Failure.NAME_REJECTED,
        Failure.RETENTION_REJECTED,
        Failure.JOIN_REJECTED,
        Failure.JOIN_TOKEN_REJECTED,
        Failure.KEYS_UNCHANGED,
        Failure.UNKNOWN_METHOD,
        Failure.UNKNOWN_SERVICE,
        Failure.MALFORMED_MESSAGE,
        Failure.MALFORMED_JSON,
        Failure.MESSAGE_TOO_LARGE,
        Failure.UNKNOWN_ENCODING,
    }
)
# How Go's gRPC puts a detail behind the text; elsewhere it stands behind a colon.
_FORMS: Final = {
    Failure.MESSAGE_TOO_LARGE: "{} ({})",
    Failure.UNKNOWN_ENCODING: '{} "{}"',
}


@final
class Refused(Exception):
    """A request is refused for a reason of the catalogue."""

    def __init__(self, failure: Failure, detail: str = "") -> None:
        invariant(not detail or failure in _DETAILED, "this failure has one exact text")
        self.failure = failure
        self.detail = detail
        super().__init__(self.text)

    @property
    def code(self) -> Code:
        """The gRPC status code."""
        return self.failure.code

    @property
    def text(self) -> str:
        """The text that goes into `grpc-message`."""
        if not self.detail:
            return self.failure.text
        return _FORMS.get(self.failure, "{}: {}").format(self.failure.text, self.detail)


@final
class Broken(Exception):
    """An invariant does not hold; going on could lose or show data, so the member stops."""


def invariant(holds: object, why: str) -> None:
    """Stop the member unless the condition holds; unlike `assert` it survives `python -O`.

    Raises:
        Broken: The condition does not hold.
    """
    if not holds:
        _broken(why)


def _broken(why: str) -> NoReturn:
    raise Broken(why)
