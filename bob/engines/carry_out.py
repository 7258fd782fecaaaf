"""One training of a network, whatever it learns: from its first update, or its checkpoint, to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from bob.backbones.base import Backbone
from bob.engines.checkpoint import Checkpoints
from bob.engines.loop import Trainer
from bob.engines.network import Network, copy_backbone, require_gradients, set_drop_path
from bob.engines.objective import Objective
from bob.engines.recipe import Limits, Recipe
from bob.engines.trained import Trained
from bob.engines.training import Load, Progress, Training
from bob.engines.work import Work

if TYPE_CHECKING:
    from bob.engines.prior import Prior

T = TypeVar("T", bound=Trained)


@dataclass(frozen=True)
class Start:
    """A network before its first update.

    Attributes:
        network: On the device.
        objective: What it is to learn.
        notes: What a record should say of it.
    """

    network: Network
    objective: Objective
    notes: list[str]


def carry_out(
    work: Work,
    make: Callable[[], Start],
    load: Load,
    kind: type[T],
    *,
    identity: dict[str, Any],
    folder: Path,
    limits: Limits,
    progress: Progress,
    prior: Prior | None = None,
) -> T:
    """Train what `make` gives, going on from the checkpoint if there is one.

    Args:
        work: What is trained on what.
        make: Called once, with the random numbers of the work's seed.
        load: Gives the images of an epoch.
        kind: What to return.
        identity: Everything that decides the weights; see `Work.identity`.
        folder: Checkpoints and TensorBoard logs go below it, into a folder for each training.
        limits: When to stop early.
        progress: Told after each update.
        prior: Its penalty is added to the loss; None for none.

    Raises:
        UserError: If the loss diverges (`Diverged`), memory or a library is missing, an image cannot be read, or the
            checkpoint is damaged.
        KeyboardInterrupt: After a checkpoint.
    """
    checkpoints, plan, accelerator = Checkpoints(folder, identity), work.plan, work.accelerator
    with random_numbers_of_its_own(accelerator.device, work.seed):
        start = make()
        if prior is not None:
            prior.start(start.network.backbone.model)
        trainer = Trainer(start.network, start.objective, work.recipe, plan, work.seed, accelerator, prior)
        training = Training(trainer, plan, load, checkpoints, accelerator)
        training.go_on()
        training.run(limits, progress)
        network = trainer.finish()
    fields = work.fields(training.step, training.seconds, training.losses, trainer.largest)
    return kind(network=network, **{**fields, "notes": (*start.notes, *fields["notes"])})


def backbone_to_train(backbone: Backbone, recipe: Recipe, device: torch.device) -> tuple[Backbone, list[str]]:
    """A copy on the device, its branches dropped as the recipe says, and what there is to say about it.

    Raises:
        UserError: If it is to be trained and cannot be.
    """
    copied = copy_backbone(backbone, device)
    notes: list[str] = []
    if recipe.trainable == "head":
        return copied, notes
    if not list(copied.model.parameters()):
        notes.append(f"'{backbone.card.name}' has no weights of its own, so the head alone was trained.")
        return copied, notes
    require_gradients(copied)
    if not set_drop_path(copied.model, recipe.drop_path) and recipe.drop_path:
        notes.append(f"'{backbone.card.name}' has no residual branches to drop, so drop_path did nothing.")
    return copied, notes


@contextmanager
def random_numbers_of_its_own(device: torch.device, seed: int) -> Iterator[None]:
    """Seeded inside the block; the caller's random streams stay where they are."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
