"""PASCAL VOC's folders, with an XML file of boxes for each image, as detection data."""

from __future__ import annotations

# The standard parser: it opens no other file that an XML file names, and its expat (2.4.1 or later in every Python that
# bob runs on) stops entities that blow up. That is what defusedxml would be for.
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bob.data.annotations import Problem, refuse
from bob.data.base import ImageSet
from bob.data.detection import DetectionImages
from bob.data.files import SUFFIXES
from bob.data.manifest import SPLIT_NAMES
from bob.data.raw_objects import OBJECTS, RawObjects, checked
from bob.data.split_paths import origins
from bob.errors import UserError, did_you_mean
from bob.task_cards import DataSpec

_LAYOUT = "It should hold Annotations/*.xml and JPEGImages/, and ImageSets/Main/*.txt if it has splits."
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(name: str, root: Path, spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read a folder such as `VOCdevkit/VOC2012`, or one of several such folders.

    `ImageSets/Main/SPLIT.txt` lists the images of each split; without any of train, val or test, everything annotated
    is one set. Of several folders below `name` the splits are called `VOC2007/trainval`, for a card's `splits`. Boxes
    count pixels from 1 with their ends included, and become boxes from 0 with ends excluded; `difficult` objects are
    regions to ignore. Classes are the names found, in order of the alphabet, which is VOC's own order; or `only` some
    of them in the card's order. Areas are those of the boxes, and there are no masks. Images are numbered from 1 in the
    order of the folders and file names, object k of image i is 10,000 i + k.

    Args:
        name: The folder; if relative, below the data root.
        root: The data root.
        spec: The task card's `[data]`.

    Returns:
        Class names, and the image set of each split; one set named `all` where there are no splits.

    Raises:
        UserError: If the folder or what it should hold is missing, there is no class of `only`, or an annotation is
            bad (XML that does not parse, an object without name or box, and what `checked` says) and the card does not
            say `drop_invalid`.

    Source: Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, and its development kit, section
        "Annotation files".
    """
    folder = root / Path(name).expanduser()
    folders = {prefix: _Folder(path, first) for prefix, path, first in _folders(folder)}
    lists = _lists(folders, spec)
    parsed = {key: _parse(folders[key[0]], key[1]) for key in sorted({k for keys in lists.values() for k in keys})}
    classes = _classes(list(parsed.values()), spec, folder)
    pools = {split: _pool([parsed[key] for key in keys], folder, classes) for split, keys in lists.items()}
    refuse([problem for pool in pools.values() for problem in pool.problems], spec)
    for split, pool in pools.items():
        if not len(pool):
            raise UserError(f"The split '{split}' of {folder} has no image that can be used.", _LAYOUT)
    return classes, dict(pools)


class _Folder:
    """One folder of VOC's layout; its images are numbered from `first` on."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.images = {file.stem: file for file in _visible(path / "JPEGImages") if file.suffix.lower() in SUFFIXES}
        self.annotated = [file.stem for file in _visible(path / "Annotations") if file.suffix.lower() == ".xml"]
        self.splits = {file.stem: file for file in _visible(path / "ImageSets" / "Main") if file.suffix == ".txt"}
        self.ids = {stem: first + n for n, stem in enumerate(sorted({*self.annotated, *self.images}))}

    def listed(self, split: str) -> list[str]:
        """Stems of a split's images; the second column, of the lists of a single class, does not count."""
        try:
            lines = self.splits[split].read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Cannot read {self.splits[split]}.", "It should have an image's name a line.") from error
        return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"Cannot list {folder}: {error.strerror}.", "Correct its permissions.") from error


def _folders(folder: Path) -> list[tuple[str, Path, int]]:
    """Prefix of the splits' names, path and number of the first image of each folder."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.", _LAYOUT)
    inner = [] if (folder / "Annotations").is_dir() else [f for f in _visible(folder) if (f / "Annotations").is_dir()]
    if not inner and not (folder / "Annotations").is_dir():
        raise UserError(f"{folder} has no folder Annotations.", _LAYOUT)
    if len(inner) == 1:
        return [("", inner[0], 1)]
    starts = np.cumsum([1, *(len(_Folder(path, 1).ids) for path in inner)]).tolist()
    return [(f"{p.name}/", p, start) for p, start in zip(inner, starts, strict=False)] or [("", folder, 1)]


_Key = tuple[str, str]


def _lists(folders: dict[str, _Folder], spec: DataSpec) -> dict[str, list[_Key]]:
    """For each split the images: their folder's prefix and stem."""
    known = {f"{prefix}{split}": (prefix, split) for prefix, folder in folders.items() for split in folder.splits}
    if wanted := origins(spec):
        for split in wanted:
            if split not in known:
                hint = did_you_mean(split, known) or f"It has {', '.join(list(known)[:9]) or 'no lists'}."
                raise UserError(f"{spec.source} has no list ImageSets/Main/ for the split '{split}'.", hint)
    elif len(folders) > 1:
        several = " and ".join(prefix.rstrip("/") for prefix in folders)
        example = next(iter(known), "VOC2007/train")
        raise UserError(f"{spec.source} holds {several}.", f"Name one of them, or splits such as '{example}'.")
    names = {split: split for split in wanted} or {SPLIT_NAMES[split]: split for split in known if split in SPLIT_NAMES}
    if not names:
        return {"all": [(prefix, stem) for prefix, folder in folders.items() for stem in folder.annotated]}
    return {
        name: [(known[split][0], stem) for stem in folders[known[split][0]].listed(known[split][1])]
        for name, split in names.items()
    }


