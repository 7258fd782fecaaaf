"""The built-in scenes as files: COCO, VOC and mask folders, for the same readers as real data and for people to see."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from bob import places
from bob.data import scenes
from bob.data.base import ImageSet
from bob.data.coco import load_coco
from bob.data.made_folder import ensure_folder
from bob.data.objects import encode_masks
from bob.data.scenes import Scenes, load_scenes
from bob.data.silhouettes import CLASSES
from bob.errors import UserError
from bob.task_cards import DataSpec

VERSION = 1
"""Raised whenever the same scenes would give other files."""

MASK_CLASSES = ("background", *CLASSES)
"""What the values 0, 1, ... of the masks mean."""

COCO_SOURCE = "images/{split}:annotations/{split}.json"
MASKS_SOURCE = "images/{split}:masks/{split}"

_JPEG_QUALITY = 95

Format = Literal["coco", "voc", "masks"]


def load_shapes_detection(spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Open the scenes of several silhouettes with boxes and masks: 400 to train, 100 to choose, 200 to test.

    Raises:
        UserError: If the files cannot be written.
    """
    return load_coco(COCO_SOURCE, scene_files(), spec)


def scene_files(seed: int = 0) -> Path:
    """Return a folder with all scenes as files, writing them first where one is missing, damaged or of another version.

    It has `images/SPLIT/00000.png`, `annotations/SPLIT.json` in COCO's format and `masks/SPLIT/00000.png`, whose grey
    value is a position in `MASK_CLASSES`. Any number of processes may ask at once.

    Args:
        seed: The scenes' seed.

    Raises:
        UserError: If the seed is no non-negative integer, or the folder cannot be written.
    """
    splits = load_scenes(seed)
    folder = places.home() / "rendered" / f"scene_files-v{scenes.VERSION}.{VERSION}-seed{seed}"
    return ensure_folder(folder, {"version": [scenes.VERSION, VERSION]}, partial(_put, splits))


def export_scenes(format: str, out: Path, seed: int = 0) -> str:
    """Write the scenes into a new folder, all of it or nothing.

    `coco` gives PNG images and COCO annotation files with exact masks; `masks` PNG images, PNG masks and a
    `classes.txt` with the name of each value; `voc` the folders of VOC: JPEG images (quality 95), XML boxes that count
    from 1, class and instance masks as PNG with a palette, and lists of the splits.

    Args:
        format: `coco`, `voc` or `masks`.
        out: The folder; it must not exist, or be empty.
        seed: The scenes' seed.

    Returns:
        The data source that reads what was written, as a task card or `--task` names it.

    Raises:
        UserError: If there is no such format, the folder holds something, or it cannot be written.
    """
    if format not in _FORMATS:
        raise UserError(f"bob writes no format '{format}'.", f"Use one of {', '.join(_FORMATS)}.")
    write, source = _FORMATS[format]
    out = out.expanduser().absolute()
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is there already and not empty.", "Give a new folder.")
        splits = load_scenes(seed)
        with places.atomic_folder(out) as temporary:
            write(temporary, splits)
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror or error}.", "Give another folder.") from error
    return source.format(out=out)


def _put(splits: dict[str, Scenes], folder: Path) -> None:
    _write_coco(folder, splits)
    _write_masks(folder, splits)


def _write_coco(folder: Path, splits: dict[str, Scenes]) -> None:
    _write_images(folder, splits)
    (folder / "annotations").mkdir()
    first_image = first_object = 1
    for split, images in splits.items():
        document = _coco_document(images, first_image, first_object)
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document), encoding="utf-8")
        # Numbers go on from split to split, so that splits can be joined.
        first_image, first_object = first_image + len(images), first_object + len(images.objects)


def _write_images(folder: Path, splits: dict[str, Scenes]) -> None:
    for split, images in splits.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(images.images):
            Image.fromarray(pixels).save(folder / "images" / split / f"{index:05d}.png", compress_level=1)


