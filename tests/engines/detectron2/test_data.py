"""Images and objects on their way into detectron2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from bob.backbones.preprocess import Preprocess
from bob.engines.detectron2.data import record, test_loader, training_loader
from bob.engines.training_data import Plan
from bob.engines.views import test_batches, training_batches
from bob.errors import UserError

PLAN = Plan(part=2, parts=2, world=1, updates=3, epochs=2)


def _parts(blocks, view, step: int = 0, **options) -> list:
    options = {"seed": 0, "workers": 0, **options}
    return list(training_loader(blocks.splits["train"], Preprocess(), view, PLAN, step=step, **options))


def _same(a, b) -> bool:
    return all(
        torch.equal(x["image"], y["image"])
        and torch.equal(x["instances"].gt_masks.tensor, y["instances"].gt_masks.tensor)
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
        if len(x["instances"])
    )


def test_order_and_look_depend_on_seed_and_epoch_alone(blocks, recipe) -> None:
    whole = _parts(blocks, recipe.view)
    assert len(whole) == PLAN.steps * PLAN.parts and all(len(part) == PLAN.part for part in whole)
    assert sorted(item["image_id"] for part in whole[:6] for item in part) == list(range(12))
    assert _same(whole[2 * PLAN.parts :], _parts(blocks, recipe.view, step=2))
    assert _same(whole[4 * PLAN.parts :], _parts(blocks, recipe.view, step=4, workers=2))
    assert not _same(whole, _parts(blocks, recipe.view, seed=1))
    first = {item["image_id"]: item["image"] for part in whole[:6] for item in part}
    again = {item["image_id"]: item["image"] for part in whole[6:] for item in part}
    assert any(not torch.equal(first[number], again[number]) for number in first)


def test_images_come_in_the_order_of_the_other_engine(blocks, recipe) -> None:
    own = [[item["image_id"] for item in part] for part in _parts(blocks, recipe.view)]
    split, options = blocks.splits["train"], {"seed": 0, "batch_size": 2, "workers": 0}
    theirs = [
        batch.indices
        for epoch in (0, 1)
        for batch in training_batches(split, Preprocess(), recipe.view, epoch=epoch, **options)
    ]
    assert own == theirs


@pytest.mark.parametrize("jitter", ["scale", "sides"])
def test_objects_follow_their_image(blocks, recipe, jitter) -> None:
    view = replace(recipe.view, jitter=jitter, sides=(64, 128), color_jitter=0.0)
    colours = blocks.splits["train"].images
    checked = 0
    for part in _parts(blocks, view):
        for item in part:
            instances = item["instances"]
            assert item["image"].shape[1] <= 96 and item["image"].shape[2] <= 96
            assert instances.image_size == tuple(item["image"].shape[1:])
            assert len(instances) <= (~colours.target(item["image_id"]).crowd).sum()
            for box, label, mask in zip(
                instances.gt_boxes.tensor.round().int(),
                instances.gt_classes,
                instances.gt_masks.tensor if len(instances) else (),
                strict=True,
            ):
                # What overlaps hides belongs to other objects; no object is darker than 100 in its own colour.
                rows, columns = torch.where(mask)
                fit = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (fit - box).abs().max() <= 1
                checked += int((item["image"][label][mask] > 150).float().mean() > 0.6)
    assert checked >= 20


def test_a_record_has_no_crowds_and_masks_only_where_there_are(blocks, boxes_alone) -> None:
    target = blocks.splits["train"].target(1)
    kept = record(target, 1)["annotations"]
    assert target.crowd[0] and len(kept) == len(target) - 1
    assert all("segmentation" in annotation for annotation in kept)
    bare = record(boxes_alone.splits["train"].target(0), 0)["annotations"]
    assert bare and not any("segmentation" in annotation for annotation in bare)
    assert record(blocks.splits["train"].target(3), 3)["annotations"] == []


def test_test_images_are_those_of_the_other_engine(blocks, recipe) -> None:
    split, view = blocks.splits["test"], replace(recipe.view, short=128, long=140)
    theirs = [batch for batch in test_batches(split, Preprocess(), view, batch_size=1, workers=0)]
    for (own,), other in zip(test_loader(split, Preprocess(), view, workers=0), theirs, strict=True):
        height, width = other.sizes[0]
        assert own["image"].shape[1:] == (height, width)
        assert (own["height"], own["width"]) == other.originals[0]
        # Pillow and torchvision round intermediate values differently.
        difference = own["image"].int() - other.images[0, :, :height, :width].int()
        assert difference.abs().max() <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_one_line(blocks, recipe, monkeypatch, workers) -> None:
    def read(self, index: int) -> torch.Tensor:
        raise UserError(f"Cannot read image {index}.", "Mend it.")

    monkeypatch.setattr(type(blocks.splits["train"].images), "read", read)
    with pytest.raises(UserError, match=r"^Cannot read image \d+\. Mend it\.$"):
        _parts(blocks, recipe.view, workers=workers)


def test_the_callers_random_numbers_stay(blocks, recipe) -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    _parts(blocks, recipe.view)
    assert np.array_equal(before[0], np.random.get_state()[1])
