"""From what a source has to train, val and test: its own splits as the card names them, and cuts for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bob.data.base import ImageSet, Split, counts
from bob.data.joined import JoinedImages
from bob.data.splits import at_most, counted_cut, keep_count, stratified_cut, subject_cut
from bob.data.subset import cut_down
from bob.errors import UserError, did_you_mean
from bob.task_cards import DataSpec

SPLITS = ("train", "val", "test")


def partition(
    pools: Mapping[str, ImageSet], spec: DataSpec, classes: Sequence[str], root: Path
) -> tuple[dict[str, Split], str]:
    """Return train, val and test, and in words where each came from.

    Args:
        pools: What the source has, by its own names of the splits; `all` where it has none.
        spec: The task card's `[data]`.
        classes: Class names.
        root: The data root, for the list that train is cut down to.

    Raises:
        UserError: If the source lacks a split that the card names, has nothing to learn from or too little to cut.
    """
    splits, rule = _as_named(pools, spec) if spec.splits else _as_found(pools, spec)
    if spec.subset:
        splits["train"] = cut_down(splits["train"], spec, root)
        rule["train"] = f"{len(splits['train'])} images of a list"
    cutter = _Cutter(splits, rule, spec, classes, "train" if "train" in rule else "all images")
    if spec.train_count is not None:
        cutter.keep(spec.train_count)
    cutter.cut("test", spec.test_fraction, spec.test_count)
    cutter.cut("val", spec.val_fraction, spec.val_count)
    words = "; ".join(f"{name}: {origin}" for name, origin in rule.items())
    return {name: splits[name] for name in SPLITS}, words


def require_learnable(splits: Mapping[str, Split], classes: Sequence[str], spec: DataSpec) -> None:
    """Check that no split is empty or, unless the card says so, holds a class that train does not.

    Raises:
        UserError: Naming the split and the class.
    """
    trained = counts(splits["train"].labels, len(classes)) > 0
    for name, split in splits.items():
        if not len(split):
            raise UserError(f"The split '{name}' of {spec.source} is empty.", "Add images to it.")
        unseen = np.flatnonzero((counts(split.labels, len(classes)) > 0) & ~trained)
        if len(unseen) and not spec.unseen_classes:
            raise UserError(
                f"Class '{classes[unseen[0]]}' is in the split '{name}' of {spec.source} but not in train.",
                "Add training images of it, or remove it (unseen_classes = true on a task card lets it be).",
            )


def _as_named(pools: Mapping[str, ImageSet], spec: DataSpec) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits as the card names them."""
    taken: dict[str, Split] = {}
    for name, origins in spec.splits.items():
        parts = [_pool(pools, origin.strip(), spec.source) for origin in origins.split("+")]
        images = parts[0] if len(parts) == 1 else JoinedImages(parts)
        taken[name] = Split(images, np.arange(len(images)))
    return taken, {name: f"the source's {origins}" for name, origins in spec.splits.items()}


def _pool(pools: Mapping[str, ImageSet], origin: str, source: str) -> ImageSet:
    if origin not in pools:
        raise UserError(
            f"{source} has no split '{origin}', only {', '.join(pools)}.",
            did_you_mean(origin, pools) or "Correct 'splits' on the task card.",
        )
    return pools[origin]


def _as_found(pools: Mapping[str, ImageSet], spec: DataSpec) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits that the source calls train, val and test."""
    if not {"train", "all"} & set(pools):
        raise UserError(f"{spec.source} has no train split, only {', '.join(pools)}.", "Add train images.")
    splits = {name: Split(images, np.arange(len(images))) for name, images in pools.items() if name in (*SPLITS, "all")}
    rule = {name: "the source's own" for name in splits if name != "all"}
    # A source with train and val only is tested on its val, as is the custom of ImageNet; a new val is cut from train.
    if "test" not in splits and "val" in splits:
        splits["test"], rule["test"] = splits.pop("val"), "the source's val"
        del rule["val"]
    if "all" in splits:
        splits["train"] = splits.pop("all")
    return splits, rule


class _Cutter:
    """Cuts from train what is missing, and notes in `rule` what it did."""

    def __init__(
        self, splits: dict[str, Split], rule: dict[str, str], spec: DataSpec, classes: Sequence[str], whole: str
    ) -> None:
        self._splits, self._rule, self._spec, self._classes, self._whole = splits, rule, spec, classes, whole
        images = splits["train"].images
        self._by_class = images.labels.ndim == 1 and images.subjects is None
        if not self._by_class and (spec.train_count or spec.val_count or spec.test_count):
            raise UserError(
                f"{spec.source} has several labels or subjects, so its splits cannot be cut by a count of each class.",
                "Use val_fraction and test_fraction on the task card.",
            )

    def keep(self, count: int) -> None:
        """Keep `count` images of each class in train; the others are the test, if there is none."""
        train, has_test = self._splits["train"], "test" in self._splits
        stay, rest = keep_count(train.labels, count, self._spec.split_seed, self._classes, leave=int(not has_test))
        self._splits["train"] = _part(train, stay)
        self._rule["train"], whole = f"{count} of each class of {self._whole}", self._whole
        if not has_test:
            self._splits["test"], self._rule["test"] = _part(train, rest), "the others"
            if self._spec.test_count is not None:
                self._limit_test(self._spec.test_count, whole)
        self._whole = "these"

    def _limit_test(self, count: int, whole: str) -> None:
        others = self._splits["test"]
        self._splits["test"] = _part(others, at_most(others.labels, count, self._spec.split_seed, self._classes))
        self._rule["test"] = f"at most {count} of each class of the others of {whole}"

    def cut(self, name: str, fraction: float, count: int | None) -> None:
        """Cut a split off from train, if it is missing."""
        if name in self._splits:
            return
        train, seed = self._splits["train"], self._spec.split_seed
        if not self._by_class:
            stay, cut = subject_cut(train.labels, fraction, seed, self._classes, _subjects(train))
            how = f"{fraction:.0%} of {self._whole}, at random" + (
                " by subject" if _subjects(train) is not None else ""
            )
        elif count is not None:
            stay, cut = counted_cut(train.labels, count, seed, self._classes)
            how = f"{count} of each class of {self._whole}"
        else:
            stay, cut = stratified_cut(train.labels, fraction, seed, self._classes)
            how = f"{fraction:.0%} of {self._whole}, stratified"
        self._splits["train"], self._splits[name] = _part(train, stay), _part(train, cut)
        self._rule[name], self._whole = how, "the rest"


def _part(split: Split, positions: np.ndarray) -> Split:
    return Split(split.images, split.indices[positions])


def _subjects(split: Split) -> np.ndarray | None:
    return None if split.images.subjects is None else split.images.subjects[split.indices]
