"""Cutting a test split into its sets, each judged among the classes that it has."""

from __future__ import annotations

import numpy as np
import pytest

from bob.errors import UserError
from bob.results.judged_sets import JudgedSet
from bob.results.ood import OODPredictions

CLASSES = ("ant", "bee", "cat", "dog")
# Three clean images, the same corrupted, and two of a set that shows 'insect' (ant, bee) and 'dog'.
LABELS = [0, 2, 3, 0, 2, 3, 0, 3]
TABLE = np.array(
    [
        *([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.5, 0.1, 0.3]),
        *([0.1, 0.2, 0.6, 0.1], [0.2, 0.2, 0.3, 0.3], [0.0, 0.0, 0.1, 0.9]),
        *([0.1, 0.2, 0.6, 0.1], [0.0, 0.0, 1.0, 0.0]),
    ]
)
COARSE = JudgedSet("coarse", "coarse", members=((0, 1), (3,)))
SETS = [
    (JudgedSet("clean"), slice(0, 3)),
    (JudgedSet("noise/1", "noise", "gaussian_noise", 1), slice(3, 6)),
    (COARSE, slice(6, 8)),
]


@pytest.fixture
def judged() -> OODPredictions:
    return OODPredictions.from_probabilities([f"image{i}" for i in range(8)], LABELS, TABLE, CLASSES, SETS)


def test_a_case_worked_by_hand(judged) -> None:
    assert [each.name for each in judged.sets] == ["clean", "clean, 2 classes", "noise/1", "coarse"]
    assert [each.clean for each in judged.sets] == [0, 0, 0, 1]
    # The cat is no class of the coarse set, so its clean images are the ant and the dog.
    assert judged.part.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert judged.unit.tolist() == [0, 1, 2, 0, 2, 0, 1, 2, 3, 4]
    # The dog on clean images: bee (0.5) beats dog (0.3), so among the coarse classes it is an insect, called 'ant'.
    assert judged.predicted.tolist() == [0, 2, 1, 0, 0, 2, 2, 3, 0, 0]
    assert judged.right.tolist() == [True, True, False, True, False, False, True, True, True, False]
    # Insect 0.4 and dog 0.1 of a sum of 0.5; insect 0.5 and dog 0.3 of 0.8; nothing at all for either class.
    assert judged.confidence[[3, 4, 8, 9]] == pytest.approx([0.8, 0.625, 0.2 / 0.3, 0.5])
    assert judged.label_probability[[3, 4, 9]] == pytest.approx([0.8, 0.375, 0.5])
    assert judged.names[2:] == ["image2", "coarse: image6", "coarse: image7"] and len(judged) == 5


def test_breakdown_and_classes(judged) -> None:
    noise, coarse = judged.breakdown()["per_set"]
    assert noise == {
        **{"set": "noise/1", "n": 3, "classes": 4, "top1": pytest.approx(2 / 3)},
        **{"clean_n": 3, "clean_top1": pytest.approx(2 / 3), "drop": pytest.approx(0)},
    }
    assert coarse["classes"] == 2 and (coarse["n"], coarse["clean_n"]) == (2, 2)
    assert (coarse["top1"], coarse["clean_top1"], coarse["drop"]) == (0.5, 0.5, 0.0)
    assert [row["recall"] for row in judged.per_class()] == [1.0, 1.0, 0.0]


def test_members_take_the_largest_so_that_top1_is_the_published_rule() -> None:
    """ObjectNet: the prediction is the class of the largest logit among all members, whatever was kept of the rest."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(20), 200)
    members = ((1, 4, 9), (2,), (7, 8), (15, 0))
    sets = [(JudgedSet("clean"), slice(0, 100)), (JudgedSet("o", "o", members=members), slice(100, 200))]
    labels = np.concatenate([rng.integers(20, size=100), rng.choice([each[0] for each in members], 100)])
    judged = OODPredictions.from_probabilities(["x"] * 200, labels, table, [str(i) for i in range(20)], sets)
    allowed = np.array([each for several in members for each in several])
    first = {each: several[0] for several in members for each in several}
    best = allowed[table[100:][:, allowed].argmax(axis=1)]
    assert judged.predicted[judged.part == 2].tolist() == [first[each] for each in best]


def test_round_trip(judged, tmp_path) -> None:
    judged.write(tmp_path / "p.parquet")
    again = OODPredictions.read(tmp_path / "p.parquet")
    assert again.sets == judged.sets and again.names == judged.names and again.classes == CLASSES
    for name in ("unit", "part", "labels", "predicted", "confidence", "label_probability"):
        assert np.array_equal(getattr(again, name), getattr(judged, name))
    again.write(tmp_path / "q.parquet")
    assert (tmp_path / "q.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [4] * 8}, "`labels`"),
        ({"probabilities": TABLE * 2}, "probabilities"),
        ({"probabilities": TABLE[:, :3]}, "(8, 4)"),
        ({"names": []}, "at least one sample"),
    ],
)
def test_wrong_input(change, said) -> None:
    given = {"names": ["x"] * 8, "labels": LABELS, "probabilities": TABLE, "classes": CLASSES, "sets": SETS, **change}
    with pytest.raises(UserError) as caught:
        OODPredictions.from_probabilities(**given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_sets_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="a shifted set"):
        OODPredictions.from_probabilities(["x"] * 8, LABELS, TABLE, CLASSES, SETS[:1])
    shorter = [SETS[0], (SETS[1][0], slice(3, 5))]
    with pytest.raises(ValueError, match="3 images"):
        OODPredictions.from_probabilities(["x"] * 8, LABELS, TABLE, CLASSES, shorter)
