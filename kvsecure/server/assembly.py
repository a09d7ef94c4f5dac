"""Assembly: everything that a member is made of, put together in one place.

Owns: construction, in order, from configuration to what listeners need; nothing else constructs.
Never: behaviour of its own beyond connecting parts.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from google.protobuf.message import Message

from kvsecure.access.decide import check_total
from kvsecure.api.header import HeaderEncoder
from kvsecure.api.methods import METHODS
from kvsecure.api.services import Services
from kvsecure.bundled import resource
from kvsecure.core.engine import Engine
from kvsecure.core.member import MemberFacts
from kvsecure.core.peering import type_answer
from kvsecure.core.raft.status import Role
from kvsecure.core.scans import Place, Scans
from kvsecure.crypto.signing import SigningKey
from kvsecure.model.errors import Refused
from kvsecure.model.ids import DEFAULT_TENANT, SYSTEM_TENANT, Index, Term
from kvsecure.model.versions import ETCD_VERSION
from kvsecure.pki.trust import ClientCertificates, MinimumVersion, ServerTls
from kvsecure.proto import kv_pb2, lease_pb2, state_pb2
from kvsecure.security.audit import AuditTrail
from kvsecure.security.audit_heads import AuditHeads
from kvsecure.security.audit_watch import AuditWatch
from kvsecure.security.authn import Authenticator
from kvsecure.security.comparing import Comparing
from kvsecure.security.feeds import Feeds
from kvsecure.security.gate import Gate
from kvsecure.security.introduction import Introduction
from kvsecure.security.long_ranges import LongRanges
from kvsecure.security.membership import Membership
from kvsecure.security.password_policy import PasswordPolicy
from kvsecure.security.queues import Queues
from kvsecure.security.token_keys import TokenKeys
from kvsecure.security.tokens import TokenMint
from kvsecure.security.upkeep import Upkeep
from kvsecure.server.admission import TokenAdmission
from kvsecure.server.autocompact import AutoCompactor
from kvsecure.server.backup_keys import backup_job
from kvsecure.server.beginning import beginning_of
from kvsecure.server.config.model import Compat, ServerConfig
from kvsecure.server.credentials import Credentials
from kvsecure.server.datadir import DataDirectory
from kvsecure.server.front import FrontEnd, front_end
from kvsecure.server.long_work import LongWork
from kvsecure.server.peer_port import PeerPort
from kvsecure.server.peer_setting import (
    link_timing,
    peer_credentials,
    peer_identity,
    raft_settings,
    tick_s,
)
from kvsecure.server.purging import Purging
from kvsecure.server.restore import Restored, restore
from kvsecure.server.sealing import Sealing
from kvsecure.server.snapshot_receiving import SnapshotReceiving
from kvsecure.server.tasks import Tasks
from kvsecure.server.turn import Turn
from kvsecure.storage.segment import Kind
from kvsecure.storage.worker import Order
from kvsecure.telemetry.log import log

__all__ = [
    "MemberCredentials",
    "MemberParts",
    "assemble",
    "credentials_of",
    "default_tenant_is_secured",
    "default_tenant_is_untouched",
]

_TOKEN_PURPOSE: Final = "token-signing/1"  # noqa: S105 - the name of a purpose
_TABLES_BYTES_MIN: Final = 16 * 1024**3
_LEASE_SCAN_S: Final = 0.5
_STALE_SCAN_S: Final = 0.25
_COMPACTION_SCAN_S: Final = 1.0
_AUDIT_SYNC_S: Final = 1.0
_PURGE_SCAN_S: Final = 0.1
_INTRODUCTION_S: Final = 1.0
_HEADS_S: Final = 1.0
_PROMOTION_S: Final = 0.5

_log = log("server")


@final
class MemberCredentials(NamedTuple):
    """What a member shows and whom it trusts; None where nothing speaks TLS."""

    # The one policy of all listeners for clients.
    clients: Credentials | None
    # That of the links to other members.
    peers: Credentials | None


@final
class MemberParts:
    """A member, put together and not yet started."""

    def __init__(
        self,
        *,
        engine: Engine,
        gate: Gate,
        upkeep: Upkeep,
        turn: Turn,
        front: FrontEnd,
        restored: Restored,
        sealing: Sealing,
        peer_port: PeerPort,
        introduction: Introduction,
        heads: AuditHeads,
    ) -> None:
        self.engine = engine
        self.peer_port = peer_port
        self.gate = gate
        self.upkeep = upkeep
        self.turn = turn
        self.front = front
        self.restored = restored
        self.sealing = sealing
        self.introduction = introduction
        self.heads = heads


def assemble(
    config: ServerConfig,
    directory: DataDirectory,
    credentials: MemberCredentials,
    *,
    tasks: Tasks,
    on_fatal: Callable[[str], None],
    begin_anew: Callable[[], None],
) -> MemberParts:
    """Put a member together; it runs within the event loop that is running.

    Args:
        config: The configuration.
        directory: The data directory, open and locked.
        credentials: What it shows and whom it trusts.
        tasks: What the member does besides answering.
        on_fatal: Told once why the member cannot go on.
        begin_anew: Called when other tables have taken the place of these, which another life of
            the member has to begin with.

    Raises:
        StorageError: The data directory cannot be used as it is.
        Broken: The law does not cover every method.
    """
    check_total([method.request for method in METHODS.values()])
    beginning = beginning_of(config, directory.identity)
    restored = restore(
        directory,
        tables_bytes_max=_tables_bytes_max(config),
        now_ns=time.monotonic_ns(),
        founders=beginning.founders,
        beginning=beginning.voters,
        patience=raft_settings(config.peers),
        stands_alone=config.cluster.stands_alone,
    )
    gate = _gate(config, directory, restored)
    loop = asyncio.get_running_loop()
    turn, in_turn = Turn(gate, loop), LongWork(loop).add
    peer_port = _peer_port(config, directory, credentials.peers, tasks, on_fatal)
    engine = _engine(config, restored, gate, turn, on_fatal, in_turn, peer_port)
    gate.open_to(engine, turn.schedule)
    feeds = Feeds(gate)
    scans = Scans(engine, _tables_of(config, directory))
    receiving = _receiving(config, directory, engine, gate, begin_anew)
    peer_port.open_to(engine, gate.events.note_credentials, scans, receiving)
    peer_port.begin(beginning.peers)
    upkeep = Upkeep(
        gate,
        scans,
        spawn=tasks.spawn,
        schedule=turn.schedule,
    )
    comparing = Comparing(gate, upkeep, spawn=tasks.spawn)
    sealing = Sealing(directory, restored.reader, gate, tasks.spawn)
    services = _services(
        config, directory, gate, feeds, upkeep, turn, in_turn, tasks.spawn, sealing, peer_port
    )
    heads = _audit_heads(directory, gate, tasks.spawn)
    engine.peering.answering |= _answering(gate, services, comparing, heads)
    front = front_end(
        *(config, directory.identity.trust_domain, services, turn, tasks, credentials.clients),
        peer_port.links,
    )
    _add_periodic_work(config, engine, gate, turn)
    introduction = Introduction(gate, _token_key(directory).public, turn.schedule)
    engine.timers.every(_INTRODUCTION_S, introduction.look)
    engine.timers.every(_HEADS_S, heads.look)
    engine.timers.every(_PROMOTION_S, services.membership.promote_joined)
    engine.timers.every(_STALE_SCAN_S, feeds.wake_stale)
    engine.timers.every(_STALE_SCAN_S, services.queues.wake_stale)
    engine.timers.every(_PURGE_SCAN_S, Purging(directory, gate, scans, tasks.spawn).look)
    if config.limits.corrupt_check_ns:
        engine.timers.every(max(1.0, config.limits.corrupt_check_ns / 1e9), comparing.begin)
    return MemberParts(
        engine=engine,
        gate=gate,
        upkeep=upkeep,
        turn=turn,
        front=front,
        restored=restored,
        sealing=sealing,
        peer_port=peer_port,
        introduction=introduction,
        heads=heads,
    )


def _answering(
    gate: Gate, services: Services, comparing: Comparing, heads: AuditHeads
) -> dict[type[Message], type_answer]:
    """Return who answers what other members ask."""
    return {
        lease_pb2.LeaseKeepAliveRequest: gate.leases.answer_member,
        lease_pb2.LeaseTimeToLiveRequest: gate.leases.answer_member,
        state_pb2.LearnerReadiness: services.membership.answer_member,
        state_pb2.MarkRequest: comparing.answer_member,
        state_pb2.ToldHeadRequest: heads.answer_member,
    }


def _audit_heads(
    directory: DataDirectory, gate: Gate, spawn: Callable[[Coroutine[Any, Any, None]], None]
) -> AuditHeads:
    return AuditHeads(
        gate,
        directory.place(Kind.AUDIT),
        lambda: directory.keyring,
        spawn=spawn,
        now_ns=time.monotonic_ns,
        wall_ns=time.time_ns,
    )


def credentials_of(config: ServerConfig) -> MemberCredentials:
    """Return what a member shows and whom it trusts.

    Raises:
        TrustError: Its files cannot be used; found out before anything else is done.
    """
    return MemberCredentials(_client_credentials(config), peer_credentials(config))


def _client_credentials(config: ServerConfig) -> Credentials | None:
    security = config.security
    if security.cert_file is None or security.key_file is None:
        return None
    tls = ServerTls(
        cert_file=security.cert_file,
        key_file=security.key_file,
        trusted_ca_file=security.trusted_ca_file,
        crl_file=security.client_crl_file,
        client_certificates=ClientCertificates(security.client_certificates.value),
        minimum=MinimumVersion(security.tls_minimum.value),
    )
    return Credentials(tls, lambda: datetime.now(UTC))


def _gate(config: ServerConfig, directory: DataDirectory, restored: Restored) -> Gate:
    audit = AuditTrail(
        directory.place(Kind.AUDIT),
        directory.keyring,
        known=restored.audit_head,
        on_segment=lambda path: restored.log.send(Order.AUDIT, os.fsencode(path)),
        wall_ns=time.time_ns,
    )
    return Gate(
        authenticator=_authenticator(config, directory, restored, audit.stream),
        audit=audit,
        passwords=_password_policy(config),
        facts=_facts(config, directory),
        now_ns=time.monotonic_ns,
    )


def _engine(
    config: ServerConfig,
    restored: Restored,
    gate: Gate,
    turn: Turn,
    on_fatal: Callable[[str], None],
    in_turn: Callable[[Callable[[], None]], None],
    peer_port: PeerPort,
) -> Engine:
    def on_slow_apply(took_ns: int) -> None:
        # etcd's words, which operators look for.
        _log.warning("apply request took too long", took=f"{took_ns / 1e6:.1f}ms")

    engine = Engine(
        restored.replica,
        restored.log,
        restored.tables,
        refresh=restored.reader.refresh,
        reopen=restored.reader.reopen,
        now_ns=time.monotonic_ns,
        wall_ns=time.time_ns,
        on_finished=gate.finished,
        on_batch=turn.end,
        on_fatal=on_fatal,
        on_slow_apply=on_slow_apply,
        slow_apply_ns=config.limits.slow_apply_ns,
        in_turn=in_turn,
        audit=gate.audit,
        peers=peer_port,
        tick_s=tick_s(config.peers),
    )
    sizes = restored.reader.sizes()
    engine.statistics.table_bytes = sizes.total
    engine.statistics.table_bytes_in_use = sizes.in_use
    return engine


def _peer_port(
    config: ServerConfig,
    directory: DataDirectory,
    credentials: Credentials | None,
    tasks: Tasks,
    on_fatal: Callable[[str], None],
) -> PeerPort:
    identity = directory.identity
    return PeerPort(
        peer_identity(config, identity.cluster, identity.member),
        credentials,
        link_timing(config.peers),
        tasks=tasks,
        on_fatal=on_fatal,
    )


def _receiving(
    config: ServerConfig,
    directory: DataDirectory,
    engine: Engine,
    gate: Gate,
    begin_anew: Callable[[], None],
) -> SnapshotReceiving:
    node = engine.replica.node

    def wants(index: Index, _: Term) -> bool:
        return node.role is not Role.LEADER and index > node.log.committed

    def on_installed(_: Index) -> None:
        # What is in memory and on its way is of tables that are gone.
        engine.stop()
        begin_anew()

    return SnapshotReceiving(
        directory,
        tables_bytes_max=_tables_bytes_max(config),
        wants=wants,
        audit_head=lambda: gate.audit.durable_head,
        on_installed=on_installed,
    )


def _services(
    config: ServerConfig,
    directory: DataDirectory,
    gate: Gate,
    feeds: Feeds,
    upkeep: Upkeep,
    turn: Turn,
    in_turn: Callable[[Callable[[], None]], None],
    spawn: Callable[[Coroutine[Any, Any, None]], None],
    sealing: Sealing,
    peer_port: PeerPort,
) -> Services:
    loop = asyncio.get_running_loop()
    encoder = HeaderEncoder(directory.identity.cluster, directory.identity.member)
    node = gate.engine.replica.node

    def later(delay_s: float, act: Callable[[], None]) -> Callable[[], None]:
        return loop.call_later(delay_s, act).cancel

    membership = Membership(
        gate,
        wall_ns=time.time_ns,
        later=later,
        active=peer_port.long_active,
        listens=bool(config.peers.listen),
        is_strict=config.cluster.strict_reconfig_check,
    )
    return Services(
        gate=gate,
        ranges=LongRanges(gate, in_turn),
        feeds=feeds,
        queues=Queues(gate, at_turn_end=turn.at_end, in_turn=in_turn),
        upkeep=upkeep,
        membership=membership,
        admission=TokenAdmission(config, gate, membership, time.time_ns),
        header=lambda revision: encoder.field(revision, node.term),
        at_turn_end=turn.at_end,
        in_turn=in_turn,
        later=later,
        spawn=spawn,
        txn_ops_max=config.limits.txn_ops_max,
        request_bytes_max=config.limits.request_bytes_max,
        progress_interval_s=config.limits.watch_progress_interval_ns / 1e9,
        random_bytes=secrets.token_bytes,
        keys=sealing,
    )


def _tables_bytes_max(config: ServerConfig) -> int:
    return max(_TABLES_BYTES_MIN, 4 * max(config.limits.quota_bytes, 0))


def _tables_of(config: ServerConfig, directory: DataDirectory) -> Place:
    keyring = directory.keyring
    return Place(
        directory=directory.tables,
        cluster=directory.identity.cluster,
        size_bytes_max=_tables_bytes_max(config),
        keys=lambda: {
            facts.term: keyring.data_key(facts.term, purpose="table")
            for facts in keyring.terms
            if not facts.is_retired
        },
        backup=lambda: backup_job(directory),
    )


def _token_key(directory: DataDirectory) -> SigningKey:
    return SigningKey(directory.keyring.root_key(purpose=_TOKEN_PURPOSE))


def _authenticator(
    config: ServerConfig, directory: DataDirectory, restored: Restored, stream: str
) -> Authenticator:
    key, state = _token_key(directory), restored.replica.state
    return Authenticator(
        state,
        TokenMint(
            key,
            directory.identity.cluster,
            config.security.token_ttl_s,
            TokenKeys(key.public, state.members).find,
        ),
        stream=stream,
        wall_ns=time.time_ns,
        token_beats_certificate=config.compat is Compat.ETCD,
    )


def _password_policy(config: ServerConfig) -> PasswordPolicy:
    if config.compat is Compat.ETCD:
        return PasswordPolicy((), characters_min=0)
    return PasswordPolicy(_lines(resource("policies", "blocked-passwords.txt")))


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _facts(config: ServerConfig, directory: DataDirectory) -> MemberFacts:
    warnings: tuple[str, ...] = ()
    if config.compat is Compat.ETCD:
        warnings = ("kvsecure: compat etcd: weaker than kvsecure's defaults",)
    peer_urls = next(
        (urls for name, urls in config.cluster.members if name == config.member.name), ()
    )
    return MemberFacts(
        cluster=directory.identity.cluster,
        member=directory.identity.member,
        name=config.member.name,
        peer_urls=peer_urls,
        client_urls=config.member.advertise_client_urls,
        version=ETCD_VERSION,
        quota_bytes=config.limits.quota_bytes,
        warnings=warnings,
    )


def _add_periodic_work(config: ServerConfig, engine: Engine, gate: Gate, turn: Turn) -> None:
    """Leases that fall due, compaction, and the audit trail's place."""
    compactor = AutoCompactor(config.limits.compaction, time.monotonic_ns())

    def compact() -> None:
        if engine.leading.is_own:
            target = compactor.due(time.monotonic_ns(), engine.state.store.revision)
            if target is not None:
                command = kv_pb2.CompactionRequest(revision=target)
                # If it is refused, it is due again at the next look.
                with contextlib.suppress(Refused):
                    gate.submit_system(SYSTEM_TENANT, command)
                turn.schedule()

    def expire() -> None:
        gate.leases.scan()
        turn.schedule()

    engine.timers.every(_LEASE_SCAN_S, expire)
    engine.timers.every(_COMPACTION_SCAN_S, compact)
    engine.timers.every(_AUDIT_SYNC_S, engine.sync_audit)
    engine.timers.every(_AUDIT_SYNC_S, AuditWatch(gate, turn.schedule).look)
    engine.timers.every(_AUDIT_SYNC_S, _RoomWatch(engine).look)


@final
class _RoomWatch:
    """Says when the disk is full, and when there is room again: nothing else would at a start."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._was_full = False

    def look(self) -> None:
        """Say what has changed."""
        is_full = self._engine.is_disk_full
        if is_full and not self._was_full:
            _log.error("the disk is full: nothing is written or taken until there is room")
        elif self._was_full and not is_full:
            _log.info("there is room on the disk again")
        self._was_full = is_full


def default_tenant_is_untouched(parts: MemberParts) -> bool:
    """Tell whether nobody has made any account yet: the cluster has yet to be founded."""
    tenant = parts.engine.state.accounts.tenant(DEFAULT_TENANT)
    return tenant is not None and tenant.auth_revision == 1 and not tenant.users


def default_tenant_is_secured(parts: MemberParts) -> bool:
    """Tell whether whoever connects has to say who it is."""
    tenant = parts.engine.state.accounts.tenant(DEFAULT_TENANT)
    return tenant is not None and tenant.record.auth_enabled
