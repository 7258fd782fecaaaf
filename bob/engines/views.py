"""Images and their boxes, masks or class maps as a dense network trains and is tested on them, all from seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from bob.backbones.preprocess import INTERPOLATIONS, Preprocess
from bob.data.base import Split
from bob.data.loader import make_items
from bob.data.objects import IGNORE, Objects
from bob.engines.dense_batch import DenseBatch, Sample, collate
from bob.engines.dense_recipe import View
from bob.engines.order import epoch_positions, random_for_image

STRIDE = 32
"""Of the coarsest map that a backbone gives: heights and widths of batches are multiples of it."""

_SMALLEST = 1.0  # pixels of a box's edges: what is left of an object below that cannot be learnt
_ATTEMPTS = 10  # at a crop that is not all of one class
Place = tuple[int, int, int, int]  # top, left, height and width of a crop


def training_batches(
    split: Split,
    preprocess: Preprocess,
    view: View,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    workers: int | None = None,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[DenseBatch]:
    """Yield an epoch's training batches, shuffled; of several processes, each gets its part of every batch.

    Order, size, crop, flip and colours of an image depend on `seed`, `epoch` and the image alone, so an epoch can be
    entered at any batch, with any number of workers. Crowds are never trained on. Of an object that the crop cuts,
    the box is that of the rest of its mask, if it has one; objects of which nothing is left are dropped, images without
    objects are kept.

    Args:
        split: Of the data set, with targets.
        preprocess: The checkpoint's own: interpolation and fill colour; its size and crop are not used.
        view: Sizes and augmentation.
        seed: Of the training.
        epoch: Counted from 0.
        batch_size: Images in one batch of all processes together.
        workers: See `bob.data.loader.load_batches`.
        start: First batch, of those that the epoch has.
        rank: This process.
        world: Number of processes.
        pin_memory: See `bob.data.loader.load_batches`.

    Raises:
        UserError: If `batch_size` is no multiple of `world`, there are fewer images than processes, or an image or
            annotation cannot be read.
    """
    batches = epoch_positions(len(split), batch_size, seed=seed, epoch=epoch, start=start, rank=rank, world=world)
    make = _Training(split, preprocess, view, batches, seed, epoch)
    yield from make_items(len(batches), make, workers, pin_memory)


def test_batches(
    split: Split,
    preprocess: Preprocess,
    view: View,
    *,
    batch_size: int,
    workers: int | None = None,
    pin_memory: bool = False,
) -> Iterator[DenseBatch]:
    """Yield the split's images in order, at the view's test size, without targets; see `training_batches`."""
    batches = [list(range(i, min(i + batch_size, len(split)))) for i in range(0, len(split), batch_size)]
    yield from make_items(len(batches), _Test(split, preprocess, view, batches), workers, pin_memory)


# Not a test of pytest's, wherever it is imported.
test_batches.__test__ = False  # type: ignore[attr-defined]


def fitted(size: tuple[int, int], short: float, long: float) -> tuple[int, int]:
    """Height and width after resizing so that the short edge is `short`, or less where the long would pass `long`."""
    factor = min(short / min(size), long / max(size))
    height, width = (max(1, round(edge * factor)) for edge in size)
    return height, width


@dataclass(frozen=True)
class _Training:
    """Makes a training batch."""

    split: Split
    preprocess: Preprocess
    view: View
    batches: Sequence[Sequence[int]]
    seed: int
    epoch: int

    def __call__(self, number: int) -> DenseBatch:
        samples = [self._sample(position) for position in self.batches[number]]
        least = self.view.crop or (0, 0)
        return collate(samples, self.batches[number], _fill(self.preprocess), STRIDE, least)

    def _sample(self, position: int) -> Sample:
        sample = _annotated(_read(self.split, position), self.split.target(position))
        with random_for_image(self.seed, self.epoch, position):
            return _augmented(sample, self.preprocess, self.view)


@dataclass(frozen=True)
class _Test:
    """Makes a test batch."""

    split: Split
    preprocess: Preprocess
    view: View
    batches: Sequence[Sequence[int]]

    def __call__(self, number: int) -> DenseBatch:
        samples = [_read(self.split, position) for position in self.batches[number]]
        resized = [_resized(s, fitted(s.size, self.view.short, self.view.long), self.preprocess) for s in samples]
        return collate(resized, self.batches[number], _fill(self.preprocess), STRIDE)


def _fill(preprocess: Preprocess) -> list[int]:
    return [round(255 * value) for value in preprocess.mean]


def _read(split: Split, position: int) -> Sample:
    image = split.images.read(int(split.indices[position]))
    return Sample(image, (image.shape[-2], image.shape[-1]))


def _annotated(sample: Sample, target: Objects | np.ndarray) -> Sample:
    if not isinstance(target, Objects):
        return replace(sample, classes=torch.from_numpy(target.astype(np.int64)))
    objects = target.chosen(~target.crowd)
    masks = None if objects.rles is None else torch.from_numpy(objects.masks().view(np.uint8))
    boxes = torch.from_numpy(objects.boxes.astype(np.float32)).reshape(-1, 4)
    return replace(sample, boxes=boxes, labels=torch.from_numpy(objects.labels), masks=masks)


def _augmented(sample: Sample, preprocess: Preprocess, view: View) -> Sample:
    """Drawn from torch's global generator."""
    sample = _resized(sample, _random_size(sample.size, view), preprocess)
    if view.crop is not None:
        sample = _cropped(sample, _crop_place(sample, view.crop, view.cat_max_ratio))
    sample = _without_lost(sample)
    if torch.rand(()) < view.hflip:
        sample = _flipped(sample)
    if view.color_jitter:
        jitter = v2.ColorJitter(*[view.color_jitter] * 3)
        sample = replace(sample, image=jitter(sample.image))
    return sample


