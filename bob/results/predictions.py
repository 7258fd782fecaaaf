"""The per-sample outcome of a classifier on a test split, from which every metric can be recomputed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
    check_sums,
    encodable,
)
from bob.results.judged import Judged, Row

_CLASSES_KEY = b"bob.classes"
_GROUPS_KEY = b"bob.groups"
_GROUP = pa.field("group", pa.int64(), nullable=False)
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
class Predictions(Judged):
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
        groups: (n,) int64, the group of each sample, for `worst_group`; None where the data have no groups.
        group_names: The names of all groups, in the order of their indices.

    Raises:
        UserError: If there is no sample, or the arrays disagree in length, or a value is out of range.
    """

    kind: ClassVar[str] = "classification"

    names: list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    label_probability: NDArray[np.float64]
    label_rank: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_size(len(self.names))
        for name in ("labels", "predicted", "label_rank"):
            check_shape(name, getattr(self, name), (len(self),))
            check_integers(name, getattr(self, name), 0, len(self.classes))
        for name in ("confidence", "label_probability"):
            check_shape(name, getattr(self, name), (len(self),))
            check_probabilities(name, getattr(self, name))
        if self.groups is not None:
            check_shape("groups", self.groups, (len(self),))
            check_integers("groups", self.groups, 0, len(self.group_names))

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_probabilities(
        cls,
        names: Sequence[str],
        labels: ArrayLike,
        probabilities: ArrayLike,
        classes: Sequence[str],
        groups: ArrayLike | None = None,
        group_names: Sequence[str] = (),
    ) -> Predictions:
        """Reduce a table of class probabilities to what the metrics need.

        Args:
            names: n strings that tell a person which sample it is.
            labels: (n,) integers, the true class of each sample.
            probabilities: (n, C), each row at least 0 and summing to 1 within 1e-3. They are not normalised again.
            classes: C names.
            groups: (n,) integers, the group of each sample, if the data have groups.
            group_names: The groups' names.

        Raises:
            UserError: If shapes disagree, a probability is not finite or negative, a row does not sum to 1, or a label
                is no class, or a group none of the groups.
        """
        table = as_float(probabilities)
        truth = np.asarray(labels)
        check_size(len(names))
        check_shape("probabilities", table, (len(names), len(classes)))
        check_shape("labels", truth, (len(names),))
        check_probabilities("probabilities", table)
        check_sums(table)
        check_integers("labels", truth, 0, len(classes))
        return cls(
            names=encodable(names),
            labels=truth.astype(np.int64),
            predicted=table.argmax(axis=1).astype(np.int64),
            confidence=table.max(axis=1).astype(np.float64),
            label_probability=_of_label(table, truth).astype(np.float64),
            label_rank=_rank_of_label(table, truth),
            classes=tuple(encodable(classes)),
            groups=None if groups is None else _as_groups(groups, len(group_names)),
            group_names=tuple(encodable(group_names)),
        )

    def per_class(self) -> list[Row]:
        """For each class that has samples, in order: `class` (its name), `n`, and the share that is right, `recall`."""
        right = self.predicted == self.labels
        members = {int(index): self.labels == index for index in np.unique(self.labels)}
        return [
            {"class": self.classes[index], "n": int(of_class.sum()), "recall": float(right[of_class].mean())}
            for index, of_class in members.items()
        ]

    def per_group(self) -> list[Row]:
        """For each group that has samples, in order: `group` (its name), `n`, and the share that is right, `accuracy`.

        Empty if the data have no groups.
        """
        if self.groups is None:
            return []
        right = self.predicted == self.labels
        members = {int(index): self.groups == index for index in np.unique(self.groups)}
        return [
            {"group": self.group_names[index], "n": int(own.sum()), "accuracy": float(right[own].mean())}
            for index, own in members.items()
        ]

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per sample, the names of classes and groups as JSON in the schema's metadata.

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
        schema, metadata = _SCHEMA, {_CLASSES_KEY: json.dumps(self.classes)}
        if self.groups is not None:
            columns.append(pa.array(self.groups, pa.int64()))
            schema, metadata = schema.append(_GROUP), {**metadata, _GROUPS_KEY: json.dumps(self.group_names)}
        pq.write_table(pa.Table.from_arrays(columns, schema=schema.with_metadata(metadata)), path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> Predictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        grouped = _GROUP.name in table.schema.names
        schema, keys = (_SCHEMA.append(_GROUP), [_CLASSES_KEY, _GROUPS_KEY]) if grouped else (_SCHEMA, [_CLASSES_KEY])
        check_schema(table, schema, keys, path, "Predictions.write")
        return cls(
            names=table.column("name").to_pylist(),
            labels=table.column("label").to_numpy(),
            predicted=table.column("predicted").to_numpy(),
            confidence=table.column("confidence").to_numpy(),
            label_probability=table.column("label_probability").to_numpy(),
            label_rank=table.column("label_rank").to_numpy(),
            classes=tuple(json.loads(table.schema.metadata[_CLASSES_KEY])),
            groups=table.column("group").to_numpy() if grouped else None,
            group_names=tuple(json.loads(table.schema.metadata[_GROUPS_KEY])) if grouped else (),
        )


def _as_groups(groups: ArrayLike, count: int) -> NDArray[np.int64]:
    given = np.asarray(groups)
    check_integers("groups", given, 0, count)
    return given.astype(np.int64)


def _of_label(table: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.floating]:
    return np.take_along_axis(table, labels[:, None], axis=1)[:, 0]


def _rank_of_label(table: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    own = _of_label(table, labels)[:, None]
    larger = (table > own).sum(axis=1)
    before = np.arange(table.shape[1]) < labels[:, None]
    return (larger + ((table == own) & before).sum(axis=1)).astype(np.int64)
