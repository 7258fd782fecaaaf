"""Training images: cropped and augmented in worker processes, mixed and erased on the device, all from seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import Mixup, create_transform
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from torchvision.transforms.v2.functional import to_pil_image

from bob.backbones.preprocess import Preprocess
from bob.data.base import Split
from bob.data.loader import make_batches
from bob.engines.order import (
    ERASE,
    MIX,
    epoch_positions,
    generators_restored,
    random_for_image,
    seed_generators,
    shard_positions,
)
from bob.engines.recipe import Augmentation
from bob.errors import UserError, first_line

UNKNOWN = -1  # of a multi-label target that nobody has given


def epoch_batches(
    split: Split,
    preprocess: Preprocess,
    augmentation: Augmentation | None,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    workers: int | None = None,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's training batches, shuffled; of several processes, each gets its part of every batch.

    Order and augmentation of an image depend on `seed`, `epoch` and the image alone, so an epoch can be entered at any
    batch, with any number of workers. An incomplete last batch is left out unless it is the only one; that one is
    cut to a multiple of `world`, so that all processes have equal parts.

    Args:
        split: Of the data set.
        preprocess: The checkpoint's own: size, interpolation, fill colour; without augmentation its whole crop.
        augmentation: Random resized crop, flip and RandAugment or colour jitter as timm does them; None for none.
        seed: Of the training.
        epoch: Counted from 0.
        batch_size: Images in one batch of all processes together.
        workers: See `bob.data.loader.load_batches`.
        start: First batch, of those that the epoch has.
        rank: This process.
        world: Number of processes.
        pin_memory: See `bob.data.loader.load_batches`.

    Yields:
        Images uint8 (B, 3, h, w) on the CPU, and their labels (B,) or (B, L), with B = batch_size / world.

    Raises:
        UserError: If `batch_size` is no multiple of `world`, there are fewer images than processes, an image cannot
            be read, or timm cannot do the augmentation.
    """
    batches = epoch_positions(len(split), batch_size, seed=seed, epoch=epoch, start=start, rank=rank, world=world)
    make = _Augmented(split, _transform(preprocess, augmentation), seed, epoch)
    labels = torch.as_tensor(split.labels)
    for batch in make_batches(batches, make, workers, pin_memory):
        yield batch.images, labels[batch.indices]


