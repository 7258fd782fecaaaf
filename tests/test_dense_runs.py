"""Detection and segmentation by the command line: runs leave records, files and pictures, and start no work in vain."""

import json

import numpy as np
import pytest
from PIL import Image

from bob.adapters.base import Outcome
from bob.adapters.training import Training
from bob.data.objects import Detections, PredictedMasks

SMALL = ("--set", "epochs=1", "--set", "lr=1e-3", "--set", "batch_size=4", "--set", "short=64", "--set", "long=96")


@pytest.fixture
def things(tmp_path):
    """Twelve images of red and blue squares, as COCO and as masks."""
    rng, root, entries = np.random.default_rng(0), tmp_path / "things", []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(1, 13):
        image = rng.integers(80, 120, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        for kind in (1, 2):
            left, top = int(rng.integers(0, 16)) + 32 * (kind - 1), int(rng.integers(0, 28))
            image[top : top + 20, left : left + 16] = (230, 20, 20) if kind == 1 else (20, 20, 230)
            mask[top : top + 20, left : left + 16] = kind
            box, corners = [left, top, 16, 20], [left, top, left + 16, top, left + 16, top + 20, left, top + 20]
            common = {"id": len(entries) + 1, "image_id": number, "category_id": kind * 10, "bbox": box, "iscrowd": 0}
            entries.append({**common, "area": 320, "segmentation": [corners]})
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 64} for n in range(1, 13)]
    categories = [{"id": 10, "name": "red"}, {"id": 20, "name": "blue"}]
    (root / "boxes.json").write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}))
    return root


@pytest.fixture
def untrained(monkeypatch):
    """In place of a training, what is true of each test image in turn; the protocol cannot see it."""

    def run(self, given, seed):
        test = given.dataset.splits["test"]
        if test.images.target_kind == "segmentation":
            predicted = PredictedMasks()
            for index in test.indices:
                predicted.append(np.zeros(test.images.size(index), np.int64))
        else:
            box = np.array([[8, 8, 24, 28]], np.float32)
            predicted = [Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64)) for _ in test.indices]
        return Outcome(predicted, {"lr": 1.0}, [], (), {"fit": 0.1}, 1, 1.0)

    monkeypatch.setattr(Training, "run", run)


def test_detection_leaves_a_record(run_bob, things, untrained):
    task = f"coco:{things / 'images'}:{things / 'boxes.json'}"
    ended = run_bob("run", "-b", "mobilenetv3_small_100.random", "-t", task, "-p", "frozen")
    assert ended.code == 0, ended.err
    [record] = [json.loads(path.read_text()) for path in things.parent.glob("work/results/runs/*/record.json")]
    assert record["primary"] == "box_ap" and record["metrics"]["box_ap"]["n"] == 3
    assert "not defined" in " ".join(record["notes"])  # no mask was predicted, and no object is large
    [folder] = things.parent.glob("work/results/runs/*")
    assert len(json.loads((folder / "detections.bbox.json").read_text())) == 3
    drawn = run_bob("show", record["run_id"][:6], "--images", "--out", "a.png", "--count", 2)
    assert drawn.code == 0 and Image.open("a.png").size[0] > 500
    shown = run_bob("show", record["run_id"])
    assert "box_ap: " in shown.out and "frozen" in shown.out
    assert run_bob("leaderboard").code == 0


def test_segmentation_leaves_a_record(run_bob, things, untrained):
    task = f"masks:{things / 'images'}:{things / 'masks'}"
    ended = run_bob("run", "-b", "mobilenetv3_small_100.random", "-t", task, "-p", "upernet")
    assert ended.code == 0, ended.err
    [folder] = things.parent.glob("work/results/runs/*")
    assert len(list((folder / "masks").glob("*.png"))) == 3
    drawn = run_bob("show", folder.name, "--images", "--out", "a.svg", "--count", 2)
    assert drawn.code == 0, drawn.err


def test_stored_maps(run_bob, things):
    task = f"masks:{things / 'images'}:{things / 'masks'}"
    ended = run_bob("run", "-b", "mobilenetv3_small_100.random", "-t", task, "-p", "knn", "--set", "probe_size=64/96")
    assert ended.code == 0, ended.err
    again = run_bob("run", "-b", "mobilenetv3_small_100.random", "-t", task, "-p", "knn", "--set", "probe_size=64/96")
    assert "already there" in again.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-p", "frozen@mmseg"), "has no engine 'mmseg'"),
        (("-p", "linear"), "'linear' is not for tasks of the kind detection"),
        (("-p", "frozen", "--set", "shrot=64"), "no setting 'shrot'. Did you mean: short?"),
        (("-p", "frozen", "--set", "crop=64"), "Expected crop of the view to be two positive whole numbers"),
        (("-p", "frozen", "--set", "mixup=1"), "no setting 'mixup'"),
    ],
)
def test_one_line_for_each_mistake(run_bob, things, arguments, said):
    task = f"coco:{things / 'images'}:{things / 'boxes.json'}"
    ended = run_bob("run", "-b", "mobilenetv3_small_100.random", "-t", task, *arguments)
    assert ended.code == 2 and said in ended.err and len(ended.err.splitlines()) == 1, ended.err


def test_wrong_setting_on_a_card(run_bob, things, tmp_path):
    (tmp_path / "cards").mkdir()
    card = 'name = "x"\nadapter = "segmentation"\n[data]\nsource = "masks:images:masks"\n[recipe]\nshrot = 64\n'
    (tmp_path / "cards" / "x.toml").write_text(card)
    ended = run_bob("run", "-b", "constant", "-t", "x", "--tasks", tmp_path / "cards", "--data-root", things)
    assert ended.code == 2 and "unknown setting 'shrot' in [recipe]. Did you mean: short?" in ended.err


def test_bad_annotation_stops_the_run(run_bob, things):
    path = things / "boxes.json"
    content = json.loads(path.read_text())
    content["annotations"][4]["bbox"] = [60, 8, 16, 20]
    path.write_text(json.dumps(content))
    task = f"coco:{things / 'images'}:{path}"
    ended = run_bob("run", "-b", "mobilenetv3_small_100.random", "-t", task, "-p", "frozen")
    assert ended.code == 2 and "boxes.json" in ended.err and "5" in ended.err and len(ended.err.splitlines()) == 1
    verified = run_bob("data", "verify", task)
    assert verified.code == 1 and "boxes.json" in verified.out


def test_export(run_bob):
    for name in ("coco", "masks", "voc"):
        ended = run_bob("data", "export", "shapes", "--format", name, "--out", name)
        assert ended.code == 0 and "--task '" in ended.out
    again = run_bob("data", "export", "shapes", "--out", "coco")
    assert again.code == 2 and "not empty" in again.err
    assert run_bob("data", "export", "shape", "--out", "x").code == 2
