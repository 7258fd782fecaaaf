"""How many pixels of each class a segmenter got right in each image, from which every metric can be recomputed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from bob.data.objects import IGNORE
from bob.errors import UserError
from bob.results.checks import check_integers, check_schema, check_shape, check_size, encodable
from bob.results.judged import Judged, Row

CLASSES_KEY = b"bob.segmentation.classes"
_SCORE_AT_KEY = b"bob.segmentation.score_at"
_KEYS = [CLASSES_KEY, _SCORE_AT_KEY]
_COUNTS = ("intersection", "truth", "predicted")
_MOST_PIXELS = 2**53  # that a float counts exactly

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SegmentationPredictions(Judged):
    """Pixels of each image of a test split, counted by class; those whose truth is `IGNORE` count for nothing.

    Attributes:
        names: n strings that tell a person which image it is.
        intersection: (n, C) int64, pixels that are of the class and predicted to be.
        truth: (n, C) int64, pixels that are of the class.
        predicted: (n, C) int64, pixels that are predicted to be of the class.
        classes: The names of all classes, in the order of their indices.
        score_at: The short side in pixels at which predictions were compared; None for the images' own.

    Raises:
        UserError: If there is no image, or the arrays disagree in shape, or the counts in what they say.
    """

    kind: ClassVar[str] = "segmentation"

    names: list[str]
    intersection: Ints
    truth: Ints
    predicted: Ints
    classes: tuple[str, ...]
    score_at: int | None = None

    def __post_init__(self) -> None:
        check_size(len(self.names))
        for name in _COUNTS:
            check_shape(name, getattr(self, name), (len(self.names), len(self.classes)))
            check_integers(name, getattr(self, name), 0, _MOST_PIXELS)
        if (self.intersection > np.minimum(self.truth, self.predicted)).any():
            raise UserError("Expected `intersection` to be at most `truth` and `predicted`, but got more.")
        if (self.truth.sum(axis=1) != self.predicted.sum(axis=1)).any():
            raise UserError(
                "Expected as many pixels in `truth` as in `predicted` of each image, but got other numbers."
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_masks(
        cls,
        names: Sequence[str],
        truths: Iterable[NDArray[np.integer]],
        predicted: Iterable[NDArray[np.integer]],
        classes: Sequence[str],
        score_at: int | None = None,
    ) -> SegmentationPredictions:
        """Count the pixels of class maps, an image at a time.

        Args:
            names: n strings that tell a person which image it is.
            truths: n arrays (height, width) of classes or `IGNORE`, each asked for once.
            predicted: n arrays of classes, each as large as its truth.
            classes: C names.
            score_at: Short side in pixels that both are resized to, the long side rounded down as torchvision's
                `Resize` does, taking the nearest pixel to each new one's centre. None compares them as they are.

        Raises:
            UserError: If there is no image.
            ValueError: If numbers of images or the sizes of an image's two maps disagree, a truth is no class and not
                `IGNORE`, or a prediction no class.
        """
        check_size(len(names))
        size = len(classes)
        rows = [
            _count(name, _resized(truth, score_at), _resized(own, score_at), size)
            for name, truth, own in zip(names, truths, predicted, strict=True)
        ]
        intersection, truth, own = np.stack(rows, axis=1)
        return cls(encodable(names), intersection, truth, own, tuple(encodable(classes)), score_at)

    def per_class(self) -> list[Row]:
        """For each class that occurs: `class`, `n` images that show it, `iou`, and `accuracy`, the share found.

        A class that is predicted but not there has no accuracy, and its iou, which is 0, counts in the mean.
        """
        sums = [getattr(self, name).sum(axis=0).astype(np.float64) for name in _COUNTS]
        table = []
        values = zip(self.classes, (self.truth > 0).sum(axis=0), ious(*sums), accuracies(*sums), strict=True)
        for name, n, iou, accuracy in values:
            row: dict[str, str | int | float] = {"class": name, "n": int(n), "iou": float(iou)}
            table.append(row | ({} if np.isnan(accuracy) else {"accuracy": float(accuracy)}))
        return [row for row in table if not np.isnan(row["iou"])]

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per image, classes and resolution as JSON in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        size = len(self.classes)
        counts = [pa.array(getattr(self, name).ravel(), pa.int64()) for name in _COUNTS]
        columns = [pa.array(self.names, pa.string())]
        columns += [pa.FixedSizeListArray.from_arrays(values, size) for values in counts]
        metadata = {CLASSES_KEY: json.dumps(self.classes), _SCORE_AT_KEY: json.dumps(self.score_at)}
        schema = _schema(size).with_metadata(metadata)
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> SegmentationPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        metadata = table.schema.metadata or {}
        classes = tuple(json.loads(metadata.get(CLASSES_KEY, "[]")))
        check_schema(table, _schema(len(classes)), _KEYS, path, "SegmentationPredictions.write")
        shape = (table.num_rows, len(classes))
        counts = {name: _flat(table, name).reshape(shape) for name in _COUNTS}
        names = table.column("name").to_pylist()
        return cls(names=names, classes=classes, score_at=json.loads(metadata[_SCORE_AT_KEY]), **counts)


def pixel_terms(predictions: SegmentationPredictions) -> sparse.csr_array:
    """Intersection, truth and predicted of each class, (n, 3 C)."""
    parts = [sparse.csr_array(getattr(predictions, name).astype(np.float64)) for name in _COUNTS]
    return sparse.hstack(parts, format="csr")


def mean_iou(sums: Floats) -> Floats:
    """Mean over classes of intersection over union, all images' pixels together.

    The mean is over the classes that some pixel shows or is predicted to be: so torchmetrics' `JaccardIndex` (macro)
    and mmsegmentation's `IoUMetric`. A class that is predicted and never there counts 0; one that is neither is left
    out. NaN where no pixel counts.

    Source: Everingham et al. 2010, doi:10.1007/s11263-009-0275-4.
    """
    return _mean(ious(*np.split(sums, 3, axis=-1)))


def mean_accuracy(sums: Floats) -> Floats:
    """Mean over classes of the share of its pixels that is found.

    The mean is over the classes that some pixel shows, as in mmsegmentation's `IoUMetric`. (torchmetrics' `Accuracy`
    (macro) also counts classes that are only predicted, as 0.)

    Source: Long et al. 2015, arXiv 1411.4038.
    """
    return _mean(accuracies(*np.split(sums, 3, axis=-1)))


def pixel_accuracy(sums: Floats) -> Floats:
    """Share of the pixels that are right, whatever their class; torchmetrics' `Accuracy` (micro)."""
    intersection, truth, _ = np.split(sums, 3, axis=-1)
    return _ratio(intersection.sum(axis=-1), truth.sum(axis=-1))


