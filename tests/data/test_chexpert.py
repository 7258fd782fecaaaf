"""CheXpert is read as BoB read it: frontal views, five findings, uncertain ones by rule, val by patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bob.data.chexpert import load_chexpert
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.task_cards import DataSpec

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def line(path: str, findings: dict[str, str] | None = None, view: str = "Frontal") -> str:
    values = {
        "Path": f"CheXpert-v1.0-small/{path}",
        "Sex": "Female",
        "Age": "68",
        "Frontal/Lateral": view,
        "AP/PA": "AP",
    }
    return ",".join({**values, **(findings or {})}.get(name, "") for name in HEADER.split(","))


@pytest.fixture
def write(tmp_path, write_images):
    """Write the given lines of train.csv and valid.csv, and the images they name."""

    def make(train: list[str], valid: list[str]) -> Path:
        folder = tmp_path / "CheXpert-v1.0-small"
        paths = [row.partition(",")[0].partition("/")[2] for row in (*train, *valid)]
        write_images(folder, *paths)
        (folder / "train.csv").write_text("\n".join([HEADER, *train]) + "\n")
        (folder / "valid.csv").write_text("\n".join([HEADER, *valid]) + "\n")
        return folder

    return make


ALL_FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
VALID = [line("valid/patient64541/study1/view1_frontal.jpg", dict.fromkeys(ALL_FIVE, "1.0"))]


def test_labels(write) -> None:
    uncertain = dict.fromkeys(ALL_FIVE, "-1.0")
    folder = write(
        [
            line("train/patient00001/study1/view1_frontal.jpg", {"Cardiomegaly": "1.0", "Edema": "0.0"}),
            line("train/patient00002/study2/view1_frontal.jpg", uncertain),
            line("train/patient00002/study2/view2_lateral.jpg", {"Edema": "1.0"}, "Lateral"),
        ],
        VALID,
    )
    classes, pools = load_chexpert(folder)
    assert classes == ALL_FIVE
    assert pools["train"].labels.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 1, 0]]
    assert pools["val"].labels.tolist() == [[1, 1, 1, 1, 1]]
    assert pools["train"].names[1] == "train/patient00002/study2/view1_frontal.jpg"
    assert pools["train"].read(1).shape == (3, 6, 8)
    assert pools["train"].subjects.tolist() == [1, 2]


def test_val_is_cut_by_patient(write, tmp_path) -> None:
    rng = np.random.default_rng(0)
    train = [
        line(f"train/patient{p:05d}/study{s}/view1_frontal.jpg", {ALL_FIVE[int(rng.integers(5))]: "1.0"})
        for p in range(40)
        for s in range(1 + p % 4)
    ]
    write(train, VALID)
    spec = DataSpec(source="chexpert:CheXpert-v1.0-small", classes=5, expect={"test": 1})
    dataset = load_dataset(spec, tmp_path, "multilabel")
    patients = {name: {path.split("/")[1] for path in split.names} for name, split in dataset.splits.items()}
    assert not patients["train"] & patients["val"]
    assert len(patients["train"]) + len(patients["val"]) == 40
    assert 20 <= len(dataset.splits["val"]) <= 23 and len(dataset.splits["train"]) + len(dataset.splits["val"]) == 100
    assert dataset.facts["splits"] == (
        "train: the source's own; test: the source's val; val: 20% of train, at random by subject"
    )
    assert (dataset.class_counts()["train"] > 0).all()


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_chexpert(folder)
    assert "\n" not in str(caught.value) and "train.csv, valid.csv" in str(caught.value)
    return str(caught.value)


def test_errors(write, tmp_path) -> None:
    assert f"There is no folder {tmp_path / 'x'}" in refused(tmp_path / "x")
    image = line("train/patient00001/study1/view1_frontal.jpg")
    folder = write([image], VALID)
    (folder / "valid.csv").unlink()
    assert "valid.csv" in refused(folder)
    write([line("train/patient00001/study1/view1_frontal.jpg", {"Edema": "2"})], VALID)
    assert "a value other than 1, 0, -1 and none in the column 'Edema'" in refused(folder)
    (folder / "train.csv").write_text("Path,Edema\nx,1\n")
    assert "train.csv has no column 'Frontal/Lateral'" in refused(folder)
    write([image], VALID)
    (folder / "train/patient00001/study1/view1_frontal.jpg").unlink()
    assert "names train/patient00001/study1/view1_frontal.jpg, which is not there" in refused(folder)
