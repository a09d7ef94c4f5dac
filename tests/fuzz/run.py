"""Fuzz the decoders, guided by coverage: `python tests/fuzz/run.py --help`.

Owns: the command line of the fuzzer.
Never: is imported; the work is in the modules beside it.
"""

import sys
from pathlib import Path

__all__: list[str] = []

if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1]
    sys.path[0:1] = [str(tests), str(tests.parent)]
    from fuzz.program import main

    sys.exit(main(sys.argv[1:]))