def ious(intersection: Floats, truth: Floats, predicted: Floats) -> Floats:
    """Intersection over union, elementwise; NaN where there is no union."""
    return _ratio(intersection, truth + predicted - intersection)


def accuracies(intersection: Floats, truth: Floats, predicted: Floats) -> Floats:
    """Share that is found, elementwise; NaN where there is nothing to find."""
    return _ratio(intersection, truth)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _mean(values: Floats) -> Floats:
    """Over the last axis, of what is not NaN."""
    return _ratio(np.nan_to_num(values).sum(axis=-1), (~np.isnan(values)).sum(axis=-1).astype(np.float64))


def _count(name: str, truth: NDArray[np.integer], predicted: NDArray[np.integer], size: int) -> Ints:
    """Intersection, truth and predicted of each class, (3, C)."""
    if truth.shape != predicted.shape or truth.ndim != 2:
        shapes = f"{truth.shape} and {predicted.shape}"
        raise ValueError(f"Expected truth and prediction of {name} to be two arrays of one size, but got {shapes}.")
    _check_values(f"the truth of {name}", truth, IGNORE, size)
    _check_values(f"the prediction of {name}", predicted, 0, size)
    known = truth != IGNORE
    truth, predicted = truth[known], predicted[known]
    return np.stack([np.bincount(own, minlength=size) for own in (truth[truth == predicted], truth, predicted)])


def _check_values(what: str, values: NDArray[np.integer], low: int, end: int) -> None:
    if values.size and not low <= values.min() <= values.max() < end:
        found = f"{values.min()} to {values.max()}"
        raise ValueError(f"Expected {what} to be at least {low} and less than {end}, but got {found}.")


def _resized(classes: NDArray[np.integer], short: int | None) -> NDArray[np.integer]:
    """Resize a class map (height, width) to a short side, each new pixel taking the nearest old one."""
    classes = np.asarray(classes)
    if short is None or classes.ndim != 2:
        return classes
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(classes.shape, _size_at(classes.shape[0], classes.shape[1], short), strict=True)
    )
    return classes[rows[:, None], columns]


def _size_at(height: int, width: int, short: int) -> tuple[int, int]:
    if height < width:
        return short, int(short * width / height)
    return int(short * height / width), short


def _schema(size: int) -> pa.Schema:
    counts = pa.list_(pa.field("item", pa.int64()), size)
    fields = [pa.field(name, counts, nullable=False) for name in _COUNTS]
    return pa.schema([pa.field("name", pa.string(), nullable=False), *fields])


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).combine_chunks().flatten().to_numpy()
