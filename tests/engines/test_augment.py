"""Training batches are a function of their seeds alone: of no worker count, start, process or device."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from torchvision.transforms.v2.functional import to_pil_image

from bob.backbones.preprocess import Preprocess
from bob.data.base import ImageSet, Split
from bob.engines.augment import _transform, epoch_batches, finish_batch
from bob.engines.order import epoch_length, shard_positions
from bob.engines.recipe import CROP_AND_FLIP, Augmentation
from bob.errors import UserError

SMALL = Preprocess(size=(16, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
PLAIN = Augmentation(erase=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0)
CPU = torch.device("cpu")


class Noise(ImageSet):
    """Images of noise; the first pixel tells which image it is."""

    def __init__(self, labels) -> None:
        self.labels = np.asarray(labels)
        self.names = [f"noise/{i}" for i in range(len(self.labels))]

    def read(self, index: int) -> torch.Tensor:
        if index == 99:
            raise UserError("Image 99 is broken.", "Remove it.")
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, (3, 30 + index % 3, 40), dtype=torch.uint8, generator=generator)

    def fingerprint(self) -> str:
        return "noise"


def split_of(count, labels=None):
    # In an order of its own, so that a position in the split is not one in the set.
    labels = np.arange(count) if labels is None else labels
    return Split(Noise(labels), np.arange(count)[::-1].copy())


def batches(split=None, augmentation=PLAIN, seed=0, epoch=0, batch_size=4, workers=0, **more):
    split = split or split_of(14)
    found = epoch_batches(
        split, SMALL, augmentation, seed=seed, epoch=epoch, batch_size=batch_size, workers=workers, **more
    )
    return list(found)


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


# Batches


def test_an_epoch_is_a_shuffle_in_whole_batches() -> None:
    found = batches()
    assert [images.shape for images, _ in found] == [(4, 3, 16, 24)] * 3
    assert all(images.dtype == torch.uint8 for images, _ in found)
    labels = torch.cat([labels for _, labels in found]).tolist()
    assert len(set(labels)) == 12
    assert labels != sorted(labels)


def test_labels_are_those_of_the_images() -> None:
    for images, labels in batches(augmentation=None):
        for image, label in zip(images, labels.tolist(), strict=True):
            assert torch.equal(image, SMALL.crop(Noise(range(14)).read(label)))


def test_epochs_and_seeds_differ() -> None:
    first = batches()
    assert same(first, batches())
    for other in (batches(epoch=1), batches(seed=1)):
        assert not torch.equal(first[0][1], other[0][1])
    by_label = [dict(zip(torch.cat([y for _, y in b]).tolist(), torch.cat([x for x, _ in b]), strict=True))
                for b in (first, batches(epoch=1))]  # fmt: skip
    common = by_label[0].keys() & by_label[1].keys()
    assert not any(torch.equal(by_label[0][label], by_label[1][label]) for label in common)


def test_an_epoch_is_entered_at_any_batch() -> None:
    assert same(batches(start=2), batches()[2:])
    assert batches(start=3) == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers(workers) -> None:
    assert same(batches(workers=workers), batches())


@pytest.mark.parametrize(("world", "batch_size"), [(2, 4), (2, 6), (3, 6)])
def test_the_parts_of_all_processes_are_the_batch(world, batch_size) -> None:
    parts = [batches(rank=rank, world=world, batch_size=batch_size) for rank in range(world)]
    places = np.argsort(np.concatenate([shard_positions(batch_size, rank, world) for rank in range(world)]))
    for number, (images, labels) in enumerate(batches(batch_size=batch_size)):
        assert torch.equal(torch.cat([part[number][0] for part in parts])[places], images)
        assert torch.equal(torch.cat([part[number][1] for part in parts])[places], labels)


def test_an_incomplete_batch_is_only_used_if_it_is_the_only_one() -> None:
    assert epoch_length(14, 4) == 3
    assert epoch_length(3, 4) == 1
    assert [len(labels) for _, labels in batches(split_of(3))] == [3]
    assert [len(labels) for _, labels in batches(split_of(3), world=2)] == [1]


def test_rows_of_labels() -> None:
    labels = np.array([[0, 1, -1], [1, 1, 0], [0, 0, 0], [-1, 0, 1]])
    ((_, found),) = batches(split_of(4, labels), augmentation=None)
    assert sorted(found.tolist()) == sorted(labels.tolist())


def test_a_batch_that_processes_cannot_share() -> None:
    with pytest.raises(UserError, match=r"batch of 4 images .* 3 processes"):
        batches(world=3)
    with pytest.raises(UserError, match=r"1 training images .* 2 processes"):
        batches(split_of(1), world=2)


def test_a_broken_image_is_named() -> None:
    with pytest.raises(UserError, match="Image 99 is broken"):
        batches(Split(Noise(range(100)), np.array([99, 1])), workers=1)


def test_a_policy_that_timm_does_not_know() -> None:
    for policy in ("randm9", "rand-q9"):
        with pytest.raises(UserError, match=f"{policy}.*rand-m9-mstd0.5-inc1"):
            batches(augmentation=replace(PLAIN, auto_augment=policy))


# Augmentation is timm's


@pytest.mark.parametrize("augmentation", [PLAIN, replace(PLAIN, auto_augment=None), CROP_AND_FLIP])
def test_augmentation_draws_what_timm_draws(augmentation) -> None:
    """The same calls of the same generators give timm's own image."""
    seeds = np.random.SeedSequence((1, 5, 2, 0)).generate_state(3, np.uint32).tolist()
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])
    transform = create_transform(
        (3, 16, 24), is_training=True, use_prefetcher=True, scale=augmentation.scale, ratio=augmentation.ratio,
        hflip=0.5, color_jitter=augmentation.color_jitter, auto_augment=augmentation.auto_augment,
        interpolation="bicubic", mean=SMALL.mean, std=SMALL.std,
    )  # fmt: skip
    expected = torch.as_tensor(transform(to_pil_image(Noise([0]).read(0))))
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    ((images, _),) = batches(split_of(1), augmentation, seed=5, epoch=2)
    assert torch.equal(images[0], expected)


