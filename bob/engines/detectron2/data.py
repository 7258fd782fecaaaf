"""Images and objects of a split as detectron2's data loader takes them, all from seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from torch.utils.data import Dataset, Sampler

from bob.backbones.preprocess import Preprocess
from bob.cores import granted_cores
from bob.data.base import Split
from bob.data.objects import Objects
from bob.engines.dense_recipe import View
from bob.engines.order import epoch_positions, random_for_image
from bob.engines.training_data import Plan
from bob.engines.views import fitted
from bob.errors import UserError

_PILLOW = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_SMALLEST = 1.0  # pixels of a box's edges: what is left of an object below that cannot be learnt; as in `views`
Item = dict[str, Any]


class Loader:
    """A loader of detectron2 that raises the first mistake of a user's that a worker process came upon.

    A worker hands its error over as a value: raised there it would come wrapped in a foreign traceback.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Item]]:
        try:
            for items in self._loader:
                for item in items:
                    if isinstance(item, UserError):
                        raise item
                yield items
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise UserError(
                f"A process that reads images died: {error}",
                "Memory or shared memory (docker's --shm-size) may be short: use fewer --workers; 0 needs neither.",
            ) from error


def training_loader(
    split: Split, preprocess: Preprocess, view: View, plan: Plan, *, seed: int, workers: int | None, step: int
) -> Loader:
    """Every part of every update from `step` on, as lists of what detectron2's networks train on.

    An image's place in the order and its size, crop, flip and colours depend on seed, epoch and the image alone.

    Args:
        split: With targets.
        preprocess: Says how images are resized.
        view: Sizes and augmentation.
        plan: How updates are cut.
        seed: Of the training.
        workers: Decoding processes; None for one a granted core.
        step: Updates that are done.
    """
    order = _Order(len(split), plan, seed, step)
    # Mapped already: detectron2's own `MapDataset` tries other images where one cannot be read.
    items = _Training(split, preprocess, view, seed)
    loader = build_detection_train_loader(
        items,
        mapper=None,
        sampler=order,
        total_batch_size=plan.part,
        aspect_ratio_grouping=False,  # its groups would not be the same after an interruption
        num_workers=min(_workers(workers), len(order) // plan.part),
    )
    return Loader(loader)


def test_loader(split: Split, preprocess: Preprocess, view: View, *, workers: int | None) -> Loader:
    """The split's images in order, one by one as detectron2 evaluates them, at the view's test size."""
    items = _Test(split, preprocess, view)
    return Loader(build_detection_test_loader(items, mapper=None, num_workers=min(_workers(workers), len(split))))


# Not a test of pytest's, wherever it is imported.
test_loader.__test__ = False  # type: ignore[attr-defined]


def record(objects: Objects, position: int) -> Item:
    """What detectron2 calls a dataset dict, without the image and without crowds."""
    kept = objects.chosen(~objects.crowd)
    annotations: list[Item] = [
        {"bbox": box.tolist(), "bbox_mode": BoxMode.XYXY_ABS, "category_id": int(label), "iscrowd": 0}
        for box, label in zip(kept.boxes, kept.labels, strict=True)
    ]
    for annotation, rle in zip(annotations, kept.rles or (), strict=kept.rles is not None):
        annotation["segmentation"] = rle
    height, width = objects.size
    return {"image_id": position, "height": height, "width": width, "annotations": annotations}


def _workers(asked: int | None) -> int:
    return granted_cores() if asked is None else asked


class _Order(Sampler[int]):
    """Epoch times number of images, plus position: each image of the updates that are left, in turn."""

    def __init__(self, images: int, plan: Plan, seed: int, step: int) -> None:
        self._images, self._plan, self._seed, self._step = images, plan, seed, step

    def __len__(self) -> int:
        return (self._plan.steps - self._step) * self._plan.parts * self._plan.part

    def __iter__(self) -> Iterator[int]:
        first, done = divmod(self._step, self._plan.updates)
        for epoch in range(first, self._plan.epochs):
            parts = epoch_positions(self._images, self._plan.part, seed=self._seed, epoch=epoch)
            skipped = done * self._plan.parts if epoch == first else 0
            for part in parts[skipped : self._plan.updates * self._plan.parts]:
                yield from (epoch * self._images + position for position in part)


@dataclass(frozen=True)
class _Training(Dataset[Any]):
    """Item i is image i % n as epoch i // n shows it."""

    split: Split
    preprocess: Preprocess
    view: View
    seed: int

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, number: int) -> Item | UserError:
        epoch, position = divmod(number, len(self.split))
        try:
            pixels = _pixels(self.split, position)
            item = record(self.split.target(position), position)
        except UserError as error:
            return error
        with random_for_image(self.seed, epoch, position):
            seen = T.AugInput(pixels)
            transforms = T.AugmentationList(augmentations(self.preprocess, self.view))(seen)
        item["image"] = _tensor(seen.image)
        item["instances"] = _instances(item.pop("annotations"), transforms, seen.image.shape[:2])
        return item


