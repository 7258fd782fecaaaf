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
from bob.data.files import UNREADABLE, FileImages, to_rgb
from bob.errors import UserError, did_you_mean

# What torchvision's data sets call their splits -> what a protocol calls them. The first that exists counts.
_SPLITS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
# Attributes under which torchvision's classification data sets keep all labels.
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
# Attributes under which those that lie in image files keep the paths. They open each with PIL and convert it to RGB.
_FILE_ATTRIBUTES = ("_image_files", "_images", "_samples", "samples")
# Refused by name, as they would be downloaded only to find that they have no classes; the last three read any folder.
_NOT_CLASSIFICATION = {
    *("CelebA", "Kitti", "LFWPairs", "Middlebury2014Stereo", "MovingMNIST", "PhotoTour", "SBDataset", "SBU"),
    *("VOCDetection", "VOCSegmentation", "WIDERFace", "DatasetFolder", "ImageFolder", "VisionDataset"),
}
_FOLDER = "For your own images, or others as files, use folder:PATH."


class TorchvisionImages(ImageSet):
    """One split of a torchvision classification data set that does not lie in a file for each image."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name
        self.labels = _labels(dataset)
        self.names = [f"{name}/{index:06d}" for index in range(len(self.labels))]
        self._fingerprint: str | None = None

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        try:
            return pil_to_tensor(to_rgb(self._dataset[index][0]))
        except UNREADABLE as error:
            raise UserError(
                f"Cannot read image {index} of {self._name}: {error}.", "Download the data again."
            ) from error

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; hashes the pixels, since there are no files to hash."""
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
    if name in _NOT_CLASSIFICATION or "root" not in inspect.signature(kind).parameters:
        raise UserError(f"torchvision's {name} is no classification data set in files.", _FOLDER)
    opened = {split: _open(kind, root, options) for split, options in _options(kind).items()}
    pools = {split: dataset for split, dataset in opened.items() if dataset is not None}
    if not pools:
        raise UserError(f"torchvision's {name} has none of the splits train, val and test.", _FOLDER)
    images = {split: _images(dataset, root, f"{name}/{split}") for split, dataset in pools.items()}
    return _classes(next(iter(pools.values())), images), images


def _images(dataset: Any, root: Path, name: str) -> ImageSet:
    """Read the files themselves where the data set says which they are: their hashes are remembered between runs."""
    files = _files(dataset)
    if files is None or not all(file.is_relative_to(root) for file in files):
        return TorchvisionImages(dataset, name)
    return FileImages(root, [file.relative_to(root).as_posix() for file in files], _labels(dataset))


def _files(dataset: Any) -> list[Path] | None:
    """The path of each image, if the data set keeps a list of them, alone or with their labels."""
    for attribute in _FILE_ATTRIBUTES:
        entries = getattr(dataset, attribute, None) or []
        paths = [entry[0] if isinstance(entry, (tuple, list)) else entry for entry in entries]
        if paths and len(paths) == len(dataset) and all(isinstance(path, (str, Path)) for path in paths):
            return [Path(path) for path in paths]
    return None


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
    for options in choices:
        try:
            return _open_or_download(kind, root, options)
        except (OSError, RuntimeError, ImportError, ValueError) as error:
            if str(error).startswith("Unknown value"):
                continue  # torchvision's answer to a split that the data set does not have
            raise UserError(
                f"torchvision's {kind.__name__} is not in {root} and cannot be downloaded: {_one_line(error)}",
                f"Put it there as torchvision would (see the documentation of {kind.__name__}), or set $BOB_DATA.",
            ) from error
        except TypeError as error:
            raise UserError(f"torchvision's {kind.__name__} needs options: {error}.", _FOLDER) from error
    return None


def _open_or_download(kind: type, root: Path, options: dict[str, Any]) -> Any:
    # Without `download` first, since some versions of some data sets refuse to download what is there.
    try:
        return kind(root, **options)
    except (OSError, RuntimeError):
        if "download" not in inspect.signature(kind).parameters:
            raise
    root.mkdir(parents=True, exist_ok=True)
    return kind(root, **options, download=True)


def _labels(dataset: Any) -> np.ndarray:
    for attribute in _LABEL_ATTRIBUTES:
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == len(dataset):
            return _as_labels(found, dataset)
    # Slower, but true of any data set: ask for every item, once the first has shown that it has a label.
    _as_labels([dataset[index][1] for index in range(len(dataset))[:1]], dataset)
    return _as_labels([dataset[index][1] for index in range(len(dataset))], dataset)


def _as_labels(values: Any, dataset: Any) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"torchvision's {type(dataset).__name__} has no class labels.", _FOLDER)
    return labels.astype(np.int64)


def _classes(dataset: Any, images: dict[str, ImageSet]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    count = 1 + max(int(pool.labels.max()) for pool in images.values())
    if not names or len(names) < count:
        return tuple(str(index) for index in range(count))
    # ImageNet and Imagenette have several names for one class.
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."
