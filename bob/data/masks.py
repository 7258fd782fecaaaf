"""Semantic segmentation: images, and beside each a mask with the number of a class in every pixel."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bob.data.annotations import Problem, refuse
from bob.data.base import ImageSet
from bob.data.files import SUFFIXES as IMAGE_SUFFIXES
from bob.data.mask_files import SUFFIXES as MASK_SUFFIXES
from bob.data.mask_files import MaskFacts, decode_grey
from bob.data.segmentation import RANGE, Pairs, Values, read_pairs, sound
from bob.data.split_paths import SplitPath, split_paths
from bob.errors import UserError
from bob.task_cards import DataSpec

_MOST_CLASSES = 1000  # that masks may have without a card that says so; more are instances, heights or colours


def load_masks(name: str, root: Path, spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read images and masks of the same names but for their endings, as `masks:IMAGES:MASKS`.

    A mask is grey of up to 16 bits, or has a palette, whose positions count and never its colours. Its numbers are the
    classes, or those of `values`, or one of `ignore`.

    Args:
        name: `IMAGES:MASKS`, two folders below the data root; `{split}` in both stands for the name of a split.
        root: The data root.
        spec: The task card's `[data]`: `splits`, `image_suffix`, `mask_suffix`, `values`, `ignore`, `classes`.

    Returns:
        Class names, which are the numbers in the masks, and the image set of each split; one set named `all` without
        `{split}`.

    Raises:
        UserError: If a folder is missing or empty; unless the card drops them, on bad masks: missing, of another size
            than the image, in colours, unreadable, or with a number that means nothing.
    """
    folders = name.split(":")
    if len(folders) != 2 or not all(folders):
        raise UserError(f"'{spec.source}' does not name two folders.", "Write masks:IMAGES:MASKS.")
    found = {
        split: _paired(images, masks, spec.image_suffix, spec.mask_suffix)
        for split, (images, masks) in split_paths(folders, root, spec).items()
    }
    return open_masks(found, spec)


def load_shapes_segmentation(spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Open the scenes of several silhouettes with masks: 400 to train, 100 to choose, 200 to test.

    They are drawn and written at the first call (some seconds), as images and masks in folders under `places.home()`.

    Raises:
        UserError: If the files cannot be written.
    """
    from bob.data.scene_files import MASK_CLASSES, MASKS_SOURCE, scene_files

    _, pools = load_masks(MASKS_SOURCE, scene_files(), spec.model_copy(update={"classes": len(MASK_CLASSES)}))
    return MASK_CLASSES, pools


def open_masks(found: Mapping[str, Pairs], spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read all masks, once, and make image sets of those that are sound; see `load_masks`.

    Raises:
        UserError: As `load_masks`.
    """
    read = {split: read_pairs(pairs, decode_grey) for split, pairs in found.items()}
    legend = _values(spec, [facts for _, several in read.values() for facts in several])
    pools = {split: sound(*read[split], decode_grey, legend) for split in found}
    refuse([problem for images in pools.values() for problem in images.problems], spec)
    return tuple(map(str, legend.values)), dict(pools)


def _values(spec: DataSpec, facts: Sequence[MaskFacts]) -> Values:
    """What the card says of the numbers in masks, or what these masks hold."""
    if wrong := [value for value in (*spec.values, *spec.ignore) if not 0 <= value < RANGE]:
        raise UserError(f"The value {wrong[0]} cannot be in a mask.", f"Masks have values from 0 to {RANGE - 1:,}.")
    if twice := [value for value, times in Counter(spec.values).items() if times > 1]:
        raise UserError(f"The value {twice[0]} stands for two classes.", "Correct 'values' on the task card.")
    values = spec.values or tuple(range(spec.classes or 0))
    if not values:
        return Values(tuple(v for v in range(_largest(spec, facts) + 1) if v not in spec.ignore), spec.ignore)
    both = sorted(set(values) & set(spec.ignore))
    if both and "ignore" in spec.model_fields_set:
        raise UserError(f"The value {both[0]} is a class and ignored.", "Correct 'values' or 'ignore' on the card.")
    # Nothing said of 255, it is a class where the card's values have it, as in masks of 0 and 255.
    return Values(values, tuple(value for value in spec.ignore if value not in both))


def _largest(spec: DataSpec, facts: Sequence[MaskFacts]) -> int:
    """The largest number in any mask that is not ignored; 0 where there is none."""
    numbers = np.unique(np.concatenate([np.zeros(1, dtype=np.int64), *(held.values for held in facts)]))
    largest = int(numbers[~np.isin(numbers, spec.ignore)].max(initial=0))
    if largest >= _MOST_CLASSES:
        raise UserError(
            f"The masks of {spec.source} have values up to {largest:,}, which are hardly classes.",
            "Say on a task card which are: 'values', 'ignore' or 'classes' in [data].",
        )
    return largest


def _paired(images: SplitPath, masks: SplitPath, image_suffix: str, mask_suffix: str) -> Pairs:
    """Pair the files of two folders by their paths without endings, in the order of the images."""
    own = _by_stem(images.path, image_suffix, IMAGE_SUFFIXES)
    theirs = _by_stem(masks.path, mask_suffix, MASK_SUFFIXES)
    for folder, found in ((images.path, own), (masks.path, theirs)):
        if not found:
            raise UserError(f"{folder} has no {'images' if found is own else 'masks'}.", "Correct the source.")
    problems = [
        Problem(str(files[1]), "", f"{files[0].name} has its name too")
        for files in (*own.values(), *theirs.values())
        if len(files) > 1
    ]
    problems += [
        Problem(str(own[stem][0]), "", f"it has no mask in {masks.path}") for stem in own.keys() - theirs.keys()
    ]
    problems += [
        Problem(str(theirs[stem][0]), "", f"it has no image in {images.path}") for stem in theirs.keys() - own.keys()
    ]
    names = [
        (own[stem][0].relative_to(images.base).as_posix(), theirs[stem][0].relative_to(masks.base).as_posix())
        for stem in own
        if len(own[stem]) == len(theirs.get(stem, ())) == 1
    ]
    return Pairs(images.base, masks.base, names, sorted(problems, key=lambda problem: problem.file))


def _by_stem(folder: Path, ending: str, suffixes: frozenset[str]) -> dict[str, list[Path]]:
    """Path below the folder without its ending -> the files that have it, sorted."""
    found: dict[str, list[Path]] = {}
    for path in _files_below(folder):
        whole = path.relative_to(folder).as_posix()
        if ending and whole.endswith(ending):
            found.setdefault(whole.removesuffix(ending), []).append(path)
        elif not ending and path.suffix.lower() in suffixes:
            found.setdefault(whole.removesuffix(path.suffix), []).append(path)
    return {stem: sorted(found[stem]) for stem in sorted(found)}


def _files_below(folder: Path) -> Iterator[Path]:
    """All files but hidden ones, through links too."""
    walked: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        # A link to a folder above would lead round for ever.
        is_new = (real := os.path.realpath(here)) not in walked
        walked.add(real)
        folders[:] = [name for name in folders if is_new and not name.startswith(".")]
        yield from (Path(here, name) for name in files if is_new and not name.startswith("."))
