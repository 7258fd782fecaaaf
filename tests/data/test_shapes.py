"""`shapes` is exact, balanced, the same for everyone, and safe in the cache whatever happens to it."""

from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from bob.data import made_folder, rendered, shapes
from bob.data.base import Dataset
from bob.data.rendered import Recipe, ensure_rendered
from bob.data.shapes import ShapesImages, draw, load_shapes
from bob.data.silhouettes import CLASSES, PHOTOS, Pose, outline
from bob.errors import UserError

SMALL = {"train": 20, "val": 10, "test": 10}
MEASURED = ["contrast", "fill_pattern", "background_clutter"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOB_HOME", str(tmp_path_factory.mktemp("home")))
        yield load_shapes()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def small(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shapes, "SPLITS", SMALL)
    return home


def images_of(dataset: Dataset, split: str) -> ShapesImages:
    images = dataset.splits[split].images
    assert isinstance(images, ShapesImages)
    return images


def poses(images: ShapesImages) -> list[Pose]:
    return [Pose(*row) for row in images.factors[list(Pose.__dataclass_fields__)].itertuples(index=False)]


def pixel_centres_inside(polygon: np.ndarray, size: int) -> np.ndarray:
    """Even-odd rule: a point is inside where a ray to the right crosses the outline an odd number of times."""
    y, x = np.mgrid[:size, :size] + 0.5
    inside = np.zeros((size, size), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def twice_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def test_groups_are_the_photograph_behind(dataset: Dataset) -> None:
    assert dataset.groups == PHOTOS
    for name, split in dataset.splits.items():
        photos = images_of(dataset, name).factors["background_photo"]
        assert split.groups is not None and [PHOTOS[group] for group in split.groups] == photos.tolist()
        assert np.bincount(split.groups).min() > len(split) / 3


@pytest.mark.parametrize("split, count", [("train", 800), ("val", 200), ("test", 600)])
def test_splits_are_balanced_and_complete(dataset: Dataset, split: str, count: int) -> None:
    part = dataset.splits[split]
    assert len(part) == count and len(part.images) == count
    assert np.bincount(part.labels, minlength=10).tolist() == [count // 10] * 10
    assert part.names[12] == f"shapes/{split}/00012"
    assert part.labels.dtype == np.int64 and part.indices.dtype == np.int64


def test_dataset_says_where_it_comes_from(dataset: Dataset) -> None:
    assert dataset.source == "shapes"
    assert dataset.classes == CLASSES and len(CLASSES) == 10
    assert dataset.facts == {"splits": "generated", "seed": 0, "version": shapes.VERSION}


def test_read_gives_a_tensor_of_the_callers_own(dataset: Dataset) -> None:
    images = images_of(dataset, "test")
    image = images.read(3)
    assert image.shape == (3, 96, 96) and image.dtype == torch.uint8
    kept = image.clone()
    image.zero_()
    assert torch.equal(images.read(3), kept)


@pytest.mark.parametrize("split, index", [("train", 0), ("train", 799), ("val", 7), ("test", 599)])
def test_an_image_drawn_alone_equals_the_one_in_the_set(dataset: Dataset, split: str, index: int) -> None:
    alone, images = draw(0, split, index), images_of(dataset, split)
    assert np.array_equal(images.read(index).permute(1, 2, 0).numpy(), alone.image)
    assert np.array_equal(images.masks[index], alone.mask)
    assert images.factors.iloc[index].to_dict() == {str(name): alone.row[str(name)] for name in images.factors}
    assert images.labels[index] == alone.row["label"]


def test_two_renders_are_the_same(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = images_of(load_shapes(), "test")
    monkeypatch.setenv("BOB_HOME", str(small / "other"))
    second = images_of(load_shapes(), "test")
    assert first.folder != second.folder
    assert (first.folder / "meta.json").read_bytes() == (second.folder / "meta.json").read_bytes()
    pd.testing.assert_frame_equal(first.factors, second.factors)


def test_seed_and_split_change_the_fingerprint(small: Path) -> None:
    parts = [images_of(load_shapes(seed), split) for seed in (0, 1) for split in ("val", "test")]
    assert len({part.fingerprint() for part in parts}) == 4
    assert parts[0].fingerprint() == images_of(load_shapes(0), "val").fingerprint()


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_bad_seed_is_refused(home: Path, seed: object) -> None:
    with pytest.raises(UserError, match="Expected `seed` to be a non-negative integer, but got"):
        load_shapes(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_boxes_are_the_extent_of_the_masks(dataset: Dataset, split: str) -> None:
    images = images_of(dataset, split)
    assert images.masks.shape == (len(images), 96, 96) and images.boxes.dtype == np.int64
    assert set(np.unique(images.masks)) == {0, 1}
    for mask, box in zip(images.masks, images.boxes, strict=True):
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_objects_lie_inside_the_image(dataset: Dataset) -> None:
    for split in dataset.splits:
        images = images_of(dataset, split)
        for pose, label in zip(poses(images), images.labels, strict=True):
            polygon = pose.place(CLASSES[label])
            assert polygon.min() >= -1e-9 and polygon.max() <= 96 + 1e-9


def test_masks_are_the_pixels_of_the_polygon(dataset: Dataset) -> None:
    images = images_of(dataset, "val")
    for index, pose in enumerate(poses(images)[:50]):
        polygon, mask = pose.place(CLASSES[images.labels[index]]), images.masks[index].astype(bool)
        area = abs(twice_area(polygon)) / 2
        assert area > 0
        assert mask.sum() == pytest.approx(area, rel=0.05)
        assert (mask ^ pixel_centres_inside(polygon, 96)).sum() < 0.08 * area


@pytest.mark.parametrize("name", CLASSES)
def test_outlines_are_normed(name: str) -> None:
    points = outline(name)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    assert points.min(axis=0) == pytest.approx(-points.max(axis=0))
    assert abs(twice_area(points)) / 2 > 0.5


def test_factors_are_complete(dataset: Dataset) -> None:
    factors = images_of(dataset, "train").factors
    expected = {"angle", "scale", "stretch", "centre_x", "centre_y", "brightness", "noise", *MEASURED}
    expected |= {
        f"{role}_{factor}"
        for role in ("fill", "background")
        for factor in ("photo", "x", "y", "size", "red", "green", "blue")
    }
    assert set(factors) == expected
    assert len(factors) == 800 and not factors.isna().any(axis=None)


def test_factors_tell_nothing_of_the_class(dataset: Dataset) -> None:
    images = images_of(dataset, "train")
    for name, values in images.factors.drop(columns=MEASURED).items():
        if pd.api.types.is_numeric_dtype(values):
            p = stats.f_oneway(*(values[images.labels == label] for label in range(10))).pvalue
        else:
            p = stats.chi2_contingency(pd.crosstab(values, images.labels)).pvalue
        assert p > 1e-3, name


def test_pickling_carries_no_pixels(dataset: Dataset) -> None:
    images = images_of(dataset, "test")
    pickled = pickle.dumps(images)
    again = pickle.loads(pickled)
    assert len(pickled) < 1000
    assert isinstance(again.masks, np.memmap) and isinstance(again._images, np.memmap)
    assert torch.equal(again.read(5), images.read(5))
    assert again.fingerprint() == images.fingerprint() and list(again.names) == list(images.names)


def test_a_second_opening_draws_nothing(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_shapes()
    monkeypatch.setattr(shapes, "draw", None)
    load_shapes()


def test_what_a_killed_render_left_does_not_matter(small: Path) -> None:
    left = small / "rendered" / f".shapes-v{shapes.VERSION}-seed0.k1ll3d"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    assert len(load_shapes().splits["test"]) == 10


# The cache itself, on a data set so small that it is drawn in no time.


def tiny(draws: list[int], version: int = 1) -> Recipe:
    def render() -> tuple[dict[str, np.ndarray], pd.DataFrame]:
        draws.append(1)
        return {"images": np.arange(100, dtype=np.uint8)}, pd.DataFrame({"split": ["test"], "label": [3]})

    return Recipe("tiny", version, 0, ("images",), render)


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)


def truncate(folder: Path) -> None:
    (folder / "table.parquet").write_bytes((folder / "table.parquet").read_bytes()[:-1])


def forget_a_file(folder: Path) -> None:
    (folder / "table.parquet").unlink()


def break_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("{")


def age(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "version": 0}))


def become_a_file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("not a folder")


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, forget_a_file, break_meta, age, become_a_file])
def test_a_damaged_folder_is_drawn_again(home: Path, damage: Callable[[Path], None]) -> None:
    draws: list[int] = []
    folder = ensure_rendered(tiny(draws))
    damage(folder)
    assert ensure_rendered(tiny(draws)) == folder
    assert np.array_equal(rendered.open_array(folder, "images", slice(None)), np.arange(100))
    assert rendered.open_table(folder, "test").to_dict("list") == {"label": [3]}
    assert len(draws) == 2
    assert not list(folder.parent.glob(".*"))


def test_damaged_shapes_are_drawn_again(small: Path) -> None:
    images = images_of(load_shapes(), "test")
    whole, folder = images.fingerprint(), images.folder
    flip_a_byte(folder)
    assert images_of(load_shapes(), "test").fingerprint() == whole


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(UserError, match=r"No space left on device.*BOB_HOME"):
        ensure_rendered(tiny([]))
    assert not list((home / "rendered").iterdir())


def test_a_disk_that_never_reads_back_well_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_folder, "_is_intact", lambda folder, identity: False)
    with pytest.raises(UserError, match="reads back damaged"):
        ensure_rendered(tiny([]))


RACE = """
import sys, time
import numpy as np, pandas as pd
from bob.data.rendered import Recipe, content_hash, ensure_rendered, open_array
def render():
    time.sleep(0.5)
    return {"images": np.arange(100, dtype=np.uint8)}, pd.DataFrame({"split": ["test"], "label": [3]})
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
folder = ensure_rendered(Recipe("tiny", 1, 0, ("images",), render))
sys.stdout.write(content_hash(open_array(folder, "images", slice(None))))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_rendering_at_once_both_end_well(home: Path, damaged: bool) -> None:
    folder = tiny([]).folder
    if damaged:
        flip_a_byte(ensure_rendered(tiny([])))
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 2
    for racer in racers:
        if racer.stdin:
            racer.stdin.write("go\n")
            racer.stdin.flush()
    hashes = {racer.communicate(timeout=50)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0]
    assert hashes == {rendered.content_hash(np.arange(100, dtype=np.uint8))}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
