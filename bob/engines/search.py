"""Choosing among recipes, such as one for each learning rate, by what each reaches on validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.engines.finished import Finished
from bob.engines.loop import Diverged
from bob.engines.recipe import Limits, Recipe
from bob.engines.registry import Engine
from bob.engines.training import Progress

if TYPE_CHECKING:
    from bob.features.extract import Extraction


def search(
    engine: Engine,
    backbone: Backbone,
    dataset: Dataset,
    recipes: Sequence[Recipe],
    *,
    score: Callable[[Any], Mapping[str, float]],
    how: Extraction,
    folder: Path,
    seed: int,
    limits: Limits | None = None,
    progress: Callable[[Recipe], Progress] = lambda recipe: lambda update: None,
) -> list[dict[str, Any]]:
    """Train each recipe on `train` and score it on `val`; no other split is looked at.

    A recipe that diverges has no scores. What was trained before an interruption is read back.

    Args:
        engine: Trains.
        backbone: As for the engine.
        dataset: With the splits `train` and `val`.
        recipes: One or more.
        score: Maps what the engine predicts of `val` to scores, by name.
        how: As for the engine.
        folder: As for the engine.
        seed: As for the engine.
        limits: Of each training.
        progress: Gives for each recipe what is told after each of its updates.

    Returns:
        A row for each recipe: the fields in which the recipes differ and `diverged`; unless it is, `val_...` for each
        score, `finished`, `steps`, `seconds` and `train_loss`.

    Raises:
        Diverged: If all do.
        UserError: See the engine's `train`.
    """
    if not recipes:
        raise ValueError("Expected `recipes` to be one or more recipes, but got none.")
    rows: list[dict[str, Any]] = []
    failure: Diverged | None = None
    for recipe, differing in zip(recipes, _differing(recipes), strict=True):
        try:
            trained = engine.train(
                backbone,
                dataset,
                recipe,
                how=how,
                folder=folder,
                seed=seed,
                limits=limits or Limits(),
                progress=progress(recipe),
            )
        except Diverged as error:
            failure = error
            rows.append({**differing, "diverged": True})
        else:
            scores = score(trained.predict(dataset.splits["val"]))
            rows.append({**differing, **{f"val_{name}": value for name, value in scores.items()}, **_facts(trained)})
    if failure is not None and all(row["diverged"] for row in rows):
        raise failure
    return rows


def _differing(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    fields = [recipe.as_dict() for recipe in recipes]
    return [{key: own[key] for key in own if any(other[key] != own[key] for other in fields)} for own in fields]


def _facts(trained: Finished) -> dict[str, Any]:
    return {
        "diverged": False,
        "finished": trained.finished,
        "steps": trained.steps,
        "seconds": trained.seconds,
        "train_loss": trained.train_loss,
    }
