"""Objects lie in flat arrays and are given out image by image."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image

from bob.data.annotations import Problem
from bob.data.base import Split
from bob.data.detection import DetectionImages, Federation, ObjectTable
from bob.data.ragged import Ragged, SegmentsBuilder, sha256
from bob.data.sizes import file_sizes

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]


@pytest.fixture
def images(tmp_path) -> DetectionImages:
    """Three images with two, no and one object."""
    for name in "abc":
        Image.new("RGB", (10, 8)).save(tmp_path / f"{name}.png")
    builder = SegmentsBuilder()
    builder.add([SQUARE])
    builder.add()
    builder.add(counts=b"`2")  # all 80 pixels are background
    builder.add([SQUARE, [value + 3 for value in SQUARE]])
    table = ObjectTable(
        starts=np.array([0, 2, 2, 3]),
        boxes=np.arange(12.0).reshape(3, 4),
        labels=np.array([1, 0, 1], dtype=np.int32),
        ids=np.array([5, 6, 9]),
        areas=np.array([1.0, 2, 3]),
        crowd=np.array([False, True, False]),
        segments=builder.build(),
        segment=np.array([3, 2, 0]),
    )
    known = Federation(Ragged.of([[0], [], [0, 1]]), Ragged.of([[], [1], []]))
    sizes = np.array([[8, 10]] * 3)
    problems = [Problem("a.json", "image 3", "bad")]
    ids, names = np.array([7, 8, 9]), ["a.png", "b.png", "c.png"]
    return DetectionImages(tmp_path, names, sizes, ids, [30, 20], ["x", "y"], table, known, problems)


def test_targets(images) -> None:
    first, empty, last = (images.target(index) for index in range(3))
    assert first.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert first.labels.tolist() == [1, 0]
    assert first.labels.dtype == np.int64
    assert first.crowd.tolist() == [False, True]
    assert first.negatives == (0,)
    assert empty.partial == (1,)
    assert len(empty) == 0
    assert last.ids.tolist() == [9]
    square = np.zeros((8, 10), dtype=bool)
    square[1:4, 2:6] = True
    assert np.array_equal(last.masks()[0], square)
    square[4:7, 5:9] = True
    assert np.array_equal(first.masks(), [square, np.zeros((8, 10), dtype=bool)])


def test_facts(images) -> None:
    assert images.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert images.labels.dtype == np.int64
    assert images.federated
    assert images.has_masks
    assert images.size(1) == (8, 10)
    assert images.image_ids.tolist() == [7, 8, 9]
    assert images.category_ids.tolist() == [30, 20]
    assert [problem.id for problem in images.problems] == ["image 3"]


def test_what_is_given_out_is_the_callers(images) -> None:
    target = images.target(0)
    for name in ("boxes", "labels", "areas", "ids", "crowd"):
        getattr(target, name)[:] = 1
    assert images.target(0).boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert images.target(0).ids.tolist() == [5, 6]


def test_in_a_split(images) -> None:
    split = Split(images, np.array([2, 0]))
    assert split.target(0).ids.tolist() == [9]
    assert len(split.checksum()) == 64


def test_another_process_sees_the_same(images) -> None:
    again = pickle.loads(pickle.dumps(images))
    assert again.annotations_sha256() == images.annotations_sha256()
    assert again.target(0).rles == images.target(0).rles


def test_sizes_of_files(tmp_path, bob_home) -> None:
    Image.new("L", (7, 5)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "d.png").mkdir()
    sizes, missing = file_sizes(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    assert sizes.tolist() == [[5, 7], [0, 0], [0, 0], [0, 0]]
    assert missing[1] == "the file is damaged or not an image"
    assert missing[2] == "there is no file"
    assert missing[3] == "Is a directory"
    assert file_sizes(tmp_path, [])[0].shape == (0, 2)
    (table,) = (bob_home / "sizes").iterdir()
    table.write_bytes(b"damaged")
    assert file_sizes(tmp_path, ["a.png"])[0].tolist() == [[5, 7]]


def test_hash_of_arrays() -> None:
    one = np.array([1, 2], dtype=np.int64)
    assert sha256(one) == hashlib.sha256(b"<i8(2,)" + one.tobytes()).hexdigest()
    assert len({sha256(one), sha256(one[:1], one[1:]), sha256(one, None), sha256(one.astype(np.int32))}) == 4
    assert sha256(Ragged.of([[1], [2]])) != sha256(Ragged.of([[1, 2], []]))