def test_the_global_generators_stay_as_they_were() -> None:
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    ((images, labels),) = batches(split_of(4))
    finish(images, labels, Augmentation(erase=1.0))
    batches(split_of(4), workers=1)
    assert states() == before


# On the device


def finish(images, labels, augmentation, n_classes=4, seed=0, step=0, **more):
    return finish_batch(images, labels, n_classes, SMALL, augmentation, seed=seed, step=step, device=CPU, **more)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (8, 3, 16, 24), dtype=torch.uint8, generator=generator), torch.arange(8) % 4


def test_without_augmentation_only_the_checkpoints_normalisation(batch) -> None:
    images, targets = finish(*batch, None)
    assert torch.equal(images, SMALL.normalize(batch[0]))
    assert torch.equal(targets, torch.eye(4)[batch[1]])


def test_label_smoothing(batch) -> None:
    _, targets = finish(*batch, replace(PLAIN, label_smoothing=0.2))
    torch.testing.assert_close(targets, 0.8 * torch.eye(4)[batch[1]] + 0.05)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_is_timms(batch, mixup, cutmix) -> None:
    images, targets = finish(*batch, replace(PLAIN, mixup=mixup, cutmix=cutmix, label_smoothing=0.1), seed=3, step=9)
    state = np.random.get_state()
    np.random.seed(np.random.SeedSequence((2, 3, 9)).generate_state(3, np.uint32).tolist()[1])
    mixer = Mixup(mixup, cutmix, switch_prob=0.5, label_smoothing=0.1, num_classes=4)
    expected, expected_targets = mixer(SMALL.normalize(batch[0]), batch[1])
    np.random.set_state(state)
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(targets, expected_targets)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))


def test_steps_differ_and_repeat(batch) -> None:
    augmentation = Augmentation(erase=0.5)
    first = finish(*batch, augmentation)
    again, later = finish(*batch, augmentation), finish(*batch, augmentation, step=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], later[0])


def test_an_odd_image_is_not_mixed(batch) -> None:
    images, labels = batch[0][:5], batch[1][:5]
    mixed, targets = finish(images, labels, replace(PLAIN, mixup=0.8))
    assert torch.equal(mixed[4], SMALL.normalize(images)[4])
    assert torch.equal(targets[4], torch.eye(4)[labels[4]])
    assert not torch.equal(mixed[0], SMALL.normalize(images)[0])
    one, _ = finish(images[:1], labels[:1], replace(PLAIN, mixup=0.8))
    assert torch.equal(one, SMALL.normalize(images[:1]))


def test_erasing_puts_noise_in_rectangles(batch) -> None:
    images, _ = finish(*batch, replace(PLAIN, erase=1.0))
    changed = (images != SMALL.normalize(batch[0])).all(dim=1)
    for mask in changed:
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert mask.sum() == height * width
        assert 0.01 < mask.float().mean() < 0.4
    assert 0.7 < images[changed.unsqueeze(1).expand_as(images)].std() < 1.3


def test_the_parts_of_all_processes_are_finished_as_the_batch(batch) -> None:
    augmentation = Augmentation(erase=0.5)
    images, targets = finish(*batch, augmentation)
    for rank in range(2):
        places = shard_positions(8, rank, 2)
        part = finish(batch[0][places], batch[1][places], augmentation, rank=rank, world=2)
        torch.testing.assert_close(part[0], images[places])
        torch.testing.assert_close(part[1], targets[places])


def test_unknown_labels_stay_unknown(batch) -> None:
    labels = torch.tensor([[1, 0, -1], [0, 1, 1], [1, -1, 1], [0, 0, 0]])
    _, plain = finish(batch[0][:4], labels, None, n_classes=3)
    assert torch.equal(plain, labels.float())
    _, smooth = finish(batch[0][:4], labels, replace(PLAIN, label_smoothing=0.1), n_classes=3)
    torch.testing.assert_close(smooth, torch.where(labels < 0, -1.0, labels * 0.9 + 0.05))
    images, mixed = finish(batch[0][:4], labels, replace(PLAIN, mixup=0.8), n_classes=3)
    clean = SMALL.normalize(batch[0][:4])
    lam = ((images[0] - clean[3]) / (clean[0] - clean[3])).nanmedian()
    expected = lam * labels + (1 - lam) * labels.flip(0)
    unknown = (labels < 0) | (labels.flip(0) < 0)
    torch.testing.assert_close(mixed, torch.where(unknown, -1.0, expected))


def test_the_strongest_posterising_is_black() -> None:
    """Magnitudes around 9 reach 10, which timm makes zero bits; Pillow has refused these since version 12."""
    preprocess, augmentation = Preprocess(size=(16, 16)), Augmentation(auto_augment="rand-m10-n1-inc1")
    transform = _transform(preprocess, augmentation).transform
    (operations,) = [part.ops for part in transform.transforms if hasattr(part, "ops")]
    posterise = next(operation for operation in operations if operation.name.startswith("Posterize"))
    posterise.prob = 1.0
    assert posterise(Image.new("RGB", (4, 4), "white")).getextrema() == ((0, 0),) * 3
    posterise.magnitude = 5
    assert posterise(Image.new("RGB", (4, 4), "white")).getextrema() == ((0b11000000,) * 2,) * 3