@dataclass
class _Image:
    """One XML file: where it and its image lie, and (number, name, box, difficult) of each object in it."""

    xml: Path
    image: Path
    id: int
    stated: tuple[int, int]
    found: list[tuple[int, str, tuple[float, ...], bool]]
    problems: list[Problem]
    whole: bool = True


def _parse(folder: _Folder, stem: str) -> _Image:
    xml = folder.path / "Annotations" / f"{stem}.xml"
    image = folder.images.get(stem, folder.path / "JPEGImages" / f"{stem}.jpg")
    parsed = _Image(xml, image, folder.ids.get(stem, 0), (0, 0), [], [])
    try:
        tree = ElementTree.parse(xml).getroot()
    except (OSError, ElementTree.ParseError, ValueError) as error:
        missing = f"it cannot be read ({getattr(error, 'strerror', None)})"
        reason = missing if isinstance(error, OSError) else f"it does not parse ({error})"
        parsed.problems.append(Problem(str(xml), "", reason))
        parsed.whole = False
        return parsed
    parsed.stated = (_whole_number(tree, "size/height"), _whole_number(tree, "size/width"))
    for number, entry in enumerate(tree.iterfind("object"), start=1):
        name, box = (entry.findtext("name") or "").strip(), _box(entry)
        if not name or box is None:
            what = "it has no name" if not name else "it has no bndbox of four numbers"
            parsed.problems.append(Problem(str(xml), f"object {number}", what))
        else:
            parsed.found.append((number, name, box, (entry.findtext("difficult") or "0").strip() not in ("0", "")))
    return parsed


def _box(entry: ElementTree.Element) -> tuple[float, ...] | None:
    """Corners from 0, ends excluded."""
    try:
        x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{corner}") or "") for corner in _CORNERS)
    except ValueError:
        return None
    return x0 - 1, y0 - 1, x1, y1


def _whole_number(tree: ElementTree.Element, path: str) -> int:
    text = (tree.findtext(path) or "").strip()
    return int(text) if text.isdecimal() else 0


def _classes(images: Sequence[_Image], spec: DataSpec, folder: Path) -> tuple[str, ...]:
    found = sorted({name for image in images for _, name, _, _ in image.found})
    for name in spec.only:
        if name not in found:
            raise UserError(f"{folder} has no object '{name}'.", did_you_mean(name, found) or "Correct 'only'.")
    if not found:
        raise UserError(f"{folder} has no annotated object.", "Test images come without: name another split.")
    return spec.only or tuple(found)


def _pool(images: Sequence[_Image], folder: Path, classes: tuple[str, ...]) -> DetectionImages:
    problems = [problem for image in images for problem in image.problems]
    images = [image for image in images if image.whole]
    rows = [
        (position, number, classes.index(name), box, difficult)
        for position, image in enumerate(images)
        for number, name, box, difficult in image.found
        if name in classes
    ]
    boxes = np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, 4)
    raw = RawObjects(
        folder,
        [image.image.relative_to(folder).as_posix() for image in images],
        np.array([image.id for image in images], dtype=np.int64),
        np.array([image.stated for image in images], dtype=np.int64).reshape(-1, 2),
        np.array([images[row[0]].id * OBJECTS + row[1] for row in rows], dtype=np.int64),
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        boxes,
        (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        np.array([row[4] for row in rows], dtype=bool),
        where_image=lambda position: (str(images[position].xml), ""),
        where=lambda row: (str(images[rows[row][0]].xml), f"object {rows[row][1]} ({classes[rows[row][2]]})"),
        problems=problems,
    )
    return checked(raw, classes, range(1, len(classes) + 1))
