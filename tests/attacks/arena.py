"""Where attacks are measured: a member, a client that behaves, and attackers out of its way.

    Arena.run(attack, duration_s)   ->  Fight: what the attacker met with, and what it did to others

Owns: the good client, its latencies, the member's memory, and the process that attacks.
Never: judges; the tests do, by the attack's own words.
Keeps: the good client and the attackers share no interpreter, so that neither waits for the other.
"""

import json
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from attacks.attack import Fight
from support.servers import ROOT_PASSWORD, KvsecureServer
from wire.rawframes import message
from wire.socket_peer import SocketPeer, call_fields, client_tls

from kvsecure.proto import auth_pb2, kv_pb2

__all__ = ["LARGE_KEY", "Arena"]

LARGE_KEY: Final = b"large"
_LARGE_BYTES: Final = 1_000_000
_VERSIONS: Final = 20
_RANGE: Final = "/etcdserverpb.KV/Range"
_LOG_IN: Final = "/etcdserverpb.Auth/Authenticate"
_PUT: Final = "/etcdserverpb.KV/Put"
# A good client asks so often, and makes a new connection after so many requests.
_PAUSE_S: Final = 0.002
_REQUESTS_PER_CONNECTION: Final = 100
# An attack that is over sooner is still looked at for so many requests.
_REQUESTS_MIN: Final = 100
# When the attackers have to be done, after their time is up.
_GRACE_S: Final = 30.0


@final
class Arena:
    """A member, and who is around it."""

    def __init__(self, directory: Path) -> None:
        """Prepare; nothing runs yet."""
        self.member = KvsecureServer(directory)
        self._attackers: subprocess.Popen[str]
        self._token: str

    def __enter__(self) -> Self:
        self.member.start()
        with self.member.client() as root:
            for number in range(_VERSIONS):
                value = bytes((number,)) * _LARGE_BYTES
                root.kv.Put(kv_pb2.PutRequest(key=LARGE_KEY, value=value))
        self._attackers = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("attackers.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Its input is its life.
        self._attackers.communicate()
        self.member.close()

    def run(self, identity: str, duration_s: float) -> Fight:
        """Let an attack go on for some time; without a name, nobody attacks.

        Raises:
            TimeoutError: The attackers are not done long after their time was up.
        """
        # A token lives for minutes, a whole run of attacks may take longer.
        self._log_in()
        until_s = time.monotonic() + duration_s
        told: list[str] = []
        waiting = threading.Thread(target=self._attack, args=(identity, duration_s, told))
        good = _GoodClient(self.member, self._token)
        with good:
            good.ask()
            before = self._memory_bytes()
            waiting.start()
            peak = before
            while waiting.is_alive() or (
                time.monotonic() < until_s and not (identity and len(good.times_s) >= _REQUESTS_MIN)
            ):
                good.ask()
                peak = max(peak, self._memory_bytes())
                threading.Event().wait(_PAUSE_S)
                if time.monotonic() > until_s + _GRACE_S:
                    raise TimeoutError(f"the attackers of {identity} are not done")
        waiting.join()
        times = sorted(good.times_s)
        return Fight(
            met=json.loads(told[0]),
            requests=len(times) + len(good.failures),
            failures=good.failures,
            p50_ms=1e3 * times[len(times) // 2],
            p99_ms=1e3 * times[len(times) * 99 // 100],
            memory_before_bytes=before,
            memory_peak_bytes=peak,
        )

    @property
    def serves(self) -> bool:
        """Whether somebody new gets an answer."""
        with _GoodClient(self.member, self._token) as late:
            late.ask()
            return not late.failures

    def _log_in(self) -> None:
        request = auth_pb2.AuthenticateRequest(name="root", password=ROOT_PASSWORD)
        tls = client_tls(self.member.authority.certificate)
        with SocketPeer(self.member.port, tls) as peer:
            answered = peer.begin().call(1, _LOG_IN, request.SerializeToString())
        self._token = auth_pb2.AuthenticateResponse.FromString(answered.messages[0]).token

    def _attack(self, identity: str, duration_s: float, told: list[str]) -> None:
        if not identity:
            told.append(json.dumps(Counter()))
            return
        order = {
            "identity": identity,
            "port": self.member.port,
            "authority": str(self.member.authority.certificate),
            "token": self._token,
            "duration_s": duration_s,
        }
        assert self._attackers.stdin is not None
        assert self._attackers.stdout is not None
        self._attackers.stdin.write(json.dumps(order) + "\n")
        self._attackers.stdin.flush()
        told.append(self._attackers.stdout.readline())

    def _memory_bytes(self) -> int:
        content = Path(f"/proc/{self.member.process.pid}/statm").read_text(encoding="ascii")
        return int(content.split()[1]) * resource.getpagesize()


@final
class _GoodClient:
    """Reads and writes by turns, one request at a time, on connections of its own."""

    def __init__(self, member: KvsecureServer, token: str) -> None:
        self._member = member
        self._token = token
        self._tls = client_tls(member.authority.certificate)
        self._get = message(kv_pb2.RangeRequest(key=b"small").SerializeToString())
        self._put = message(kv_pb2.PutRequest(key=b"small", value=b"x" * 256).SerializeToString())
        self._peer: SocketPeer | None = None
        self._stream = 1
        self.times_s: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def ask(self) -> None:
        """Make one request, and take note of how long it took, or of what went wrong."""
        try:
            if self._peer is None or self._stream > 2 * _REQUESTS_PER_CONNECTION:
                self._hang_up()
                self._peer = SocketPeer(self._member.port, self._tls).begin()
                self._stream = 1
            path, content = (_PUT, self._put) if self._stream % 4 == 1 else (_RANGE, self._get)
            begun_s = time.perf_counter()
            self._peer.send(
                self._peer.request(self._stream, call_fields(path, self._token), content)
            )
            answered = self._peer.answer(self._stream)
            self.times_s.append(time.perf_counter() - begun_s)
            self._stream += 2
            if answered.status[0] != "0":
                self.failures.append(f"{path}: {answered.status}")
        except OSError as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            self._hang_up()
