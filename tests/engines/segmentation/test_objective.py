"""The loss of class maps: its mean, and pixels that count for nothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bob.data.objects import IGNORE
from bob.engines.segmentation.objective import pieces, pixel_loss
from bob.errors import UserError


def test_is_cross_entropy_where_all_counts():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator)
    classes = torch.randint(5, (2, 6, 7), generator=generator)
    assert pixel_loss(logits, classes).item() == pytest.approx(F.cross_entropy(logits, classes).item())


def test_ignored_pixels_have_no_gradient():
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    classes = torch.full((1, 4, 4), IGNORE)
    classes[0, 0, 0] = 2
    loss = pixel_loss(logits, classes)
    loss.backward()
    assert loss.item() == pytest.approx(torch.tensor(3.0).log().item() / 16)
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0].tolist() == pytest.approx([1 / 48, 1 / 48, -2 / 48])
    assert logits.grad.count_nonzero() == 3


def test_no_pixel_that_counts_is_no_loss():
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = pixel_loss(logits, torch.full((2, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_images_of_one_class():
    logits = torch.zeros(1, 2, 3, 3)
    assert pixel_loss(logits, torch.ones(1, 12, 12, dtype=torch.int64)).item() == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize(
    ("images", "largest", "ends"), [(4, 4, [4]), (4, 2, [2, 4]), (5, 2, [2, 5]), (3, 2, [3]), (1, 1, [1]), (1, 4, [1])]
)
def test_no_image_is_left_alone(images, largest, ends):
    found = pieces(images, largest, "b")
    assert [piece.stop for piece in found] == ends
    assert [piece.start for piece in found] == [0, *ends[:-1]]


def test_one_image_of_several_is_refused():
    with pytest.raises(UserError, match="even with two images at a time"):
        pieces(4, 1, "b")
