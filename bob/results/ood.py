"""The per-sample outcome of a classifier on its own test images and on shifted sets, each beside the clean score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
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
    check_sums,
    encodable,
)
from bob.results.judged import Judged, Row
from bob.results.judged_sets import JudgedSet, cut

SETS_KEY = b"bob.ood.sets"
_CLASSES_KEY = b"bob.ood.classes"
_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("unit", pa.int64(), nullable=False),
        pa.field("set", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("predicted", pa.int64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("label_probability", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class OODPredictions(Judged):
    """What a classifier said about its own test images and about those of shifted sets.

    A row is an image judged once. What a bootstrap draws are photographs, the units: a clean image, the same image
    judged among fewer classes, and its corrupted copies are rows of one unit, so that drops are paired.

    Attributes:
        names: Which photograph each of the n units is.
        unit: (m,) int64, the unit of each row.
        part: (m,) int64, the set of each row, a position in `sets`.
        labels: (m,) int64, the true class; where a class of the set stands for several of the task's, the first.
        predicted: (m,) int64, the class of largest probability among those of the set, likewise.
        confidence: (m,) float64, its probability among these.
        label_probability: (m,) float64, that of the true class.
        classes: The names of the task's classes.
        sets: The clean images under all classes, under the classes of each set that has others, and the shifted sets.

    Raises:
        UserError: If there is no sample, or the arrays disagree in length, or a value is out of range.
    """

    kind: ClassVar[str] = "ood"

    names: list[str]
    unit: NDArray[np.int64]
    part: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    label_probability: NDArray[np.float64]
    classes: tuple[str, ...]
    sets: tuple[JudgedSet, ...]

    def __post_init__(self) -> None:
        check_size(len(self.names))
        ends = {"unit": len(self.names), "part": len(self.sets)}
        for name in ("unit", "part", "labels", "predicted"):
            check_shape(name, getattr(self, name), self.unit.shape)
            check_integers(name, getattr(self, name), 0, ends.get(name, len(self.classes)))
        for name in ("confidence", "label_probability"):
            check_shape(name, getattr(self, name), self.unit.shape)
            check_probabilities(name, getattr(self, name))

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_probabilities(
        cls,
        names: Sequence[str],
        labels: ArrayLike,
        probabilities: ArrayLike,
        classes: Sequence[str],
        sets: Sequence[tuple[JudgedSet, slice]],
    ) -> OODPredictions:
        """Cut the table of a test split into its sets, and each to the classes that its set tells apart.

        A class that stands for several of the task's has the largest of their probabilities. The classes told apart
        are brought to a sum of one; where none of them has any, they are equal. So the class predicted is that of the
        largest probability among all members, as in the published evaluations of ImageNet-A, ImageNet-R and ObjectNet.

        Args:
            names: N strings that tell a person which image each row of the table is.
            labels: (N,) integers, the true class of each, the first of its members.
            probabilities: (N, C), each row at least 0 and summing to 1 within 1e-3.
            classes: C names.
            sets: Each with its rows in the table; first the clean images. Rows of a corrupted set are the clean ones in
                their order. `clean` need not be filled in.

        Raises:
            UserError: If shapes disagree, a probability is not finite or negative, a row does not sum to 1, or a label
                is no class.
        """
        table, truth = as_float(probabilities), np.asarray(labels)
        check_size(len(names))
        check_shape("probabilities", table, (len(names), len(classes)))
        check_shape("labels", truth, (len(names),))
        check_probabilities("probabilities", table)
        check_sums(table)
        check_integers("labels", truth, 0, len(classes))
        judged, units, rows = cut(encodable(names), truth.astype(np.int64), table, sets)
        return cls(names=units, classes=tuple(encodable(classes)), sets=judged, **rows)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(m,) whether each row's prediction is right."""
        return self.predicted == self.labels

    @cached_property
    def shifted(self) -> list[int]:
        """Numbers of the sets that are not clean."""
        return [number for number, each in enumerate(self.sets) if each.entry]

    def per_class(self) -> list[Row]:
        """For each class of the clean images, under all classes: `class` (its name), `n`, and `recall`."""
        own = self.part == 0
        labels, right = self.labels[own], self.right[own]
        return [
            {
                "class": self.classes[label],
                "n": int((labels == label).sum()),
                "recall": float(right[labels == label].mean()),
            }
            for label in np.unique(labels).tolist()
        ]

    def breakdown(self) -> dict[str, list[Row]]:
        """`per_set`: a row for each shifted set, with the score on clean images of the same classes and the drop."""
        counted = np.bincount(self.part, minlength=len(self.sets))
        hits = np.bincount(self.part, weights=self.right, minlength=len(self.sets))
        rows: list[Row] = []
        for number in self.shifted:
            each = self.sets[number]
            top1, clean = (float(hits[n] / counted[n]) for n in (number, each.clean))
            row: Row = {"set": each.name, "n": int(counted[number]), "classes": len(each.members) or len(self.classes)}
            row |= {"top1": top1, "clean_n": int(counted[each.clean]), "clean_top1": clean, "drop": clean - top1}
            rows.append(row)
        return {"per_set": rows}

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per image judged, sets and classes as JSON in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        columns = [pa.array(self.names, pa.string()).take(pa.array(self.unit))]
        for name in ("unit", "part", "labels", "predicted", "confidence", "label_probability"):
            columns.append(pa.array(getattr(self, name)))
        metadata = {SETS_KEY: json.dumps([asdict(each) for each in self.sets]), _CLASSES_KEY: json.dumps(self.classes)}
        pq.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata)), path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> OODPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        check_schema(table, _SCHEMA, [SETS_KEY, _CLASSES_KEY], path, "OODPredictions.write")
        unit = table.column("unit").to_numpy()
        units, first = np.unique(unit, return_index=True)
        check_shape("unit", units, (int(unit.max(initial=-1)) + 1,))
        return cls(
            names=table.column("name").take(pa.array(first)).to_pylist(),
            unit=unit,
            part=table.column("set").to_numpy(),
            labels=table.column("label").to_numpy(),
            predicted=table.column("predicted").to_numpy(),
            confidence=table.column("confidence").to_numpy(),
            label_probability=table.column("label_probability").to_numpy(),
            classes=tuple(json.loads(table.schema.metadata[_CLASSES_KEY])),
            sets=tuple(_as_set(said) for said in json.loads(table.schema.metadata[SETS_KEY])),
        )


def _as_set(said: dict[str, Any]) -> JudgedSet:
    return JudgedSet(**{**said, "members": tuple(tuple(each) for each in said["members"])})
