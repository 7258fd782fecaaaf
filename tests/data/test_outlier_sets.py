"""Sets of outliers stand behind the known classes' test images, drawn or read, and share no image with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bob.adapters.ood_detection import OODDetection
from bob.catalogue import load_task_cards
from bob.data import novel_shapes, silhouettes
from bob.data.base import Dataset, Split
from bob.data.novel_shapes import COUNTS, NOVEL, SOURCES, load_outliers
from bob.data.outlier_sets import with_outliers
from bob.data.overlap import pixel_hashes, require_disjoint
from bob.data.sources import load_dataset, load_task
from bob.errors import UserError
from bob.results.ood_detection_metrics import OOD_DETECTION_METRICS
from bob.task_cards import DataSpec, TaskCard

pytestmark = pytest.mark.usefixtures("bob_home")


def _card(*sets: dict[str, Any], source: str = "shapes", **data: Any) -> TaskCard:
    given = {"name": "t", "adapter": "ood_detection", "data": {"source": source, **data}, "sets": sets}
    return TaskCard.model_validate(given)


def _opened(card: TaskCard, root: Path = Path("/nowhere")) -> Any:
    known = load_dataset(card.data, root, "classification")
    return with_outliers(card, known, root)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the drawn sets are."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture
def home(bob_home: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOB_HOME", str(drawn))


NOVEL_SET = {"name": "novel", "source": "shapes_novel", "near": True}


@pytest.mark.usefixtures("home")
def test_drawn_sets() -> None:
    seen = set()
    for source, name in SOURCES.items():
        images = load_outliers(source)
        assert len(images) == COUNTS[name] and images.read(5).shape == (3, 96, 96)
        assert not images.labels.any() and images.names[3] == f"shapes_outliers/{name}/00003"
        seen |= set(pixel_hashes(images))
    assert len(seen) == sum(COUNTS.values())
    assert list(load_outliers("shapes_novel").table["outline"][:11]) == list(NOVEL)
    assert not set(NOVEL) & set(silhouettes.CLASSES)


@pytest.mark.usefixtures("home")
def test_drawn_sets_are_the_same_anywhere() -> None:
    images = load_outliers("shapes_novel")
    image, outline = novel_shapes.draw_novel(np.random.default_rng([10_001, 0, 0, 7]), 7)
    np.testing.assert_array_equal(images.read(7).permute(1, 2, 0), image)
    assert outline == images.table["outline"][7]
    with pytest.raises(UserError, match="Expected `seed` to be a non-negative integer"):
        load_outliers("shapes_novel", seed=-1)


@pytest.mark.parametrize("outline", NOVEL)
def test_outlines_fit_where_the_classes_fit(outline: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = silhouettes.draw_pose(rng, 96, 96, (0.26 * 96, 0.4 * 96), (0.4, 0.6))
        polygon = novel_shapes._placed(novel_shapes._OUTLINES[outline], pose)
        assert polygon.min() >= -1e-9 and polygon.max() <= 96 + 1e-9
        covered = silhouettes.coverage(polygon, 96, 96).mean()
        assert 0.02 < covered < 0.5


def test_placed_as_the_classes_are() -> None:
    pose = silhouettes.Pose(20, 30, 1.1, 50, 40)
    own = novel_shapes._placed(silhouettes.outline("fish").copy(), pose)
    np.testing.assert_allclose(own, pose.place("fish"))


@pytest.mark.usefixtures("home")
def test_parts() -> None:
    dataset = _opened(_card(NOVEL_SET, {"name": "ground", "source": "shapes_backgrounds"}))
    assert [(part.name, len(part), part.said) for part in dataset.parts] == [
        ("clean", 600, {}),
        ("novel", 300, {"near": True}),
        ("ground", 300, {"near": False}),
    ]
    test = dataset.splits["test"]
    assert len(test) == 1200 and test.names[600] == "shapes_outliers/novel/00000"
    assert not test.labels[600:].any()
    own = load_outliers("shapes_backgrounds")
    assert own.fingerprint() in {images.fingerprint() for images in dataset.image_sets()}
    np.testing.assert_array_equal(test.images.read(int(test.indices[900])), own.read(0))
    assert dataset.identity()["sets"][2] == {"name": "ground", "n": 300, "near": False}
    assert len(load_task(_card(NOVEL_SET)).splits["test"]) == 900


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"source": "shapes_nvel"}, r"The set 's': Unknown data source 'shapes_nvel'. Did you mean: shapes_novel"),
        ({"source": "shapes_novel", "split": "test"}, "shapes_novel has no splits"),
        ({"source": "shapes_novel", "class_map": "index"}, "says 'class_map', but outliers have none of the known"),
        ({"corruptions": ("fog",)}, r"says 'corruptions'.*use adapter = \"ood\""),
        ({"source": "folder:missing"}, "The set 's': There is no folder /nowhere/missing"),
        (
            {"source": "shapes", "split": "tset"},
            "shapes has no split 'tset', only train, val, test.*Did you mean: test",
        ),
        ({"source": "shapes_novel", "subset": "list.txt"}, "Cannot read the list /nowhere/list.txt"),
    ],
)
def test_refuses(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        _opened(_card({"name": "s", **given}))


@pytest.mark.usefixtures("home")
def test_overlap_of_drawn_images() -> None:
    with pytest.raises(UserError) as raised:
        _opened(_card(NOVEL_SET, {"name": "same", "source": "shapes", "split": "val"}))
    assert "200 images of the set 'same' are among the known classes' own images, by content hash" in str(raised.value)
    assert "shapes/val/00000 is shapes/val/00000 (val)" in str(raised.value)


@pytest.fixture
def folders(tmp_path: Path, make_photos: Callable[..., Path]) -> Path:
    make_photos(tmp_path / "known", each=12)
    make_photos(tmp_path / "other", classes=("dog", "elk"), each=5, seed=1)
    return tmp_path


def _of_folders(root: Path, **given: Any) -> Any:
    return _opened(_card({"name": "o", "source": "folder:other", **given}, source="folder:known"), root)


def test_folder(folders: Path) -> None:
    dataset = _of_folders(folders)
    assert [len(part) for part in dataset.parts] == [len(dataset.splits["test"]) - 10, 10]
    assert dataset.splits["test"].names[-1] == "elk/004.png"


def test_overlap_of_files_is_found_in_every_split(folders: Path) -> None:
    known = load_dataset(DataSpec(source="folder:known"), folders)
    for split in ("train", "val", "test"):
        name = known.splits[split].names[0]
        twin = folders / "other" / "elk" / f"twin{Path(name).suffix}"
        twin.write_bytes((folders / "known" / name).read_bytes())
        with pytest.raises(
            UserError, match=rf"One image of the set 'o' is among .*: elk/twin\.\w+ is {name} \({split}\)"
        ):
            _of_folders(folders)
        twin.unlink()
    _of_folders(folders)


def test_overlap_of_files_and_others_is_found_by_pixels(folders: Path, memory_images: Any) -> None:
    images = memory_images(6)
    path = folders / "known" / "ant" / "memory.png"
    Image.fromarray(images.pixels[4].permute(1, 2, 0).numpy()).save(path)
    known = load_dataset(DataSpec(source="folder:known"), folders)
    with pytest.raises(UserError, match=r"memory/4 is ant/memory.png"):
        require_disjoint(known.splits, "m", Dataset("m", (), {"x": _all(images)}).splits["x"])


def _all(images: Any) -> Any:
    return Split(images, np.arange(len(images)))


def test_pixel_hashes_are_remembered(memory_images: Any, bob_home: Path) -> None:
    images = memory_images(5)
    first = pixel_hashes(images)
    images.pixels = []  # so that reading one would fail
    assert pixel_hashes(images) == first and len(set(first)) == 5
    [path] = (bob_home / "pixel-hashes").iterdir()
    path.write_bytes(b"damaged")
    assert pixel_hashes(memory_images(5)) == first


@pytest.mark.parametrize(
    "lines",
    [
        "dog/001.jpg\nelk/003.jpg\n",
        "some/where/other/elk/003.jpg -1\n\nother/dog/001.jpg -1\n",
        "elk/003.jpg 7\ndog/001.jpg 8",
    ],
)
def test_list(folders: Path, lines: str) -> None:
    (folders / "list.txt").write_text(lines)
    dataset = _of_folders(folders, subset="list.txt")
    assert dataset.splits["test"].names[-2:] == ["dog/001.jpg", "elk/003.jpg"] and len(dataset.parts[1]) == 2


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("dog/001.jpg\ndog/999.jpg\n", r"list.txt, line 2: 'dog/999.jpg' names no image of the set"),
        ("001.jpg\n", r"line 1: '001.jpg' names 2 images of the set"),
        ("\n", "list.txt is empty"),
    ],
)
def test_wrong_list(folders: Path, lines: str, problem: str) -> None:
    (folders / "list.txt").write_text(lines)
    with pytest.raises(UserError, match=problem):
        _of_folders(folders, subset="list.txt")


def test_several_splits(folders: Path, make_photos: Callable[..., Path]) -> None:
    for number, split in enumerate(("train", "test")):
        make_photos(folders / "halves" / split, classes=("gnu",), each=3 + number, seed=7 + number)
    sizes = {}
    for split in ("", "train", "train+test"):
        dataset = _of_folders(folders, source="folder:halves", split=split)
        sizes[split] = len(dataset.parts[1])
    assert sizes == {"": 4, "train": 3, "train+test": 7}
    parts = {images.fingerprint() for images in dataset.image_sets()}
    alone = _of_folders(folders, source="folder:halves", split="train")
    assert {images.fingerprint() for images in alone.image_sets()} < parts  # features of each half are stored once


def test_broken_image_is_named(folders: Path, memory_images: Any) -> None:
    (folders / "other" / "dog" / "000.png").write_bytes(b"not an image")
    other = _all(load_dataset(DataSpec(source="folder:other"), folders).splits["train"].images)
    with pytest.raises(UserError, match=r"Cannot read image .*dog/000\.png"):
        require_disjoint({"train": _all(memory_images(3))}, "o", other)


@pytest.mark.usefixtures("home")
def test_card_of_imagenet_reads_openood_as_it_is_published(tmp_path: Path, make_photos: Callable[..., Path]) -> None:
    card = load_task_cards()["imagenet_ood"]
    lists = tmp_path / "openood" / "benchmark_imglist" / "imagenet"
    lists.mkdir(parents=True)
    for number, each in enumerate(card.sets):
        folder = tmp_path / each.source.removeprefix("folder:")
        make_photos(folder, classes=("images",), each=4, seed=number)
        # OpenOOD's lines: the path from the folder that holds all sets, and a label of no meaning.
        lines = [f"{folder.name}/images/{name} -1" for name in ("002.png", "001.jpg")]
        (tmp_path / each.subset).write_text("\n".join(lines) + "\n")
    dataset = _opened(card.model_copy(update={"data": DataSpec(source="shapes")}), tmp_path)
    assert [(part.name, len(part), part.said["near"]) for part in dataset.parts[1:]] == [
        ("ssb_hard", 2, True),
        ("ninco", 2, True),
        ("inaturalist", 2, False),
        ("textures", 2, False),
        ("openimage_o", 2, False),
    ]
    (tmp_path / card.sets[2].subset).unlink()
    with pytest.raises(UserError, match=r"Cannot read the list .*test_inaturalist\.txt: No such file"):
        _opened(card.model_copy(update={"data": DataSpec(source="shapes")}), tmp_path)


@pytest.mark.parametrize("name", ["shapes_ood", "shapes_ood_faces", "imagenet_ood", "cifar10_ood", "cifar100_ood"])
def test_cards_name_protocols_and_sets_that_there_are(name: str) -> None:
    card = load_task_cards()[name]
    assert set(card.protocols) <= set(OODDetection.protocols)
    assert set(card.metrics) == {metric.name for metric in OOD_DETECTION_METRICS} and card.primary == "auroc"
    assert {each.near for each in card.sets} == {True, False}
