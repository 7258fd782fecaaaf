"""What `bob data verify` says of boxes and masks: sound sets pass, every planted fault is listed by file and number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from bob import data_command

CATEGORIES = [{"id": 3, "name": "ant"}, {"id": 7, "name": "bee"}]


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """An empty `$BOB_HOME`."""
    monkeypatch.setenv("BOB_HOME", str(tmp_path_factory.mktemp("home")))
    return Path()


@pytest.fixture
def verify(tmp_path):
    """Write a card, run `bob data verify` on it; gives exit code, findings by name, and what it prints."""

    def run(card: str, workers: int = 0):
        (tmp_path / "cards").mkdir(exist_ok=True)
        (tmp_path / "cards/mine.toml").write_text(f'name = "mine"\n{card}')
        app = typer.Typer()
        app.add_typer(data_command.app, name="data")
        common = ["data", "verify", "mine", "--tasks", f"{tmp_path}/cards", "--data-root", f"{tmp_path}", "-q"]
        ran = CliRunner().invoke(app, [*common, "--workers", f"{workers}", "--out", f"{tmp_path}/report.json"])
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        findings = json.loads((tmp_path / "report.json").read_text())["findings"]
        return ran.exit_code, {found["name"]: found for found in findings}, ran.stdout.replace(f"{tmp_path}/", "")

    return run


def picture(path: Path, seed: int, size: tuple[int, int] = (32, 24)) -> None:
    """A smooth random photograph, width x height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def coco(tmp_path):
    """Three images and four objects a split; gives a function that changes one split's JSON."""

    def write(split: str, change=None) -> None:
        content: dict = {"images": [], "annotations": [], "categories": CATEGORIES}
        for image in range(1, 4):
            picture(tmp_path / f"images/{split}/{image}.png", 10 * image + len(split))
            content["images"].append({"id": image, "file_name": f"{image}.png", "height": 24, "width": 32})
        boxes = [(1, 3, [0, 0, 8, 8], 0), (1, 7, [4, 4, 20, 10], 0), (2, 3, [2, 2, 6, 6], 0), (2, 7, [0, 0, 32, 24], 1)]
        for number, (image, category, box, crowd) in enumerate(boxes, start=100):
            area = box[2] * box[3]
            annotation = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area}
            content["annotations"].append({**annotation, "iscrowd": crowd})
        if change is not None:
            change(content)
        (tmp_path / f"{split}.json").write_text(json.dumps(content))

    for split in ("train", "val", "test"):
        write(split)
    return write


COCO = 'adapter = "detection"\n[data]\nsource = "coco:images/{split}:{split}.json"\n'


@pytest.mark.parametrize("workers", [0, 2])
def test_sound_boxes_pass(verify, coco, workers):
    code, findings, out = verify(COCO, workers)
    assert code == 0
    assert findings["annotations"]["detail"] == "of all 9 readable images"
    held = findings["objects"]["values"]["train"]
    assert held == {
        **{"images": 3, "objects": 3, "small": 3, "medium": 0, "large": 0, "crowd_regions": 1, "images_without": 1},
        **{"by_class": {"ant": 2, "bee": 1}},
    }
    assert "PASS objects: train 3 (3 small, 0 medium, 0 large), 1 crowd regions, 1 images without" in out


def test_every_bad_annotation_is_listed(verify, coco, tmp_path):
    def change(content):
        annotations = content["annotations"]
        annotations[0]["bbox"] = [40, 2, 5, 5]
        annotations[1]["bbox"] = [4, 4, 0, 10]
        annotations[2]["category_id"] = 5
        annotations.append({**annotations[3], "id": 104, "image_id": 77})
        content["images"].append({"id": 9, "file_name": "nine.png", "height": 24, "width": 32})
        content["images"].append({"id": 10, "file_name": "ten.png", "height": 50, "width": 32})
        picture(tmp_path / "images/train/ten.png", 99)

    coco("train", change)
    code, findings, out = verify(COCO)
    assert code == 1
    rows = findings["annotations"]["values"]["images"]
    assert findings["annotations"]["status"] == "fail"
    for number in ("annotation 100", "annotation 101", "annotation 102", "annotation 104", "image 9", "image 10"):
        assert sum(f"train.json, {number}:" in row for row in rows) == 1, rows
    assert all(f"  {row}".replace(f"{tmp_path}/", "") in out for row in rows)
    assert "FAIL: " in out
    code, findings, _ = verify(f"{COCO}drop_invalid = true\n")
    assert findings["annotations"]["status"] == "warn"
    assert findings["annotations"]["detail"] == f"{len(rows)} are left out, as the card says"


