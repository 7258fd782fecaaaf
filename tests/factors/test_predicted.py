"""Every mistake in what is to be scored is one sentence that names it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.factors.annotations import Annotations, load_annotations
from bob.factors.predicted import Predicted, positions, read_all, read_csv


@pytest.fixture(scope="module")
def top() -> Annotations:
    return load_annotations()


def _table(**columns: object) -> pd.DataFrame:
    given = {
        "file_name": ["ILSVRC2012_val_00000001.JPEG", "val/n01440764/ILSVRC2012_val_00000293.JPEG"],
        "predicted_class": [65, 0],
        "predicted_probability": [0.5, 1.0],
    }
    return pd.DataFrame(given | columns)


def _write(path: Path, **columns: object) -> Path:
    _table(**columns).to_csv(path, index=False)
    return path


def test_csv(tmp_path: Path) -> None:
    made = read_csv(_write(tmp_path / "DINO.csv"))
    assert made.model == "DINO"
    assert made.names.tolist() == ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000293.JPEG"]
    assert made.classes.tolist() == [65, 0]
    assert made.confidence is not None and made.confidence.tolist() == [0.5, 1.0]
    _table().drop(columns="predicted_probability").to_csv(tmp_path / "bare.csv", index=False)
    assert read_csv(tmp_path / "bare.csv").confidence is None


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"predicted_class": [65, 1000]}, "the predicted_class 1000 in row 3"),
        ({"predicted_class": [-1, 0]}, "the predicted_class -1 in row 2"),
        ({"predicted_class": [65, 0.5]}, "the predicted_class 0.5 in row 3"),
        ({"predicted_class": [65, None]}, "the predicted_class nan in row 3"),
        ({"predicted_class": ["tench", 0]}, "the predicted_class tench in row 2"),
        ({"predicted_probability": [0.5, 1.5]}, "the predicted_probability 1.5 in row 3"),
        ({"predicted_probability": [None, 1]}, "the predicted_probability nan in row 2"),
        ({"file_name": ["a.JPEG", None]}, "no file_name in row 3"),
        ({"file_name": ["x/a.JPEG", "y/a.JPEG"]}, "has a.JPEG more than once"),
    ],
)
def test_bad_rows(tmp_path: Path, columns: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_csv(_write(tmp_path / "m.csv", **columns))


def test_bad_files(tmp_path: Path) -> None:
    def refused(name: str, content: bytes, said: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=said):
            read_csv(tmp_path / name)

    refused("a.csv", b"file_name,label\nx,1\n", "has no column predicted_class")
    refused("b.csv", b"name,label\nx,1\n", "has no column file_name and predicted_class")
    refused("c.csv", b"file_name,predicted_class\n", "has no rows")
    refused("d.csv", b"", "Cannot read")
    refused("e.csv", b"\xff\xfe\x00\x81", "Cannot read")
    refused("f.txt", b"file_name,predicted_class\nx,1\n", "is no CSV file")
    refused("g.pickle", pickle.dumps({"model": "m", "logits": np.zeros((2, 2))}), "could run code")


class TestImages:
    def test_all_there_in_any_order(self, top: Annotations) -> None:
        order = np.random.default_rng(0).permutation(len(top))
        found = positions(Predicted("m", "m.csv", top.names[order], top.classes[order]), top)
        np.testing.assert_array_equal(top.names[order][found], top.names)

    def test_half_missing(self, top: Annotations) -> None:
        with pytest.raises(UserError, match=r"m\.csv lacks 23,055 of ImageNet-X's 46,110 images, the first of them "):
            positions(Predicted("m", "m.csv", top.names[::2], top.classes[::2]), top)

    def test_no_overlap(self, top: Annotations) -> None:
        names = load_annotations(partition="train").names
        with pytest.raises(UserError, match=r"None of the 11,233 images in m\.csv .* --partition"):
            positions(Predicted("m", "m.csv", names, np.zeros(len(names), dtype=np.int64)), top)

    @pytest.mark.parametrize("name", ["ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000.JPEG", "cat.jpg"])
    def test_unknown_names(self, top: Annotations, name: str) -> None:
        names, classes = np.append(top.names, [name, name + "x"]), np.append(top.classes, [0, 0])
        with pytest.raises(
            UserError, match=f"2 images in m.csv are none of ImageNet's 'val', the first of them {name}"
        ):
            positions(Predicted("m", "m.csv", names, classes), top)

    def test_train(self) -> None:
        train = load_annotations(partition="train")
        names, classes = np.append(train.names, ["n01440764_1.JPEG"]), np.append(train.classes, [0])
        assert len(positions(Predicted("m", "m.csv", names, classes), train)) == 11_233
        with pytest.raises(UserError, match=r"1 images in m\.csv are none of ImageNet's 'train'"):
            positions(Predicted("m", "m.csv", np.append(names, ["x"]), np.append(classes, [0])), train)

    def test_a_run_with_other_labels(self, top: Annotations) -> None:
        with pytest.raises(UserError, match="not in the order of ImageNet's"):
            positions(Predicted("m", "the run 1", top.names, top.classes, None, top.classes[::-1]), top)


class TestInputs:
    def test_folder_in_order_without_hidden_files(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv"):
            _write(tmp_path / name)
        (tmp_path / ".DS_Store").write_bytes(b"")
        assert [made.model for made in read_all([str(tmp_path)], tmp_path)] == ["a", "b"]

    def test_folder_with_something_else(self, tmp_path: Path) -> None:
        _write(tmp_path / "a.csv")
        for make in (lambda path: path.write_bytes(b""), lambda path: (path.unlink(), path.mkdir())):
            make(tmp_path / "b.npz")
            with pytest.raises(UserError, match=r"b\.npz is no CSV file"):
                read_all([str(tmp_path)], tmp_path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="There is nothing in"):
            read_all([str(tmp_path / "empty")], tmp_path)
        with pytest.raises(UserError, match=r"There is no .*x\.csv"):
            read_all([str(tmp_path / "x.csv")], tmp_path)
        with pytest.raises(UserError, match="There is no run 'abc'"):
            read_all(["abc"], tmp_path)

    def test_twice_the_same_name(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        paths = [_write(tmp_path / "m.csv"), _write(tmp_path / "other" / "m.csv")]
        with pytest.raises(UserError, match="Two of the inputs are called 'm'"):
            read_all([str(path) for path in paths], tmp_path)
