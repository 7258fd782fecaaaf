"""Batches come in order and alike from any number of workers; errors arrive as they are; cores are those granted."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch

from bob.data import loader
from bob.data.base import ImageSet
from bob.data.loader import load_batches
from bob.errors import UserError

BATCHES = [[3, 1], [0], [2, 4, 5], [6, 6]]


def crop(image: torch.Tensor) -> torch.Tensor:
    return image[:, :4, :5]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 9])
def test_order_and_content(memory_images, workers) -> None:
    images = memory_images(7)
    batches = list(load_batches(images, BATCHES, crop, workers))
    assert [batch.indices for batch in batches] == BATCHES
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.indices), 3, 4, 5)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for index, image in zip(batch.indices, batch.images, strict=True):
            assert torch.equal(image, images.read(index)[:, :4, :5])


def test_a_crop_that_is_channels_last_already(memory_images) -> None:
    def turned(image: torch.Tensor) -> torch.Tensor:
        return image[:, :4, :5].permute(1, 2, 0).contiguous().permute(2, 0, 1)

    images = memory_images(3)
    (batch,) = load_batches(images, [[0, 2]], turned, 0)
    assert torch.equal(batch.images[1], images.read(2)[:, :4, :5])


def test_no_batches(memory_images) -> None:
    assert list(load_batches(memory_images(1), [], crop, 2)) == []


def test_ranges_are_batches_too(memory_images) -> None:
    assert [b.indices for b in load_batches(memory_images(5), [range(0, 3), range(3, 5)], crop, 0)] == [
        [0, 1, 2],
        [3, 4],
    ]


class Broken(ImageSet):
    """Image 2 is broken, in a way that is chosen."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.labels = np.zeros(6, dtype=np.int64)
        self.names = list("abcdef")

    def read(self, index: int) -> torch.Tensor:
        if index == 2 and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2:
            raise {"user": UserError("Image c is broken.", "Remove it."), "bug": KeyError("c")}[self.how]
        return torch.zeros(3, 4, 5, dtype=torch.uint8)

    def fingerprint(self) -> str:
        return "broken"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_user_error_arrives_as_it_is(workers) -> None:
    batches = load_batches(Broken("user"), [[0, 1], [2], [3, 4]], crop, workers)
    assert next(batches).indices == [0, 1]
    with pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value) == "Image c is broken. Remove it."
    assert (caught.value.problem, caught.value.remedy) == ("Image c is broken.", "Remove it.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_keeps_its_traceback(workers) -> None:
    with pytest.raises(KeyError, match="c" if workers == 0 else "Original Traceback"):
        list(load_batches(Broken("bug"), [[0, 1], [2], [3, 4]], crop, workers))


def test_a_worker_that_is_killed_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"reads images died: .*--workers") as caught:
        list(load_batches(Broken("killed"), [[0, 1], [2], [3, 4]], crop, 1))
    assert "\n" not in str(caught.value)


def test_workers_are_as_many_as_cores_but_not_more_than_batches(memory_images, monkeypatch) -> None:
    seen = []

    class Spy(loader.DataLoader):
        def __init__(self, *args, num_workers: int, **kwargs) -> None:
            seen.append(num_workers)
            super().__init__(*args, num_workers=0, **kwargs)

    monkeypatch.setattr(loader, "DataLoader", Spy)
    monkeypatch.setattr(loader, "granted_cores", lambda: 3)
    for batches in (BATCHES, BATCHES[:2]):
        list(load_batches(memory_images(7), batches, crop))
    assert seen == [3, 2]
