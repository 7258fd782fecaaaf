"""Scenes say exactly what they show: instance maps, boxes and areas agree, and objects really hide each other."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bob.data import scenes
from bob.data.scenes import MIN_VISIBLE_AREA, MIN_VISIBLE_FRACTION, Scenes, draw, load_scenes
from bob.data.silhouettes import CLASSES, Pose, coverage
from bob.errors import UserError

BOX = ["x0", "y0", "x1", "y1"]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scenes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOB_HOME", str(tmp_path_factory.mktemp("home")))
        yield load_scenes()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOB_HOME", str(tmp_path))
    monkeypatch.setattr(scenes, "SPLITS", {"train": 6, "val": 4, "test": 4})
    return tmp_path


@pytest.fixture(scope="module")
def objects(splits: dict[str, Scenes]) -> pd.DataFrame:
    return pd.concat([part.objects for part in splits.values()])


@pytest.mark.parametrize("split, count", [("train", 400), ("val", 100), ("test", 200)])
def test_splits_are_complete(splits: dict[str, Scenes], split: str, count: int) -> None:
    part = splits[split]
    assert len(part) == count and part.classes == CLASSES
    assert part.images.shape == (count, 160, 192, 3) and part.images.dtype == np.uint8
    assert part.instances.shape == (count, 160, 192) and part.instances.dtype == np.uint8
    assert part.names[7] == f"scenes/{split}/00007"
    assert not part.objects.isna().any(axis=None)


def test_read_gives_a_tensor_of_the_callers_own(splits: dict[str, Scenes]) -> None:
    image = splits["val"].read(2)
    assert image.shape == (3, 160, 192) and image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), splits["val"].images[2])
    image.zero_()
    assert splits["val"].read(2).any()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_table_agrees_with_the_instance_maps(splits: dict[str, Scenes], split: str) -> None:
    part = splits[split]
    for index in range(len(part)):
        own, instances = part.objects_of(index), part.instances[index]
        assert own["instance"].tolist() == list(range(1, len(own) + 1)) == np.unique(instances)[1:].tolist()
        for k, area, *box in own[["instance", "visible_area", *BOX]].itertuples(index=False):
            y, x = np.nonzero(instances == k)
            assert area == len(y)
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_later_objects_hide_earlier_ones(splits: dict[str, Scenes]) -> None:
    part = splits["val"]
    for index in range(30):
        own, expected = part.objects_of(index), np.zeros((160, 192), dtype=np.uint8)
        for k, row in enumerate(own.to_dict("records"), start=1):
            pose = Pose(**{name: row[name] for name in Pose.__dataclass_fields__})
            whole = coverage(pose.place(row["class"]), 160, 192) >= 0.5
            assert row["full_area"] == whole.sum()
            expected[whole] = k
        assert np.array_equal(part.instances[index], expected)


def test_scenes_have_two_to_six_objects_of_every_class(objects: pd.DataFrame, splits: dict[str, Scenes]) -> None:
    counts = splits["train"].objects.groupby("image").size()
    assert sorted(counts.unique()) == [2, 3, 4, 5, 6]
    assert objects["label"].value_counts(normalize=True).between(0.07, 0.13).all()
    assert [CLASSES[label] for label in objects["label"]] == objects["class"].tolist()


def test_occlusion_really_happens_and_hides_nothing_wholly(objects: pd.DataFrame) -> None:
    assert 0.2 < (objects["occlusion"] > 0.05).mean() < 0.7
    assert (objects["occlusion"] == 1 - objects["visible_area"] / objects["full_area"]).all()
    assert objects["visible_area"].min() >= MIN_VISIBLE_AREA
    assert (objects["visible_area"] / objects["full_area"]).min() >= MIN_VISIBLE_FRACTION


def test_semantic_map_gives_each_pixel_its_objects_class(splits: dict[str, Scenes]) -> None:
    part = splits["test"]
    for index in range(20):
        semantic, instances = part.semantic(index), part.instances[index]
        assert semantic.dtype == np.uint8 and np.array_equal(semantic == 0, instances == 0)
        for k, label in part.objects_of(index)[["instance", "label"]].itertuples(index=False):
            assert (semantic[instances == k] == label + 1).all()


@pytest.mark.parametrize("split, index", [("train", 399), ("val", 0), ("test", 11)])
def test_a_scene_drawn_alone_equals_the_one_in_the_set(splits: dict[str, Scenes], split: str, index: int) -> None:
    alone, part = draw(0, split, index), splits[split]
    assert np.array_equal(part.images[index], alone.image)
    assert np.array_equal(part.instances[index], alone.instances)
    expected = pd.DataFrame(alone.rows).drop(columns="split")
    pd.testing.assert_frame_equal(part.objects_of(index).reset_index(drop=True), expected)


def test_two_renders_are_the_same_and_another_seed_is_not(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other_seed = load_scenes(0)["test"], load_scenes(1)["test"]
    monkeypatch.setenv("BOB_HOME", str(small / "other"))
    second = load_scenes(0)["test"]
    assert first.folder != second.folder
    assert (first.folder / "meta.json").read_bytes() == (second.folder / "meta.json").read_bytes()
    assert first.fingerprint() == second.fingerprint() != other_seed.fingerprint()


def test_damaged_scenes_are_drawn_again(small: Path) -> None:
    part = load_scenes()["test"]
    whole, path = part.fingerprint(), part.folder / "instances.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    again = load_scenes()["test"]
    assert again.fingerprint() == whole and again.instances.max() <= 6


def test_pickling_carries_no_pixels(splits: dict[str, Scenes]) -> None:
    pickled = pickle.dumps(splits["test"])
    again = pickle.loads(pickled)
    assert len(pickled) < 1000
    assert isinstance(again.images, np.memmap) and isinstance(again.instances, np.memmap)
    assert again.fingerprint() == splits["test"].fingerprint()


def test_a_bad_seed_is_refused(small: Path) -> None:
    with pytest.raises(UserError, match="Expected `seed` to be a non-negative integer, but got -3"):
        load_scenes(-3)
