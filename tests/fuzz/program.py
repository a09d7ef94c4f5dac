"""The program behind `python tests/fuzz/run.py`: one decoder after another, by libFuzzer.

    DECODERS     what can be fuzzed, by name, and where its target is
    load         a target; with its modules instrumented if it is to be fuzzed

Owns: the command line, a process for each decoder, its seed, its corpora, and what it finds.
Never: is needed by the test suite, which replays the corpora without a fuzzer.
Follows: libFuzzer's flags, by way of atheris (`pip install atheris`, the extra `fuzz`).
"""

import argparse
import importlib
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fuzz.distil import distil
from fuzz.target import Target

__all__ = ["CORPUS", "DECODERS", "load", "main"]


class _Decoder(NamedTuple):
    """Where a target is, and which modules' branches guide the fuzzer."""

    module: str
    attribute: str
    instrumented: tuple[str, ...]


DECODERS: Final = {
    "frames": _Decoder("fuzz.frames_target", "FRAMES", ("kvsecure.wire", "hpack")),
    "hpack": _Decoder("fuzz.heads_target", "HEADS", ("kvsecure.wire", "hpack")),
    "grpc": _Decoder("fuzz.messages_target", "MESSAGES", ("kvsecure.wire",)),
    "http1": _Decoder(
        "fuzz.http1_target",
        "HTTP1",
        (
            "kvsecure.server.http1",
            "kvsecure.server.gateway",
            "kvsecure.server.gateway_calls",
            "kvsecure.api.gateway",
            "kvsecure.api.json_form",
            "h11",
        ),
    ),
}
CORPUS: Final = Path(__file__).parent / "corpus"
# An input that takes longer is a finding, and so is one that takes this much memory.
_INPUT_S_MAX: Final = 10
_MEMORY_MB_MAX: Final = 2_048


def load(name: str) -> Target:
    """Return a target."""
    decoder = DECODERS[name]
    target = getattr(importlib.import_module(decoder.module), decoder.attribute)
    assert isinstance(target, Target)
    return target


def main(arguments: Sequence[str]) -> int:
    """Fuzz what the command line names; return 1 if anything was found."""
    asked = _parse(arguments)
    if asked.here:
        _fuzz(asked.decoder[0], asked)
    if asked.merge:
        for name in asked.decoder:
            _merge(name, asked.out / name / "inputs")
        return 0
    # All of them, whatever the first one finds.
    return max([_fuzz_apart(name, asked) for name in asked.decoder])


def _merge(name: str, inputs: Path) -> None:
    """Take what was found into the corpus, and out of it what is superfluous then."""
    attempt = load(name).attempt
    count = distil(attempt, DECODERS[name].instrumented, CORPUS / name, inputs)
    print(f"--- {name}: {count} inputs")


def _fuzz_apart(name: str, asked: argparse.Namespace) -> int:
    """Fuzz one decoder in a process of its own; return 1 if anything was found."""
    print(f"--- {name}: seed {asked.seed}, {asked.seconds} s", flush=True)
    words = [sys.executable, str(Path(__file__).with_name("run.py")), "--here"]
    words += [f"--decoder={name}", f"--seconds={asked.seconds}", f"--seed={asked.seed}"]
    done = subprocess.run([*words, f"--out={asked.out}"], check=False)
    findings = sorted((asked.out / name / "findings").glob("*"))
    print("\n".join(f"FINDING: {path}" for path in findings) or "no findings", flush=True)
    return int(done.returncode != 0 or bool(findings))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/fuzz/run.py", description="Fuzz the decoders, guided by coverage."
    )
    parser.add_argument("--decoder", choices=DECODERS, nargs=1, default=list(DECODERS))
    parser.add_argument("--seconds", type=int, default=600, help="for each decoder (default: 600)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1 << 31) + 1, help="(default: a new one)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/fuzz"),
        help="where inputs and findings go, a directory for each decoder (default: build/fuzz)",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="take what is new into the corpora, and do nothing else",
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _fuzz(name: str, asked: argparse.Namespace) -> None:
    """Fuzz one decoder in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=list(DECODERS[name].instrumented)):
        target = load(name)
    inputs, findings = asked.out / name / "inputs", asked.out / name / "findings"
    for directory in (inputs, findings):
        directory.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-seed={asked.seed}",
        f"-max_total_time={asked.seconds}",
        f"-max_len={target.size_bytes_max}",
        f"-timeout={_INPUT_S_MAX}",
        f"-rss_limit_mb={_MEMORY_MB_MAX}",
        f"-artifact_prefix={findings}{os.sep}",
        "-print_final_stats=1",
    ]
    corpora = [str(inputs), str(CORPUS / name)]
    more = {}
    if target.mutate is not None:
        more["custom_mutator"] = target.mutate(_mutate)
    atheris.Setup([sys.argv[0], *flags, *corpora], target.attempt, **more)
    atheris.Fuzz()


def _mutate(content: bytes, size_bytes_max: int) -> bytes:
    """Change bytes as libFuzzer does; to be looked up late, atheris replaces it when it begins."""
    import atheris

    return bytes(atheris.Mutate(content, size_bytes_max))
