"""The cut is stratified, complete, disjoint and the same everywhere and always."""

from __future__ import annotations

import numpy as np
import pytest

from bob.data.splits import stratified_cut
from bob.errors import UserError

LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 0, 0])
CLASSES = ("ant", "bee", "cat")
KNOWN = [0, 3, 7, 9, 10]


def test_a_known_cut() -> None:
    stay, cut = stratified_cut(LABELS, 0.4, seed=0, classes=CLASSES)
    assert cut.tolist() == KNOWN
    assert sorted([*stay, *cut]) == list(range(12))


def test_the_seed_matters_and_nothing_else() -> None:
    cuts = {tuple(stratified_cut(LABELS, 0.4, seed, CLASSES)[1].tolist()) for seed in range(10)}
    assert len(cuts) > 5
    np.random.seed(1)
    assert stratified_cut(LABELS, 0.4, 0, CLASSES)[1].tolist() == KNOWN


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("seed", [0, 7])
def test_stratified_disjoint_and_complete(fraction, seed) -> None:
    counts = [2, 3, 10, 101, 500]
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(5), counts))
    stay, cut = stratified_cut(labels, fraction, seed, list("abcde"))
    assert (np.diff(stay) > 0).all()
    assert (np.diff(cut) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([stay, cut])), np.arange(len(labels)))
    for label, count in enumerate(counts):
        expected = min(max(round(fraction * count), 1), count - 1)
        assert np.sum(labels[cut] == label) == expected
        assert np.sum(labels[stay] == label) == count - expected


def test_other_classes_do_not_move_when_one_grows_or_goes() -> None:
    def cut_of(label: str, counts: dict[str, int]) -> list[int]:
        classes = sorted(counts)
        labels = np.repeat(np.arange(len(classes)), [counts[name] for name in classes])
        _, cut = stratified_cut(labels, 0.3, 5, classes)
        first = int(np.flatnonzero(labels == classes.index(label))[0])
        return [int(position) - first for position in cut if classes[labels[position]] == label]

    before = cut_of("cat", {"ant": 9, "bee": 20, "cat": 30})
    assert len(before) == 9
    assert cut_of("cat", {"ant": 9, "bee": 3, "cat": 30}) == before
    assert cut_of("cat", {"ant": 9, "cat": 30}) == before
    assert cut_of("cat", {"ant": 9, "bee": 20, "cat": 30, "auk": 4, "eel": 4}) == before


def test_classes_are_cut_each_in_its_own_way() -> None:
    labels = np.repeat([0, 1], 40)
    _, cut = stratified_cut(labels, 0.5, 0, ["a", "b"])
    assert cut[:20].tolist() != (cut[20:] - 40).tolist()


def test_a_class_without_images_is_left_out() -> None:
    _, cut = stratified_cut(np.array([0, 0, 2, 2]), 0.5, 0, CLASSES)
    assert len(cut) == 2


def test_a_class_with_one_image_is_named() -> None:
    with pytest.raises(UserError, match="Class 'cat' has only 1 image"):
        stratified_cut(np.array([0, 0, 1, 1, 2]), 0.2, 0, CLASSES)
