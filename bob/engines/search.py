"""Choosing among recipes, such as one for each learning rate, by what each reaches on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.engines.fine_tune import fine_tune
from bob.engines.loop import Diverged
from bob.engines.recipe import Limits, Recipe
from bob.engines.trained import Trained
from bob.engines.training import Progress

if TYPE_CHECKING:
    from bob.features.extract import Extraction

_SMALLEST = float(np.finfo(np.float32).eps)


def search(
    backbone: Backbone,
    dataset: Dataset,
    recipes: Sequence[Recipe],
    *,
    how: Extraction,
    folder: Path,
    seed: int,
    limits: Limits | None = None,
    progress: Progress = lambda update: None,
) -> list[dict[str, Any]]:
    """Train each recipe on `train` and score it on `val`; no other split is looked at.

    A recipe that diverges is one that is not chosen. What was trained before an interruption is read back.

    Args:
        backbone: As for `fine_tune`.
        dataset: With the splits `train` and `val`.
        recipes: One or more.
        how: As for `fine_tune`.
        folder: As for `fine_tune`.
        seed: As for `fine_tune`.
        limits: Of each training.
        progress: As for `fine_tune`.

    Returns:
        A row for each recipe: the fields in which the recipes differ, `val_top1` (None for multi-label targets),
        `val_nll` (both None if it diverged), `finished`, `steps`, `seconds` and `train_loss`.

    Raises:
        Diverged: If all do.
        UserError: See `fine_tune`.
    """
    if not recipes:
        raise ValueError("Expected `recipes` to be one or more recipes, but got none.")
    rows: list[dict[str, Any]] = []
    failure: Diverged | None = None
    for recipe, differing in zip(recipes, _differing(recipes), strict=True):
        try:
            trained = fine_tune(
                backbone,
                dataset,
                recipe,
                how=how,
                folder=folder,
                seed=seed,
                limits=limits or Limits(),
                progress=progress,
            )
        except Diverged as error:
            failure = error
            rows.append({**differing, **_DIVERGED})
        else:
            rows.append({**differing, **_scores(trained, dataset)})
    if failure is not None and all(row["val_nll"] is None for row in rows):
        raise failure
    return rows


def choose(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the position of the best row: highest `val_top1`, then lowest `val_nll`, then the first.

    Raises:
        ValueError: If no row has scores.
    """
    scored = [position for position, row in enumerate(rows) if row["val_nll"] is not None]
    if not scored:
        raise ValueError("Expected `rows` to have one with scores, but got none.")
    return min(scored, key=lambda position: (-(rows[position]["val_top1"] or 0.0), rows[position]["val_nll"]))


_DIVERGED = {
    "val_top1": None, "val_nll": None, "finished": False, "steps": None, "seconds": None, "train_loss": None,
}  # fmt: skip


def _differing(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    fields = [recipe.as_dict() for recipe in recipes]
    return [{key: own[key] for key in own if any(other[key] != own[key] for other in fields)} for own in fields]


def _scores(trained: Trained, dataset: Dataset) -> dict[str, Any]:
    val = dataset.splits["val"]
    top1, nll = top1_and_nll(trained.predict_proba(val), val.labels)
    return {
        "val_top1": top1,
        "val_nll": nll,
        "finished": trained.finished,
        "steps": trained.steps,
        "seconds": trained.seconds,
        "train_loss": trained.train_loss,
    }


def top1_and_nll(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float | None, float]:
    """Accuracy and mean negative log-likelihood in nats.

    Args:
        probabilities: (n, C).
        labels: Classes (n,); or multi-label (n, C) of 0, 1 and -1 for unknown, which have no accuracy.
    """
    sure = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    if labels.ndim == 2:
        known = labels >= 0
        return None, float(-np.log(np.where(labels == 1, sure, 1 - sure))[known].mean())
    sure = sure / sure.sum(axis=1, keepdims=True)
    nll = -np.log(sure[np.arange(len(labels)), labels]).mean()
    return float((probabilities.argmax(axis=1) == labels).mean()), float(nll)
