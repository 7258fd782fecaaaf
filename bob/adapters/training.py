"""Training: the backbone, or a head on it, is trained on images; the learning rate is chosen on validation."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bob.adapters.base import Inputs, Outcome, Protocol
from bob.engines.recipe import ENGINE_VERSION, Limits, Recipe
from bob.engines.registry import Engine, get_engine
from bob.engines.settings import number, overridden, setting_names
from bob.errors import UserError
from bob.machine import launched_processes

if TYPE_CHECKING:
    from bob.engines.training import Progress


@dataclass(frozen=True, kw_only=True)
class Training(Protocol):
    """A recipe of the fine-tuning engine and the learning rates to choose from.

    Attributes:
        engine: The library that trains; see `bob.engines.registry`.
        engines: Others that can do the same, by `@NAME`.
        recipe: What to do.
        rates: Learning rates; with one alone nothing is chosen, and validation is only trained on.
        limits: The user's budget: updates of each training, hours of all together.
        prior_sha256: Of the recipe's prior, if it lies in a file.
    """

    recipe: Recipe
    rates: tuple[float, ...]
    engine: str = "fine_tune"
    engines: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    prior_sha256: str = ""

    def as_dict(self) -> dict[str, Any]:
        """See `Protocol.as_dict`."""
        recipe = {key: value for key, value in self.recipe.as_dict().items() if key != "lr"}
        budget = {key: value for key, value in vars(self.limits).items() if value is not None}
        own = {
            "engine": self.engine,
            "engine_version": ENGINE_VERSION,
            "recipe": recipe,
            "grid": [{"lr": rate} for rate in self.rates],
        }
        own |= {"limits": budget} if budget else {}
        return super().as_dict() | own | ({"prior_sha256": self.prior_sha256} if self.prior_sha256 else {})

    @property
    def trains(self) -> bool:
        """See `Protocol.trains`."""
        return True

    @property
    def settings(self) -> frozenset[str]:
        """See `Protocol.settings`."""
        return setting_names(self.recipe)

    def configured(self, overrides: dict[str, str], max_steps: int | None, max_hours: float | None) -> Protocol:
        """See `Protocol.configured`: `lr` may be several, as lr=1e-4/1e-3.

        Raises:
            UserError: If the recipe has no such setting, or it does not take the value.
        """
        settings = dict(overrides)
        rates = self.rates
        if "lr" in settings:
            rates = tuple(dict.fromkeys(number("lr", part) for part in settings.pop("lr").split("/")))
        recipes = [overridden(replace(self.recipe, lr=rate), settings) for rate in rates]  # each is checked
        return replace(
            self,
            recipe=recipes[0],
            rates=rates,
            limits=Limits(max_steps, max_hours),
            prior_sha256=_sha256_of_prior(recipes[0].prior),
        )

    def with_engine(self, name: str) -> Protocol:
        """See `Protocol.with_engine`."""
        if name not in self.engines:
            return super().with_engine(name)
        return replace(self, engine=name)

    def _modifiers(self) -> list[str]:
        return [*super()._modifiers(), *([self.engine] if self.engine in self.engines else [])]

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`; checkpoints lie in the run's folder."""
        engine = get_engine(self.engine)
        common: dict[str, Any] = {"how": given.how, "seed": seed, "limits": self._share()}
        started = time.perf_counter()
        with ExitStack() as bars:

            def progress(recipe: Recipe, trying: bool = True) -> Progress:
                """Close the bar of the training before, and open one."""
                bars.close()
                return bars.enter_context(given.reporter.training(self._stage(given, seed, recipe, trying)))

            chosen, grid = self._choose(engine, given, common | {"progress": progress})
            searched = time.perf_counter()
            told = progress(chosen, trying=False)
            final = {"folder": given.folder, "splits": self.final_splits, "progress": told}
            trained = engine.train(given.backbone, given.dataset, chosen, **common | final)
        if not launched_processes()[0]:
            trained.save(given.folder)
        fitted = time.perf_counter()
        predicted = trained.predict(given.dataset.splits["test"])
        seconds = {"choose": searched - started, "fit": trained.seconds, "predict": time.perf_counter() - fitted}
        return Outcome(
            predicted=predicted,
            chosen={"lr": chosen.lr, "engine": engine.version(), **trained.facts()},
            grid=grid,
            notes=(*trained.notes, *self._notes(chosen, grid, trained.finished, trained.steps)),
            seconds=seconds,
            width=given.backbone.width(),
            images_per_second=trained.images_per_second,
        )

    def _choose(self, engine: Engine, given: Inputs, common: dict[str, Any]) -> tuple[Recipe, list[dict[str, Any]]]:
        """The recipe with the learning rate that is best on validation, and every rate with its scores."""
        from bob.engines.search import search

        if len(self.rates) == 1:
            return self.recipe, []
        recipes = [replace(self.recipe, lr=rate) for rate in self.rates]
        folder, judge = given.folder / "search", partial(given.adapter.scores, given.dataset, "val")
        grid = search(engine, given.backbone, given.dataset, recipes, folder=folder, score=judge, **common)
        best = given.adapter.best([row for row in grid if not row["diverged"]])
        return recipes[grid.index(best)], grid

    def _stage(self, given: Inputs, seed: int, recipe: Recipe, trying: bool) -> str:
        """What a line of progress is about: the run, and which of its trainings."""
        run = f"{given.backbone.card.name} on {given.task.name}, {self.title}"
        run += f" (seed {seed})" if self.shots or seed else ""
        if not trying:
            return f"{run}, final" if len(self.rates) > 1 else run
        return f"{run}, trying lr {recipe.lr:g} ({self.rates.index(recipe.lr) + 1} of {len(self.rates)})"

    def _share(self) -> Limits:
        """The budget of one training: all of them together take no longer than the user allows."""
        hours, trainings = self.limits.max_hours, len(self.rates) + 1 if len(self.rates) > 1 else 1
        return replace(self.limits, max_hours=None if hours is None else hours / trainings)

    def _notes(self, chosen: Recipe, grid: list[dict[str, Any]], finished: bool, steps: int) -> list[str]:
        notes = [] if finished else [f"stopped by its budget after {steps} updates"]
        diverged = [f"{row['lr']:g}" for row in grid if row["diverged"]]
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
