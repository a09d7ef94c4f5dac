"""The `kvsecure` command: `python -m kvsecure` and the console script are one thing."""

from kvsecure.cli.main import main

if __name__ == "__main__":
    main()
