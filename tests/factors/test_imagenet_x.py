"""ImageNet-X by bob equals what is published of it, and what its own code gives under every combination of options."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.factors import annotations as annotations_module
from bob.factors.annotations import FACTORS, METACLASSES, Annotations, load_annotations
from bob.factors.predicted import Predicted
from bob.factors.table import correctness, score
from bob.results.factor_table import sums_of

# Published with ImageNet-X for the top factor and the label (README, results/val/top_factor/base/class): accuracies.
AVERAGE = {"DINO": 0.754283, "ResNet50": 0.746693}
RATIOS = {
    "DINO": (
        *(0.726197, 1.067989, 0.927478, 1.177905, 1.543689, 1.642275, 1.129062, 1.954860),
        *(2.150316, 1.248049, 1.467770, 1.930511, 2.034863, 1.703606, 0.924938, 1.424404),
    ),
    "ResNet50": (
        *(0.694739, 1.141699, 0.771442, 1.188826, 1.497432, 1.744230, 1.132355, 2.105479),
        *(2.393863, 1.315925, 1.715017, 1.923274, 2.171276, 1.927983, 1.166388, 1.973887),
    ),
}
TOP = (15064, 14751, 5972, 6150, 1450, 679, 638, 585, 282, 150, 122, 78, 60, 43, 44, 40)
MULTI = (39974, 35537, 15478, 13034, 2873, 1891, 1500, 3604, 879, 390, 512, 217, 105, 586, 94, 1828)


@pytest.fixture(scope="module")
def top() -> Annotations:
    return load_annotations()


def _random(annotations: Annotations, seed: int = 0) -> Predicted:
    """Right about seven in ten images, in random order, and with images that have no annotation."""
    rng = np.random.default_rng(seed)
    guesses = rng.integers(1000, size=len(annotations))
    classes = np.where(rng.random(len(annotations)) < 0.7, annotations.classes, guesses)
    order = rng.permutation(len(annotations))
    return Predicted("m", "m.csv", annotations.names[order], classes[order], rng.random(len(annotations))[order])


def test_annotations_are_those_of_the_publication(top: Annotations) -> None:
    assert len(top) == 46_110
    assert tuple(top.flags.sum(axis=0)) == TOP
    assert (top.flags.sum(axis=1) > 1).sum() == 0 and (~top.flags.any(axis=1)).sum() == 2
    assert tuple(load_annotations("multi").flags.sum(axis=0)) == MULTI
    assert len(load_annotations(include_prototypes=True)) == 48_868
    assert len(load_annotations(partition="train")) == 11_233
    assert set(np.unique(top.metaclasses)) == set(range(len(METACLASSES)))


def test_none_of_the_package_is_imported() -> None:
    code = "import sys; from bob.factors.annotations import *; load_annotations(); print('imagenet_x' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


@pytest.mark.parametrize("model", RATIOS)
def test_published_error_ratios(top: Annotations, model: str) -> None:
    """The published prediction files are not at hand: these are predictions with the whole numbers that the published
    ratios imply, of which there is one for each factor."""
    members = np.array(TOP)
    exact = members * (1 - np.array(RATIOS[model]) * (1 - AVERAGE[model]))
    hits = np.rint(exact).astype(int)
    np.testing.assert_allclose(hits, exact, atol=0.03)  # six digits leave no doubt about which number is meant
    right = np.zeros(len(top), dtype=bool)
    for flag, count in zip(top.flags.T, hits, strict=True):
        right[np.flatnonzero(flag)[:count]] = True
    without = np.flatnonzero(~top.flags.any(axis=1))
    right[without[: round(AVERAGE[model] * len(top)) - hits.sum()]] = True
    predicted = Predicted(model, model, top.names, np.where(right, top.classes, (top.classes + 1) % 1000))
    table = score(predicted, top, resamples=20)
    found = table[table["metaclass"] == "all"].set_index("factor")
    np.testing.assert_allclose(found.loc[list(FACTORS), "error_ratio"], RATIOS[model], atol=1e-6)
    assert found.loc["average", "accuracy"] == pytest.approx(AVERAGE[model], abs=1e-6)


@pytest.mark.parametrize("include_prototypes", [False, True])
@pytest.mark.parametrize("which", ["top", "multi"])
def test_equals_the_published_code(which: str, include_prototypes: bool) -> None:
    aggregate = pytest.importorskip("imagenet_x.aggregate")
    utils = pytest.importorskip("imagenet_x.utils")
    annotations = load_annotations(which, include_prototypes=include_prototypes)  # type: ignore[arg-type]
    made = _random(annotations)
    given = {"file_name": made.names, "predicted_class": made.classes, "predicted_probability": made.confidence}
    theirs = utils.augment_model_predictions(
        utils.load_annotations(which, filter_prototypes=not include_prototypes), {"m": pd.DataFrame(given)}
    )
    columns = {"class": "is_correct", "metaclass": "is_metaclass_correct", "real_class": "is_correct_real"}
    for error_type, column in columns.items():
        table = score(made, annotations, error_type, resamples=10)  # type: ignore[arg-type]
        ours = table[table["metaclass"] == "all"].set_index("factor")
        accuracies = aggregate.compute_factor_accuracies(theirs, list(FACTORS), column)
        np.testing.assert_allclose(ours.loc[accuracies.columns, "accuracy"], accuracies.loc["m"], rtol=1e-12)
        ratios = aggregate.error_ratio(accuracies).loc["m"]
        np.testing.assert_allclose(ours.loc[ratios.index, "error_ratio"], ratios, rtol=1e-12)
        errors = aggregate.compute_factor_calibration_errors(theirs, list(FACTORS), column).loc["m"]
        named = [*FACTORS, "average"]
        np.testing.assert_allclose(ours.loc[named, "ece"], errors[named], rtol=1e-9)
        worst = aggregate.worst_k_class_acc(theirs, 100, column)["m"]
        assert ours.loc["worst_100_classes", "accuracy"] == pytest.approx(worst, abs=2e-3)  # they break ties at random
        inner = aggregate.compute_factor_metaclass_accuracies(theirs, list(FACTORS), column, list(METACLASSES)).loc["m"]
        for metaclass, row in inner.iterrows():
            own = table[table["metaclass"] == metaclass].set_index("factor").loc[list(FACTORS)]
            expected = row[list(FACTORS)].fillna(0)  # a factor that is never right has no row in their table of hits
            np.testing.assert_allclose(own["accuracy"].fillna(0), expected.to_numpy(float), rtol=1e-12)


def test_prevalence_shift_equals_the_published_code(top: Annotations, tmp_path: Path) -> None:
    prevalence = pytest.importorskip("imagenet_x.prevalence")
    made = _random(top)
    given = {"file_name": made.names, "predicted_class": made.classes, "predicted_probability": made.confidence}
    every = pd.read_csv(annotations_module._folder() / "filename_label.csv")[["file_name"]]  # their code wants them all
    every.merge(pd.DataFrame(given), how="left").fillna(0).to_csv(tmp_path / "m.csv", index=False)
    theirs = prevalence.Prevalence(models_dir=str(tmp_path)).misclassification_shifts_df.set_index("factor")["shift"]
    np.testing.assert_allclose(sums_of(correctness(made, top)).shifts, theirs[list(FACTORS)], rtol=1e-9)


def test_what_counts_as_right(top: Annotations) -> None:
    assert top.real is not None
    other = np.where(top.real[:, 0] >= 0, top.real[:, 0], top.classes)
    for error_type in ("class", "metaclass"):
        assert top.right(top.classes, error_type).all()  # type: ignore[arg-type]
    np.testing.assert_array_equal(top.right(other, "real_class"), top.real[:, 0] >= 0)
    with pytest.raises(UserError, match="validation images only"):
        load_annotations(partition="train").right(np.zeros(11_233, dtype=np.int64), "real_class")


def test_package_missing_or_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(metadata, "distribution", absent)
        with pytest.raises(UserError, match=r"not installed\. Run `pip install imagenet-x==0\.0\.7`\."):
            load_annotations()
    monkeypatch.setattr(annotations_module, "_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_annotations()
    (tmp_path / "imagenet_x_val_top_factor.jsonl").write_text('{"file_name": "x"}')
    with pytest.raises(UserError, match="cannot be read"):
        load_annotations()
