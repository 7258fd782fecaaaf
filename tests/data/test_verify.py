"""What `bob.verify` finds in folders with planted faults, and that it finds nothing in sound ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from bob.data.base import Dataset, ImageSet, Split
from bob.data.files import FileImages
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.progress import Reporter
from bob.task_cards import DataSpec, TaskCard
from bob.verify.duplicates import nearly_same, same_pixels
from bob.verify.look import look_at
from bob.verify.report import verify

QUIET = Reporter(quiet=True)
CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def folder(tmp_path, photograph) -> Path:
    """train, val and test of three classes, JPEG and PNG, no two photographs alike."""
    seed = 0
    for split, each in (("train", 4), ("val", 2), ("test", 3)):
        for name in CLASSES:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(each):
                seed += 1
                photograph(seed).save(tmp_path / "set" / split / name / f"{number}.{'jpg' if number % 2 else 'png'}")
    return tmp_path / "set"


def opened(folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Dataset:
    """The files below a folder as they lie, without any check."""
    parts = {}
    for split in splits:
        paths = sorted(path.relative_to(folder).as_posix() for path in (folder / split).rglob("*.*"))
        images = FileImages(folder, paths, np.array([CLASSES.index(Path(path).parent.name) for path in paths]))
        parts[split] = Split(images, np.arange(len(paths)))
    return Dataset(f"folder:{folder}", CLASSES, parts)


def verified(data: Path | Dataset, workers: int = 0, **spec):
    """The report on a folder or an opened data set; `spec` is what the card says."""
    dataset = opened(data) if isinstance(data, Path) else data
    card = TaskCard(name="set", adapter="classification", data=DataSpec(source=dataset.source, **spec))
    return verify(card, dataset, QUIET, workers)


def finding(report, name: str):
    return next(found for found in report.findings if found.name == name)


def statuses(report) -> dict[str, str]:
    """The findings that are no pass."""
    return {found.name: found.status for found in report.findings if found.status != "pass"}


def test_a_sound_folder_passes(folder):
    report = verified(folder, expect={"train": 12, "val": 6, "test": 9}, classes=3)
    assert statuses(report) == {}
    assert report.passed
    assert report.verdict() == "PASS: all 8 checks."
    assert finding(report, "counts").detail == "train 12, val 6, test 9, as on the card"
    assert "height x width from 43 x 61 to 43 x 61" in finding(report, "sizes").detail


def test_workers_see_the_same(folder):
    (folder / "train/ant/1.jpg").write_bytes(b"")
    alone, together = verified(folder), verified(folder, workers=2)
    assert alone.to_json() == together.to_json()


def test_wrong_counts_fail_and_give_the_layout(folder):
    report = verified(folder, expect={"train": 13, "val": 6, "test": 10}, layout="Unpack photos.zip there.")
    assert statuses(report) == {"counts": "fail"}
    found = finding(report, "counts")
    assert found.detail == "train 12 instead of 13; test 9 instead of 10"
    assert found.remedy == "Unpack photos.zip there."
    assert found.values["found"] == {"train": 12, "val": 6, "test": 9}
    assert report.verdict().startswith("FAIL: counts.")


def test_an_empty_split_fails(folder):
    shutil.rmtree(folder / "val")
    dataset = opened(folder, ("train", "test"))
    none = Split(dataset.splits["train"].images, np.array([], dtype=np.int64))
    report = verified(Dataset(dataset.source, CLASSES, {**dataset.splits, "val": none}))
    assert finding(report, "counts").detail == "no images in val"
    assert statuses(report) == {"counts": "fail"}


def test_a_class_missing_in_train_fails(folder):
    shutil.rmtree(folder / "train/bee")
    found = finding(verified(folder), "classes")
    assert (found.status, found.detail) == ("fail", "not in train: bee")
    assert found.values["missing_in_train"] == ["bee"]
    allowed = finding(verified(folder, unseen_classes=True), "classes")
    assert (allowed.status, allowed.detail) == ("pass", "3, 1 not in train, as the card allows")


def test_a_class_that_is_never_tested_is_told(folder):
    for split in ("val", "test"):
        shutil.rmtree(folder / split / "cat")
    found = finding(verified(folder), "classes")
    assert (found.status, found.detail) == ("warn", "only in train: cat")


def test_a_wrong_number_of_classes_fails(folder):
    found = finding(verified(folder, classes=4), "classes")
    assert (found.status, found.detail) == ("fail", "3 instead of 4")


def test_imbalance_is_told(folder, photograph):
    for number in range(4, 40):
        photograph(1000 + number).save(folder / f"train/ant/{number}.png")
    found = finding(verified(folder), "balance")
    assert found.status == "warn"
    assert found.detail.startswith("train 4 (bee) to 40 (ant);")
    assert found.values["train"] == {
        "smallest": {"class": "bee", "images": 4},
        "largest": {"class": "ant", "images": 40},
    }


def test_every_broken_file_is_named(folder):
    whole = (folder / "train/ant/1.jpg").read_bytes()
    (folder / "train/ant/1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "train/bee/0.png").write_bytes(b"")
    (folder / "val/cat/1.jpg").write_bytes(b"<html>404 Not Found</html>")
    (folder / "test/cat/2.png").write_bytes((folder / "test/cat/2.png").read_bytes()[:-30])
    report = verified(folder, workers=2)
    assert statuses(report) == {"readable": "fail"}
    assert finding(report, "readable").detail == "4 of 27 images cannot be read"
    assert finding(report, "readable").values["images"] == [
        "train: train/ant/1.jpg: it is truncated",
        "train: train/bee/0.png: the file is empty",
        "val: val/cat/1.jpg: it is not an image",
        "test: test/cat/2.png: it is truncated",
    ]
    assert all(f"  {line}" in report.lines() for line in finding(report, "readable").values["images"])


def test_a_file_that_went_away_is_named(folder):
    dataset = opened(folder)
    (folder / "val/bee/0.png").unlink()
    assert finding(verified(dataset), "readable").values["images"] == ["val: val/bee/0.png: No such file or directory"]


def test_more_broken_files_than_other_images_are_listed(folder):
    for number in range(30):
        (folder / f"train/ant/broken{number:02d}.jpg").write_bytes(b"no image")
    assert sum(line.startswith("  train: train/ant/broken") for line in verified(folder).lines()) == 30


def test_nothing_readable_is_no_crash(folder):
    for path in folder.rglob("*.*"):
        path.write_bytes(b"no image")
    report = verified(folder)
    assert statuses(report) == {"readable": "fail", "sizes": "skip"}


def test_a_copy_in_another_split_fails(folder):
    shutil.copy(folder / "train/ant/0.png", folder / "test/bee/copy.png")
    report = verified(folder)
    assert statuses(report) == {"duplicates": "fail"}
    assert finding(report, "duplicates").values["images"] == [
        "train: train/ant/0.png = test: test/bee/copy.png (the same file)"
    ]


def test_the_same_pixels_in_another_file_fail_too(folder):
    Image.open(folder / "train/ant/0.png").save(folder / "val/ant/again.bmp")
    assert finding(verified(folder), "duplicates").values["images"] == [
        "train: train/ant/0.png = val: val/ant/again.bmp"
    ]


@pytest.mark.parametrize("change", ["compressed", "smaller", "brighter"])
def test_nearly_the_same_image_in_another_split_is_told(folder, change):
    image = Image.open(folder / "train/cat/2.png")
    if change == "smaller":
        image = image.resize((48, 34), Image.Resampling.BICUBIC)
    elif change == "brighter":
        image = ImageEnhance.Brightness(image).enhance(0.8)
    image.save(folder / "test/cat/like.jpg", quality=50 if change == "compressed" else 90)
    report = verified(folder)
    assert statuses(report) == {"near_duplicates": "warn"}
    assert report.passed
    assert finding(report, "near_duplicates").detail == "1 images look like one of another split"
    told = finding(report, "near_duplicates").values["images"][0]
    assert told.startswith("train: train/cat/2.png = test: test/cat/like.jpg (correlation 0.99")


def test_flat_images_are_blank_and_not_alike(folder):
    for split, value in (("train", 10), ("test", 200)):
        Image.new("RGB", (40, 30), (value, value, value)).save(folder / split / "ant/flat.png")
    report = verified(folder)
    assert statuses(report) == {"sizes": "warn"}
    assert finding(report, "sizes").values["images"] == [
        "train: train/ant/flat.png: blank",
        "test: test/ant/flat.png: blank",
    ]


def test_tiny_images_are_told(folder, photograph):
    photograph(500, (15, 40)).save(folder / "val/bee/tiny.png")
    assert finding(verified(folder), "sizes").values["images"] == ["val: val/bee/tiny.png: 40 x 15 pixels"]


def test_one_image_with_two_labels_is_told(folder):
    shutil.copy(folder / "train/ant/0.png", folder / "train/cat/mislabelled.png")
    shutil.copy(folder / "train/bee/0.png", folder / "train/bee/repeat.png")
    report = verified(folder)
    assert statuses(report) == {"labels": "warn"}
    assert finding(report, "labels").values == {
        "repeats": 2,
        "images": ["train: train/ant/0.png (ant) = train: train/cat/mislabelled.png (cat)"],
    }


class Pictures(ImageSet):
    """Images in memory with several labels each; one of them cannot be read, and not for a foreseen reason."""

    def __init__(self, labels: np.ndarray, broken: int | None = None) -> None:
        self.labels, self.names, self._broken = labels, [f"memory/{i}" for i in range(len(labels))], broken

    def read(self, index: int) -> torch.Tensor:
        if index == self._broken:
            raise IndexError("no such tile")
        return torch.randint(256, (3, 20, 24), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)

    def fingerprint(self) -> str:
        return "memory"


def test_several_labels_an_image_are_counted_where_they_are_present():
    labels = np.array([[1, 0, 0], [1, 1, -1], [0, 1, 0], [0, 0, 1], [-1, 1, 0], [0, 0, 1]])
    images = Pictures(labels, broken=4)
    splits = {name: Split(images, np.array(rows)) for name, rows in (("train", [0, 1]), ("val", [2, 3]), ("test", [5]))}
    splits["test"] = Split(images, np.array([4, 5]))
    report = verified(Dataset("memory", CLASSES, splits))
    assert finding(report, "classes").detail == "not in train: cat"
    assert finding(report, "balance").values["train"]["largest"] == {"class": "ant", "images": 2}
    assert finding(report, "readable").values["images"] == ["test: memory/4: IndexError: no such tile"]


def test_nearest_of_all_is_found_across_blocks(monkeypatch):
    """Against all correlations at once, by NumPy."""
    monkeypatch.setattr("bob.verify.duplicates._ROWS", 7)
    monkeypatch.setattr("bob.verify.duplicates._COLUMNS", 11)
    images = Pictures(np.zeros(60, dtype=np.int64))
    splits = {"train": Split(images, np.arange(40)), "test": Split(images, np.arange(40, 60))}
    seen = look_at(Dataset("memory", CLASSES, splits), lambda count: None, 0)
    assert same_pixels(seen) == []
    pairs = nearly_same(seen, [], threshold=-1)
    all_of_them = np.corrcoef(seen.look.thumbnails.reshape(60, -1))[40:, :40]
    assert {pair.second: pair.first for pair in pairs} == dict(enumerate(all_of_them.argmax(axis=1), start=40))
    np.testing.assert_allclose([pair.correlation for pair in pairs], np.sort(all_of_them.max(axis=1))[::-1], atol=1e-3)


def test_a_report_is_saved_whole_or_not_at_all(folder, tmp_path):
    report = verified(folder)
    report.save(tmp_path / "deep/report.json")
    assert json.loads((tmp_path / "deep/report.json").read_text())["passed"] is True
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        report.save(tmp_path / "file/report.json")


@pytest.mark.parametrize("source", [pytest.param("shapes", marks=pytest.mark.slow), "orl_faces"])
def test_the_built_in_sets_pass(source, bob_home):
    report = verified(load_dataset(DataSpec(source=source)))
    assert statuses(report) == {}
