"""How lines, tables and cards are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def print_table(columns: Iterable[str], rows: Iterable[Sequence[object]], numeric_from: int | None = None) -> None:
    """Print a table; columns from number `numeric_from` on are set flush right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        numeric = numeric_from is not None and position >= numeric_from
        table.add_column(str(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 1000  # a log or a pipe has no width of its own; there a row stays one line
    console.print(table)


def print_card(content: dict[str, object], indent: str = "") -> None:
    """Print a card as `key: value` lines, tables indented."""
    for key, value in content.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            print_card(value, indent + "  ")
        else:
            print(f"{indent}{key}: {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output."""
    for line in lines:
        print(line)


def print_error(line: str) -> None:
    """Print one line to standard error."""
    print(f"bob: {line}", file=sys.stderr)
