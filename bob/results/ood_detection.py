"""The per-sample outcome of a detector of outliers, from which every metric can be recomputed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from bob.errors import UserError
from bob.results.checks import (
    check_integers,
    check_schema,
    check_shape,
    check_size,
    encodable,
)
from bob.results.judged import Judged, Row
from bob.results.ranking import Ranking, average_precision, roc_auc
from bob.results.terms import Floats

SETS_KEY = b"bob.ood_detection.sets"
KNOWN = -1
"""In `members`: an image of the known classes."""

_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("member", pa.int64(), nullable=False),
    ]
)
Area: TypeAlias = Literal["auroc", "aupr_out", "aupr_in", "fpr95"]
_TPR = 0.95


@dataclass
class _Last:
    """The last weights that were asked about, and what came out: metrics of one bootstrap ask about the same."""

    weights: Floats | None = None
    present: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    areas: dict[Area, Floats] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OODDetectionPredictions(Judged):
    """How unlike the known classes a detector found each test image, and which images are outliers.

    Attributes:
        names: n strings that tell a person which sample it is.
        scores: (n,) float64, finite; the larger, the less like the known classes.
        members: (n,) int64, the set of each sample, a position in `sets`; `KNOWN` for those of the known classes.
        sets: Names of the sets of outliers.
        near: For each set, whether its images are close to the known classes.

    Raises:
        UserError: If there is no sample, or the arrays disagree in length, or a value is out of range.
    """

    kind: ClassVar[str] = "ood_detection"

    names: list[str]
    scores: Floats
    members: NDArray[np.int64]
    sets: tuple[str, ...]
    near: tuple[bool, ...]

    def __post_init__(self) -> None:
        check_size(len(self.names))
        check_shape("scores", self.scores, (len(self),))
        if not np.isfinite(self.scores).all():
            row = int(np.argmin(np.isfinite(self.scores)))
            raise UserError(f"Expected `scores` to be finite, but got {self.scores[row]} for sample {row}.")
        check_shape("members", self.members, (len(self),))
        check_integers("members", self.members, KNOWN, len(self.sets))
        check_shape("near", np.asarray(self.near), (len(self.sets),))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the sets: what the samples are told apart by."""
        return self.sets

    @classmethod
    def from_scores(
        cls, names: Sequence[str], scores: ArrayLike, members: ArrayLike, sets: Sequence[str], near: Sequence[bool]
    ) -> OODDetectionPredictions:
        """Make predictions of any array-likes; see the class.

        Raises:
            UserError: If shapes disagree or a value is out of range.
        """
        set_of_each = np.asarray(members)
        check_size(len(names))
        check_integers("members", set_of_each, KNOWN, len(sets))
        table = np.asarray(scores, dtype=np.float64)
        return cls(
            encodable(names), table, set_of_each.astype(np.int64), tuple(encodable(sets)), tuple(map(bool, near))
        )

    def areas(self, area: Area, weights: Floats) -> Floats:
        """One of the four numbers, of each set of outliers against all samples of the known classes.

        `auroc` and `aupr_out` (average precision) take outliers as positives, `aupr_in` and `fpr95` the known classes.
        The last answer is kept, since several metrics ask about the same weights.

        Args:
            area: Which.
            weights: (n, r) at least 0, such as how often each sample is in each of r resamples.

        Returns:
            (S, r) for S sets; NaN where a set, or the known classes, have no weight.
        """
        last = self._last
        if last.weights is None or not np.array_equal(last.weights, weights):
            last.weights, last.present, last.areas = weights.copy(), self._present(weights), {}
        if area not in last.areas:
            of, rankings = _AREAS[area], self._known_first if area in ("aupr_in", "fpr95") else self._outliers_first
            values = np.stack([of(ranking, weights) for ranking in rankings])
            last.areas[area] = np.where(last.present, values, np.nan)
        return last.areas[area]

    def _present(self, weights: Floats) -> NDArray[np.bool_]:
        """(S, r): whether both a set and the known classes have weight."""
        known = weights[self.members == KNOWN].sum(axis=0) > 0
        return np.stack([weights[self.members == number].sum(axis=0) > 0 for number in range(len(self.sets))]) & known

    def per_class(self) -> list[Row]:
        """Nothing: `breakdown` has a row for each set."""
        return []

    def breakdown(self) -> dict[str, list[Row]]:
        """`per_set`: for each set of outliers, `set`, whether it is `near`, `n`, `n_known`, and the four numbers."""
        once = np.ones((len(self), 1))
        values = {area: self.areas(area, once)[:, 0] for area in _AREAS}
        known = int((self.members == KNOWN).sum())
        return {
            "per_set": [
                {
                    **{"set": name, "near": near, "n": int((self.members == number).sum()), "n_known": known},
                    **{area: float(own[number]) for area, own in values.items() if not np.isnan(own[number])},
                }
                for number, (name, near) in enumerate(zip(self.sets, self.near, strict=True))
            ]
        }

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per sample, the sets as JSON in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        sets = [{"name": name, "near": near} for name, near in zip(self.sets, self.near, strict=True)]
        columns = [
            pa.array(self.names, pa.string()),
            pa.array(self.scores, pa.float64()),
            pa.array(self.members, pa.int64()),
        ]
        table = pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata({SETS_KEY: json.dumps(sets)}))
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> OODDetectionPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        check_schema(table, _SCHEMA, [SETS_KEY], path, "OODDetectionPredictions.write")
        sets = json.loads(table.schema.metadata[SETS_KEY])
        return cls(
            names=table.column("name").to_pylist(),
            scores=table.column("score").to_numpy(),
            members=table.column("member").to_numpy(),
            sets=tuple(each["name"] for each in sets),
            near=tuple(each["near"] for each in sets),
        )

    @cached_property
    def _outliers_first(self) -> list[Ranking]:
        """For each set, the samples by falling score, outliers being positives."""
        return [Ranking.of(self._truth(number), self.scores) for number in range(len(self.sets))]

    @cached_property
    def _known_first(self) -> list[Ranking]:
        """For each set, the samples by rising score, those of the known classes being positives."""
        return [
            Ranking.of(np.where(truth < 0, -1, 1 - truth), -self.scores)
            for truth in (self._truth(number) for number in range(len(self.sets)))
        ]

    @cached_property
    def _last(self) -> _Last:
        return _Last()

    def _truth(self, number: int) -> NDArray[np.int64]:
        """(n,) 1 for the outliers of a set, 0 for the known classes, -1 for other sets."""
        return np.select([self.members == number, self.members == KNOWN], [1, 0], -1)


