"""The cut is stratified, complete, disjoint and the same everywhere and always."""

from __future__ import annotations

import numpy as np
import pytest

from bob.data.splits import at_most, counted_cut, keep_count, stratified_cut, subject_cut
from bob.errors import UserError

LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 0, 0])
CLASSES = ("ant", "bee", "cat")
KNOWN = [0, 3, 7, 9, 10]
KNOWN_RANDOM = [2, 4, 7]


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


# Cuts by count


def test_counts_are_drawn_as_fractions_are() -> None:
    by_fraction, by_count = stratified_cut(LABELS, 0.4, 0, CLASSES)[1], counted_cut(LABELS, 2, 0, CLASSES)[1]
    assert set(LABELS[by_count]) == {0, 1, 2} and np.bincount(LABELS[by_count]).tolist() == [2, 2, 1]
    assert set(by_count) & set(by_fraction) == set(by_fraction)


def test_an_exact_count_stays() -> None:
    stay, cut = keep_count(LABELS, 2, 0, CLASSES)
    assert np.bincount(LABELS[stay]).tolist() == [2, 2, 2]
    assert sorted([*stay, *cut]) == list(range(12))
    with pytest.raises(UserError, match="Class 'cat' has only 2 images to cut a split from, not 3"):
        keep_count(LABELS, 2, 0, CLASSES, leave=1)


def test_at_most_a_count() -> None:
    assert np.bincount(LABELS[at_most(LABELS, 3, 0, CLASSES)]).tolist() == [3, 3, 2]
    assert at_most(LABELS, 99, 0, CLASSES).tolist() == list(range(12))


# Cuts at random: several labels, or subjects


def indicators(n: int, frequencies=(0.5, 0.2, 0.02)) -> np.ndarray:
    return (np.random.default_rng(5).random((n, len(frequencies))) < frequencies).astype(np.int64)


def test_a_known_random_cut() -> None:
    stay, cut = subject_cut(indicators(12), 0.25, seed=0, classes=CLASSES)
    assert cut.tolist() == KNOWN_RANDOM
    assert sorted([*stay, *cut]) == list(range(12))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_labels_stay_learnable_and_about_as_frequent(fraction, seed) -> None:
    labels = indicators(500)
    stay, cut = subject_cut(labels, fraction, seed, CLASSES)
    assert len(cut) == round(500 * fraction) and not set(stay) & set(cut)
    assert (labels[stay].sum(axis=0) > 0).all()
    np.testing.assert_allclose(labels[cut].mean(axis=0), labels.mean(axis=0), atol=0.15)


def test_the_last_positive_is_spared() -> None:
    labels = np.zeros((6, 2), dtype=np.int64)
    labels[:, 0], labels[4, 1] = 1, 1
    for seed in range(10):
        assert 4 in subject_cut(labels, 0.8, seed, ("a", "b"))[0]
    stay, cut = subject_cut(labels, 0.99, 0, ("a", "b"))
    assert stay.tolist() == [4] and len(cut) == 5


def test_unknown_labels_are_no_positives() -> None:
    labels = np.array([[1], [-1], [-1], [1], [0], [0]])
    for seed in range(10):
        stay, _ = subject_cut(labels, 0.6, seed, ("a",))
        assert (labels[stay] == 1).any()


@pytest.mark.parametrize("several", [False, True])
def test_subjects_stay_together(several) -> None:
    subjects = np.random.default_rng(1).integers(40, size=200) * 7
    labels = indicators(200) if several else np.arange(200) % 3
    stay, cut = subject_cut(labels, 0.3, 0, CLASSES, subjects)
    assert not set(subjects[stay]) & set(subjects[cut])
    largest = np.unique(subjects, return_counts=True)[1].max()
    assert 60 <= len(cut) < 60 + largest


def test_nothing_to_cut() -> None:
    with pytest.raises(UserError, match="None of the 1 images can be cut off"):
        subject_cut(np.array([[1]]), 0.5, 0, ("a",))
