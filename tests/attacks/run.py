"""Attack a member on this machine and print what came of it: `python tests/attacks/run.py --help`.

Owns: the command line, and the table that docs/hostile-peers.md shows.
Never: is imported.
"""

import argparse
import sys
import tempfile
from pathlib import Path

__all__: list[str] = []


def _row(name: str, bound: str, fight: "Fight") -> str:
    met = ", ".join(f"{what} ({count})" for what, count in sorted(fight.met.items()))
    return (
        f"| {name} | {bound} | {met} | {fight.p50_ms:.1f} | {fight.p99_ms:.1f} "
        f"| {len(fight.failures)} of {fight.requests} | {fight.memory_peak_bytes / 1e6:.0f} |"
    )


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/attacks/run.py", description="Attack a member, and print a table."
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each (default: 5)")
    parser.add_argument("--only", choices=ATTACKS, action="append", help="one of them")
    asked = parser.parse_args()
    print(
        "| attack | bound that stopped it | met with (times) | others' p50, ms | others' p99, ms "
        "| others' failures | memory peak, MB |\n|---|---|---|---|---|---|---|"
    )
    failures = 0
    with tempfile.TemporaryDirectory() as directory, Arena(Path(directory)) as arena:
        quiet = arena.run("", asked.seconds)
        print(_row("nobody", "", quiet), flush=True)
        for identity in asked.only or ATTACKS:
            attack = ATTACKS[identity]
            fight = arena.run(identity, asked.seconds)
            failures += len(fight.failures)
            print(_row(attack.name, attack.bound, fight), flush=True)
    return bool(failures)


if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1]
    sys.path[0:1] = [str(tests), str(tests.parent)]
    from attacks.arena import Arena
    from attacks.attack import Fight
    from attacks.table import ATTACKS

    sys.exit(_main())