def fpr_at_95_tpr(ranking: Ranking, weights: Floats) -> Floats:
    """Share of the negatives that score no lower than the least of the best 95% of the positives.

    Equals the first entry of `sklearn.metrics.roc_curve(..., sample_weight=...)` where the true positive rate reaches
    0.95, for each column of weights.

    Args:
        ranking: Of n samples.
        weights: (n, r) at least 0.

    Returns:
        (r,); NaN where no positive or no negative has weight.

    Source: Liang et al. 2018, arXiv 1706.02690, section 4.2, where the known classes are the positives.
    """
    positives, negatives = (np.cumsum(sums, axis=0) for sums in ranking.sums(weights))
    if not len(positives):
        return np.full(weights.shape[1], np.nan)
    hits, alarms = positives[-1], negatives[-1]
    with np.errstate(invalid="ignore"):
        reached = positives / hits >= _TPR  # divided as scikit-learn does, so that both round alike
    first = reached.argmax(axis=0)
    passed = np.take_along_axis(negatives, first[None], axis=0)[0]
    defined = (hits > 0) & (alarms > 0)
    return np.divide(passed, alarms, out=np.full_like(alarms, np.nan), where=defined)


_AREAS: dict[Area, Callable[[Ranking, Floats], Floats]] = {
    "auroc": roc_auc,
    "aupr_out": average_precision,
    "aupr_in": average_precision,
    "fpr95": fpr_at_95_tpr,
}
