"""One run again, with everything that happens in it.

    PYTHONPATH=tests:. python -m simulation.replay SEED [SECONDS [SECONDS]]

Owns: the command line. What happens between the two virtual times is printed.
Never: makes a run other than it was.
"""

import sys
from typing import Final

from simulation.running import Failed, run

__all__ = ["main"]

_FOREVER_S: Final = 1e9


def main() -> None:
    """Run a seed and print it; exit with 1 if it fails."""
    seed = int(sys.argv[1])
    first_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    last_s = float(sys.argv[3]) if len(sys.argv) > 3 else _FOREVER_S

    def say(text: str) -> None:
        if first_s <= float(text.split(maxsplit=1)[0]) <= last_s:
            print(text)

    try:
        print(run(seed, say=say))
    except Failed as failed:
        print(failed)
        sys.exit(1)


if __name__ == "__main__":
    main()
