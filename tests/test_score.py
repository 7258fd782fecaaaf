"""`bob score imagenet-x`: what it prints and writes of files, folders and runs, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.factors.annotations import FACTORS, METACLASSES, Annotations, load_annotations
from bob.results.predictions import Predictions
from bob.results.record import Record
from bob.score import app

Run = Callable[..., str]


@pytest.fixture(scope="module")
def every() -> Annotations:
    return load_annotations(include_prototypes=True)


@pytest.fixture
def run(tmp_path: Path, run_command: Run) -> Run:
    """Run the command, and give what it prints."""
    return partial(run_command, app, "imagenet-x", "--results", tmp_path, "--resamples", 20)


@pytest.fixture
def write(tmp_path: Path, every: Annotations) -> Callable[..., Path]:
    """Write the predictions of a model that is right as often as asked."""

    def make(name: str, share: float, seed: int = 0, probabilities: bool = True) -> Path:
        rng = np.random.default_rng(seed)
        right = rng.random(len(every)) < share
        table = pd.DataFrame({"file_name": every.names, "predicted_class": every.classes})
        table.loc[~right, "predicted_class"] = (every.classes[~right] + 500) % 1000
        if probabilities:
            table["predicted_probability"] = rng.random(len(every)).round(3)
        path = tmp_path / f"{name}.csv"
        table.to_csv(path, index=False)
        return path

    return make


def test_one_file_to_a_table(run: Run, write: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out" / "table.csv"
    said = run(write("DINO", 0.8), "--out", out)
    assert "ImageNet-X, val, top factor, error by class, 46,110 images without prototypes:" in said
    assert f"Written: {out}" in said
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["pose"][1] == "15,064" and rows["multiple_objects"][1] == "40"
    table = pd.read_csv(out)
    assert set(table["metaclass"]) == {"all", *METACLASSES}
    overall = table[table["metaclass"] == "all"].set_index("factor")
    assert list(overall.index) == [*FACTORS, "average", "worst_factor", "worst_100_classes"]
    assert overall.loc["average", "accuracy"] == pytest.approx(0.8, abs=0.01)
    inside = overall.loc[list(FACTORS)]
    assert (inside["error_ratio_low"] < inside["error_ratio_high"]).all()
    within = table[(table["metaclass"] != "all") & (table["factor"] == "pose")]
    assert within["right"].sum() == overall.loc["pose", "right"]


@pytest.mark.parametrize("which", ["top", "multi"])
@pytest.mark.parametrize("error_type", ["class", "metaclass", "real_class"])
@pytest.mark.parametrize("prototypes", [[], ["--include-prototypes"]])
def test_every_combination_runs(
    run: Run, write: Callable[..., Path], which: str, error_type: str, prototypes: list[str]
) -> None:
    path = write("m", 0.7, probabilities=False)
    said = run(path, "--which-factor", which, "--error-type", error_type, *prototypes)
    count = "48,868 images with prototypes" if prototypes else "46,110 images without prototypes"
    assert f"{which} factor, error by {error_type}, {count}:" in said


def test_several_models(run: Run, write: Callable[..., Path], tmp_path: Path) -> None:
    for number, share in enumerate((0.6, 0.7, 0.8, 0.9)):
        write(f"m{number}", share, number)
    picture = tmp_path / "chart.svg"
    said = run(tmp_path, "--out", picture)
    shown = {line.split()[0]: line.split()[1] for line in said.splitlines() if line[:1] == "m"}
    assert list(shown) == ["model", "m0", "m1", "m2", "m3"]
    assert float(shown["m3"]) == pytest.approx(0.9, abs=0.01)
    assert picture.read_text(encoding="utf-8").startswith("<?xml")


def test_a_run(
    run: Run, write: Callable[..., Path], make_record: Callable[..., Record], every: Annotations, tmp_path: Path
) -> None:
    table = pd.read_csv(write("file", 0.8))
    names = [f"val/n{label:08d}/{name}" for name, label in zip(every.names, every.classes, strict=True)]
    classes = [str(label) for label in range(1000)]
    record = make_record("dino", 0.8, task="imagenet")
    predicted = table["predicted_class"].to_numpy(np.int64)
    right, half = predicted == every.classes, np.full(len(every), 0.5)
    record.write(
        tmp_path,
        Predictions(names, every.classes, predicted, half, np.where(right, 0.5, 0.1), 1 - right, tuple(classes)),
    )
    said = run(record.run_id, tmp_path / "file.csv")
    cells = next(line.split() for line in said.splitlines() if line.startswith("texture"))
    assert "dino linear accuracy" in said and "file accuracy" in said
    assert cells[2] == cells[6]  # the accuracies of the same predictions


class TestRefuses:
    def test_a_run_on_something_else(self, run: Run, make_record: Callable[..., Record], tmp_path: Path) -> None:
        record = make_record("dino", 0.8)
        record.write(tmp_path, Predictions.from_probabilities(["a"], [0], [[0.9, 0.1]], ["x", "y"]))
        with pytest.raises(UserError, match="nothing is said of ImageNet's 1,000 classes"):
            run(record.run_id)

    def test_more_models_than_colours(self, run: Run, write: Callable[..., Path], tmp_path: Path) -> None:
        for number in range(7):
            write(f"m{number}", 0.8)
        with pytest.raises(UserError, match="at most 6 models, but there are 7"):
            run(tmp_path, "--out", tmp_path / "chart.png")

    def test_unknown_format(self, run: Run, write: Callable[..., Path]) -> None:
        with pytest.raises(UserError, match=r"Give a name that ends in \.csv, \.png or \.svg"):
            run(write("m", 0.8), "--out", "table.xlsx")

    def test_real_labels_of_train(self, run: Run, tmp_path: Path) -> None:
        train = load_annotations(partition="train")
        table = pd.DataFrame({"file_name": train.names, "predicted_class": train.classes})
        table.to_csv(tmp_path / "m.csv", index=False)
        assert "train, top factor" in run(tmp_path / "m.csv", "--partition", "train")
        with pytest.raises(UserError, match="validation images only"):
            run(tmp_path / "m.csv", "--partition", "train", "--error-type", "real_class")
