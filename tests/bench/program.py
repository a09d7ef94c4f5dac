"""The benchmark as a program: which parts, how long, how often, and in which form the figures.

Owns: the options, and the turns that the contestants take.
Never: leaves a server or a directory behind.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc
from bench.calls import measure_calls
from bench.catchup import measure_catchup
from bench.cluster import measure_cluster
from bench.cold import measure_cold_start
from bench.connections import measure_connections
from bench.contestants import Contestant, Server, serving
from bench.failover import measure_failover
from bench.fanout import measure_fanout
from bench.keys import measure_keys
from bench.latency import measure_latency
from bench.library import measure_library
from bench.load import LoadError
from bench.machine import describe_machine
from bench.pauses import measure_pauses
from bench.report import Figure, as_json, costs, table
from bench.soak import measure_soak
from bench.trio import Trio, three_members
from bench.watchers import measure_watchers
from support.processes import ProcessFailedError

__all__ = ["main"]

Measure = Callable[[Server, Path, argparse.Namespace], Iterator[Figure]]
MeasureTrio = Callable[[Trio, Path, argparse.Namespace], Iterator[Figure]]


def _calls(server: Server, directory: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_calls(server, directory, duration_s=options.seconds)


def _latency(server: Server, directory: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_latency(server, directory, duration_s=options.seconds)


def _connections(server: Server, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_connections(server, duration_s=options.seconds, count=options.connections)


def _library(server: Server, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_library(server, duration_s=options.seconds)


def _fanout(server: Server, _: Path, __: argparse.Namespace) -> Iterator[Figure]:
    return measure_fanout(server)


def _watchers(server: Server, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_watchers(server, duration_s=options.seconds, count=options.watchers)


def _cold(server: Server, directory: Path, _: argparse.Namespace) -> Iterator[Figure]:
    return measure_cold_start(server, directory)


def _keys(server: Server, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_keys(server, count=options.keys)


def _pauses(server: Server, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_pauses(server, count=options.keys)


def _soak(server: Server, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_soak(server, duration_s=options.seconds)


def _cluster(trio: Trio, directory: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_cluster(trio, directory, duration_s=options.seconds)


def _failover(trio: Trio, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_failover(trio, runs=options.runs)


def _catchup(trio: Trio, _: Path, options: argparse.Namespace) -> Iterator[Figure]:
    return measure_catchup(trio, count=options.writes, before_s=options.seconds)


_PARTS: Final[dict[str, Measure]] = {
    "calls": _calls,
    "latency": _latency,
    "connections": _connections,
    "library": _library,
    "watch": _fanout,
    "watchers": _watchers,
    "cold": _cold,
    "keys": _keys,
    "pauses": _pauses,
    "soak": _soak,
}

# Of three members; etcd in plaintext takes no part.
_TRIO_PARTS: Final[dict[str, MeasureTrio]] = {
    "cluster": _cluster,
    "failover": _failover,
    "catchup": _catchup,
}
# Only when they are asked for.
_LONG: Final = ("keys", "pauses", "soak")
# What every release shows, in one run: calls, watch and keys.
_TABLE: Final = "table"


def main(arguments: Sequence[str]) -> None:
    """Measure, and print the figures."""
    options = _options(arguments)
    figures: list[Figure] = []
    failures: list[str] = []
    for turn in range(options.repeat):
        for part in options.parts:
            for contestant in options.contestants:
                if part in _TRIO_PARTS and contestant is Contestant.PLAIN:
                    continue
                try:
                    for figure in _measure(part, contestant, options):
                        figures.append(figure)
                        _tell(figure, turn)
                except (LoadError, ProcessFailedError, grpc.RpcError) as error:
                    # The others can still be measured.
                    failures.append(f"{contestant.value}: {part}: {error}")
    if options.json:
        json.dump({"machine": describe_machine(), "figures": as_json(figures)}, sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(f"\n{describe_machine()}; median of {options.repeat}\n\n")
        sys.stdout.write(f"{table(figures)}\n\n{costs(figures)}\n")
    if failures:
        sys.exit("\n".join(failures))


def _measure(part: str, contestant: Contestant, options: argparse.Namespace) -> Iterator[Figure]:
    # A fresh store for each: what one contestant wrote is not another's history.
    with tempfile.TemporaryDirectory(prefix="kvsecure-bench-", dir=options.directory) as name:
        directory = Path(name)
        if part in _TRIO_PARTS:
            with three_members(contestant, directory / "servers") as trio:
                yield from _TRIO_PARTS[part](trio, directory, options)
        else:
            with serving(contestant, directory / "server") as server:
                yield from _PARTS[part](server, directory, options)


def _tell(figure: Figure, turn: int) -> None:
    extra = "" if figure.processor_us is None else f", {figure.processor_us:.1f} us of processor"
    sys.stderr.write(
        f"{turn + 1}: {figure.contestant.value}: {figure.work}: "
        f"{figure.value:,.4g} {figure.unit}{extra}\n"
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    names = {contestant.name.lower(): contestant for contestant in Contestant}
    parser = argparse.ArgumentParser(
        prog="python tests/bench/run.py",
        description="Measure etcd and kvsecure on this machine, taking turns.",
    )
    parser.add_argument(
        "--part",
        dest="parts",
        choices=[*_PARTS, *_TRIO_PARTS, _TABLE],
        action="append",
        help="what to measure, may be repeated (default: all of one member but keys, pauses, soak)",
    )
    parser.add_argument(
        "--keys", type=int, default=1_000_000, help="size of the store of parts keys and pauses"
    )
    parser.add_argument(
        "--connections", type=int, default=5_000, help="idle ones of part connections"
    )
    parser.add_argument("--watchers", type=int, default=10_000, help="of part watchers")
    parser.add_argument("--runs", type=int, default=20, help="of part failover, of either kind")
    parser.add_argument("--writes", type=int, default=100_000, help="missed in part catchup")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default: 4)")
    parser.add_argument("--repeat", type=int, default=3, help="turns; medians are shown")
    parser.add_argument(
        "--only", choices=[*names], action="append", help="contestants (default: all)"
    )
    parser.add_argument("--directory", help="where the stores lie (default: the system's)")
    parser.add_argument("--json", action="store_true", help="every figure, for machines")
    options = parser.parse_args(arguments)
    if _TABLE in (options.parts or ()):
        options.parts = ["calls", "watch", "keys"]
    options.parts = options.parts or [part for part in _PARTS if part not in _LONG]
    options.contestants = [names[name] for name in options.only or names]
    return options
