"""The per-sample outcome of a classifier on a test split, from which every metric can be recomputed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from bob.errors import UserError

_SUM_TOLERANCE = 1e-3  # half-precision softmax is this far off one
_CLASSES_KEY = b"bob.classes"
_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("predicted", pa.int64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("label_probability", pa.float64(), nullable=False),
        pa.field("label_rank", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier said about each sample of a test split, without the full table of probabilities.

    Attributes:
        names: n strings that tell a person which sample it is.
        labels: (n,) int64, the true class of each sample.
        predicted: (n,) int64, the class of largest probability; the lowest such class on ties.
        confidence: (n,) float64, the largest probability.
        label_probability: (n,) float64, the probability of the true class.
        label_rank: (n,) int64, how many classes come before the true one: those of strictly larger probability, and
            those of equal probability and lower index. 0 means that the prediction is right.
        classes: The names of all classes, in the order of their indices.

    Raises:
        UserError: If there is no sample, or the arrays disagree in length, or a value is out of range.
    """

    names: list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    label_probability: NDArray[np.float64]
    label_rank: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_size(len(self.names))
        for name in ("labels", "predicted", "label_rank"):
            _check_shape(name, getattr(self, name), (len(self),))
            _check_classes(name, getattr(self, name), len(self.classes))
        for name in ("confidence", "label_probability"):
            _check_shape(name, getattr(self, name), (len(self),))
            _check_probabilities(name, getattr(self, name))

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_probabilities(
        cls, names: Sequence[str], labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]
    ) -> Predictions:
        """Reduce a table of class probabilities to what the metrics need.

        Args:
            names: n strings that tell a person which sample it is.
            labels: (n,) integers, the true class of each sample.
            probabilities: (n, C), each row at least 0 and summing to 1 within 1e-3. They are not normalised again.
            classes: C names.

        Raises:
            UserError: If shapes disagree, a probability is not finite or negative, a row does not sum to 1, or a label
                is no class.
        """
        table = _as_float(probabilities)
        truth = np.asarray(labels)
        _check_size(len(names))
        _check_shape("probabilities", table, (len(names), len(classes)))
        _check_shape("labels", truth, (len(names),))
        _check_probabilities("probabilities", table)
        _check_sums(table)
        _check_classes("labels", truth, len(classes))
        return cls(
            names=[_encodable(name) for name in names],
            labels=truth.astype(np.int64),
            predicted=table.argmax(axis=1).astype(np.int64),
            confidence=table.max(axis=1).astype(np.float64),
            label_probability=_of_label(table, truth).astype(np.float64),
            label_rank=_rank_of_label(table, truth),
            classes=tuple(_encodable(name) for name in classes),
        )

    def per_class(self) -> list[dict[str, str | int | float]]:
        """For each class that has samples, in order: `class` (its name), `n`, and the share that is right, `recall`."""
        right = self.predicted == self.labels
        members = {int(index): self.labels == index for index in np.unique(self.labels)}
        return [
            {"class": self.classes[index], "n": int(of_class.sum()), "recall": float(right[of_class].mean())}
            for index, of_class in members.items()
        ]

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per sample, the class names as JSON in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        columns = [
            pa.array(self.names, pa.string()),
            pa.array(self.labels, pa.int64()),
            pa.array(self.predicted, pa.int64()),
            pa.array(self.confidence, pa.float64()),
            pa.array(self.label_probability, pa.float64()),
            pa.array(self.label_rank, pa.int64()),
        ]
        schema = _SCHEMA.with_metadata({_CLASSES_KEY: json.dumps(self.classes)})
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read what `write` wrote.

        Raises:
            UserError: If the file is missing, is not Parquet, or does not hold predictions.
        """
        table = _read_table(path)
        return cls(
            names=table.column("name").to_pylist(),
            labels=table.column("label").to_numpy(),
            predicted=table.column("predicted").to_numpy(),
            confidence=table.column("confidence").to_numpy(),
            label_probability=table.column("label_probability").to_numpy(),
            label_rank=table.column("label_rank").to_numpy(),
            classes=tuple(json.loads(table.schema.metadata[_CLASSES_KEY])),
        )


def _as_float(probabilities: ArrayLike) -> NDArray[np.floating]:
    """Keep the floating type that is given: a double copy of 50,000 x 1,000 would cost 400 MB."""
    table = np.asarray(probabilities)
    return table if np.issubdtype(table.dtype, np.floating) else table.astype(np.float64)


def _encodable(name: str) -> str:
    """Spell out the bytes of a file name that is not UTF-8, which Parquet could not hold."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def _of_label(table: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.floating]:
    return np.take_along_axis(table, labels[:, None], axis=1)[:, 0]


def _rank_of_label(table: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    own = _of_label(table, labels)[:, None]
    larger = (table > own).sum(axis=1)
    before = np.arange(table.shape[1]) < labels[:, None]
    return (larger + ((table == own) & before).sum(axis=1)).astype(np.int64)


def _check_size(size: int) -> None:
    if size == 0:
        raise UserError("Expected predictions of at least one sample, but got none.")


def _check_shape(name: str, values: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"Expected `{name}` to have shape {shape}, but got {values.shape}.")


def _check_probabilities(name: str, values: NDArray[np.floating]) -> None:
    _refuse(name, values, ~np.isfinite(values), "finite")
    _refuse(name, values, (values < 0) | (values > 1 + _SUM_TOLERANCE), "probabilities between 0 and 1")


def _check_classes(name: str, values: NDArray[np.integer], classes: int) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"Expected `{name}` to be integers, but got {values.dtype}.")
    _refuse(name, values, (values < 0) | (values >= classes), f"at least 0 and less than {classes}")


def _check_sums(table: NDArray[np.floating]) -> None:
    sums = table.sum(axis=1, dtype=np.float64)
    _refuse("probabilities.sum(axis=1)", sums, np.abs(sums - 1) > _SUM_TOLERANCE, f"1 within {_SUM_TOLERANCE}")


def _refuse(name: str, values: NDArray[np.generic], bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        row = np.argwhere(bad)[0]
        raise UserError(f"Expected `{name}` to be {expected}, but got {values[tuple(row)]} for sample {row[0]}.")


def _read_table(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise UserError(f"Expected a file of predictions at {path}, but got none.") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"Expected {path} to be a Parquet file, but got: {error}.") from error
    if not table.schema.equals(_SCHEMA) or _CLASSES_KEY not in (table.schema.metadata or {}):
        wanted = ", ".join(_SCHEMA.names)
        given = ", ".join(table.schema.names)
        raise UserError(
            f"Expected {path} to be written by `Predictions.write` (columns {wanted}), but got columns {given}."
        )
    return table
