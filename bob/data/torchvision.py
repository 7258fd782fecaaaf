"""Data sets of torchvision, by name, downloaded by torchvision itself."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets as datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from bob.data.base import ImageSet
from bob.errors import UserError, did_you_mean

# What torchvision's data sets call their splits -> what a protocol calls them. The first that exists counts.
_SPLITS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
# Attributes under which torchvision's classification data sets keep all labels.
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")


class TorchvisionImages(ImageSet):
    """One split of a torchvision classification data set."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name
        self.labels = _labels(dataset)
        self.names = [f"{name}/{index:06d}" for index in range(len(self.labels))]
        self._fingerprint: str | None = None

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        try:
            return pil_to_tensor(self._dataset[index][0].convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise UserError(
                f"Cannot read image {index} of {self._name}: {error}.", "Download the data again."
            ) from error

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; hashes decoded pixels, since torchvision does not say which files it read."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for index in range(len(self)):
                pixels = self.read(index)
                digest.update(str(tuple(pixels.shape)).encode() + pixels.contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def load_torchvision(name: str, root: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Open `torchvision.datasets.NAME` below `root`, downloading it if need be.

    Returns:
        Class names, and the image set of each split that it has; one set named `all` where it has none.

    Raises:
        UserError: If there is no such data set, it is not one of labelled images, or it cannot be downloaded.
    """
    kind = getattr(datasets, name, None)
    if not (isinstance(kind, type) and issubclass(kind, datasets.VisionDataset)):
        known = [n for n in datasets.__all__ if inspect.isclass(getattr(datasets, n))]
        raise UserError(f"torchvision has no data set '{name}'.", did_you_mean(name, known))
    opened = {split: _open(kind, root, options) for split, options in _options(kind).items()}
    pools = {split: dataset for split, dataset in opened.items() if dataset is not None}
    if not pools:
        raise UserError(f"torchvision's {name} has none of the splits train, val and test.", "Use folder:PATH instead.")
    images: dict[str, ImageSet] = {split: TorchvisionImages(d, f"{name}/{split}") for split, d in pools.items()}
    return _classes(next(iter(pools.values())), images), images


def _options(kind: type) -> dict[str, list[dict[str, Any]]]:
    """For each split, the constructor arguments to try in turn."""
    parameters = inspect.signature(kind).parameters
    if "train" in parameters:
        return {"train": [{"train": True}], "test": [{"train": False}]}
    if "split" in parameters:
        return {split: [{"split": name} for name in names] for split, names in _SPLITS.items()}
    return {"all": [{}]}


def _open(kind: type, root: Path, choices: list[dict[str, Any]]) -> Any | None:
    """Open with the first arguments that the data set knows; None if it knows none of them."""
    download = {"download": True} if "download" in inspect.signature(kind).parameters else {}
    for options in choices:
        try:
            root.mkdir(parents=True, exist_ok=True)
            return kind(root, **options, **download)
        except ValueError:
            continue  # torchvision's answer to a split that the data set does not have
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"torchvision's {kind.__name__} is not in {root} and cannot be downloaded: {_first_line(error)}",
                f"Put it there as torchvision would (see the documentation of {kind.__name__}), or set $BOB_DATA.",
            ) from error
        except TypeError as error:
            raise UserError(
                f"torchvision's {kind.__name__} needs options: {error}.", "Use folder:PATH instead."
            ) from error
    return None


def _labels(dataset: Any) -> np.ndarray:
    for attribute in _LABEL_ATTRIBUTES:
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == len(dataset):
            return _as_labels(found, dataset)
    # Slower, but true of any data set: ask for every item.
    return _as_labels([dataset[index][1] for index in range(len(dataset))], dataset)


def _as_labels(values: Any, dataset: Any) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"torchvision's {type(dataset).__name__} has no class labels.", "Use one for classification.")
    return labels.astype(np.int64)


def _classes(dataset: Any, images: dict[str, ImageSet]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    count = 1 + max(int(pool.labels.max()) for pool in images.values())
    return tuple(str(n) for n in names) if names and len(names) >= count else tuple(str(i) for i in range(count))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
