"""From a task card's data table to images in train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bob import places
from bob.cards import DataSpec
from bob.data.base import Dataset, ImageSet, Split
from bob.data.splits import stratified_cut
from bob.errors import UserError, did_you_mean

BUILT_IN = ("shapes", "orl_faces")
PREFIXES = ("folder:", "torchvision:")


def load_dataset(spec: DataSpec, data_root: Path | None = None) -> Dataset:
    """Open a data set and make sure that it has train, val and test.

    Args:
        spec: The task card's `[data]`.
        data_root: Folder of downloaded data sets; `places.data_root()` if None.

    Raises:
        UserError: If the source is unknown or its data cannot be had or cannot be split.
    """
    if spec.source == "shapes":
        from bob.data.shapes import load_shapes

        return load_shapes()
    classes, pools = _open(spec.source, data_root or places.data_root())
    if len(classes) < 2:
        raise UserError(f"{spec.source} has only one class, '{classes[0]}'.", "Classification needs at least two.")
    splits, rule = _split(pools, spec, classes)
    _require_learnable(splits, classes, spec.source)
    return Dataset(spec.source, classes, splits, {"splits": rule, "split_seed": spec.split_seed})


def _open(source: str, data_root: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    if source == "orl_faces":
        from bob.data.orl_faces import load_orl_faces

        return load_orl_faces()
    if source.startswith("folder:"):
        from bob.data.folder import load_folder

        return load_folder(Path(source.removeprefix("folder:")))
    if source.startswith("torchvision:"):
        from bob.data.torchvision import load_torchvision

        return load_torchvision(source.removeprefix("torchvision:"), data_root)
    known = [*BUILT_IN, *(f"{prefix}..." for prefix in PREFIXES)]
    raise UserError(
        f"Unknown data source '{source}'.", did_you_mean(source, known) or f"Use one of {', '.join(known)}."
    )


def _split(pools: dict[str, ImageSet], spec: DataSpec, classes: Sequence[str]) -> tuple[dict[str, Split], str]:
    """Take the splits that the source has and cut those that it lacks; also say in words which."""
    if not {"train", "all"} & set(pools):
        raise UserError(f"{spec.source} has no train split, only {', '.join(pools)}.", "Add train images.")
    splits = {name: Split(images, np.arange(len(images))) for name, images in pools.items()}
    rule = {name: "the source's own" for name in splits if name != "all"}
    # A source with train and val only is tested on its val, as is the custom of ImageNet; a new val is cut from train.
    if "test" not in splits and "val" in splits:
        splits["test"], rule["test"] = splits.pop("val"), "the source's val"
        del rule["val"]
    whole = "train" if "train" in splits else "all images"
    if "all" in splits:
        splits["train"] = splits.pop("all")
    for name, fraction in (("test", spec.test_fraction), ("val", spec.val_fraction)):
        if name not in splits:
            splits["train"], splits[name] = _cut(splits["train"], fraction, spec.split_seed, classes)
            rule[name], whole = f"{fraction:.0%} of {whole}, stratified", "the rest"
    in_words = "; ".join(f"{name}: {origin}" for name, origin in rule.items())
    return {name: splits[name] for name in ("train", "val", "test")}, in_words


def _cut(split: Split, fraction: float, seed: int, classes: Sequence[str]) -> tuple[Split, Split]:
    stay, cut = stratified_cut(split.labels, fraction, seed, classes)
    return Split(split.images, split.indices[stay]), Split(split.images, split.indices[cut])


def _require_learnable(splits: dict[str, Split], classes: Sequence[str], source: str) -> None:
    """Fail if a split is empty or holds a class that train does not."""
    trained = np.unique(splits["train"].labels)
    for name, split in splits.items():
        if not len(split):
            raise UserError(f"The split '{name}' of {source} is empty.", "Add images to it.")
        unseen = np.setdiff1d(split.labels, trained)
        if len(unseen):
            raise UserError(
                f"Class '{classes[unseen[0]]}' is in the split '{name}' of {source} but not in train.",
                "Add training images of it, or remove it.",
            )
