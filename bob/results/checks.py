"""What the arrays of predictions must be, and how their files are opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from bob.errors import UserError

SUM_TOLERANCE = 1e-3  # half-precision softmax is this far off one


def as_float(values: ArrayLike) -> NDArray[np.floating]:
    """Keep the floating type that is given: a double copy of 50,000 x 1,000 would cost 400 MB."""
    table = np.asarray(values)
    return table if np.issubdtype(table.dtype, np.floating) else table.astype(np.float64)


def encodable(names: Sequence[str]) -> list[str]:
    """Spell out the bytes of file names that are not UTF-8, which Parquet could not hold."""
    return [str(name).encode("utf-8", "backslashreplace").decode() for name in names]


def check_size(size: int) -> None:
    """Refuse predictions of no sample."""
    if size == 0:
        raise UserError("Expected predictions of at least one sample, but got none.")


def check_shape(name: str, values: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape."""
    if values.shape != shape:
        raise UserError(f"Expected `{name}` to have shape {shape}, but got {values.shape}.")


def check_probabilities(name: str, values: NDArray[np.floating]) -> None:
    """Refuse what is not finite or not between 0 and 1."""
    _refuse(name, values, ~np.isfinite(values), "finite")
    _refuse(name, values, (values < 0) | (values > 1 + SUM_TOLERANCE), "probabilities between 0 and 1")


def check_sums(table: NDArray[np.floating]) -> None:
    """Refuse a table with a row that does not sum to 1."""
    sums = table.sum(axis=1, dtype=np.float64)
    _refuse("probabilities.sum(axis=1)", sums, np.abs(sums - 1) > SUM_TOLERANCE, f"1 within {SUM_TOLERANCE}")


def check_integers(name: str, values: NDArray[Any], low: int, end: int) -> None:
    """Refuse what is no integer of at least `low` and less than `end`."""
    if not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"Expected `{name}` to be integers, but got {values.dtype}.")
    _refuse(name, values, (values < low) | (values >= end), f"at least {low} and less than {end}")


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file of predictions, of whatever kind.

    Raises:
        UserError: If it is missing or not Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"Expected a file of predictions at {path}, but got none.") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"Expected {path} to be a Parquet file, but got: {error}.") from error


def check_schema(table: pa.Table, schema: pa.Schema, keys: Sequence[bytes], path: Path, writer: str) -> None:
    """Refuse a table that has other columns than `schema`, or lacks one of the metadata's keys."""
    if not table.schema.equals(schema) or not set(keys) <= set(table.schema.metadata or {}):
        wanted, given = (", ".join(names) for names in (schema.names, table.schema.names))
        raise UserError(f"Expected {path} to be written by `{writer}` (columns {wanted}), but got columns {given}.")


def _refuse(name: str, values: NDArray[np.generic], bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        row = np.argwhere(bad)[0]
        raise UserError(f"Expected `{name}` to be {expected}, but got {values[tuple(row)]} for sample {row[0]}.")
