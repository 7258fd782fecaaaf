"""Inputs of dense networks: image, boxes, masks and class maps move together, the same whatever loads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from bob.backbones.preprocess import Preprocess
from bob.data.base import ImageSet, Split
from bob.data.objects import IGNORE, Objects, encode_masks
from bob.engines.dense_batch import Sample
from bob.engines.dense_recipe import View
from bob.engines.views import _crop_place, training_batches
from bob.engines.views import test_batches as batches_of_a_test
from bob.errors import UserError

PREPROCESS = Preprocess(interpolation="bilinear", mean=(0.2, 0.4, 0.6))
PLAIN = View(short=64, long=96, scale=(1.0, 1.0), crop=None, hflip=0.0)
SHAKEN = View(short=64, long=96, scale=(0.5, 2.0), crop=(64, 64), hflip=0.5, color_jitter=0.3)


class Blocks(ImageSet):
    """White rectangles on black; the target is an `Objects`, one object of it a crowd, or a class map."""

    def __init__(self, count: int = 6, kind: str = "masks", broken: int | None = None) -> None:
        self.kind, self.broken = kind, broken
        self.labels = np.ones((count, 2), dtype=np.int64)
        self.names = [f"blocks/{i}" for i in range(count)]

    def size(self, index: int) -> tuple[int, int]:
        return (60 + 4 * index, 90 - 6 * index)

    def masks(self, index: int) -> np.ndarray:
        height, width = self.size(index)
        masks = np.zeros((3, height, width), dtype=bool)
        masks[0, 8:30, 5:33] = masks[1, height - 22 : height - 4, width - 30 : width - 7] = masks[2, :6, :6] = True
        return masks

    def read(self, index: int) -> torch.Tensor:
        if index == self.broken:
            raise UserError(f"Cannot read {self.names[index]}.", "Mend it.")
        return torch.from_numpy(self.masks(index)[:2].any(axis=0)).to(torch.uint8).mul(255).expand(3, -1, -1)

    def target(self, index: int) -> Objects | np.ndarray:
        masks = self.masks(index)
        if self.kind == "classes":
            return np.where(masks[2], IGNORE, masks[0] + 2 * masks[1]).astype(np.int16)
        boxes = masks_to_boxes(torch.from_numpy(masks)) + torch.tensor([0, 0, 1, 1])
        objects = Objects(
            boxes=np.asarray(boxes, dtype=np.float64),
            labels=np.array([0, 1, 0]),
            ids=np.arange(3),
            areas=masks.sum(axis=(1, 2)).astype(np.float64),
            crowd=np.array([False, False, True]),
            size=self.size(index),
            rles=encode_masks(masks) if self.kind == "masks" else None,
        )
        return objects.chosen(np.arange(3) == 2) if self.kind == "nothing" else objects

    def fingerprint(self) -> str:
        return "blocks"


def split_of(count: int = 6, **options) -> Split:
    return Split(Blocks(count, **options), np.arange(count)[::-1].copy())


def epoch(split: Split, view: View = SHAKEN, **options):
    return list(training_batches(split, PREPROCESS, view, **{"seed": 0, "epoch": 0, "batch_size": 2, **options}))


def same(a, b) -> bool:
    names = ("indices", "sizes", "originals", "counts")
    tensors = ("images", "boxes", "labels", "masks", "classes")
    return all(getattr(a, name) == getattr(b, name) for name in names) and all(
        (x is None and y is None) or torch.equal(x, y)
        for x, y in ((getattr(a, name), getattr(b, name)) for name in tensors)
    )


@pytest.mark.parametrize("view", [SHAKEN, replace(SHAKEN, jitter="sides", sides=(50, 80), crop=None)])
def test_boxes_and_masks_move_with_the_image(view) -> None:
    seen = 0
    for number in range(8):
        for batch in epoch(split_of(), replace(view, color_jitter=0.0), epoch=number):
            for image, target in zip(batch.images, batch.targets, strict=True):
                fit = masks_to_boxes(target["masks"]) + torch.tensor([0, 0, 1, 1])
                assert ((fit - target["boxes"]).abs() <= 1.0).all()
                assert ((image[0] > 127) == (target["masks"].sum(0) > 0)).float().mean() > 0.9
                seen += len(fit)
    assert seen > 60


def test_the_whole_image_at_test_size_is_the_plain_view() -> None:
    split = split_of()
    tested = list(batches_of_a_test(split, PREPROCESS, PLAIN, batch_size=2, workers=0))
    assert [batch.indices for batch in tested] == [[0, 1], [2, 3], [4, 5]] and tested[0].targets is None
    first = tested[0]
    assert first.originals == [(80, 60), (76, 66)] and first.sizes == [(85, 64), (74, 64)]
    assert first.images.shape == (2, 3, 96, 64)  # up to a multiple of 32
    padding = first.images[1, :, 74:].flatten(1)
    assert (padding == torch.tensor([[51], [102], [153]])).all()
    trained = {position: batch for batch in epoch(split, PLAIN, batch_size=1) for position in batch.indices}
    assert torch.equal(trained[1].images[0, :, :74], first.images[1, :, :74])
    (target,) = trained[1].targets
    assert target["labels"].tolist() == [0, 1]  # without the crowd
    assert torch.allclose(target["boxes"][0], torch.tensor([5.0, 8, 33, 30]) * torch.tensor([64 / 66, 74 / 76] * 2))


def test_the_long_side_limits() -> None:
    (batch,) = batches_of_a_test(split_of(1), PREPROCESS, replace(PLAIN, long=80), batch_size=4, workers=0)
    assert batch.sizes == [(53, 80)]


def test_a_crop_that_the_image_does_not_fill_is_padded() -> None:
    view = replace(SHAKEN, scale=(0.5, 0.5))
    for batch in epoch(split_of(), view):
        assert batch.images.shape == (2, 3, 64, 64) and all(max(size) <= 48 for size in batch.sizes)
        assert batch.masks[:, :, 48:].sum() == 0


def test_objects_that_the_crop_leaves_out_are_dropped() -> None:
    counts = []
    for number in range(6):
        for kind in ("masks", "boxes"):
            for batch in epoch(split_of(kind=kind), replace(SHAKEN, scale=(3.0, 3.0)), epoch=number):
                for target, (height, width) in zip(batch.targets, batch.sizes, strict=True):
                    boxes = target["boxes"]
                    assert len(boxes) == len(target["labels"]) and ((boxes[:, 2:] - boxes[:, :2]) >= 1).all()
                    assert (boxes >= 0).all() and (boxes[:, 2:] <= torch.tensor([width, height])).all()
                    counts.append(len(boxes))
    assert {0, 1} <= set(counts)


def test_images_without_objects_are_kept() -> None:
    batches = epoch(split_of(kind="nothing"))
    assert sorted(i for batch in batches for i in batch.indices) == list(range(6))
    assert all(len(target["boxes"]) == 0 for batch in batches for target in batch.targets)


def test_class_maps_move_with_the_image_and_are_ignored_in_the_padding() -> None:
    for batch in epoch(split_of(kind="classes"), replace(SHAKEN, color_jitter=0.0)):
        assert batch.targets.dtype == torch.int64 and set(batch.targets.unique().tolist()) <= {IGNORE, 0, 1, 2}
        for image, classes, (height, width) in zip(batch.images, batch.targets, batch.sizes, strict=True):
            assert (classes[height:] == IGNORE).all() and (classes[:, width:] == IGNORE).all()
            seen = classes[:height, :width]
            assert ((image[0, :height, :width] > 127) == (seen > 0)).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["masks", "classes"])
def test_an_epoch_is_the_same_however_it_is_loaded(kind) -> None:
    split = split_of(kind=kind)
    torch.manual_seed(5)
    whole = epoch(split, workers=0)
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(5))
    assert all(map(same, whole, epoch(split, workers=2)))
    assert all(map(same, whole[1:], epoch(split, workers=0, start=1)))
    parts = [epoch(split, rank=rank, world=2, workers=0) for rank in range(2)]
    for batch, (first, second) in zip(whole, zip(*parts, strict=True), strict=True):
        assert batch.indices == first.indices + second.indices
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))
    assert not all(map(same, whole, epoch(split, epoch=1)))
    assert not all(map(same, whole, epoch(split, seed=1)))


def test_a_batch_is_cut_into_parts_with_their_own_objects() -> None:
    (batch,) = epoch(split_of(5), batch_size=5)
    parts = list(batch.split(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    targets = [target for part in parts for target in part.targets]
    for cut, whole in zip(targets, batch.targets, strict=True):
        assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    (classes,) = epoch(split_of(5, kind="classes"), batch_size=5)
    assert torch.equal(torch.cat([part.targets for part in classes.split(2)]), classes.targets)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_a_users_mistake(workers) -> None:
    with pytest.raises(UserError, match="Cannot read blocks/3"):
        epoch(split_of(broken=3), workers=workers)
    with pytest.raises(UserError, match="no equal parts for 2 processes"):
        epoch(split_of(), batch_size=3, world=2)


def test_crops_that_are_not_all_of_one_class() -> None:
    """Of a map that is background but for a corner, more crops see the corner if that is asked for."""
    classes = torch.zeros(64, 64, dtype=torch.int64)
    classes[:24, :24] = 1
    classes[40:, 40:] = IGNORE
    sample = Sample(image=torch.zeros(3, 64, 64, dtype=torch.uint8), original=(64, 64), classes=classes)
    seen = {}
    for most in (None, 0.75):
        mixed = []
        for seed in range(40):
            torch.manual_seed(seed)
            top, left, height, width = _crop_place(sample, (24, 24), most)
            assert (height, width) == (24, 24) and 0 <= top <= 40 and 0 <= left <= 40
            share = (classes[top : top + 24, left : left + 24] == 1).float().mean()
            mixed.append(bool(0.25 < share < 0.75))
        seen[most] = sum(mixed)
    assert seen[0.75] > 25 > 12 > seen[None]
