"""Classification: a probe is chosen on validation, fitted on train and validation, and tested once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bob.adapters.base import Adapter, Features, Outcome, Protocol
from bob.errors import UserError
from bob.probes.knn import KNeighbors
from bob.probes.logistic import LogisticRegression
from bob.probes.ridge import RidgeClassifier
from bob.results.metrics import METRICS
from bob.results.predictions import Predictions

LINEAR = Protocol(
    name="linear",
    version=1,
    description="Multinomial logistic regression (L-BFGS) on standardised features; L2 strength chosen on validation.",
    probe=LogisticRegression,
    grid=tuple({"l2": 10.0 ** (exponent / 2)} for exponent in range(4, -11, -1)),
)
KNN = Protocol(
    name="knn",
    version=1,
    description="Nearest neighbours by cosine similarity, votes weighted (temperature 0.07); k chosen on validation.",
    probe=KNeighbors,
    grid=tuple({"k": k} for k in (1, 2, 5, 10, 20, 50, 100, 200)),
)
RIDGE = Protocol(
    name="ridge",
    version=1,
    description="Ridge regression on standardised features, in closed form; L2 strength chosen on validation.",
    probe=RidgeClassifier,
    grid=tuple({"l2": 10.0 ** (exponent / 2)} for exponent in range(6, -14, -1)),
)


@dataclass(frozen=True)
class Choice:
    """The winner of a grid, and every point with its validation scores."""

    point: dict[str, Any]
    grid: list[dict[str, Any]]
    notes: tuple[str, ...]


class Classification(Adapter):
    """Single-label classification by probes on stored features."""

    protocols: ClassVar = {protocol.name: protocol for protocol in (LINEAR, KNN, RIDGE)}

    def run(self, protocol: Protocol, features: Features, seed: int) -> Outcome:
        """See `Adapter.run`. The test split is first touched after the choice."""
        started = time.perf_counter()
        choice = self.choose(protocol, features("train"), features("val"))
        chosen = time.perf_counter()
        both = np.concatenate([features("train"), features("val")])
        probe = protocol.probe(**self._on_device(choice.point))
        probe.fit(both, np.concatenate([self._labels("train"), self._labels("val")]), len(self.dataset.classes))
        fitted = time.perf_counter()
        predictions = self._predictions("test", probe.predict_proba(features("test")))
        seconds = {
            "choose": chosen - started,
            "fit": fitted - chosen,
            "predict": time.perf_counter() - fitted,
        }
        notes = choice.notes + (() if getattr(probe, "converged_", True) else ("the final fit did not converge",))
        return Outcome(predictions, choice.point, choice.grid, notes, seconds)

    def choose(self, protocol: Protocol, train: np.ndarray, val: np.ndarray) -> Choice:
        """Fit every point of the grid on train and take the best top-1 on val; the lower NLL settles ties.

        Args:
            protocol: Gives probe and grid.
            train: (n, D) features of the train split.
            val: (m, D) features of the val split.

        Raises:
            UserError: If no point of the grid can be fitted.
        """
        points = self._feasible(protocol, len(train))
        grid = [self._on_device(point) for point in points]
        tried = []
        for point, table in protocol.probe.path(grid, train, self._labels("train"), len(self.dataset.classes), val):
            on_val = self._predictions("val", table)
            scores = {f"val_{name}": METRICS[name].compute(on_val) for name in ("top1", "nll")}
            tried.append({**{k: v for k, v in point.items() if k != "device"}, **scores})
        best = min(tried, key=lambda entry: (-entry["val_top1"], entry["val_nll"]))
        winner = {key: best[key] for key in points[0]}
        return Choice(winner, tried, _edge_note(winner, points))

    def _feasible(self, protocol: Protocol, n_train: int) -> list[dict[str, Any]]:
        """The grid without the k that exceed the number of training images."""
        points = [point for point in protocol.grid if point.get("k", 0) <= n_train]
        if not points:
            raise UserError(
                f"{self.task.name} has {n_train} training images, too few for '{protocol.name}'.", "Add some."
            )
        return points

    def _predictions(self, split: str, probabilities: np.ndarray) -> Predictions:
        names, labels = self.dataset.splits[split].names, self._labels(split)
        return Predictions.from_probabilities(names, labels, probabilities, self.dataset.classes)

    def _labels(self, split: str) -> np.ndarray:
        return self.dataset.splits[split].labels

    def _on_device(self, point: dict[str, Any]) -> dict[str, Any]:
        return {**point, "device": self.device}


def _edge_note(winner: dict[str, Any], points: list[dict[str, Any]]) -> tuple[str, ...]:
    """Say so if the best point lies at the end of the grid: a wider one might do better."""
    if len(points) > 1 and winner in (points[0], points[-1]):
        return (f"chosen at the edge of the grid: {', '.join(f'{k} = {v:g}' for k, v in winner.items())}",)
    return ()
