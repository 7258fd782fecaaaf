"""Classes at the original resolution: hand cases, and torch's interpolation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bob.engines.segmentation.upsample import pixel_classes


def test_hand_case():
    # One row of two cells of 4 px, centres at 2 and 6; class 1 is ahead by 4 at the second, behind by 2 at the first,
    # so it overtakes at 2 + 4 / 3 = 3.33 px of the input. Eight pixels of the original have centres 0.5, 1.5, ...
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 4.0]]])
    assert pixel_classes(logits, (4, 8), (1, 8), 4).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]
    # Of 4 wide pixels the centres lie at 1, 3, 5 and 7 px of the input.
    assert pixel_classes(logits, (4, 8), (2, 4), 4).tolist() == [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize("original", [(40, 48), (61, 37), (20, 150)])
def test_is_bilinear_interpolation(original):
    logits = torch.randn(5, 10, 12, generator=torch.Generator().manual_seed(0))
    found = pixel_classes(logits, (40, 48), original, 4)
    full = F.interpolate(logits[None], size=original, mode="bilinear", align_corners=False)[0]
    top = full.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-4
    assert found.dtype == torch.int16 and clear.float().mean() > 0.99
    assert torch.equal(found[clear].long(), full.argmax(0)[clear])


def test_leaves_out_cells_beyond_the_image():
    # 5 px have 2 cells of stride 4; the image ends at a quarter of the second.
    logits = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(1))
    full = F.interpolate(logits[None], size=(8, 8), mode="bilinear", align_corners=False)[0, :, :5, :5]
    assert torch.equal(pixel_classes(logits, (5, 5), (5, 5), 4).long(), full.argmax(0))


def test_rows_at_a_time_change_nothing():
    logits = torch.randn(4, 9, 7, generator=torch.Generator().manual_seed(2))
    whole = pixel_classes(logits, (36, 28), (50, 41), 4)
    assert torch.equal(pixel_classes(logits, (36, 28), (50, 41), 4, most=4 * 41 * 3), whole)
    assert torch.equal(pixel_classes(logits, (36, 28), (50, 41), 4, most=1), whole)
