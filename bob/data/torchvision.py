"""Data sets of torchvision, by name, downloaded by torchvision itself."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets as datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from bob.data.base import ImageSet
from bob.data.files import UNREADABLE, FileImages, to_rgb
from bob.data.torchvision_lists import listing
from bob.errors import UserError, did_you_mean

# What torchvision's data sets call their splits -> what a protocol calls them. The first that exists counts.
_SPLITS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
_VERSIONS = {"train": ("2021_train",), "val": ("2021_valid",)}  # of INaturalist
# Attributes under which torchvision's classification data sets keep all labels.
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
# Refused by name, as they would be downloaded only to find that they have no classes; the last three read any folder.
_NOT_CLASSIFICATION = {
    *("CelebA", "Kitti", "LFWPairs", "Middlebury2014Stereo", "MovingMNIST", "PhotoTour", "SBDataset", "SBU"),
    *("VOCDetection", "VOCSegmentation", "WIDERFace", "DatasetFolder", "ImageFolder", "VisionDataset"),
}
# Arguments that are bob's own business.
_NO_OPTIONS = ("transform", "target_transform", "transforms", "download", "loader", "train")
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


def load_torchvision(
    name: str, root: Path, options: Mapping[str, bool | int | float | str] | None = None, origins: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Open `torchvision.datasets.NAME` below `root`, downloading it if need be.

    Args:
        name: Name of the class.
        root: The data root.
        options: Further arguments of the class; `root` is a folder below the data root.
        origins: The splits to open, by torchvision's names; those that are some train, val and test if empty.

    Returns:
        Class names, and the image set of each split that it has; one set named `all` where it has none.

    Raises:
        UserError: If there is no such data set, it is not one of labelled images, it cannot be downloaded, or it does
            not know an option or a split.
    """
    kind = getattr(datasets, name, None)
    if not (isinstance(kind, type) and issubclass(kind, datasets.VisionDataset)):
        known = [n for n in datasets.__all__ if inspect.isclass(getattr(datasets, n))]
        raise UserError(f"torchvision has no data set '{name}'.", did_you_mean(name, known))
    if name in _NOT_CLASSIFICATION or "root" not in inspect.signature(kind).parameters:
        raise UserError(f"torchvision's {name} is no classification data set in files.", _FOLDER)
    given = dict(options or {})
    root = root / Path(str(given.pop("root", ""))).expanduser()
    _require_known(kind, given)
    pools = _pools(kind, root, given, origins)
    for dataset in pools.values() if given else ():
        _require_same_labels(dataset, given)
    images = {split: _images(dataset, root, f"{name}/{split}") for split, dataset in pools.items()}
    return _classes(list(pools.values()), images, name), images


def _pools(kind: type, root: Path, given: dict[str, Any], origins: Sequence[str]) -> dict[str, Any]:
    """The opened data set of each split."""
    choices = _choices(kind, given, origins)
    opened = {split: _open(kind, root, given, tries) for split, tries in choices.items()}
    for split in origins:
        if opened.get(split) is None:
            raise UserError(
                f"torchvision's {kind.__name__} has no split '{split}'.", "Correct 'splits' on the task card."
            )
    pools = {split: dataset for split, dataset in opened.items() if dataset is not None}
    if not pools:
        raise UserError(f"torchvision's {kind.__name__} has none of the splits train, val and test.", _FOLDER)
    return pools


def _images(dataset: Any, root: Path, name: str) -> ImageSet:
    """Read the files themselves where it is known which they are: their hashes are remembered between runs."""
    files = listing(dataset)
    if files is None or not all(path.is_relative_to(root) for path in files.paths):
        return TorchvisionImages(dataset, name)
    labels = _labels(dataset) if files.labels is None else files.labels
    return FileImages(root, [path.relative_to(root).as_posix() for path in files.paths], labels)


def _parameters(kind: type) -> set[str]:
    """Names of the constructor's arguments, and of those that it hands on."""
    constructors = [base.__init__ for base in kind.__mro__ if "__init__" in vars(base) and base is not object]  # type: ignore[misc]
    return {name for constructor in constructors for name in inspect.signature(constructor).parameters}


def _require_known(kind: type, given: Mapping[str, Any]) -> None:
    known = sorted(_parameters(kind) - {"self", "args", "kwargs", *_NO_OPTIONS})
    for option in given:
        if option not in known:
            hint = did_you_mean(option, known) or f"It takes {', '.join(known)}."
            raise UserError(f"torchvision's {kind.__name__} takes no option '{option}'.", hint)