MASKS = """\
adapter = "segmentation"
class_names = ["ground", "plant"]
[data]
source = "masks:images/{split}:masks/{split}"
values = [0, 4]
"""


@pytest.fixture
def masks(tmp_path):
    """Three images a split, half of each mask a class, a quarter ignored."""
    for split in ("train", "val", "test"):
        (tmp_path / "masks" / split).mkdir(parents=True)
        for image in range(3):
            picture(tmp_path / f"images/{split}/{image}.png", 10 * image + len(split))
            mask = np.zeros((24, 32), dtype=np.uint8)
            mask[:12], mask[12:18] = 4, 255
            Image.fromarray(mask).save(tmp_path / f"masks/{split}/{image}.png")
    return tmp_path / "masks"


@pytest.mark.parametrize("workers", [0, 2])
def test_sound_masks_pass(verify, masks, workers):
    code, findings, out = verify(MASKS, workers)
    assert code == 0
    assert findings["pixels"]["values"]["train"] == {
        **{"pixels": 3 * 24 * 32, "ignored_share": 0.25, "images_without": 0},
        **{"by_class": {"ground": 3 * 6 * 32, "plant": 3 * 12 * 32}},
    }
    assert "PASS pixels: train 2,304, 25.0% ignored, 0 images wholly" in out
    assert findings["labels"]["status"] == findings["duplicates"]["status"] == "pass"


def test_every_bad_mask_is_listed(verify, masks, tmp_path):
    Image.fromarray(np.full((24, 32), 9, dtype=np.uint8)).save(masks / "train/0.png")
    Image.fromarray(np.zeros((10, 32), dtype=np.uint8)).save(masks / "val/1.png")
    (masks / "test/2.png").write_bytes(b"no mask")
    (masks / "test/0.png").unlink()
    code, findings, out = verify(MASKS)
    assert code == 1
    assert [row.replace(f"{tmp_path}/", "") for row in findings["annotations"]["values"]["images"]] == [
        "masks/train/0.png, value 9: 768 pixels have it, but it is neither a class nor ignored",
        "masks/val/1.png: it has 10 x 32 pixels, its image val/1.png 24 x 32",
        "images/test/0.png: it has no mask in " + f"{masks}/test".replace(f"{tmp_path}/", ""),
        "masks/test/2.png: it is truncated or not an image",
    ]
    assert findings["annotations"]["detail"] == "4 cannot be used"
    assert "  masks/test/2.png: it is truncated or not an image" in out


def test_a_broken_image_is_told_with_its_mask_sound(verify, masks, tmp_path):
    whole = (tmp_path / "images/train/1.png").read_bytes()
    (tmp_path / "images/train/1.png").write_bytes(whole[: len(whole) // 2])
    code, findings, _ = verify(MASKS)
    assert code == 1
    assert findings["readable"]["values"]["images"] == ["train: train/1.png: it is truncated"]
    assert findings["annotations"]["status"] == "pass"


def test_duplicates_are_still_found(verify, masks, tmp_path):
    (tmp_path / "images/test/0.png").write_bytes((tmp_path / "images/train/0.png").read_bytes())
    code, findings, _ = verify(MASKS)
    assert code == 1
    assert findings["duplicates"]["values"]["images"] == ["train: train/0.png = test: test/0.png (the same file)"]


def test_much_that_is_ignored_is_told(verify, masks):
    for path in (masks / "val").iterdir():
        mask = np.full((24, 32), 255, dtype=np.uint8)
        mask[0, 0] = 0
        Image.fromarray(mask).save(path)
    code, findings, _ = verify(MASKS)
    assert (code, findings["pixels"]["status"]) == (0, "warn")
    for path in (masks / "val").iterdir():
        Image.fromarray(np.full((24, 32), 255, dtype=np.uint8)).save(path)
    code, findings, _ = verify(MASKS)
    assert (code, findings["pixels"]["detail"]) == (1, "nothing but ignored in val")
