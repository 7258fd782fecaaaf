"""`python -m bob`, the same as the `bob` command."""

from __future__ import annotations

from bob.cli import main

if __name__ == "__main__":
    main()
