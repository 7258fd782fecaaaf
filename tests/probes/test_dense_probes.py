"""Both probes of segmentation learn what positions say of their cells, and nothing from pixels without a class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from bob.probes import dense_knn, dense_linear
from bob.probes.dense import GridFeatures
from bob.probes.dense_knn import NearestPositions, count_cells
from bob.probes.dense_linear import LinearSegmenter

ROWS, COLUMNS, CLASSES = 4, 6, 3
RATES = [{"lr": lr, "weight_decay": 0.01} for lr in (1e-3, 1e-2, 3e-2)]
NEAREST = [{"k": k, "temperature": t} for k in (1, 5) for t in (0.05, 0.5)]
BOTH = pytest.mark.parametrize(("kind", "points"), [(LinearSegmenter, RATES), (NearestPositions, NEAREST)])


class Toy:
    """Images of random cells; at each position a noisy code of the class, in channels of different scales."""

    def __init__(self, images: int = 30, cell: int = 5, noise: float = 0.1, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.cells = rng.integers(CLASSES, size=(images, ROWS, COLUMNS)).astype(np.int16)
        codes = np.eye(CLASSES)[self.cells] + noise * rng.normal(size=(*self.cells.shape, CLASSES))
        self.stored = (codes * [1, 2, 0.5] + [5, -30, 0]).reshape(images, -1).astype(np.float16)
        self.masks = self.cells.repeat(cell, 1).repeat(cell, 2)

    @property
    def features(self) -> GridFeatures:
        return GridFeatures([(self.stored, np.arange(len(self.stored)))], (ROWS, COLUMNS))

    def target(self, image: int) -> np.ndarray:
        return self.masks[image]


def fitted(kind, points, toy, **options):
    if kind is LinearSegmenter:
        options = {"epochs": 20, "batch_size": 8, **options}
    return kind(points, **options).fit(toy.features, toy.target, CLASSES)


def scores(probe, toy) -> torch.Tensor:
    """(n, G, rows, columns, classes)."""
    return torch.stack(list(probe.scores(toy.features)))


@BOTH
def test_cells_are_recovered(kind, points):
    train, test = Toy(), Toy(images=10, seed=1)
    found = scores(fitted(kind, points, train), test)
    assert found.shape == (10, len(points), ROWS, COLUMNS, CLASSES)
    for one in found[:, -1]:
        assert one.shape == (ROWS, COLUMNS, CLASSES)
    np.testing.assert_array_equal(found[:, -1].argmax(-1), test.cells)


@BOTH
def test_a_point_is_what_it_is_alone(kind, points):
    toy = Toy(noise=1.0)
    together = scores(fitted(kind, points, toy, seed=3), toy)
    for number, point in enumerate(points):
        alone = scores(fitted(kind, [point], toy, seed=3), toy)
        np.testing.assert_allclose(alone[:, 0], together[:, number], rtol=1e-4, atol=1e-5)


@BOTH
def test_the_seed_decides(kind, points):
    toy = Toy(noise=1.0)
    options = {"entries": 100} if kind is NearestPositions else {}
    first, again, other = (scores(fitted(kind, points, toy, seed=seed, **options), toy) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@BOTH
def test_pixels_without_a_class_teach_nothing(kind, points):
    toy, test = Toy(cell=4), Toy(images=10, seed=1)
    wrong = (toy.masks + 1) % CLASSES
    toy.masks[:, :, 12:] = wrong[:, :, 12:]  # the right half is wrong, ...
    assert (scores(fitted(kind, points, toy), test)[:, -1].argmax(-1).numpy() == test.cells).mean() < 0.9
    toy.masks[:, :, 12:] = -1  # ... or unknown
    np.testing.assert_array_equal(scores(fitted(kind, points, toy), test)[:, -1].argmax(-1), test.cells)


@BOTH
def test_nothing_is_labelled(kind, points):
    toy = Toy(images=3)
    toy.masks[:] = -1
    with pytest.raises(ValueError, match="at least one labelled pixel"):
        fitted(kind, points, toy)


@BOTH
@pytest.mark.parametrize("damage", ["class", "type", "shape"])
def test_targets_that_make_no_sense(kind, points, damage):
    toy = Toy(images=3)
    toy.masks = {"class": toy.masks + 1, "type": toy.masks.astype(float), "shape": toy.masks[:, 0]}[damage]
    with pytest.raises(ValueError, match=r"Expected a map of integers below 3 for image \d"):
        fitted(kind, points, toy)


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        (LinearSegmenter, {"lr": 0.0, "weight_decay": 0.0}),
        (NearestPositions, {"k": 0, "temperature": 1.0}),
        (NearestPositions, {"k": 1, "temperature": 0.0}),
    ],
)
def test_hyperparameters_that_make_no_sense(kind, point):
    with pytest.raises(ValueError, match="Expected `"):
        fitted(kind, [point], Toy(images=2))


# The linear segmenter


def test_the_loss_is_that_of_logistic_regression():
    toy = Toy(images=100, cell=1, noise=0.8)
    probe = fitted(LinearSegmenter, [{"lr": 1e-2, "weight_decay": 0.0}], toy, pixels=ROWS * COLUMNS, epochs=40)
    x, y = toy.stored.reshape(-1, CLASSES).astype(np.float64), toy.cells.ravel()
    x = StandardScaler().fit_transform(x)
    reference = LogisticRegression(C=np.inf).fit(x, y).predict_proba(x)
    found = torch.softmax(scores(probe, toy).double(), -1).reshape(-1, CLASSES).numpy()
    assert log_loss(y, found) == pytest.approx(log_loss(y, reference), rel=2e-3)
    np.testing.assert_allclose(found, reference, atol=0.05)


def test_features_are_interpolated_to_the_pixels():
    toy = Toy(images=1, cell=3)
    image = toy.features.read(np.arange(1)).view(1, ROWS, COLUMNS, CLASSES).permute(0, 3, 1, 2)
    wide = torch.nn.functional.interpolate(image, (12, 18), mode="bilinear", align_corners=False)[0].flatten(1).T
    (pixels,) = dense_linear._draw_pool(toy.target, 1, CLASSES, seed=0)
    corners, shares, labels = pixels.corners(np.arange(12 * 18), ROWS, COLUMNS)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    read = (toy.stored.reshape(-1, CLASSES).astype(np.float32)[corners] * shares[..., None]).sum(1)
    np.testing.assert_allclose(read, wide, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(labels, toy.masks[0].ravel())


def test_few_pixels_of_each_image_are_kept(monkeypatch):
    monkeypatch.setattr(dense_linear, "_MOST", 50)
    toy = Toy(images=4)
    toy.masks[1] = -1
    toy.masks[2, 2:] = -1
    pool = dense_linear._draw_pool(toy.target, 4, CLASSES, seed=0)
    assert [(pixels.image, len(pixels.labels)) for pixels in pool] == [(0, 50), (2, 50), (3, 50)]
    for pixels in pool:
        assert len(np.unique(pixels.places)) == 50
        np.testing.assert_array_equal(toy.masks[pixels.image].ravel()[pixels.places], pixels.labels)


# Nearest positions


def test_neighbours_are_those_of_scikit_learn():
    train, test = Toy(images=20, noise=0.6), Toy(images=4, noise=0.6, seed=1)
    scaler = StandardScaler(with_std=False).fit(train.stored.reshape(-1, CLASSES).astype(np.float64))
    x, queries = (scaler.transform(toy.stored.reshape(-1, CLASSES).astype(np.float64)) for toy in (train, test))
    distance, near = NearestNeighbors(n_neighbors=5, metric="cosine").fit(x).kneighbors(queries)
    weight = np.exp((1 - distance) / 0.5)
    expected = (weight[..., None] * np.eye(CLASSES)[train.cells.ravel()[near]]).sum(1) / weight.sum(1, keepdims=True)
    found = scores(fitted(NearestPositions, NEAREST, train), test)[:, 3].reshape(-1, CLASSES)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_neighbours_where_the_bank_is_small():
    toy = Toy(images=2)
    found = scores(fitted(NearestPositions, [{"k": 1000, "temperature": 1e6}], toy), toy)
    shares = np.bincount(toy.cells.ravel(), minlength=CLASSES) / toy.cells.size
    np.testing.assert_allclose(found[0, 0, 0, 0], shares, rtol=1e-4)


def test_cells_by_hand():
    target = np.array([[0, 0, 1, 1, 1], [0, -1, 1, 2, 2], [2, 2, -1, -1, -1]])
    # Rows 0 to 2 have their middles at 1/6, 3/6 and 5/6 of the height, so the one in the middle belongs to the second.
    counts = count_cells(target, 2, 2, 3)
    np.testing.assert_array_equal(counts, [[2, 0, 0], [0, 3, 0], [1, 0, 2], [0, 1, 2]])


@pytest.mark.parametrize("size", [(3, 5), (20, 33), (4, 6)])
def test_every_pixel_is_in_one_cell(size):
    target = np.random.default_rng(0).integers(-1, 3, size)
    counts = count_cells(target, 4, 6, 3)
    assert counts.shape == (24, 3)
    np.testing.assert_array_equal(counts.sum(0), np.bincount(target[target >= 0], minlength=3))


def test_shares_are_of_labelled_pixels():
    toy = Toy(images=1, cell=2)
    toy.masks[0, :2, :2] = [[0, 0], [1, -1]]
    toy.masks[0, 2:4, :2] = -1
    probe = fitted(NearestPositions, NEAREST, toy)
    assert len(probe.shares_) == ROWS * COLUMNS - 1
    np.testing.assert_allclose(probe.shares_[0], [2 / 3, 1 / 3, 0], atol=1e-3)


def test_a_bounded_bank_remembers_rare_classes():
    toy = Toy(images=50)
    toy.masks[:] = 0
    toy.masks[:, 5:10, 5:10] = 2  # one cell of 24
    probe = fitted(NearestPositions, NEAREST, toy, entries=100)
    assert len(probe.shares_) == len(probe.bank_.features) == 100  # two of each image
    rare = int((probe.shares_[:, 2] > 0).sum())
    # Drawn first with odds 1 : 1 against all others together, and else likely second.
    assert 20 < rare <= 50


def test_more_images_than_places():
    toy = Toy(images=50)
    probe = fitted(NearestPositions, NEAREST, toy, entries=7)
    assert len(probe.shares_) == 7


def test_wide_features_have_fewer_places(monkeypatch):
    monkeypatch.setattr(dense_knn, "_NUMBERS", 120 * CLASSES)
    assert len(fitted(NearestPositions, NEAREST, Toy()).shares_) == 120


def test_queries_are_looked_up_in_parts(monkeypatch):
    toy = Toy(noise=1.0)
    probe = fitted(NearestPositions, NEAREST, toy)
    whole = scores(probe, toy)
    monkeypatch.setattr(dense_knn, "_QUERIES", 1)
    np.testing.assert_allclose(scores(probe, toy), whole, rtol=1e-5)
