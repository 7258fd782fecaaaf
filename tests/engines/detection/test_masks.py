"""Masks go into regions and back into the image."""

from __future__ import annotations

import numpy as np
import torch

from bob.data.objects import decode_masks
from bob.engines.detection.masks import Masks, mask_targets, paste
from bob.engines.detection.regions import Regions


def ellipse(height: int, width: int, box: list[float]) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    left, top, right, bottom = box
    return ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2 <= 0.25


def test_a_region_shows_its_part_of_its_object() -> None:
    masks = torch.zeros(2, 60, 80, dtype=torch.uint8)
    masks[1, 10:38, 20:48] = 1
    boxes = torch.tensor([[20.0, 10, 48, 38], [6, 10, 34, 38], [20, 24, 48, 52]])
    found = mask_targets(Regions(boxes, torch.ones(3), torch.tensor([1, 1, 1])), {"masks": masks})
    assert found.shape == (3, 28, 28) and found[0].all()
    assert found[1, :, 14:].all() and not found[1, :, :14].any()
    assert found[2, :14].all() and not found[2, 14:].any()


def test_a_mask_comes_back_where_it_was() -> None:
    boxes = [[3.0, 5.5, 60.5, 40.0], [30.0, 2.0, 44.0, 58.0], [-4.0, 30.0, 20.0, 64.0]]
    truth = np.stack([ellipse(60, 80, box) for box in boxes])
    target = {"masks": torch.from_numpy(truth.astype(np.uint8))}
    clipped = np.array(boxes, dtype=np.float32).clip(0, [80, 60, 80, 60])
    regions = Regions(torch.from_numpy(clipped), torch.ones(3), torch.arange(3))
    pasted = decode_masks(paste(mask_targets(regions, target).numpy(), clipped, (60, 80)), (60, 80))
    for found, expected in zip(pasted, truth, strict=True):
        assert (found & expected).sum() / (found | expected).sum() > 0.93


def test_a_full_mask_is_its_box() -> None:
    box = np.array([[10.0, 4.0, 30.0, 40.0]], dtype=np.float32)
    (mask,) = decode_masks(paste(np.ones((1, 28, 28), np.float32), box, (50, 40)), (50, 40))
    assert mask.sum() == 20 * 36 and mask[4:40, 10:30].all()
    assert paste(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 5)) == ()


def test_only_regions_of_objects_have_a_loss_and_only_their_class() -> None:
    torch.manual_seed(0)
    head = Masks(3, 4, 2, 56.0)
    maps = [torch.randn(1, 3, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    target = {"masks": torch.ones(1, 64, 64, dtype=torch.uint8)}
    boxes = torch.tensor([[4.0, 4, 40, 40], [0, 0, 20, 20]])
    both = Regions(boxes, torch.tensor([1, 2]), torch.tensor([0, 0]))
    loss = head.loss(maps, [both], [target])
    torch.testing.assert_close(loss, head.loss(maps, [both.chosen(torch.tensor([0]))], [target]))
    loss.backward()
    last = head.layers[-1].weight.grad
    assert last[1].any() and not last[0].any()
    head.zero_grad()
    nothing = head.loss(maps, [both.chosen(torch.tensor([1]))], [target])
    nothing.backward()
    assert nothing == 0 and all(parameter.grad is not None for parameter in head.parameters())