def _random_size(size: tuple[int, int], view: View) -> tuple[int, int]:
    if view.jitter == "sides":
        return fitted(size, view.sides[int(torch.randint(len(view.sides), ()))], view.long)
    factor = float(torch.empty(()).uniform_(*view.scale))
    return fitted(size, factor * view.short, factor * view.long)


def _resized(sample: Sample, size: tuple[int, int], preprocess: Preprocess) -> Sample:
    def resize(values: torch.Tensor, how: v2.InterpolationMode) -> torch.Tensor:
        return F.resize(values, list(size), how, antialias=True)

    # As images, because torchvision resizes masks by a nearest neighbour that is half a pixel off.
    exact = v2.InterpolationMode.NEAREST_EXACT
    return replace(
        sample,
        image=resize(sample.image, INTERPOLATIONS[preprocess.interpolation]),
        boxes=None if sample.boxes is None else F.resize(_boxes(sample), list(size)).as_subclass(torch.Tensor),
        masks=None if sample.masks is None else resize(sample.masks, exact),
        classes=None if sample.classes is None else resize(sample.classes[None], exact)[0],
    )


def _crop_place(sample: Sample, crop: tuple[int, int], most: float | None) -> Place:
    """Where to crop; of class maps not where one class fills more than `most`, if there is such a place."""
    place = _random_place(sample.size, crop)
    if sample.classes is None or most is None:
        return place
    for _ in range(_ATTEMPTS):
        top, left, height, width = place
        shown = sample.classes[top : top + height, left : left + width]
        counts = shown[shown != IGNORE].unique(return_counts=True)[1]
        if len(counts) > 1 and counts.max() < most * counts.sum():
            break
        place = _random_place(sample.size, crop)
    return place


def _random_place(size: tuple[int, int], crop: tuple[int, int]) -> Place:
    height, width = (min(have, want) for have, want in zip(size, crop, strict=True))
    top, left = (int(torch.randint(have - want + 1, ())) for have, want in zip(size, (height, width), strict=True))
    return top, left, height, width


def _cropped(sample: Sample, place: Place) -> Sample:
    """A part of it; boxes of objects with masks fit what is left of them."""
    top, left, height, width = place
    part = (..., slice(top, top + height), slice(left, left + width))
    cut = replace(
        sample,
        image=sample.image[part],
        masks=None if sample.masks is None else sample.masks[part],
        classes=None if sample.classes is None else sample.classes[part],
    )
    if sample.boxes is None:
        return cut
    boxes = F.crop(_boxes(sample), top, left, height, width).as_subclass(torch.Tensor)
    if cut.masks is not None:
        shifted = sample.boxes - sample.boxes.new_tensor([left, top, left, top])
        refit = (boxes != shifted).any(dim=1) & cut.masks.flatten(1).any(dim=1).bool()
        # `masks_to_boxes` names the last pixel, not the end.
        rest = masks_to_boxes(cut.masks[refit]) + boxes.new_tensor([0, 0, 1, 1])
        boxes = boxes.index_put((refit,), rest)
    return replace(cut, boxes=boxes)


def _without_lost(sample: Sample) -> Sample:
    """The objects of which something is left."""
    if sample.boxes is None or sample.labels is None:
        return sample
    keep = (sample.boxes[:, 2:] - sample.boxes[:, :2] >= _SMALLEST).all(dim=1)
    if sample.masks is not None:
        keep &= sample.masks.flatten(1).any(dim=1).bool()
    masks = None if sample.masks is None else sample.masks[keep]
    return replace(sample, boxes=sample.boxes[keep], labels=sample.labels[keep], masks=masks)


def _flipped(sample: Sample) -> Sample:
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=None if sample.boxes is None else F.horizontal_flip(_boxes(sample)).as_subclass(torch.Tensor),
        masks=None if sample.masks is None else sample.masks.flip(-1),
        classes=None if sample.classes is None else sample.classes.flip(-1),
    )


def _boxes(sample: Sample) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=sample.size, clamping_mode="hard")
