"""PASCAL VOC's semantic segmentation: palette masks beside the JPEGs of a devkit folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bob.data.base import ImageSet
from bob.data.masks import open_masks
from bob.data.segmentation import Pairs
from bob.data.split_paths import origins
from bob.errors import UserError
from bob.task_cards import DataSpec

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of VOC in the order of its masks' values, alphabetical after the background."""

_IMAGES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
_OWN = ("train", "val", "test")
_OFFICIAL = re.compile(r"VOC20\d\d")
_LAYOUT = f"A VOC folder holds {_IMAGES}/, {_MASKS}/ and {_LISTS}/SPLIT.txt."


def load_voc_masks(name: str, root: Path, spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `SegmentationClass` of a folder such as VOCdevkit/VOC2012, with the lists of `ImageSets/Segmentation`.

    In a folder called as VOC's are, such as `VOC2012`, or with 21 `classes` on the card, values 0 to 20 are `CLASSES`;
    elsewhere the classes are the values. 255 is the border of objects and counts for nothing.

    Args:
        name: The folder, if relative below the data root.
        root: The data root.
        spec: The task card's `[data]`: `splits` names lists, such as `trainval`; without it those called train, val
            and test are read.

    Returns:
        Class names, and the image set of each list; one set named `all`, of everything with a mask, without lists.

    Raises:
        UserError: If the folder is no VOC folder or a list is missing; on bad masks as `load_masks`.

    Source: Everingham et al. 2012, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html.
    """
    folder = root / Path(name).expanduser()
    for part in (_IMAGES, _MASKS):
        if not (folder / part).is_dir():
            raise UserError(f"There is no folder {folder / part}.", _LAYOUT)
    found = {split: _pairs(folder, stems) for split, stems in _lists(folder, spec).items()}
    known = spec.classes == len(CLASSES) or (spec.classes is None and _OFFICIAL.fullmatch(folder.name) is not None)
    classes, pools = open_masks(found, spec.model_copy(update={"classes": len(CLASSES)}) if known else spec)
    return (CLASSES if known else classes), pools


def _lists(folder: Path, spec: DataSpec) -> dict[str, list[str]]:
    """Split -> names without suffixes, in the order of its list."""
    lists = folder / _LISTS
    names = origins(spec) or tuple(split for split in _OWN if (lists / f"{split}.txt").is_file())
    if not names:
        return {"all": sorted(path.stem for path in (folder / _MASKS).glob("*.png"))}
    return {name: _stems(lists / f"{name}.txt") for name in names}


def _stems(path: Path) -> list[str]:
    try:
        stems = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"Cannot read the list {path}: {reason}.", _LAYOUT) from error
    if twice := [stem for stem in stems if stems.count(stem) > 1] if len(set(stems)) < len(stems) else []:
        raise UserError(f"The list {path} names {twice[0]} twice.", "Remove one of them.")
    return stems


def _pairs(folder: Path, stems: Sequence[str]) -> Pairs:
    """Every listed image; whatever is missing is found when the files are read."""
    return Pairs(folder / _IMAGES, folder / _MASKS, [(f"{stem}.jpg", f"{stem}.png") for stem in stems], [])
