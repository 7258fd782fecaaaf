"""Tables of published scores: those that travel with bob, by their names, and any beside our own cells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bob import places
from bob.errors import UserError, did_you_mean
from bob.standings.cells import Cells
from bob.standings.long_table import by_card, join, read_long_table


def published() -> dict[str, Path]:
    """Name -> file of each table of `results/published/`."""
    return {path.stem: path for path in sorted(places.shipped("results/published").glob("*.csv"))}


def find_table(name: Path) -> Path:
    """The file that is meant by a path or by the name of a published table, such as `bob_retrieval`.

    Raises:
        UserError: If there is neither.
    """
    known = published()
    if name.is_file():
        return name
    if str(name) in known:
        return known[str(name)]
    hint = did_you_mean(str(name), known) or f"Give a file, or a published table: {', '.join(known)}."
    raise UserError(f"There is no table {name}.", hint)


def beside(cells: Cells, tables: Iterable[Path]) -> tuple[Cells, list[str]]:
    """Cells with those of published tables, whose backbones go by the names of their cards, and notes on the tables.

    Raises:
        UserError: If there is no such table, it cannot be read, or two disagree.
    """
    notes: list[str] = []
    for table in tables:
        published_cells, said = read_long_table(find_table(table))
        cells = join(cells, by_card(published_cells))
        notes += said
    return cells, notes
