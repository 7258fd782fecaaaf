"""The forward pass halves its batch when memory runs out, whoever says so, and gives up at one image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bob.errors import UserError
from bob.features.extract import BackingOff, fill_store, open_store


def allocate_too_much() -> None:
    torch.empty(1 << 50, dtype=torch.uint8)


def refuse_on_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def refuse_on_mps() -> None:
    raise RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB).")


def refuse_in_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


REFUSALS = [allocate_too_much, refuse_on_gpu, refuse_on_mps, refuse_in_cublas]


class Limited(nn.Module):
    """Can take so many images at once and no more."""

    def __init__(self, most: int, refuse=refuse_on_gpu) -> None:
        super().__init__()
        self.most, self.refuse = most, refuse
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            self.refuse()
        return images.mean((2, 3))


@pytest.mark.parametrize("refuse", REFUSALS)
def test_the_batch_is_halved_until_it_fits(make_backbone, on_cpu, refuse) -> None:
    module = Limited(3, refuse)
    forward = BackingOff(make_backbone(module), on_cpu(batch_size=16))
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
    features = forward(images)
    assert module.seen == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert forward.largest == 2
    expected = make_backbone(Limited(99)).preprocess.normalize(images).mean((2, 3))
    torch.testing.assert_close(features, expected)
    module.seen.clear()
    forward(images[:5])
    assert module.seen == [2, 2, 1]  # what was learnt is kept


def test_a_short_batch_is_halved_from_its_own_size(make_backbone, on_cpu) -> None:
    module = Limited(2)
    forward = BackingOff(make_backbone(module), on_cpu(batch_size=64))
    assert forward(torch.zeros(5, 3, 8, 8, dtype=torch.uint8)).shape == (5, 3)
    assert module.seen == [5, 2, 2, 1]


@pytest.mark.parametrize("refuse", REFUSALS)
def test_one_image_too_many_is_the_users_to_know(make_backbone, on_cpu, refuse) -> None:
    module = Limited(0, refuse)
    forward = BackingOff(make_backbone(module), on_cpu(batch_size=4))
    with pytest.raises(UserError, match=r"'tiny' does not fit in the memory of cpu.*--precision bfloat16"):
        forward(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    assert module.seen == [4, 2, 1]


def test_other_errors_are_bugs(make_backbone, on_cpu) -> None:
    def refuse() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    module = Limited(0, refuse)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        BackingOff(make_backbone(module), on_cpu())(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    assert module.seen == [4]


def test_short_memory_changes_no_feature(make_backbone, memory_images, on_cpu) -> None:
    images, features = memory_images(21), []
    for most in (99, 3):
        backbone = make_backbone(Limited(most))
        store = open_store(backbone, {"model": f"takes {most}"}, images, on_cpu())
        fill_store(store, backbone, images, on_cpu())
        features.append(torch.tensor(store.read()))
    torch.testing.assert_close(*features)
