"""Hub data sets are opened by the hub's own library; columns are found by type, and what is amiss is said in a line."""

from __future__ import annotations

import io
import pickle
import sys

import numpy as np
import pytest
import torch

from bob.data.hf import load_hf
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.task_cards import DataSpec

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch, bob_home) -> None:
    """Without a network, and with a cache of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def parquet(tmp_path, photograph):
    """Write a repository of parquet files with four images a split, in the layout of the hub."""

    def write(splits=("train", "test"), count: int = 4, labels=None, **columns) -> str:
        features = {"image": datasets.Image(), **(columns or {"label": datasets.ClassLabel(names=["ant", "bee"])})}
        (tmp_path / "repo/data").mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(splits):
            rows = {"image": [image(photograph, 10 * number + n) for n in range(count)]}
            rows |= {name: labels or [n % 2 for n in range(count)] for name in features if name != "image"}
            table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
            table.to_parquet(tmp_path / f"repo/data/{split}-00000-of-00001.parquet")
        return str(tmp_path / "repo")

    return write


def image(photograph, seed: int) -> dict:
    file = io.BytesIO()
    photograph(seed, (8, 6)).save(file, "png")
    return {"bytes": file.getvalue(), "path": f"photo_{seed}.png"}


def opened(path: str, *origins: str, **keys):
    return load_hf(path, DataSpec(source=f"hf:{path}", **keys), origins)


def refused(path: str, *origins: str, **keys) -> str:
    with pytest.raises(UserError) as caught:
        opened(path, *origins, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parquet(parquet, photograph) -> None:
    path = parquet()
    classes, pools = opened(path)
    assert classes == ("ant", "bee")
    assert {name: len(pool) for name, pool in pools.items()} == {"train": 4, "test": 4}
    assert pools["train"].labels.tolist() == [0, 1, 0, 1] and pools["train"].labels.dtype == np.int64
    assert pools["test"].names[1] == f"{path}/test/0000001/photo_11.png"
    expected = torch.from_numpy(np.array(photograph(11, (8, 6)))).permute(2, 0, 1)
    assert torch.equal(pools["test"].read(1), expected)
    assert torch.equal(pickle.loads(pickle.dumps(pools["test"])).read(1), expected)


def test_through_a_task(parquet, tmp_path) -> None:
    path = parquet(count=10)
    dataset = load_dataset(DataSpec(source=f"hf:{path}", classes=2, expect={"train": 8, "val": 2, "test": 10}))
    assert dataset.facts["splits"] == "train: the source's own; test: the source's own; val: 20% of train, stratified"
    sliced = {"train": "train[:80%]", "val": "train[80%:]", "test": "test"}
    dataset = load_dataset(DataSpec(source=f"hf:{path}", splits=sliced, expect={"train": 8, "val": 2}))
    assert dataset.splits["val"].names[0].endswith("/photo_8.png")
    (tmp_path / "list.txt").write_text("photo_0.png\nphoto_1.png\nphoto_2.png\nphoto_5.png\n")
    spec = DataSpec(source=f"hf:{path}", subset=str(tmp_path / "list.txt"))
    assert len(load_dataset(spec).splits["train"]) == 2


def test_splits_of_other_names(parquet) -> None:
    assert list(opened(parquet(("train", "validation")))[1]) == ["train", "val"]


def test_a_lone_split(parquet) -> None:
    assert list(opened(parquet(("full",)))[1]) == ["all"]


def test_the_fingerprint_is_of_the_content_and_remembered(parquet, monkeypatch) -> None:
    path = parquet()
    first = opened(path)[1]
    prints = {name: pool.fingerprint() for name, pool in first.items()}
    assert prints["train"] != prints["test"]
    halves = opened(path, "train[:50%]", "train[50%:]")[1]
    assert len({*prints.values(), *(pool.fingerprint() for pool in halves.values())}) == 4
    again = opened(path)[1]
    monkeypatch.setattr(type(again["train"]), "_content", None)
    assert {name: pool.fingerprint() for name, pool in again.items()} == prints


def test_image_folders_are_read_as_files(tmp_path, write_images) -> None:
    root = write_images(
        tmp_path / "f", *(f"{s}/{c}/{n}.png" for s in ("train", "test") for c in "ab" for n in range(3))
    )
    classes, pools = opened(str(root))
    assert classes == ("a", "b")
    assert pools["train"].names == [f"{c}/{n}.png" for c in "ab" for n in range(3)]
    assert pools["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    before = pools["train"].fingerprint()
    (root / "train/a/0.png").write_bytes((root / "train/b/0.png").read_bytes())
    assert opened(str(root))[1]["train"].fingerprint() != before


def test_several_labels(parquet) -> None:
    tags = [[0], [1, 0], [], [1]]
    path = parquet(labels=tags, tags=datasets.Sequence(datasets.ClassLabel(names=["x", "y"])))
    classes, pools = opened(path)
    assert classes == ("x", "y")
    assert pools["test"].labels.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]


def test_labels_of_plain_types(parquet) -> None:
    path = parquet(labels=["b", "a", "c", "a"], kind=datasets.Value("string"))
    assert "no ClassLabel column, only image, kind" in refused(path)
    classes, pools = opened(path, label_column="kind")
    assert classes == ("a", "b", "c") and pools["train"].labels.tolist() == [1, 0, 2, 0]


def test_which_column(parquet) -> None:
    names = {"fine": datasets.ClassLabel(names=["p", "q"]), "coarse": datasets.ClassLabel(names=["r", "s"])}
    path = parquet(**names)
    assert "the ClassLabel columns fine, coarse. Say which is meant: label_column" in refused(path)
    assert opened(path, label_column="coarse")[0] == ("r", "s")
    assert "no column 'corse'. Did you mean: coarse?" in refused(path, label_column="corse")
    assert "The column 'fine' of" in refused(path, label_column="coarse", image_column="fine")


def test_hidden_labels(parquet) -> None:
    message = refused(parquet(labels=[0, 1, -1, 1]))
    assert "has the label -1, which is no class" in message and "'splits'" in message


def test_values_that_are_no_classes(parquet) -> None:
    path = parquet(labels=[0.5, 1.5, 2.5, 3.5], score=datasets.Value("float32"))
    assert "holds no classes, but 0.5" in refused(path, label_column="score")


def test_a_split_that_is_not_there(parquet) -> None:
    path = parquet()
    assert "has no split 'val', only train, test" in refused(path, "train", "val")
    assert "cannot be opened" in refused(path, "nope[:10%]")


def test_a_broken_image(parquet, monkeypatch) -> None:
    pools = opened(parquet())[1]
    monkeypatch.setattr(type(pools["train"]), "_content", lambda self, index: b"no image")
    with pytest.raises(UserError, match=r"Cannot read image 2 of .*/train"):
        pools["train"].read(2)


@pytest.mark.parametrize("keys", [{}, {"config": "small"}, {"revision": "v1"}])
def test_what_cannot_be_had(keys, capfd) -> None:
    message = refused("nobody/nothing", **keys)
    assert "The hub's data set 'nobody/nothing'" in message and "cannot be opened" in message
    assert all(value in message for value in keys.values())
    assert "$HF_HOME" in message
    assert capfd.readouterr().err == ""


def test_a_config_that_is_not_there(parquet) -> None:
    assert "config 'tiny' cannot be opened" in refused(parquet(), config="tiny")


def test_without_the_library(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"datasets is not installed.*pip install"):
        opened("nobody/nothing")