def finish_batch(
    images: torch.Tensor,
    labels: torch.Tensor,
    n_classes: int,
    preprocess: Preprocess,
    augmentation: Augmentation | None,
    *,
    seed: int,
    step: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise, erase and mix a batch on the device, and make its targets.

    Every choice depends on `seed`, `step` and the image's place in the batch of all processes; the global generators
    stay as they were. Of an odd number of images the last is not mixed.

    Args:
        images: uint8 (B, 3, h, w), anywhere: what `epoch_batches` gives.
        labels: Classes (B,), or multi-label (B, L) of 0, 1 and -1 for unknown.
        n_classes: C; for multi-label, L.
        preprocess: The checkpoint's own mean and standard deviation.
        augmentation: Random erasing, mixup, CutMix and label smoothing as timm does them; None for none.
        seed: Of the training.
        step: Number of the update.
        device: Where the images go.
        rank: This process.
        world: Number of processes.

    Returns:
        Images float32 (B, 3, h, w) and targets float32 (B, C); a multi-label target stays -1 where that of any image
        in the mixture is unknown.
    """
    moved = images.to(device, non_blocking=True)
    mixed = preprocess.normalize(moved)
    smoothing = augmentation.label_smoothing if augmentation else 0.0
    targets, known = _targets(labels.to(device, non_blocking=True), n_classes, smoothing)
    if augmentation is None:
        return mixed, targets.where(known, UNKNOWN)
    places = shard_positions(len(images) * world, rank, world)
    _erase(mixed, augmentation.erase, (seed, step), places)
    lam = _mix(mixed, augmentation, (seed, step))
    # An unknown target is known to be so where the mixture has a share of it.
    share = lam * known + (1 - lam) * _partners(known)
    return mixed, (lam * targets + (1 - lam) * _partners(targets)).where(share > 1 - 1e-6, UNKNOWN)


@dataclass(frozen=True)
class _Augmented:
    """Reads an image of a split and augments it, with the generators seeded for it alone."""

    split: Split
    transform: Callable[[torch.Tensor], torch.Tensor]
    seed: int
    epoch: int

    def __call__(self, position: int) -> torch.Tensor:
        image = self.split.images.read(int(self.split.indices[position]))
        with random_for_image(self.seed, self.epoch, position):
            return self.transform(image)


@dataclass(frozen=True)
class _OnPillow:
    """Applies a transform of Pillow images to a tensor."""

    transform: Callable[[Any], Any]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        # An array or a tensor, by timm's version.
        return torch.as_tensor(self.transform(to_pil_image(image)))


def _transform(preprocess: Preprocess, augmentation: Augmentation | None) -> Callable[[torch.Tensor], torch.Tensor]:
    if augmentation is None:
        return preprocess.crop
    try:
        transform = create_transform(
            (3, *preprocess.size),
            is_training=True,
            use_prefetcher=True,  # uint8: normalising and erasing happen on the device
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.hflip,
            color_jitter=augmentation.color_jitter,
            auto_augment=augmentation.auto_augment,
            interpolation=preprocess.interpolation,
            mean=preprocess.mean,
            std=preprocess.std,
        )
    except (AssertionError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"timm cannot augment images by '{augmentation.auto_augment}' ({first_line(error)}).",
            "Write auto_augment as timm does, e.g. 'rand-m9-mstd0.5-inc1'.",
        ) from error
    _allow_zero_bits(transform)
    return _OnPillow(transform)


def _allow_zero_bits(transform: Any) -> None:
    """Let a policy's strongest posterising give black, as it always did: Pillow 12 and later refuse zero bits."""
    for part in transform.transforms:
        policies = getattr(part, "policy", [getattr(part, "ops", [])])
        for operation in itertools.chain.from_iterable(policies):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    if bits > 0:
        return image if bits >= 8 else ImageOps.posterize(image, bits)
    return Image.new(image.mode, image.size)


def _targets(labels: torch.Tensor, n_classes: int, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (B, C) without mixing, and which of them are known."""
    if labels.ndim == 1:
        targets = mixup_target(labels, n_classes, smoothing=smoothing)
        return targets, torch.ones_like(targets, dtype=torch.bool)
    known = labels != UNKNOWN
    return labels.where(known, 0).float() * (1 - smoothing) + smoothing / 2, known


def _erase(images: torch.Tensor, probability: float, key: tuple[int, int], places: np.ndarray) -> None:
    """Erase rectangles in place; the noise is drawn on the CPU, the same for every device."""
    if probability > 0:
        erasing = RandomErasing(probability, mode="pixel", device="cpu")
        with generators_restored():
            for image, place in zip(images, places.tolist(), strict=True):
                seed_generators(ERASE, *key, place)
                erasing(image)


def _mix(images: torch.Tensor, augmentation: Augmentation, key: tuple[int, int]) -> torch.Tensor:
    """Mix each image with its partner in place, and return its own share (B, 1)."""
    lam = torch.ones(len(images), 1, device=images.device)
    even = len(images) // 2 * 2
    if even and (augmentation.mixup > 0 or augmentation.cutmix > 0):
        mixup = Mixup(
            augmentation.mixup,
            augmentation.cutmix,
            switch_prob=augmentation.mixup_switch,
            label_smoothing=0.0,
            num_classes=2,
        )
        # timm tells the share through targets alone: those of images of class 0 whose partners are of class 1.
        halves = torch.arange(even, device=images.device) // (even // 2)
        with generators_restored():
            seed_generators(MIX, *key)
            images[:even], told = mixup(images[:even], halves)
        lam[:even] = told[0, 0]
    return lam


def _partners(values: torch.Tensor) -> torch.Tensor:
    """Row i of a batch with that of the image that it is mixed with; an odd last row stays."""
    even = len(values) // 2 * 2
    return torch.cat([values[:even].flip(0), values[even:]])
