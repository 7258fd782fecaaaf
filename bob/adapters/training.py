"""Training: the backbone, or a head on it, is trained on images; the learning rate is chosen on validation."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bob.adapters.base import Inputs, Outcome, Protocol
from bob.engines.recipe import Limits, Recipe
from bob.engines.settings import number, overridden
from bob.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Training(Protocol):
    """A recipe of the fine-tuning engine and the learning rates to choose from.

    Attributes:
        recipe: What to do.
        rates: Learning rates; with one alone nothing is chosen, and validation is only trained on.
        limits: The user's budget: updates of each training, hours of all together.
        prior_sha256: Of the recipe's prior, if it lies in a file.
    """

    recipe: Recipe
    rates: tuple[float, ...]
    limits: Limits = field(default_factory=Limits)
    prior_sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        """See `Protocol.as_dict`."""
        recipe = {key: value for key, value in self.recipe.as_dict().items() if key != "lr"}
        budget = {key: value for key, value in vars(self.limits).items() if value is not None}
        own = {"engine": "fine_tune", "recipe": recipe, "grid": [{"lr": rate} for rate in self.rates]}
        own |= {"limits": budget} if budget else {}
        return super().as_dict() | own | ({"prior_sha256": self.prior_sha256} if self.prior_sha256 else {})

    @property
    def takes_settings(self) -> bool:
        """See `Protocol.takes_settings`."""
        return True

    def configured(self, overrides: dict[str, str], max_steps: int | None, max_hours: float | None) -> Protocol:
        """See `Protocol.configured`: `lr` may be several, as lr=1e-4/1e-3.

        Raises:
            UserError: If the recipe has no such setting, or it does not take the value.
        """
        settings = dict(overrides)
        rates = self.rates
        if "lr" in settings:
            rates = tuple(number("lr", part) for part in settings.pop("lr").split("/"))
        recipe = overridden(replace(self.recipe, lr=rates[0]), settings)
        return replace(
            self,
            recipe=recipe,
            rates=rates,
            limits=Limits(max_steps, max_hours),
            prior_sha256=_sha256_of_prior(recipe.prior),
        )

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`; checkpoints lie in the run's folder."""
        from bob.engines.fine_tune import fine_tune
        from bob.engines.search import choose, search

        tries = given.folder / "search"
        with given.reporter.training(f"{given.backbone.card.name} on {given.task.name}, {self.title}") as progress:
            common: dict[str, Any] = {"how": given.how, "seed": seed, "limits": self._share(), "progress": progress}
            started = time.perf_counter()
            grid: list[dict[str, Any]] = []
            chosen = self.recipe
            if len(self.rates) > 1:
                recipes = [replace(self.recipe, lr=rate) for rate in self.rates]
                grid = search(given.backbone, given.dataset, recipes, folder=tries, **common)
                chosen = recipes[choose(grid)]
            searched = time.perf_counter()
            trained = fine_tune(
                given.backbone, given.dataset, chosen, folder=given.folder, splits=self.final_splits, **common
            )
        for path in tries.glob("*/checkpoint.pt"):
            path.unlink(missing_ok=True)  # the logs stay, and the weights that are tested
        fitted = time.perf_counter()
        table = trained.predict_proba(given.dataset.splits["test"]).astype(float)
        seconds = {
            "choose": searched - started,
            "fit": trained.seconds,
            "predict": time.perf_counter() - fitted,
        }
        notes = (*trained.notes, *self._notes(chosen, grid, trained.finished, trained.steps))
        return Outcome(
            table=table,
            chosen={"lr": chosen.lr},
            grid=grid,
            notes=notes,
            seconds=seconds,
            width=given.backbone.width(),
            images_per_second=trained.images_per_second,
        )

    def _share(self) -> Limits:
        """The budget of one training: all of them together take no longer than the user allows."""
        hours, trainings = self.limits.max_hours, len(self.rates) + 1 if len(self.rates) > 1 else 1
        return replace(self.limits, max_hours=None if hours is None else hours / trainings)

    def _notes(self, chosen: Recipe, grid: list[dict[str, Any]], finished: bool, steps: int) -> list[str]:
        notes = [] if finished else [f"stopped by its budget after {steps} updates"]
        diverged = [f"{row['lr']:g}" for row in grid if row["val_nll"] is None]
        if diverged:
            notes.append(f"diverged with lr = {', '.join(diverged)}")
        if len(self.rates) > 1 and chosen.lr in (min(self.rates), max(self.rates)):
            notes.append(f"chosen at the edge of the grid: lr = {chosen.lr:g}")
        return notes


def _sha256_of_prior(spec: str | None) -> str:
    """Of the file that a prior lies in; empty for none, and for one that the spec says in full.

    Raises:
        UserError: If the file cannot be read.
    """
    if spec is None or ".safetensors" not in spec:
        return ""
    path = Path(spec[: spec.rindex(".safetensors") + len(".safetensors")]).expanduser()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read the prior {path}: {error.strerror}.", "Make it with `bob prior`.") from error
