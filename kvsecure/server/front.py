"""The front end: what the listeners of a member serve, put together.

Owns: which of them serve calls, pages and JSON, and what they have in common.
Never: opens a socket.
"""

import time
from typing import NamedTuple, final

from kvsecure.api.methods import METHODS
from kvsecure.api.services import Services
from kvsecure.model.limits import GRPC_OVERHEAD_BYTES
from kvsecure.server.accepting import Accepting
from kvsecure.server.calls import CallCounts
from kvsecure.server.config.model import ClientIdentity, MetricsDetail, ServerConfig
from kvsecure.server.credentials import Credentials
from kvsecure.server.gateway import Gateway
from kvsecure.server.health import Health
from kvsecure.server.http2 import Shared
from kvsecure.server.identity import IdentityOf, fingerprint_of
from kvsecure.server.observatory import Observatory
from kvsecure.server.peer_connection import ListenerStatistics
from kvsecure.server.peers import PeerLinks
from kvsecure.server.places import PlaceBounds, Refusals
from kvsecure.server.snapshot import snapshot_of
from kvsecure.server.tasks import Tasks
from kvsecure.server.turn import Turn
from kvsecure.telemetry.histogram import METHOD_BUCKETS_S, Histogram
from kvsecure.wire.h2.pings import PingLimits

__all__ = ["FrontEnd", "front_end"]


@final
class FrontEnd(NamedTuple):
    """Three kinds of listeners.

    Attributes:
        client: For clients.
        pages: For plain HTTP, where it has listeners of its own.
        metrics: For the observatory's pages alone.
    """

    client: Accepting
    pages: Accepting
    metrics: Accepting


def front_end(
    config: ServerConfig,
    trust_domain: str,
    services: Services,
    turn: Turn,
    tasks: Tasks,
    credentials: Credentials | None,
    links: PeerLinks,
) -> FrontEnd:
    """Put the front end together.

    Args:
        config: The configuration.
        trust_domain: Of which cluster a client's certificate has to be.
        services: What serves calls.
        turn: Where answers wait.
        tasks: What the member does besides answering.
        credentials: What is shown to peers, and whom we trust; None if nobody speaks TLS.
        links: The ways to the other members, whose numbers are shown.
    """
    limits = config.limits
    timed = config.logging.metrics is MetricsDetail.EXTENSIVE
    counts = {path: CallCounts(Histogram(METHOD_BUCKETS_S) if timed else None) for path in METHODS}
    calls_statistics, pages_statistics = ListenerStatistics(), ListenerStatistics()
    refusals, health = Refusals(), Health(services.gate.engine, services.gate.facts.member)
    observatory = Observatory(
        health,
        lambda: snapshot_of(
            *(services.gate, services.feeds, counts, (calls_statistics, pages_statistics)),
            *(refusals, health.counts, credentials, links),
        ),
    )
    gateway = Gateway(
        services=services,
        turn=turn,
        counts=counts,
        now_ns=time.monotonic_ns,
        message_bytes_max=limits.request_bytes_max + GRPC_OVERHEAD_BYTES,
    )
    by_common_name = config.security.client_identity is ClientIdentity.COMMON_NAME
    read_identity = IdentityOf(trust_domain, by_common_name=by_common_name)

    def accepting(
        statistics: ListenerStatistics, *, serves_calls: bool, serves_pages: bool, serves_json: bool
    ) -> Accepting:
        return Accepting(
            shared=Shared(
                services=services,
                turn=turn,
                counts=counts,
                observatory=observatory,
                now_ns=time.monotonic_ns,
                streams_max=limits.streams_per_connection_max,
                request_bytes_max=limits.request_bytes_max,
                serves_calls=serves_calls,
                serves_pages=serves_pages,
                pings=_pings(config),
                gateway=gateway if serves_json and config.listen.gateway else None,
            ),
            statistics=statistics,
            read_identity=read_identity,
            fingerprint=fingerprint_of,
            on_handshake_failure=services.gate.events.note_handshake_failure,
            on_cut=services.gate.events.note_cut,
            spawn=tasks.spawn,
            spawn_vital=tasks.spawn_vital,
            credentials=credentials,
            places=_places(config),
            refusals=refusals,
        )

    own = bool(config.listen.client_http)
    return FrontEnd(
        accepting(calls_statistics, serves_calls=True, serves_pages=not own, serves_json=not own),
        accepting(pages_statistics, serves_calls=False, serves_pages=True, serves_json=own),
        accepting(pages_statistics, serves_calls=False, serves_pages=True, serves_json=False),
    )


def _pings(config: ServerConfig) -> PingLimits:
    limits = config.limits
    return PingLimits(
        interval_ns_min=limits.keepalive_min_time_ns,
        silence_ns_max=limits.keepalive_interval_ns,
        answer_ns_max=limits.keepalive_timeout_ns,
    )


def _places(config: ServerConfig) -> PlaceBounds:
    return PlaceBounds(
        per_source_max=config.limits.connections_per_source_max,
        per_local_source_max=config.limits.connections_per_local_source_max,
    )
