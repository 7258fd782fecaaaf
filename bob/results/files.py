"""Tables and figures that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bob import places
from bob.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


def require_suffix(path: Path, suffixes: Sequence[str]) -> Path:
    """Return the path of a file to be.

    Raises:
        UserError: If its name ends in none of the suffixes.
    """
    if path.suffix not in suffixes:
        endings = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if len(suffixes) > 1 else suffixes[0]
        raise UserError(f"Cannot tell the format of {path}.", f"Give a name that ends in {endings}.")
    return path


def write_text(text: str, path: Path) -> None:
    """Write text in UTF-8."""
    with places.atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with six digits of each number, without its index."""
    write_text(table.to_csv(index=False, float_format="%.6g"), path)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table with all digits, without its index."""
    with places.atomic_file(path) as temporary:
        table.to_parquet(temporary, index=False)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a picture, PNG or SVG by its name; the same figure gives the same bytes.

    Raises:
        UserError: If the name ends otherwise.
    """
    import matplotlib as mpl

    kind = require_suffix(path, PICTURES).suffix[1:]
    # SVG would carry the time and random ids otherwise.
    with places.atomic_file(path) as temporary, mpl.rc_context({"svg.hashsalt": "bob", "svg.fonttype": "none"}):
        figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
