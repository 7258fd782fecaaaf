"""Two backbones on the same test samples: the overall difference, and which classes it helps and hurts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from bob.errors import UserError
from bob.results.compare_parts import part_rows, same_truth
from bob.results.detection import DetectionPredictions
from bob.results.judged import Judged
from bob.results.metric import Metric
from bob.results.multilabel import MultiLabelPredictions
from bob.results.precision_recall import Curve
from bob.results.precision_recall import average_precision as box_precision
from bob.results.predictions import Predictions
from bob.results.ranking import Ranking, average_precision
from bob.results.record import Record
from bob.results.runs import comparable, tidy
from bob.results.segmentation import SegmentationPredictions, ious
from bob.results.statistics import Estimate, paired_bootstrap, replicates
from bob.results.terms import Floats

_RESAMPLES = 2000
# What `class_table` says of each class, for each kind of predictions.
CLASS_SCORES = {
    "classification": "recall",
    "multilabel": "average precision",
    "detection": "average precision of boxes",
    "segmentation": "intersection over union",
    "factors": "recall",
    "ood": "top-1",
    "ood_detection": "AUROC",
    "retrieval": "mAP",
}
# What the rows of `class_table` are called, where they are not classes.
PARTS = {"ood": "sets", "ood_detection": "sets"}


@dataclass(frozen=True)
class Pair:
    """Two runs of one setting and seed, on different backbones.

    Attributes:
        a: The one compared with.
        b: The one compared.
    """

    a: Record
    b: Record

    @property
    def setting(self) -> str:
        """`TASK/PROTOCOL`, as a column of the leaderboard is called."""
        return f"{self.a.request.task}/{self.a.request.protocol['name']}"


def find_pair(records: Sequence[Record], a: str, b: str) -> Pair:
    """The newest runs of two backbones that can be compared; of several seeds, the lowest.

    Args:
        records: Any; those of other backbones do not count.
        a: Name of a backbone.
        b: Name of another.

    Raises:
        UserError: If one has no run, they share no setting (task, data, protocol version, metric and seed), or several.
    """
    if a == b:
        raise UserError(f"Expected two backbones, but got {a} twice.", "Name another to compare it with.")
    own = [record for record in records if record.request.backbone in (a, b)]
    for name in (a, b):
        if not any(record.request.backbone == name for record in own):
            raise UserError(f"There is no such run of {name}.", f"Make one: `bob run -b {name} -t TASK -p PROTOCOL`.")
    runs = comparable(tidy(own))
    shared = {keys: group for keys, group in runs.groupby(["task", "protocol", "seed"]) if len(group) == 2}
    settings = list(dict.fromkeys(f"--task {task} --protocol {protocol}" for task, protocol, _ in shared))
    if not settings:
        problem = f"{a} and {b} were not run on the same task, data, protocol version and seed."
        raise UserError(problem, f"Run both alike: `bob run -b {a},{b} -t TASK -p PROTOCOL`.")
    if len(settings) > 1:
        raise UserError(f"{a} and {b} share {len(settings)} settings.", f"Choose one: {'; '.join(settings)}.")
    by_id = {record.run_id: record for record in own}
    chosen = shared[min(shared)].set_index("backbone")["run_id"]
    return Pair(by_id[chosen[a]], by_id[chosen[b]])


def require_same_samples(a: Judged, b: Judged, names: tuple[str, str] = ("a", "b")) -> None:
    """Refuse predictions on different test samples.

    Args:
        a: Predictions.
        b: Other predictions.
        names: What to call them.

    Raises:
        UserError: If samples, their order, their labels or the classes differ; says where.
    """
    problem = _first_difference(a, b, names)
    if problem:
        message = f"{names[0]} and {names[1]} were not tested on the same samples: {problem}."
        raise UserError(message, "Run both again on the same data.")


def overall(metric: Metric, a: Judged, b: Judged, names: tuple[str, str] = ("a", "b")) -> Estimate:
    """The metric's difference, `b` minus `a`, with its paired bootstrap interval.

    Raises:
        UserError: If the test samples differ, or the metric is not for such predictions.
    """
    require_same_samples(a, b, names)
    return paired_bootstrap(metric, a, b)


def class_table(a: Judged, b: Judged, names: tuple[str, str] = ("a", "b")) -> pd.DataFrame:
    """How each class fares under two backbones, the most hurt first: an overall gain can hide the loss of a class.

    The score of a class is its recall or, where images have several labels, the label's average precision; of a
    detector the average precision of its boxes (`box_ap`), of a segmenter the intersection over union, of queries their
    mean average precision. Tests on several sets have a row for each set, its top-1 or AUROC. The interval is
    the paired bootstrap's: for recall it resamples the samples of the class, whose number stays; else all samples. It
    is about one class: of 100 classes that do not differ, five intervals leave out 0. A class whose samples both
    backbones answer alike gets an interval of no width. A class that no sample shows has no row.

    Args:
        a: Predictions of the backbone compared with.
        b: Predictions of the one compared, on the same samples.
        names: What to call the two.

    Returns:
        Columns class, n (samples, positives of the label, objects, or images that show it), a, b, difference (b - a),
        low, high (95%).

    Raises:
        UserError: If the test samples differ; says where.

    Source: Balestriero, Bottou & LeCun 2022, arXiv 2204.03632.
    """
    require_same_samples(a, b, names)
    if isinstance(a, Predictions) and isinstance(b, Predictions):
        rows = _class_rows(a, b)
    elif isinstance(a, MultiLabelPredictions) and isinstance(b, MultiLabelPredictions):
        rows = _label_rows(a, b)
    elif isinstance(a, DetectionPredictions) and isinstance(b, DetectionPredictions):
        rows = _object_rows(a, b)
    elif isinstance(a, SegmentationPredictions) and isinstance(b, SegmentationPredictions):
        rows = _pixel_rows(a, b)
    else:
        rows = part_rows(a, b, _RESAMPLES)
    table = pd.DataFrame(rows, columns=["class", "n", "a", "b", "difference", "low", "high"])
    return table.sort_values(["difference", "high", "class"]).reset_index(drop=True)


def _first_difference(a: Judged, b: Judged, names: tuple[str, str]) -> str:
    if a.kind != b.kind:
        return f"{names[0]} is about {a.kind}, {names[1]} about {b.kind}"
    if a.classes != b.classes:
        return f"their {len(a.classes)} and {len(b.classes)} classes are not the same"
    if len(a) != len(b):
        return f"{names[0]} has {len(a)} of them, {names[1]} {len(b)}"
    for place, (first, second) in enumerate(zip(a.names, b.names, strict=True)):
        if first != second:
            return f"sample {place} of {names[0]} is {first}, that of {names[1]} is {second}"
    return _other_truth(a, b)


def _other_truth(a: Judged, b: Judged) -> str:
    """Which of the same samples has another truth in each, and what of it differs."""
    if isinstance(a, DetectionPredictions) and isinstance(b, DetectionPredictions):
        if a.federated != b.federated:
            return "the annotation of one is federated"
        what, changed = "other objects", _other_objects(a, b)
    elif isinstance(a, SegmentationPredictions) and isinstance(b, SegmentationPredictions):
        if a.score_at != b.score_at:
            return f"they were scored at {a.score_at or 'original'} and {b.score_at or 'original'} pixels"
        what, changed = "other pixels of a class", (a.truth != b.truth).any(axis=1)
    elif isinstance(a, Predictions | MultiLabelPredictions) and isinstance(b, Predictions | MultiLabelPredictions):
        what, changed = "another label", (a.labels != b.labels).reshape(len(a), -1).any(axis=1)
    else:
        return "" if same_truth(a, b) else "their sets differ, or what is to be found"
    return f"{a.names[int(changed.argmax())]} has {what} in each" if changed.any() else ""


def _other_objects(a: DetectionPredictions, b: DetectionPredictions) -> NDArray[np.bool_]:
    """Which images do not have as many objects of each class and size in both."""
    kinds = len(a.classes) * 16
    tables = []
    for each in (a, b):
        columns = each.object_labels * 16 + each.object_ranges
        ones = np.ones(len(columns))
        tables.append(sparse.csr_array((ones, (each.object_images, columns)), shape=(len(each), kinds)))
    return np.asarray(abs(tables[0] - tables[1]).sum(axis=1)) > 0


def _class_rows(a: Predictions, b: Predictions) -> list[list[object]]:
    """For each class that has samples: its name, their number, both recalls, and the difference with its interval."""
    rng = np.random.default_rng(0)
    right_a, right_b = a.predicted == a.labels, b.predicted == b.labels
    order = np.argsort(a.labels, kind="stable")
    present, starts = np.unique(a.labels[order], return_index=True)
    rows: list[list[object]] = []
    for label, members in zip(present, np.split(order, starts[1:]), strict=True):
        before, after = right_a[members], right_b[members]
        low, high = _paired_interval(before, after, rng)
        n, recall_a, recall_b = len(members), float(before.mean()), float(after.mean())
        # Of counts: two recalls may differ in the last digit where as many samples are right.
        difference = (int(after.sum()) - int(before.sum())) / n
        rows.append([a.classes[label], n, recall_a, recall_b, difference, low, high])
    return rows


def _paired_interval(
    before: NDArray[np.bool_], after: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[float, float]:
    """95% interval of the difference of two shares of the same samples.

    A sample changes the difference by 1, 0 or -1, so a resample of them is one draw of a trinomial.
    """
    n, gains, losses = len(before), int((after & ~before).sum()), int((before & ~after).sum())
    draws = rng.multinomial(n, np.array([gains, losses, n - gains - losses]) / n, size=_RESAMPLES)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [0.025, 0.975])
    return float(low), float(high)


def _label_rows(a: MultiLabelPredictions, b: MultiLabelPredictions) -> list[list[object]]:
    """For each label with a positive: its name, their number, both average precisions, the difference and interval."""
    pairs = list(zip(a.rankings(), b.rankings(), strict=True))
    differences = replicates([partial(_difference, *pair) for pair in pairs], len(a), _RESAMPLES, seed=0)
    once, rows = np.ones((len(a), 1)), []
    for name, truth, pair, own in zip(a.classes, a.labels.T, pairs, differences, strict=True):
        if (truth == 1).any():
            before, after = (float(average_precision(ranking, once)[0]) for ranking in pair)
            rows.append([name, int((truth == 1).sum()), *_with_interval(before, after, own)])
    return rows


def _object_rows(a: DetectionPredictions, b: DetectionPredictions) -> list[list[object]]:
    """For each class with an object: its name, their number, both average precisions, the difference and interval."""
    counts = np.bincount(a.object_labels[a.in_range("all")], minlength=len(a.classes))
    present = np.flatnonzero(counts).tolist()
    before, after = a.curves("box"), b.curves("box")
    once = np.ones((len(a), 1))
    weighted = [partial(_precision_difference, before[label], after[label]) for label in present]
    rows = []
    for label, own in zip(present, replicates(weighted, len(a), _RESAMPLES, seed=0), strict=True):
        first, second = (float(box_precision(curves[label], once).mean()) for curves in (before, after))
        rows.append([a.classes[label], int(counts[label]), *_with_interval(first, second, own)])
    return rows


def _precision_difference(first: Curve, second: Curve, weights: Floats) -> Floats:
    return np.asarray((box_precision(second, weights) - box_precision(first, weights)).mean(axis=0))


def _pixel_rows(a: SegmentationPredictions, b: SegmentationPredictions) -> list[list[object]]:
    """For each class that an image shows: its name, their number, both intersections over union, and so on."""
    shown = (a.truth > 0).sum(axis=0)
    present = np.flatnonzero(shown).tolist()
    weighted = [partial(_iou_difference, a, b, label) for label in present]
    once, rows = np.ones((len(a), 1)), []
    for label, own in zip(present, replicates(weighted, len(a), _RESAMPLES, seed=0), strict=True):
        first, second = (float(_iou(each, label, once)[0]) for each in (a, b))
        rows.append([a.classes[label], int(shown[label]), *_with_interval(first, second, own)])
    return rows


def _iou_difference(a: SegmentationPredictions, b: SegmentationPredictions, label: int, weights: Floats) -> Floats:
    return _iou(b, label, weights) - _iou(a, label, weights)


def _iou(predictions: SegmentationPredictions, label: int, weights: Floats) -> Floats:
    """Intersection over union of one class: (n, r) -> (r,)."""
    own = (predictions.intersection, predictions.truth, predictions.predicted)
    return ious(*(counts[:, label].astype(np.float64) @ weights for counts in own))


def _with_interval(before: float, after: float, differences: Floats) -> tuple[float, float, float, float, float]:
    """Both scores, their difference, and the 95% of its resamples."""
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return before, after, after - before, float(low), float(high)


def _difference(first: Ranking, second: Ranking, weights: Floats) -> Floats:
    return average_precision(second, weights) - average_precision(first, weights)
