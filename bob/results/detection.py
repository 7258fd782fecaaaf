"""What a detector found in each image of a test split, from which every average precision can be recomputed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bob.data.objects import Detections, Objects
from bob.results.checks import check_integers, check_schema, check_shape, check_size, encodable
from bob.results.coco_input import flatten
from bob.results.coco_matching import AREAS, THRESHOLDS, Ints, Outcome
from bob.results.judged import Judged, Row
from bob.results.precision_recall import Curve, average_precision, mean_over_classes

CLASSES_KEY = b"bob.detection.classes"
_FEDERATED_KEY = b"bob.detection.federated"
_KEYS = [CLASSES_KEY, _FEDERATED_KEY]
_MOST_BITS = 2 ** (len(AREAS) * len(THRESHOLDS))


@dataclass
class _Last:
    """The last weights that were asked about, and what came out: metrics of one bootstrap ask about the same."""

    weights: NDArray[np.float64] | None = None
    values: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DetectionPredictions(Judged):
    """The objects of each image of a test split, and which detections found one at which threshold and size.

    Detections are in the order of their images, within an image by class, within a class by falling score. Those that
    the evaluation does not look at are left out: past the 100th of a class in an image or, where annotation is
    federated, past the 300th of an image and of classes about which nothing is known there.

    Attributes:
        names: n strings that tell a person which image it is.
        classes: The names of all classes, in the order of their labels.
        object_images: (g,) int64, rising: the image of each object.
        object_labels: (g,) int64.
        object_ranges: (g,) uint8, in which of `AREAS` the object counts, a bit each; 0 is a region to ignore.
        images: (d,) int64, rising: the image of each detection.
        labels: (d,) int64.
        scores: (d,) float32.
        box: What became of each detection, judged by its box.
        mask: The same judged by its mask; None where data or detector have none.
        federated: Whether images are annotated for some classes only, as in LVIS.

    Raises:
        UserError: If there is no image, or the arrays disagree in shape, or a value is out of range.
    """

    kind: ClassVar[str] = "detection"

    names: list[str]
    classes: tuple[str, ...]
    object_images: Ints
    object_labels: Ints
    object_ranges: NDArray[np.uint8]
    images: Ints
    labels: Ints
    scores: NDArray[np.float32]
    box: Outcome
    mask: Outcome | None = None
    federated: bool = False

    def __post_init__(self) -> None:
        check_size(len(self.names))
        for name, size, high in (
            ("object_images", len(self.object_labels), len(self.names)),
            ("object_labels", len(self.object_labels), len(self.classes)),
            ("object_ranges", len(self.object_labels), 2 ** len(AREAS)),
            ("images", len(self.scores), len(self.names)),
            ("labels", len(self.scores), len(self.classes)),
        ):
            check_shape(name, getattr(self, name), (size,))
            check_integers(name, getattr(self, name), 0, high)
        for shape in self.shapes:
            for part in ("hits", "ignored"):
                bits = getattr(getattr(self, shape), part)
                check_shape(f"{shape}.{part}", bits, (len(self.scores),))
                check_integers(f"{shape}.{part}", bits, 0, _MOST_BITS)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_detections(
        cls,
        names: Sequence[str],
        truths: Sequence[Objects],
        detections: Sequence[Detections],
        classes: Sequence[str],
        federated: bool = False,
    ) -> DetectionPredictions:
        """Judge detections as COCO's evaluation does; see `coco_matching.match`.

        The area of a detection is that of its box or, judged by its mask, of its mask. `COCO.loadRes` of pycocotools
        takes the box's for both if a result has both; detectron2 and mmdetection keep it from that, as we do.

        Federated as in LVIS (Gupta et al. 2019, arXiv 1908.03195): the 300 surest detections of an image count; of
        these only those of classes that the image shows or is known not to show; and where not every object of a class
        is annotated, one that finds nothing is ignored.

        Args:
            names: n strings that tell a person which image it is. Their order is that of detections of equal score.
            truths: What is in each image.
            detections: What was found in it. If none has a mask, or no object has, only boxes are judged.
            classes: C names.
            federated: Whether the annotation is.

        Raises:
            UserError: If there is no image, or a score is not finite.
            ValueError: If lengths disagree, labels are no class, some detections or objects have masks and others have
                none, or an image says what it does not show though `federated` is false.
        """
        check_size(len(names))
        found = flatten(truths, detections, len(names), len(classes), federated)
        return cls(names=encodable(names), classes=tuple(encodable(classes)), federated=federated, **found)

    @property
    def shapes(self) -> tuple[str, ...]:
        """What detections are judged by: `box`, and `mask` where there are masks."""
        return ("box",) if self.mask is None else ("box", "mask")

    def in_range(self, area: str) -> NDArray[np.bool_]:
        """Which objects count in a range of size, (g,)."""
        return _in_range(self.object_ranges, area)

    def curves(self, shape: str, area: str = "all") -> list[Curve]:
        """For each class, its detections and objects of a range of size: see `Curve`."""
        if (shape, area) not in self._curves:
            self._curves[shape, area] = [self._curve(label, shape, area) for label in range(len(self.classes))]
        return self._curves[shape, area]

    def average_precisions(self, shape: str, area: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average precision at each threshold, the mean over classes that have an object.

        The last answer is kept, since several metrics ask about the same weights.

        Args:
            shape: `box` or `mask`.
            area: One of `AREAS`.
            weights: (n, r) at least 0, of the images.

        Returns:
            (10, r); NaN where no object counts.
        """
        last = self._last
        if last.weights is None or not np.array_equal(last.weights, weights):
            last.weights, last.values = weights.copy(), {}
        if (shape, area) not in last.values:
            last.values[shape, area] = mean_over_classes(self.curves(shape, area), weights)
        return last.values[shape, area]

    def per_class(self) -> list[Row]:
        """For each class with an object: `class`, `n` objects, `ap` and `ap50` of boxes and, with masks, `mask_ap`.

        Regions to ignore are no objects.
        """
        once = np.ones((len(self), 1))
        counts = np.bincount(self.object_labels[self.in_range("all")], minlength=len(self.classes))
        table: list[dict[str, str | int | float]] = []
        for label in np.flatnonzero(counts):
            values = average_precision(self.curves("box")[label], once)[:, 0]
            row: dict[str, str | int | float] = {"class": self.classes[label], "n": int(counts[label])}
            row |= {"ap": float(values.mean()), "ap50": float(values[0])}
            if self.mask is not None:
                row["mask_ap"] = float(average_precision(self.curves("mask")[label], once).mean())
            table.append(row)
        return table

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per image, the classes and whether they are federated in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        columns = [pa.array(self.names, pa.string())]
        for name, values in self._lists().items():
            images = self.object_images if name.startswith("object") else self.images
            offsets = np.searchsorted(images, np.arange(len(self) + 1)).astype(np.int32)
            columns.append(pa.ListArray.from_arrays(offsets, pa.array(values, _TYPES[name])))
        metadata = {CLASSES_KEY: json.dumps(self.classes), _FEDERATED_KEY: json.dumps(self.federated)}
        schema = _schema(self.shapes).with_metadata(metadata)
        columns = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> DetectionPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        shapes = ("box", "mask") if "mask_hits" in table.schema.names else ("box",)
        check_schema(table, _schema(shapes), _KEYS, path, "DetectionPredictions.write")
        values = {name: _flat(table, name) for name in table.schema.names[1:]}
        outcomes = {shape: Outcome(values[f"{shape}_hits"], values[f"{shape}_ignored"]) for shape in shapes}
        return cls(
            names=table.column("name").to_pylist(),
            classes=tuple(json.loads(table.schema.metadata[CLASSES_KEY])),
            object_images=_rows(table, "object_labels"),
            object_labels=values["object_labels"].astype(np.int64),
            object_ranges=values["object_ranges"],
            images=_rows(table, "labels"),
            labels=values["labels"].astype(np.int64),
            scores=values["scores"],
            federated=json.loads(table.schema.metadata[_FEDERATED_KEY]),
            **outcomes,
        )

    def _lists(self) -> dict[str, NDArray[Any]]:
        own = {name: getattr(self, name) for name in ("object_labels", "object_ranges", "labels", "scores")}
        for shape in self.shapes:
            outcome: Outcome = getattr(self, shape)
            own |= {f"{shape}_hits": outcome.hits, f"{shape}_ignored": outcome.ignored}
        return own

    @cached_property
    def _curves(self) -> dict[tuple[str, str], list[Curve]]:
        return {}

    @cached_property
    def _last(self) -> _Last:
        return _Last()

    @cached_property
    def _of_class(self) -> list[NDArray[np.intp]]:
        """The detections of each class, by falling score; stable, so that ties stay in the order of images."""
        return _split(np.lexsort((-self.scores, self.labels)), self.labels, len(self.classes))

    @cached_property
    def _objects_of_class(self) -> list[NDArray[np.intp]]:
        return _split(np.argsort(self.object_labels, kind="stable"), self.object_labels, len(self.classes))

    def _curve(self, label: int, shape: str, area: str) -> Curve:
        outcome: Outcome = getattr(self, shape)
        own, objects = self._of_class[label], self._objects_of_class[label]
        hits, ignored = Outcome(outcome.hits[own], outcome.ignored[own]).of_area(area)
        return Curve.of(
            self.images[own], hits, ignored, self.object_images[objects[_in_range(self.object_ranges[objects], area)]]
        )


_TYPES = {
    "object_labels": pa.int32(),
    "object_ranges": pa.uint8(),
    "labels": pa.int32(),
    "scores": pa.float32(),
    "box_hits": pa.uint64(),
    "box_ignored": pa.uint64(),
    "mask_hits": pa.uint64(),
    "mask_ignored": pa.uint64(),
}


def _in_range(ranges: NDArray[np.uint8], area: str) -> NDArray[np.bool_]:
    return (ranges >> list(AREAS).index(area)) & 1 == 1


def _split(order: NDArray[np.intp], labels: Ints, classes: int) -> list[NDArray[np.intp]]:
    """Cut an order of rising labels into one piece for each class."""
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes)))


def _schema(shapes: tuple[str, ...]) -> pa.Schema:
    kept = [name for name in _TYPES if "mask" in shapes or not name.startswith("mask")]
    lists = [pa.field(name, pa.list_(pa.field("item", _TYPES[name], nullable=False)), nullable=False) for name in kept]
    return pa.schema([pa.field("name", pa.string(), nullable=False), *lists])


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _rows(table: pa.Table, name: str) -> Ints:
    """The row of each item of a column of lists."""
    lengths = table.column(name).combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(table.num_rows), lengths)
