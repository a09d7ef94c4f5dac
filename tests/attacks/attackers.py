"""The process that attacks: one order a line comes in, and what was met with goes out.

Owns: the attackers' threads.
Never: is imported.
"""

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

__all__: list[str] = []


def _fight(order: dict[str, str]) -> Counter[str]:
    """Let the attackers of one attack loose, each for itself, until time is up."""
    attack = ATTACKS[order["identity"]]
    ground = Ground(
        port=int(order["port"]),
        authority=Path(order["authority"]),
        token=order["token"],
        until_s=time.monotonic() + float(order["duration_s"]),
    )
    met: Counter[str] = Counter()
    guard = threading.Lock()

    def strike() -> None:
        for _ in range(attack.strikes_max):
            if not ground.left_s:
                return
            struck = Counter(("not let in",))
            with contextlib.suppress(OSError):
                struck = attack.strike(ground)
            with guard:
                met.update(struck)

    threads = [threading.Thread(target=strike) for _ in range(attack.attackers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return met


if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1]
    sys.path[0:1] = [str(tests), str(tests.parent)]
    from attacks.attack import Ground
    from attacks.table import ATTACKS

    for line in sys.stdin:
        print(json.dumps(_fight(json.loads(line))), flush=True)