@dataclass(frozen=True)
class _Test(Dataset[Any]):
    """Item i is image i; nobody asks for its target, which may be sealed."""

    split: Split
    preprocess: Preprocess
    view: View

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> Item | UserError:
        try:
            pixels = _pixels(self.split, position)
        except UserError as error:
            return error
        height, width = pixels.shape[:2]
        seen = T.AugInput(pixels)
        T.AugmentationList([_Resize(self.preprocess, short=self.view.short, long=self.view.long)])(seen)
        return {"image_id": position, "height": height, "width": width, "image": _tensor(seen.image)}


def _pixels(split: Split, position: int) -> np.ndarray:
    return np.ascontiguousarray(split.images.read(int(split.indices[position])).permute(1, 2, 0).numpy())


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def augmentations(preprocess: Preprocess, view: View) -> list[T.Augmentation]:
    """What a training image goes through; drawn from NumPy's global generator."""
    steps: list[T.Augmentation] = [_RandomResize(preprocess, view)]
    if view.crop is not None:
        steps.append(T.RandomCrop("absolute", view.crop))
    steps.append(T.RandomFlip(prob=view.hflip))
    if view.color_jitter:
        between = max(0.0, 1 - view.color_jitter), 1 + view.color_jitter
        steps += [T.RandomBrightness(*between), T.RandomContrast(*between), T.RandomSaturation(*between)]
    return steps


class _Resize(T.Augmentation):
    """To a short side, or less where the long one would pass `long`; rounded as in `views`."""

    def __init__(self, preprocess: Preprocess, *, short: float, long: float) -> None:
        super().__init__()
        self._how = _PILLOW.get(preprocess.interpolation, Image.Resampling.BICUBIC)
        self._short, self._long = short, long

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        return T.ResizeTransform(height, width, *fitted((height, width), self._short, self._long), self._how)


class _RandomResize(T.Augmentation):
    """To a size that the view draws."""

    def __init__(self, preprocess: Preprocess, view: View) -> None:
        super().__init__()
        self._preprocess, self._view = preprocess, view

    def get_transform(self, image: np.ndarray) -> T.Transform:
        view = self._view
        if view.jitter == "sides":
            short, long = float(np.random.choice(view.sides)), float(view.long)
        else:
            factor = np.random.uniform(*view.scale)
            short, long = factor * view.short, factor * view.long
        return _Resize(self._preprocess, short=short, long=long).get_transform(image)


def _instances(annotations: list[Item], transforms: T.TransformList, size: tuple[int, int]) -> Any:
    """The objects after the transforms; the box of one that the crop cuts fits what is left of its mask."""
    whole = np.array([annotation["bbox"] for annotation in annotations]).reshape(-1, 4)
    moved = torch.from_numpy(transforms.apply_box(whole)).float() if len(whole) else torch.zeros(0, 4)
    moved_annotations = [utils.transform_instance_annotations(one, transforms, size) for one in annotations]
    instances = utils.annotations_to_instances(moved_annotations, size, mask_format="bitmask")
    boxes = instances.gt_boxes.tensor
    if instances.has("gt_masks"):
        cut = ((moved - boxes).abs() > 1e-3).any(dim=1)
        boxes[cut] = instances.gt_masks.get_bounding_boxes().tensor[cut]
    return utils.filter_empty_instances(instances, box_threshold=_SMALLEST - 1e-5)