def _coco_document(images: Scenes, first_image: int, first_object: int) -> dict[str, Any]:
    entries = [
        {"id": first_image + index, "file_name": f"{index:05d}.png", "height": scenes.HEIGHT, "width": scenes.WIDTH}
        for index in range(len(images))
    ]
    annotations: list[dict[str, Any]] = []
    for index in range(len(images)):
        rows = images.objects_of(index)
        masks = images.instances[index] == rows["instance"].to_numpy()[:, None, None]
        for row, rle in zip(rows.to_dict("records"), encode_masks(masks), strict=True):
            annotations.append(
                {
                    "id": first_object + len(annotations),
                    "image_id": first_image + index,
                    "category_id": int(row["label"]) + 1,
                    "bbox": [int(v) for v in (row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"])],
                    "area": int(row["visible_area"]),
                    "iscrowd": 0,
                    "segmentation": {"size": [scenes.HEIGHT, scenes.WIDTH], "counts": rle["counts"].decode("ascii")},
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(images.classes, start=1)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def _write_masks(folder: Path, splits: dict[str, Scenes]) -> None:
    for split, images in splits.items():
        (folder / "masks" / split).mkdir(parents=True)
        for index in range(len(images)):
            Image.fromarray(images.semantic(index)).save(folder / "masks" / split / f"{index:05d}.png")


def _write_mask_folders(folder: Path, splits: dict[str, Scenes]) -> None:
    _write_images(folder, splits)
    _write_masks(folder, splits)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in MASK_CLASSES), encoding="utf-8")


def _write_voc(folder: Path, splits: dict[str, Scenes]) -> None:
    for name in ("Annotations", "JPEGImages", "SegmentationClass", "SegmentationObject"):
        (folder / name).mkdir()
    for kind in ("Main", "Segmentation"):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        for split, images in splits.items():
            lines = "".join(f"{split}_{index:05d}\n" for index in range(len(images)))
            (folder / "ImageSets" / kind / f"{split}.txt").write_text(lines, encoding="utf-8")
    for stem, images, index in _each(splits):
        path = folder / "JPEGImages" / f"{stem}.jpg"
        Image.fromarray(images.images[index]).save(path, quality=_JPEG_QUALITY, subsampling=0)
        _palette_png(images.semantic(index), folder / "SegmentationClass" / f"{stem}.png")
        _palette_png(images.instances[index], folder / "SegmentationObject" / f"{stem}.png")
        _voc_xml(images, index, path.name).write(folder / "Annotations" / f"{stem}.xml", encoding="unicode")


def _each(splits: dict[str, Scenes]) -> Iterator[tuple[str, Scenes, int]]:
    for split, images in splits.items():
        yield from ((f"{split}_{index:05d}", images, index) for index in range(len(images)))


def _palette_png(values: np.ndarray, path: Path) -> None:
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    image.putpalette(_voc_palette())
    image.save(path)


def _voc_palette() -> bytes:
    """VOC's 256 colours: bits 0, 1, 2 of a number, then 3, 4, 5 and so on, from the highest bit of R, G, B down."""
    numbers = np.arange(256)[:, None]
    bits = [((numbers >> (3 * step + np.arange(3))) & 1) << (7 - step) for step in range(8)]
    colours: np.ndarray = np.sum(bits, axis=0).astype(np.uint8)
    return colours.tobytes()


def _voc_xml(images: Scenes, index: int, file_name: str) -> ElementTree.ElementTree[ElementTree.Element]:
    root = ElementTree.Element("annotation")
    _add(root, filename=file_name)
    _add(ElementTree.SubElement(root, "size"), width=scenes.WIDTH, height=scenes.HEIGHT, depth=3)
    _add(root, segmented=1)
    for row in images.objects_of(index).to_dict("records"):
        entry = ElementTree.SubElement(root, "object")
        _add(entry, name=row["class"], truncated=0, difficult=0, occluded=int(row["occlusion"] > 0))
        # From 1, ends included.
        corners = {"xmin": row["x0"] + 1, "ymin": row["y0"] + 1, "xmax": row["x1"], "ymax": row["y1"]}
        _add(ElementTree.SubElement(entry, "bndbox"), **corners)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


_FORMATS: dict[str, tuple[Callable[[Path, dict[str, Scenes]], None], str]] = {
    "coco": (_write_coco, "coco:{out}/images/{{split}}:{out}/annotations/{{split}}.json"),
    "voc": (_write_voc, "voc:{out}"),
    "masks": (_write_mask_folders, "masks:{out}/images/{{split}}:{out}/masks/{{split}}"),
}
