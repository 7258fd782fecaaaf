"""Fine-tuning at the end of a choice: the whole recipe if time allows, a short one if it allows that, else none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bob.adapters.recipes import FINETUNE
from bob.backbones.sources import open_backbone
from bob.data.base import Dataset
from bob.pick.budget import Deadline, spoken
from bob.pick.entry import Entry
from bob.pick.pool import LEARNT_FROM
from bob.pick.stages import Ground, run_alone
from bob.workbench import Workbench

# A training step is reckoned as four forward passes: one forward, two backward, one for decoding and augmentation.
_PASSES = 4
_SHORT_EPOCHS = 30


@dataclass(frozen=True)
class Training:
    """How to fine-tune.

    Attributes:
        seconds: Predicted.
        overrides: Settings of the protocol's recipe, as after `--set`; none for the recipe itself.
    """

    seconds: float
    overrides: dict[str, str] = field(default_factory=dict)


def what_fits(entry: Entry, dataset: Dataset, deadline: Deadline) -> Training | str:
    """The longest training of a candidate that is predicted to fit, or in words why none does."""
    images = sum(len(dataset.splits[name]) for name in LEARNT_FROM)
    each = _PASSES * images * (entry.cost.per_image if entry.cost else 0.0)
    # The search of the learning rate trains on train alone, which is less: the prediction is on the safe side.
    whole = Training(each * FINETUNE.recipe.epochs * (len(FINETUNE.rates) + 1))
    # One rate, the lowest: it is the safest, and small batches make more updates of few epochs.
    short = Training(
        each * _SHORT_EPOCHS, {"epochs": str(_SHORT_EPOCHS), "lr": f"{FINETUNE.rates[0]:g}", "batch_size": "64"}
    )
    for training in (whole, short):
        if deadline.fits(training.seconds):
            return training
    return (
        f"the recipe would take about {spoken(whole.seconds)}, {_SHORT_EPOCHS} epochs of it {spoken(short.seconds)}, "
        f"with {spoken(deadline.left())} left"
    )


def run(ground: Ground, entry: Entry, training: Training) -> None:
    """Fine-tune one candidate; it leaves a record, and what is interrupted goes on from its checkpoint.

    Raises:
        UserError: If it cannot be trained.
    """
    settings = replace(ground.settings, protocols=("finetune",), seeds=(), overrides=training.overrides)
    began = ground.deadline.spent()
    backbone = open_backbone(entry.card)
    bench = Workbench(backbone, backbone.identity(), ground.task, ground.dataset, settings)
    ground.reporter.say(f"{entry.name}: fine-tuning, about {spoken(training.seconds)}")
    entry.finetune, _ = run_alone(bench, ground.reporter, ground.deadline.spent() - began)
