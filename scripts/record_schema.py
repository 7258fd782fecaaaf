"""Write docs/record.schema.json, the JSON Schema of a record; --check compares only."""

from __future__ import annotations

import sys
from pathlib import Path

from bob.results.schema import as_text

FILE = Path(__file__).parents[1] / "docs" / "record.schema.json"


def main() -> None:
    """Write the file, or with --check fail if it is not up to date."""
    if "--check" not in sys.argv[1:]:
        FILE.write_text(as_text(), encoding="utf-8")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != as_text():
        sys.exit(f"{FILE.name} is not up to date. Run `python scripts/record_schema.py`.")


if __name__ == "__main__":
    main()
