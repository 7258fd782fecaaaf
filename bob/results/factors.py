"""The per-sample outcome of a classifier on test images with factors, such as a pose or a light that is unusual."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from bob.errors import UserError
from bob.results.checks import check_shape, encodable, read_parquet
from bob.results.factor_table import WORST, Correctness, factor_table
from bob.results.predictions import Predictions

FACTORS_KEY = b"bob.factors"
_COLUMN = "factors"


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorPredictions(Predictions):
    """What a classifier said about each sample of a test split, and which factors each sample has.

    Attributes:
        flags: (n, F) bool; a sample may have several factors, or none.
        factors: Names of the F factors.

    Raises:
        UserError: As `Predictions`; if the flags have another shape.
    """

    kind: ClassVar[str] = "factors"

    flags: NDArray[np.bool_]
    factors: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shape("flags", self.flags, (len(self), len(self.factors)))

    @classmethod
    def of(cls, predictions: Predictions, flags: ArrayLike, factors: tuple[str, ...]) -> FactorPredictions:
        """A classifier's predictions together with the samples' factors.

        Args:
            predictions: Of n samples.
            flags: (n, F) booleans.
            factors: F names.

        Raises:
            UserError: If the flags have another shape.
        """
        own = {field.name: getattr(predictions, field.name) for field in fields(Predictions)}
        return cls(**own, flags=np.asarray(flags, dtype=bool), factors=tuple(encodable(factors)))

    def correctness(self) -> Correctness:
        """What tables about factors are made from."""
        right = self.predicted == self.labels
        # A probability may be a rounding error above 1, which is not taken for one more bin.
        return Correctness(self.labels, right, self.flags, self.factors, np.minimum(self.confidence, 1.0))

    def breakdown(self) -> dict[str, list[dict[str, Any]]]:
        """`per_factor`: for each factor and for all samples what `factor_table` says; what has no value is left out."""
        table = factor_table(self.correctness())
        rows = table[table["factor"] != WORST].to_dict("records")
        return {"per_factor": [{str(key): value for key, value in row.items() if value == value} for row in rows]}

    def write(self, path: Path) -> None:
        """Write one Parquet file: that of `Predictions.write` with one more column, which holds the flags."""
        super().write(path)
        table, size = read_parquet(path), len(self.factors)
        flags = pa.FixedSizeListArray.from_arrays(pa.array(self.flags.ravel(), pa.bool_()), size)
        metadata = {**(table.schema.metadata or {}), FACTORS_KEY: json.dumps(self.factors)}
        table = table.append_column(_COLUMN, flags).replace_schema_metadata(metadata)
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> FactorPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        factors = tuple(json.loads((table.schema.metadata or {}).get(FACTORS_KEY, "[]")))
        column = pa.list_(pa.bool_(), len(factors))
        if not factors or _COLUMN not in table.schema.names or table.schema.field(_COLUMN).type != column:
            raise UserError(f"Expected {path} to be written by `FactorPredictions.write`, but it holds no factors.")
        flags = table.column(_COLUMN).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        plain = Predictions.from_table(table.drop_columns([_COLUMN]), path)
        return cls.of(plain, flags.reshape(table.num_rows, len(factors)), factors)
