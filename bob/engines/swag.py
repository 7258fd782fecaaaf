"""Learning a prior at a source task: the Gaussian that SGD's iterates trace out around a checkpoint (SWAG)."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.engines.augment import epoch_batches
from bob.engines.devices import open_accelerator
from bob.engines.loop import Trainer
from bob.engines.network import Network, copy_backbone, make_head, require_gradients
from bob.engines.objective import Classification
from bob.engines.prior import Gaussian, Tensors
from bob.engines.recipe import CROP_AND_FLIP, Recipe
from bob.engines.training import Progress, standing
from bob.engines.training_data import Plan, make_plan, training_split
from bob.errors import UserError
from bob.progress import Update

if TYPE_CHECKING:
    from bob.features.extract import Extraction

# SGD at one rate, high enough to travel; weight decay is the flat prior of the source task itself.
SWAG_RECIPE = Recipe(
    "swag",
    lr=0.01,
    optimizer="sgd",
    weight_decay=1e-4,
    layer_decay=None,
    epochs=30,
    warmup_epochs=0,
    batch_size=256,
    drop_path=0.0,
    augmentation=CROP_AND_FLIP,
)
_BN_BATCHES = 200  # parts of batches that suffice for running statistics
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class SwagCollector:
    """Collects a model's weights while it trains, and turns them into a Gaussian; kept on the CPU.

    Args:
        model: A backbone's `model`; its trainable parameters are collected.
        rank: Number of last deviations from the running mean that make the low-rank part, K.

    Source: arXiv 1902.02476, https://github.com/wjmaddox/swa_gaussian.
    """

    def __init__(self, model: nn.Module, rank: int) -> None:
        if rank < 2:
            raise ValueError(f"Expected `rank` to be 2 or more, but got {rank}.")
        self.count = 0
        self._parameters = {name: values for name, values in model.named_parameters() if values.requires_grad}
        self._mean = {name: torch.zeros(values.shape) for name, values in self._parameters.items()}
        self._squares = {name: torch.zeros(values.shape) for name, values in self._parameters.items()}
        self._deviations: deque[Tensors] = deque(maxlen=rank)

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now."""
        self.count += 1
        deviations = {}
        for name, values in self._parameters.items():
            now, mean = values.detach().to("cpu", torch.float32), self._mean[name]
            before = now - mean
            mean.add_(before / self.count)
            deviations[name] = now - mean
            # Welford's sum of squares: float32 would lose E[w^2] - E[w]^2, as weights move little beside their size.
            self._squares[name].addcmul_(before, deviations[name])
        self._deviations.append(deviations)

    def prior(self, **facts: Any) -> Gaussian:
        """Half the diagonal covariance of all iterates plus half the low-rank one of the last K.

        Args:
            facts: What a record should say of it.

        Raises:
            ValueError: If fewer than two iterates were collected.
        """
        if self.count < 2:
            raise ValueError(f"Expected at least 2 collected iterates, but got {self.count}.")
        share = math.sqrt(2 * (len(self._deviations) - 1))
        return Gaussian(
            mean={name: values.clone() for name, values in self._mean.items()},
            variance={name: values / (2 * self.count) for name, values in self._squares.items()},
            factor={name: torch.stack([each[name] for each in self._deviations]) / share for name in self._mean},
            facts={"prior": "swag", "iterates": self.count, "rank": len(self._deviations), **facts},
        )