def _choices(kind: type, given: Mapping[str, Any], origins: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """For each split, the constructor arguments to try in turn."""
    # Some arguments are handed on to a parent: the `split` of EMNIST is one of several data sets, `train` its split.
    parameters = _parameters(kind)
    if "train" in inspect.signature(kind).parameters or ("train" in parameters and "split" in given):
        both: dict[str, list[dict[str, Any]]] = {"train": [{"train": True}], "test": [{"train": False}]}
        return {split: both[split] for split in origins if split in both} if origins else both
    argument = next((name for name in ("split", "version") if name in parameters and name not in given), None)
    if argument is None:
        return {"all": [{}]}
    if origins:
        return {split: [{argument: split}] for split in origins}
    by_split = _SPLITS if argument == "split" else _VERSIONS
    return {split: [{argument: name} for name in names] for split, names in by_split.items()}


def _open(kind: type, root: Path, given: dict[str, Any], choices: list[dict[str, Any]]) -> Any | None:
    """Open with the first arguments that the data set knows; None if it knows none of them."""
    for options in choices:
        try:
            return _open_or_download(kind, root, {**given, **options})
        except (OSError, RuntimeError, ImportError, ValueError) as error:
            if _unknown(error, options):
                continue
            if _unknown(error, given):
                raise UserError(
                    f"torchvision's {kind.__name__}: {_one_line(error)}", "Correct 'options' on the task card."
                ) from error
            raise UserError(
                f"torchvision's {kind.__name__} is not in {root} and cannot be downloaded: {_one_line(error)}",
                f"Put it there as torchvision would (see the documentation of {kind.__name__}), or set $BOB_DATA.",
            ) from error
        except TypeError as error:
            raise UserError(f"torchvision's {kind.__name__} needs options: {error}.", _FOLDER) from error
    return None


def _unknown(error: Exception, arguments: Mapping[str, Any]) -> bool:
    """Whether this is torchvision's answer to a value, such as a split, that the data set does not have."""
    return any(str(error).startswith(f"Unknown value '{value}' for argument") for value in arguments.values())


def _open_or_download(kind: type, root: Path, options: dict[str, Any]) -> Any:
    # Without `download` first, since some versions of some data sets refuse to download what is there.
    try:
        return kind(root, **options)
    except (OSError, RuntimeError):
        if "download" not in _parameters(kind):
            raise
    root.mkdir(parents=True, exist_ok=True)
    return kind(root, **options, download=True)


def _require_same_labels(dataset: Any, given: Mapping[str, Any]) -> None:
    """Fail if options make the data set give other targets than the labels that it keeps."""
    labels = _own_labels(dataset)
    files = listing(dataset)
    if labels is None or (files is not None and files.labels is not None):
        return
    for index in {0, len(dataset) // 2, len(dataset) - 1}:
        try:
            target = dataset[index][1]
        except UNREADABLE as error:
            raise UserError(f"Cannot read image {index} of {type(dataset).__name__}: {error}.") from error
        if np.ndim(target) or not isinstance(target, (int, np.integer)) or int(target) != int(labels[index]):
            raise UserError(
                f"With the options {dict(given)} torchvision's {type(dataset).__name__} gives targets that are not "
                "its classes.",
                "Leave out the option that does it.",
            )


def _own_labels(dataset: Any) -> Any | None:
    """All labels, if the data set keeps them."""
    for attribute in _LABEL_ATTRIBUTES:
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == len(dataset):
            return found
    return None


def _labels(dataset: Any) -> np.ndarray:
    found = _own_labels(dataset)
    if found is not None:
        return _as_labels(found, dataset)
    # Slower, but true of any data set: ask for every item, once the first has shown that it has a label.
    _as_labels([dataset[index][1] for index in range(len(dataset))[:1]], dataset)
    return _as_labels([dataset[index][1] for index in range(len(dataset))], dataset)


def _as_labels(values: Any, dataset: Any) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"torchvision's {type(dataset).__name__} has no class labels.", _FOLDER)
    return labels.astype(np.int64)


def _classes(opened: list[Any], images: dict[str, ImageSet], name: str) -> tuple[str, ...]:
    named = [_names(dataset) for dataset in opened]
    if any(names != named[0] for names in named):
        # Names of a split may be those of the classes that it happens to hold: labels then mean different things.
        raise UserError(f"The splits of torchvision's {name} have different classes.", "Use splits of one kind.")
    count = 1 + max(int(pool.labels.max(initial=-1)) for pool in images.values())
    return named[0] if named[0] and len(named[0]) >= count else tuple(str(index) for index in range(count))


def _names(dataset: Any) -> tuple[str, ...]:
    files = listing(dataset)
    names = (files.classes if files else None) or getattr(dataset, "classes", None) or ()
    # ImageNet and Imagenette have several names for one class.
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."
