"""The table of all records: `python -m bob.leaderboard --help`."""

from __future__ import annotations

import sys

from bob.cli import main

if __name__ == "__main__":
    main(["leaderboard", *sys.argv[1:]])