def learn_prior(
    backbone: Backbone,
    dataset: Dataset,
    recipe: Recipe = SWAG_RECIPE,
    *,
    how: Extraction,
    seed: int = 0,
    rank: int = 10,
    burn_in: int = 10,
    splits: Sequence[str] = ("train",),
    progress: Progress = lambda update: None,
) -> Gaussian:
    """Train a copy of the backbone on a source task at a constant rate, and collect its weights after each epoch.

    Under `torchrun` all processes call this, and all get the prior.

    Args:
        backbone: With the checkpoint's weights; stays as it is.
        dataset: The source task.
        recipe: What to do; its rate is held at `lr` throughout.
        how: Device, precision and decoding processes.
        seed: Of the head, the order of the images, and augmentation.
        rank: See `SwagCollector`.
        burn_in: Epochs before the first that is collected, in which the new head is learnt.
        splits: Trained on; never `test`.
        progress: Told after each update.

    Raises:
        UserError: If fewer than two epochs are collected, the backbone cannot be trained, the loss diverges, or an
            image cannot be read.

    Source: arXiv 2205.10279, arXiv 1902.02476.
    """
    if recipe.epochs - burn_in < 2 or recipe.trainable != "all":
        raise UserError(
            f"Recipe '{recipe.name}' leaves {max(0, recipe.epochs - burn_in)} epochs of a whole backbone to collect.",
            f"Use at least {burn_in + 2} epochs, or a smaller burn_in, and trainable = 'all'.",
        )
    require_gradients(backbone)
    recipe = replace(recipe, min_lr=recipe.lr, warmup_epochs=0)
    source = _Source(backbone, dataset, recipe, how, seed, splits)
    with torch.random.fork_rng(devices=[how.device] if how.device.type == "cuda" else []):
        torch.manual_seed(seed)
        collector = source.train(rank, burn_in, progress)
        facts = {
            "backbone": backbone.identity(), "source": dataset.source, "recipe": recipe.as_dict(),
            "burn_in": burn_in, "seed": seed, "split_sha256": source.split.checksum(),
        }  # fmt: skip
        learnt = collector.prior(**facts)
        return replace(learnt, buffers=source.statistics_at(learnt))


class _Source:
    """The source task: a network and the images that it is trained on."""

    def __init__(
        self, backbone: Backbone, dataset: Dataset, recipe: Recipe, how: Extraction, seed: int, splits: Sequence[str]
    ) -> None:
        self.split = training_split(dataset, splits)
        self._recipe, self._how, self._seed = recipe, how, seed
        self._accelerator = open_accelerator(how)
        self._plan: Plan = make_plan(len(self.split), recipe, self._accelerator.num_processes, how.device)
        self._backbone, self._n_classes = backbone, len(dataset.classes)

    def train(self, rank: int, burn_in: int, progress: Progress) -> SwagCollector:
        """Do the whole training."""
        device = self._accelerator.device
        head = make_head("linear", self._backbone.width(), self._n_classes)
        self._network = Network(copy_backbone(self._backbone, device), head.to(device))
        objective = Classification(self._n_classes, self._recipe, self._plan, self._seed)
        self._trainer = Trainer(self._network, objective, self._recipe, self._plan, self._seed, self._accelerator)
        collector = SwagCollector(self._network.backbone.model, rank)
        begun = time.perf_counter()
        for epoch in range(self._recipe.epochs):
            parts = self._load(epoch)
            for update in range(epoch * self._plan.updates, (epoch + 1) * self._plan.updates):
                outcome = self._trainer.update(update, list(islice(parts, self._plan.parts)))
                progress(self._stand(update + 1, outcome.loss, time.perf_counter() - begun))
            if epoch >= burn_in:
                collector.update()
        return collector

    def _stand(self, step: int, loss: float, seconds: float) -> Update:
        return standing(self._plan, step, loss, self._trainer.lr, seconds)

    def statistics_at(self, learnt: Gaussian) -> Tensors:
        """BatchNorm statistics of the network at the mean, whose activations no iterate has had."""
        model = self._network.backbone.model
        learnt.start(model)
        preprocess, device = self._backbone.preprocess, self._accelerator.device
        parts = islice(self._load(self._recipe.epochs), _BN_BATCHES)
        update_bn((preprocess.normalize(images.to(device)) for images, _ in parts), self._network)
        self._trainer.agree()
        return {
            name: values.detach().cpu().clone()
            for name, values in model.named_buffers()
            if name.rpartition(".")[2] in _STATISTICS
        }

    def _load(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return epoch_batches(
            self.split,
            self._backbone.preprocess,
            self._recipe.augmentation,
            seed=self._seed,
            epoch=epoch,
            batch_size=self._plan.part * self._plan.world,
            workers=self._how.workers,
            rank=self._accelerator.process_index,
            world=self._plan.world,
        )
