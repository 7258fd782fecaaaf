"""A CSV that says which factors each image has: the column `path`, and one of 0 and 1 for each factor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bob.errors import UserError

_PATH = "path"
_NEEDED = "It needs the column path, and one of 0 and 1 for each factor."


def read_factors(path: Path, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the flags (n, F) bool of n images, and the names of the F factors.

    Args:
        path: The CSV; images that are not asked for may be in it too.
        names: How the data set calls the images.

    Raises:
        UserError: If the file cannot be read, an image is missing or twice in it, or a value is neither 0 nor 1.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "Correct 'factors' on the task card.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {str(error).strip().rstrip('.')}.", _NEEDED) from error
    factors = [column for column in table.columns if column != _PATH]
    if len(factors) == len(table.columns) or not factors:
        raise UserError(f"{path} has {'no factor' if not factors else f'no column {_PATH!r}'}.", _NEEDED)
    twice = table[_PATH].duplicated()
    if twice.any():
        raise UserError(f"{path} names {table[_PATH][twice].iloc[0]} twice.", "Remove one of the lines.")
    rows = table.set_index(_PATH).reindex(list(names))
    missing = rows[factors[0]].isna()
    if missing.any():
        problem = f"{path} lacks {missing.sum():,} of {len(names):,} test images, the first of them {missing.idxmax()}."
        raise UserError(problem, "Add a line for each; paths are those that `bob data verify` shows.")
    values = rows[factors].apply(lambda column: column.str.strip())
    wrong = ~values.isin(["0", "1"])
    if wrong.to_numpy().any():
        image, factor = wrong.stack().idxmax()
        problem = f"{path}: {image} has '{values.at[image, factor]}' for the factor '{factor}'."
        raise UserError(problem, "Write 0 or 1.")
    return (values == "1").to_numpy(), tuple(factors)
