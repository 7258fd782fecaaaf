"""What may follow a protocol's name after `@`: few shots, a block or all of them, averaged patches, an engine."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bob.data.base import Dataset, Split
from bob.engines.registry import ENGINES
from bob.errors import UserError
from bob.features.patches import check_patches

if TYPE_CHECKING:
    from bob.adapters.base import Protocol

FORMS = "5shot, 10%, block3, blocks, patches9, detectron2, mmseg, faiss, multiscale"


@dataclass(frozen=True)
class Shots:
    """How few training images a protocol may see.

    Attributes:
        per_class: That many of each class; None if `percent` says it.
        percent: That share of each class, at least one image.
    """

    per_class: int | None = None
    percent: float | None = None

    def __str__(self) -> str:
        return f"{self.per_class}shot" if self.percent is None else f"{self.percent:g}%"

    def as_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return {"per_class": self.per_class} if self.per_class is not None else {"percent": self.percent or 0.0}

    def count(self, available: int) -> int:
        """How many of that many images of a class to take."""
        if self.per_class is not None:
            return self.per_class
        return max(1, round((self.percent or 0.0) / 100 * available))


def parse(modifier: str) -> Callable[[Protocol], Protocol]:
    """Return what a modifier does to a protocol.

    Raises:
        UserError: If there is no such modifier, or its number makes no sense.
    """
    if found := re.fullmatch(r"(\d+)shots?", modifier):
        if (shots := int(found[1])) < 1:
            raise UserError("'@0shot' leaves nothing to learn from.", "Take @1shot or more, or the protocol zero_shot.")
        return lambda protocol: protocol.with_shots(Shots(per_class=shots))
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", modifier):
        if not 0 < (percent := float(found[1])) <= 100:
            raise UserError(f"'@{modifier}' is no share of the training images.", "Take one above 0% and up to 100%.")
        return lambda protocol: protocol.with_shots(Shots(percent=percent))
    if found := re.fullmatch(r"block(\d+)", modifier):
        block = int(found[1])
        return lambda protocol: protocol.with_block(block)
    if modifier == "blocks":
        return lambda protocol: protocol.with_block(None)
    if found := re.fullmatch(r"patches(\d+)", modifier):
        check_patches(patches := int(found[1]))
        return lambda protocol: protocol.with_patches(patches)
    if modifier == "multiscale":
        return lambda protocol: protocol.with_scales()
    if modifier in (*ENGINES, "faiss"):
        return lambda protocol: protocol.with_engine(modifier)
    raise UserError(f"A protocol has no modifier '@{modifier}'.", f"Known are, for example: {FORMS}.")


def draw_shots(dataset: Dataset, shots: Shots, seed: int) -> Dataset:
    """Cut train and val down to a few images of each class, and leave the other splits as they are.

    A class's draw depends on the seed, its name and its images alone, so that it is the same on every machine, and a
    larger draw contains the smaller ones. Validation keeps as many of each class as train, or all where it has fewer.

    Raises:
        UserError: If a class has fewer training images than asked for, or the labels are no single classes.
    """
    splits = dict(dataset.splits)
    for name in ("train", "val"):
        split = splits[name]
        if split.labels.ndim != 1:
            raise UserError(f"{dataset.source} has several labels an image, so '@{shots}' has no meaning.", "Leave it.")
        positions = _draw(split, shots, seed, dataset.classes, strict=name == "train")
        splits[name] = Split(split.images, split.indices[positions])
    return replace(dataset, splits=splits)


def _draw(split: Split, shots: Shots, seed: int, classes: Sequence[str], strict: bool) -> np.ndarray:
    drawn = []
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        wanted = shots.count(len(members))
        if wanted > len(members) and strict:
            raise UserError(
                f"Class '{classes[label]}' has {len(members)} training images, fewer than '@{shots}' asks for.",
                f"Take @{len(members)}shot or less.",
            )
        rng = np.random.default_rng([seed, zlib.crc32(classes[label].encode())])
        drawn.append(rng.permutation(members)[:wanted])
    return np.sort(np.concatenate(drawn))
