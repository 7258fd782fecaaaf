"""The per-sample outcome of a multi-label classifier on a test split, from which every metric can be recomputed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from bob.results.checks import (
    as_float,
    check_integers,
    check_probabilities,
    check_schema,
    check_shape,
    check_size,
    encodable,
)
from bob.results.judged import Judged, Row
from bob.results.ranking import Ranking, average_precision, roc_auc

LABELS_KEY = b"bob.multilabel.classes"


@dataclass(frozen=True, eq=False)
class MultiLabelPredictions(Judged):
    """What a classifier said about each label of each sample of a test split.

    Attributes:
        names: n strings that tell a person which sample it is.
        labels: (n, L) int64: 1 present, 0 absent, -1 unknown and left out of every metric.
        probabilities: (n, L) float64 that each label is present. Labels do not exclude each other.
        classes: The names of the L labels.

    Raises:
        UserError: If there is no sample, or the arrays disagree in shape, or a value is out of range.
    """

    kind: ClassVar[str] = "multilabel"

    names: list[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_size(len(self.names))
        shape = (len(self.names), len(self.classes))
        check_shape("labels", self.labels, shape)
        check_integers("labels", self.labels, -1, 2)
        check_shape("probabilities", self.probabilities, shape)
        check_probabilities("probabilities", self.probabilities)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_probabilities(
        cls, names: Sequence[str], labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]
    ) -> MultiLabelPredictions:
        """Make predictions of any array-likes.

        Args:
            names: n strings that tell a person which sample it is.
            labels: (n, L) integers: 1 present, 0 absent, -1 unknown.
            probabilities: (n, L) between 0 and 1.
            classes: L names.

        Raises:
            UserError: If shapes disagree or a value is out of range.
        """
        table, truth = as_float(probabilities), np.asarray(labels)
        check_size(len(names))
        check_integers("labels", truth, -1, 2)
        return cls(encodable(names), truth.astype(np.int64), table.astype(np.float64), tuple(encodable(classes)))

    def rankings(self) -> list[Ranking]:
        """For each label, the samples of which it is known, by falling probability."""
        return [Ranking.of(self.labels[:, k], self.probabilities[:, k]) for k in range(len(self.classes))]

    def per_class(self) -> list[Row]:
        """For each label that is known of a sample: `class`, `n` of those, `positives`, and `auroc` and `ap`.

        An area that is not defined (no positive; for `auroc`, no negative) is left out.
        """
        once = np.ones((len(self), 1))
        table = []
        for name, truth, ranking in zip(self.classes, self.labels.T, self.rankings(), strict=True):
            areas = {"auroc": float(roc_auc(ranking, once)[0]), "ap": float(average_precision(ranking, once)[0])}
            row: dict[str, str | int | float] = {"class": name, "n": int((truth >= 0).sum())}
            row |= {"positives": int((truth == 1).sum())}
            table.append(row | {key: area for key, area in areas.items() if not np.isnan(area)})
        return [row for row in table if row["n"]]

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per sample, the labels' names as JSON in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        size = len(self.classes)
        columns = [
            pa.array(self.names, pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(self.labels.ravel(), pa.int8()), size),
            pa.FixedSizeListArray.from_arrays(pa.array(self.probabilities.ravel(), pa.float64()), size),
        ]
        schema = _schema(size).with_metadata({LABELS_KEY: json.dumps(self.classes)})
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> MultiLabelPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        classes = tuple(json.loads((table.schema.metadata or {}).get(LABELS_KEY, "[]")))
        check_schema(table, _schema(len(classes)), [LABELS_KEY], path, "MultiLabelPredictions.write")
        shape = (table.num_rows, len(classes))
        return cls(
            names=table.column("name").to_pylist(),
            labels=_flat(table, "labels").reshape(shape).astype(np.int64),
            probabilities=_flat(table, "probabilities").reshape(shape),
            classes=classes,
        )


def _schema(size: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("labels", pa.list_(pa.field("item", pa.int8()), size), nullable=False),
            pa.field("probabilities", pa.list_(pa.field("item", pa.float64()), size), nullable=False),
        ]
    )


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).combine_chunks().flatten().to_numpy()
