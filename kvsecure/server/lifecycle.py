"""A member's life: start, serve, stop.

Owns: the process: its limits, signals, exit status, and the order of starting and stopping.
Never: keeps going after an error that it does not understand.
Follows: etcd's process contract (etcd-surface section 7.1): the ready line, and ending by the very
    signal that was received.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import os
import resource as rlimits
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, final

import uvloop

from kvsecure import __version__
from kvsecure.model.errors import Broken, Refused
from kvsecure.model.ids import DEFAULT_TENANT
from kvsecure.model.versions import ETCD_VERSION
from kvsecure.pki.trust import TrustError
from kvsecure.server.assembly import (
    MemberCredentials,
    MemberParts,
    assemble,
    credentials_of,
    default_tenant_is_secured,
    default_tenant_is_untouched,
)
from kvsecure.server.config import USAGE, ConfigError, Early, ServerConfig, load
from kvsecure.server.config.model import ClusterState, Compat
from kvsecure.server.credentials import Credentials
from kvsecure.server.datadir import DataDirectory, MemberIdentity
from kvsecure.server.discovery.failure import DiscoveryFailed
from kvsecure.server.founding import founding_commands, must_be_founded
from kvsecure.server.joining import encode_members, join, refuse_second_founding
from kvsecure.server.kek import kek_source
from kvsecure.server.listener import Listener
from kvsecure.server.listening import open_listeners, watch_credentials
from kvsecure.server.pauses import note_pauses
from kvsecure.server.tasks import Tasks
from kvsecure.storage.files import StorageError
from kvsecure.telemetry.log import Format, Level, LogSettings, log, set_up

__all__ = ["run"]

_PR_SET_DUMPABLE: Final = 4
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_STOP_S_MAX: Final = 1.0
_HAND_OVER_S_MAX: Final = 0.5
_LAST_WORDS_S: Final = 0.05
_TICK_S: Final = 0.05

_log = log("server")


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a server until it is told to stop; return the exit status.

    Args:
        argv: The arguments without the program's name.
        environ: The process's environment.
    """
    try:
        config = load(argv, environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        if error.status == 2:
            sys.stderr.write(USAGE)
        return error.status
    if isinstance(config, Early):
        sys.stdout.write(config.text)
        return 0
    _set_up_log(config)
    _harden()
    try:
        credentials = credentials_of(config)
        ended_by = _live(config, _identity(config, credentials.peers), credentials)
    except (DiscoveryFailed, StorageError, TrustError, OSError, Broken) as error:
        _log.error("the server cannot run", error=str(error))
        return 1
    if isinstance(ended_by, str):
        _log.error("the server stops", error=ended_by)
        return 1
    # Whoever started us sees that it was the signal (etcd).
    signal.signal(ended_by, signal.SIG_DFL)
    os.kill(os.getpid(), ended_by)
    return 128 + ended_by


def _live(
    config: ServerConfig, identity: MemberIdentity, credentials: MemberCredentials
) -> int | str:
    """Live until something ends it for good; return what."""
    while True:
        directory = _open_directory(config, identity)
        ended_by = uvloop.run(_Life(config, directory, credentials).live())
        if ended_by is not None:
            return ended_by
        # Another member's state has taken the place of ours. Until the next life hears
        # signals, one about new certificates is no reason to die: they are noticed all the same.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        directory.lock.close()
        # Whoever sent it is a member, whatever this process was started for.
        cluster = dataclasses.replace(config.cluster, stands_alone=False)
        config = dataclasses.replace(config, cluster=cluster)
        gc.unfreeze()
        _log.info("beginning anew with the state of another member")


@final
class _Life:
    """One run of a member."""

    def __init__(
        self, config: ServerConfig, directory: DataDirectory, credentials: MemberCredentials
    ) -> None:
        self._config = config
        self._directory = directory
        self._credentials = credentials
        self._stop: asyncio.Future[int | str | None]
        self._tasks: Tasks

    async def live(self) -> int | str | None:
        """Start, serve, stop.

        Returns:
            The signal that ended it, or why it could not go on; None if it has to begin anew.
        """
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, int(number))
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.set_exception_handler(self._on_exception)
        async with asyncio.TaskGroup() as group:
            self._tasks = Tasks(group, self._end)
            try:
                return await self._run()
            except (StorageError, OSError, Broken) as error:
                # Out of a task group it would come as part of a group, which nobody knows by name.
                failed = error
        raise failed

    async def _run(self) -> int | str | None:
        parts = assemble(
            self._config,
            self._directory,
            self._credentials,
            tasks=self._tasks,
            on_fatal=self._end,
            begin_anew=self._begin_anew,
        )
        try:
            ended_by = await self._serve(parts)
        finally:
            self._tasks.cancel()
            self._close(parts)
        if ended_by is None:
            # The next life opens the directory again.
            await asyncio.to_thread(parts.restored.close)
        return ended_by

    async def _serve(self, parts: MemberParts) -> int | str | None:
        _audit_start(parts, self._config)
        if not self._config.peers.listen and not parts.engine.is_alone:
            raise StorageError(
                "this member has others and does not listen for them: give --listen-peer-urls"
            )
        if self._config.peers.listen:
            await parts.peer_port.links.listen(self._config.peers.listen_urls)
        await self._unless_stopped(parts.engine.start())
        if not self._stop.done():
            await self._unless_stopped(self._secure(parts))
        if not self._stop.done():
            await self._introduce(parts)
        if self._stop.done():
            return await self._stop
        if self._config.limits.corrupt_check_at_start:
            await self._unless_stopped(parts.upkeep.check())
            if self._stop.done():
                return await self._stop
        # What is there now stays: it need not be walked again and again.
        gc.collect()
        gc.freeze()
        async with open_listeners(self._config, parts, self._credentials.clients) as listeners:
            ended_by = await self._listen(parts, listeners)
            await self._hand_over(parts)
        await self._say_goodbye(parts)
        if isinstance(ended_by, int):
            await parts.heads.tell_last()
        return ended_by

    async def _listen(self, parts: MemberParts, listeners: Sequence[Listener]) -> int | str | None:
        """Serve until something ends it; return what."""
        credentials = self._credentials.clients
        if credentials is not None:
            # Without it a certificate that is revoked would be good for ever.
            self._tasks.spawn_vital(
                "the watch over certificates", watch_credentials(parts, credentials, listeners)
            )
        self._tick(parts)
        self._second(parts)
        note_pauses(asyncio.get_running_loop(), parts.engine.statistics.pauses.observe)
        self._tasks.spawn(parts.sealing.resume())
        _log.info(
            "ready to serve client requests",
            name=self._config.member.name,
            cluster_id=f"{self._directory.identity.cluster:x}",
            member_id=f"{self._directory.identity.member:x}",
        )
        return await self._stop

    async def _hand_over(self, parts: MemberParts) -> None:
        """Let another member lead first, so that nobody has to wait for an election."""
        leading = parts.engine.leading
        heir = leading.heir()
        if heir is not None:
            with contextlib.suppress(Refused, TimeoutError):
                async with asyncio.timeout(_HAND_OVER_S_MAX):
                    await leading.move(heir)

    async def _say_goodbye(self, parts: MemberParts) -> None:
        """Send everybody elsewhere, and wait a little while until they have gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S_MAX):
                for accepting in parts.front:
                    accepting.go_away()
                for accepting in parts.front:
                    empty = asyncio.Event()
                    accepting.when_empty(empty.set)
                    await empty.wait()

    async def _secure(self, parts: MemberParts) -> None:
        """Have the first accounts made by whoever leads, and wait until they are in the state."""
        if not must_be_founded(self._config):
            return
        while default_tenant_is_untouched(parts):
            if parts.engine.leading.is_own:
                await self._found(parts)
            else:
                # Another member makes them, or this one comes to lead: nobody says when.
                await asyncio.sleep(_TICK_S)

    async def _found(self, parts: MemberParts) -> None:
        """Make the first accounts, and wait until they are in the state.

        Raises:
            StorageError: They are not; without them anybody could make them.
        """
        commands = founding_commands(self._config, parts.gate.passwords)
        for command in commands:
            parts.gate.submit_system(DEFAULT_TENANT, command)
        parts.turn.end()
        made = asyncio.Event()
        parts.engine.when_settled(made.set)
        await self._unless_stopped(made.wait())
        if commands and not self._stop.done() and not default_tenant_is_secured(parts):
            why = parts.gate.audit.last_failure or "a command was refused, see the audit trail"
            raise StorageError(
                f"the first accounts could not be made: {why}. Nothing is served without them; "
                "mend it and start again"
            )

    async def _introduce(self, parts: MemberParts) -> None:
        """Have the state say where this member is, and what its tokens are verified with."""
        parts.introduction.look()
        parts.turn.end()
        said = asyncio.Event()
        parts.engine.when_settled(said.set)
        await self._unless_stopped(said.wait())

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for something that may never end, on a full disk for one, or for the stop."""
        waiting = asyncio.ensure_future(work)
        await asyncio.wait((waiting, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
        waiting.cancel()

    def _close(self, parts: MemberParts) -> None:
        for accepting in parts.front:
            for connection in list(accepting.connections):
                connection.abort()
        parts.gate.events.note("stop")
        parts.turn.end()
        parts.gate.authenticator.close()
        parts.engine.stop()
        parts.peer_port.links.close()
        parts.gate.audit.close()

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Stop for a broken invariant; anything else has cost one connection and is logged."""
        error = context.get("exception")
        if isinstance(error, Broken):
            self._end(f"an invariant does not hold: {error}")
        loop.default_exception_handler(context)

    def _reload(self) -> None:
        """Read the files of TLS again: somebody says that they are new."""
        for each in self._credentials:
            if each is not None:
                each.look_now()

    def _begin_anew(self) -> None:
        """End this life for the next one; whoever sent the state hears first that it is there."""
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._end, None)

    def _end(self, by: int | str | None) -> None:
        if not self._stop.done():
            self._stop.set_result(by)

    def _tick(self, parts: MemberParts) -> None:
        # First of all: whatever goes wrong, the next one comes.
        asyncio.get_running_loop().call_later(_TICK_S, self._tick, parts)
        now_ns = parts.front.client.shared.now_ns()
        for accepting in parts.front:
            accepting.tick(now_ns)

    def _second(self, parts: MemberParts) -> None:
        asyncio.get_running_loop().call_later(1.0, self._second, parts)
        for accepting in parts.front:
            accepting.second()


def _identity(config: ServerConfig, peers: Credentials | None) -> MemberIdentity:
    """Return whose the data directory is, if it is new; the other members have a say in that.

    Raises:
        StorageError: They know nothing of this member, or too much.
        DiscoveryFailed: Nobody tells who they are.
    """
    told, discovered = b"", b""
    is_new = not (config.member.data_dir / "member.json").exists()
    if config.cluster.discovery is not None and is_new:
        # DNS and gRPC are large, and wanted once in a member's life.
        from kvsecure.server.discovery.discovering import discover

        with _ended_by_signal():
            config, founders = discover(config)
        discovered = encode_members(founders)
    elif config.cluster.discovery is not None:
        _log.info("discovery is not asked: the data directory has the cluster that it belongs to")
    cluster_id, member_id = config.cluster.cluster_id, config.member.member_id
    if is_new and config.cluster.state is ClusterState.EXISTING:
        joined = uvloop.run(join(config, peers))
        cluster_id, member_id = joined.cluster, joined.member
        told, discovered = encode_members(joined.members), b""
    elif is_new:
        uvloop.run(refuse_second_founding(config, peers))
    return MemberIdentity(
        cluster=cluster_id,
        member=member_id,
        token=config.cluster.token,
        trust_domain=config.cluster.name,
        joined=told,
        founders=discovered,
    )


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Have SIGTERM end a wait that may be long, also where nothing is the default.

    That is so for the first process of a container.
    """

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_directory(config: ServerConfig, wanted: MemberIdentity) -> DataDirectory:
    kek = kek_source(config.security.kek, config.security.previous_kek)
    return DataDirectory(config.member.data_dir, wanted, kek)


def _audit_start(parts: MemberParts, config: ServerConfig) -> None:
    parts.gate.events.note(
        "start",
        version=__version__,
        compat=config.compat.value,
        settings=dict(config.given),
        cut_bytes=parts.restored.cut_bytes,
        redone_bytes=parts.restored.audit_redone_bytes,
    )
    if config.cluster.stands_alone:
        left_behind = [f"{member:x}" for member in parts.restored.left_behind]
        _log.warning(
            "--force-new-cluster: this member stands alone; take the flag away, or the next start "
            "removes whoever is added",
            removed=left_behind,
        )
        parts.gate.events.note("new-cluster-forced", removed=left_behind)
    parts.turn.end()


def _set_up_log(config: ServerConfig) -> None:
    logging = config.logging
    set_up(
        LogSettings(
            level=Level[logging.level.name],
            format=Format[logging.format.name],
            outputs=logging.outputs,
        )
    )
    for warning in config.warnings:
        _log.warning(warning)
    if config.compat is Compat.ETCD:
        _log.warning("compat etcd is on: this server is as permissive as etcd")
    _log.info(
        "starting",
        version=__version__,
        etcd_version=ETCD_VERSION,
        data_dir=str(config.member.data_dir),
        settings=dict(config.given),
    )


def _harden() -> None:
    """Keep memory out of core dumps and other processes' reach, and allow many connections."""
    rlimits.setrlimit(rlimits.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = rlimits.getrlimit(rlimits.RLIMIT_NOFILE)
    rlimits.setrlimit(rlimits.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)
    gc.set_threshold(50_000, 20, 100)
    # Buffers of megabytes come and go with every flush: keep their pages instead of asking for them
    # again each time (glibc; elsewhere it is simply not there).
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 64 * 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, 128 * 1024 * 1024)
