"""The annotations of ImageNet-X, read where the package `imagenet-x` keeps them; none of its code runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pj
from numpy.typing import NDArray

from bob.errors import UserError, first_line

WhichFactor = Literal["top", "multi"]
Partition = Literal["val", "train"]
ErrorType = Literal["class", "metaclass", "real_class"]

CLASSES = 1000
VAL_IMAGES = 50_000

# In the order of the published tables.
FACTORS = (
    *("pose", "background", "pattern", "color", "smaller", "shape", "partial_view", "subcategory", "texture"),
    *("larger", "darker", "object_blocking", "person_blocking", "style", "brighter", "multiple_objects"),
)
# The groups of classes that are told apart; every other group is `other`.
METACLASSES = (
    *("device", "dog", "commodity", "bird", "structure", "covering", "wheeled_vehicle", "food", "equipment"),
    *("insect", "vehicle", "furniture", "primate", "vessel", "snake", "natural_object", "other"),
)
_REQUIREMENT = "imagenet-x==0.0.7"
_INSTALL = f"Run `pip install {_REQUIREMENT}`."


@dataclass(frozen=True, eq=False)
class Annotations:
    """What ImageNet-X says of n images of one partition of ImageNet.

    Attributes:
        partition: `val` or `train`.
        names: n file names without folders.
        classes: (n,) int64, the label, from 0 to 999.
        flags: (n, 16) bool, which of `FACTORS` make the image unlike the prototypes of its class.
        metaclass_of: (1000,) int64, the position in `METACLASSES` of each class.
        real: (n, m) int64, the labels of ReaL, filled up with -1; None for `train`, which has none.
    """

    partition: Partition
    names: NDArray[np.object_]
    classes: NDArray[np.int64]
    flags: NDArray[np.bool_]
    metaclass_of: NDArray[np.int64]
    real: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def metaclasses(self) -> NDArray[np.int64]:
        """(n,) int64, the position in `METACLASSES` of each image's class."""
        return self.metaclass_of[self.classes]

    def right(self, predicted: NDArray[np.int64], error_type: ErrorType = "class") -> NDArray[np.bool_]:
        """Whether each prediction counts as right, (n,) bool.

        Args:
            predicted: (n,) classes, one for each image in order.
            error_type: `class` asks for the label, `metaclass` for a class of the same metaclass, `real_class` for any
                of ReaL's labels; an image that ReaL leaves without a label can only be got wrong.

        Raises:
            UserError: If ReaL is asked of `train`, which it does not cover.
        """
        if error_type == "class":
            return predicted == self.classes
        if error_type == "metaclass":
            return self.metaclass_of[predicted] == self.metaclasses
        if self.real is None:
            raise UserError(
                "ReaL has labels for ImageNet's validation images only.", "Take another --error-type with train."
            )
        return (self.real == predicted[:, None]).any(axis=1)


def load_annotations(
    which_factor: WhichFactor = "top", partition: Partition = "val", include_prototypes: bool = False
) -> Annotations:
    """Read the annotations of one partition.

    Args:
        which_factor: `top` for the one factor that matters most in each image, `multi` for all that an annotator saw.
        partition: Of ImageNet; `train` has 11,233 annotated images.
        include_prototypes: Whether to keep the images that annotators were shown as typical of their class; the
            published numbers leave them out.

    Raises:
        UserError: If the package is not installed, or its files are not those of version 0.0.7.

    Source: Idrissi et al. 2023, arXiv 2211.01866; https://github.com/facebookresearch/imagenetx.
    """
    folder = _folder()
    try:
        table = pj.read_json(folder / f"imagenet_x_{partition}_{which_factor}_factor.jsonl")
        names = table.column("file_name").to_numpy(zero_copy_only=False)
        flags = np.stack([table.column(factor).to_numpy() == 1 for factor in FACTORS], axis=1)
        classes = table.column("class").to_numpy().astype(np.int64)
        prototypes = pd.read_csv(folder / "prototypical_paths.csv")["file_name"]
        metaclass_of = _metaclasses(pd.read_csv(folder / "imagenet_1k_classes_to_100_metaclasses.csv")["name"])
        real = _real_labels(folder / "imagenet_real_labels.jsonl") if partition == "val" else None
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"The files of ImageNet-X in {folder} cannot be read: {first_line(error)}.", _INSTALL
        ) from error
    keep = np.ones(len(names), dtype=bool) if include_prototypes else ~pd.Series(names).isin(prototypes).to_numpy()
    rows = None if real is None else real[val_numbers(names[keep]) - 1]
    return Annotations(partition, names[keep], classes[keep], flags[keep], metaclass_of, rows)


def val_numbers(names: NDArray[np.object_]) -> NDArray[np.int64]:
    """(n,) int64: the number of each of ImageNet's validation images, from 1 to 50,000; 0 for any other name."""
    found = pd.Series(names, dtype=object).str.extract(r"^ILSVRC2012_val_(\d{8})\.JPEG$", expand=False)
    numbers = pd.to_numeric(found).fillna(0)
    return numbers.where(numbers <= VAL_IMAGES, 0).to_numpy(np.int64)


def _folder() -> Path:
    """Where the installed package keeps its annotations; found without importing it, which takes seconds.

    By the distribution's name, for another module may be called `imagenet_x`, such as a script of a user.
    """
    try:
        installed = metadata.distribution("imagenet-x")
    except metadata.PackageNotFoundError as error:
        problem = "imagenet-x, which has the annotations of ImageNet-X, is not installed."
        raise UserError(problem, _INSTALL) from error
    return Path(str(installed.locate_file("imagenet_x/annotations")))


def _metaclasses(names: pd.Series[str]) -> NDArray[np.int64]:
    """(1000,) int64; a row's number is its class."""
    if len(names) != CLASSES:
        raise ValueError(f"{len(names)} classes instead of {CLASSES}")
    position = {name: number for number, name in enumerate(METACLASSES)}
    return np.array([position.get(name, position["other"]) for name in names], dtype=np.int64)


def _real_labels(path: Path) -> NDArray[np.int64]:
    """(50000, m) int64 in the order of the validation images' numbers, filled up with -1."""
    labels = json.loads(path.read_text(encoding="utf-8"))
    if len(labels) != VAL_IMAGES:
        raise ValueError(f"{len(labels)} images with labels of ReaL instead of {VAL_IMAGES}")
    lengths = np.array([len(own) for own in labels])
    table = np.full((VAL_IMAGES, lengths.max()), -1, dtype=np.int64)
    table[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate([np.array(own, np.int64) for own in labels])
    return table
