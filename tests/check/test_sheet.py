"""The contact sheet shows the crop and the normalised numbers as they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from bob.backbones.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from bob.check.sheet import CELL, GAP, displayed, draw_sheet, examples, require_png, write_sheet
from bob.errors import UserError


def test_a_png_that_others_can_open(healthy, tmp_path):
    write_sheet(healthy.backbone, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 3 * CELL + 4 * GAP)
        assert sheet.height > len(examples()) * CELL
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_nothing_is_left_of_a_sheet_that_fails(healthy, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("disk")

    monkeypatch.setattr("PIL.Image.Image.save", broken)
    with pytest.raises(OSError, match="disk"):
        write_sheet(healthy.backbone, tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match="jpg"):
        require_png(tmp_path / "sheet.jpg")


def test_numbers_as_brightness():
    values = torch.tensor([-9.0, -2.5, 0.0, 2.5, 9.0]).view(1, 1, 5).expand(3, 1, 5)
    assert displayed(values)[0, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_wrong_normalisation_looks_wrong():
    images = examples()[:1]
    right = np.asarray(draw_sheet(Preprocess(), images, "a"))
    swapped = np.asarray(draw_sheet(Preprocess(mean=IMAGENET_STD, std=IMAGENET_MEAN), images, "a"))
    left, crop, seen = (slice(GAP + n * (CELL + GAP), GAP + n * (CELL + GAP) + CELL) for n in range(3))
    below = slice(100, 100 + CELL)
    assert np.array_equal(right[below, left], swapped[below, left])
    assert np.array_equal(right[below, crop], swapped[below, crop])
    assert np.abs(right[below, seen].astype(int) - swapped[below, seen]).mean() > 10


def test_the_crop_is_the_backbones_own():
    preprocess = Preprocess(size=(32, 64), crop_mode="squash", crop_fraction=1.0)
    ring = examples()[3]
    sheet = np.asarray(draw_sheet(preprocess, [ring], "ring"))
    cell = sheet[:, GAP + CELL + GAP : GAP + CELL + GAP + CELL]
    assert (cell == (230, 230, 230)).all(axis=2).any()  # a wide input leaves room above and below
    assert ((cell[..., 0] > 200) & (cell[..., 1] < 60)).any()  # and, squashed, keeps the red frame


def test_forms_of_the_examples():
    ratios = [image.shape[2] / image.shape[1] for image in examples()]
    assert min(ratios) < 0.6 and max(ratios) > 3 and 1.0 in ratios
