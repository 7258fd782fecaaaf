"""Every image decoded once, in worker processes: what stays of it is a few hundred bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bob.cores import granted_cores
from bob.data.base import Dataset, ImageSet, Split
from bob.data.files import FileImages, decode
from bob.errors import UserError, first_line
from bob.verify.tally import Tally

THUMBNAIL = 16
"""Height and width of a thumbnail, in pixels."""

_LUMA = (0.299, 0.587, 0.114)  # of RGB (ITU-R BT.601)
_CHUNK = 32  # images that a worker looks at before it reports


@dataclass(frozen=True)
class Look:
    """What was seen of n images; the rows of those that cannot be read are zero, but for `files`.

    Attributes:
        errors: Position -> why the image there cannot be read.
        files: (n, 32) uint8, SHA-256 of the file; zero where an image is no file of its own.
        pixels: (n, 32) uint8, SHA-256 of the decoded image and its size.
        sizes: (n, 2) int64, height and width in pixels.
        spread: (n,) int64, brightest minus darkest value, over all channels; 0 for one flat colour of grey.
        thumbnails: (n, 16, 16) uint8, the image in grey, resized with antialiasing.
        torn: Position -> what is wrong with the annotation there, or with its fit to the image.
        tally: What all annotations hold; of no classes where labels are all there is.
    """

    errors: dict[int, str]
    files: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray
    spread: np.ndarray
    thumbnails: np.ndarray
    torn: dict[int, str]
    tally: Tally

    @classmethod
    def empty(cls, count: int, classes: int = 0) -> Look:
        """Room for `count` images, with annotations of so many classes."""
        return cls(
            errors={},
            files=np.zeros((count, 32), np.uint8),
            pixels=np.zeros((count, 32), np.uint8),
            sizes=np.zeros((count, 2), np.int64),
            spread=np.zeros(count, np.int64),
            thumbnails=np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8),
            torn={},
            tally=Tally.of(classes),
        )

    def put(self, start: int, part: Look) -> None:
        """Write what was seen of the images from `start` on."""
        rows = slice(start, start + len(part.spread))
        for name in ("files", "pixels", "sizes", "spread", "thumbnails"):
            getattr(self, name)[rows] = getattr(part, name)
        self.errors.update({start + position: reason for position, reason in part.errors.items()})
        self.torn.update({start + position: reason for position, reason in part.torn.items()})


@dataclass(frozen=True)
class Seen:
    """All images of a data set, one split after the other: n rows.

    Attributes:
        classes: Class names; label i is `classes[i]`.
        splits: Names of the splits.
        split: (n,) int64, the split of each image, as a position in `splits`.
        labels: (n,) int64 classes, or (n, L) int64 with 1 for present, 0 for absent and -1 for unknown.
        names: n names.
        look: What was seen of them.
        kind: What annotations say beyond labels, as `ImageSet.target_kind`.
        tallies: What the annotations of each split hold, where they say what is where.
    """

    classes: tuple[str, ...]
    splits: tuple[str, ...]
    split: np.ndarray
    labels: np.ndarray
    names: list[str]
    look: Look
    kind: str | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)
    readable: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        readable = np.ones(len(self.names), dtype=bool)
        readable[list(self.look.errors)] = False
        object.__setattr__(self, "readable", readable)

    def rows_of(self, split: str) -> np.ndarray:
        """Positions of a split's images."""
        return np.flatnonzero(self.split == self.splits.index(split))

    def where(self, row: int) -> str:
        """An image as a person finds it: split and name."""
        return f"{self.splits[self.split[row]]}: {self.names[row]}"


def look_at(dataset: Dataset, advance: Callable[[int], None], workers: int | None = None) -> Seen:
    """Read every image of every split, going on past those that cannot be read.

    Args:
        dataset: Opened.
        advance: Told how many more images are done.
        workers: Worker processes; None for one a granted core, 0 to read in this process.

    Raises:
        UserError: If a worker process dies.
    """
    splits = list(dataset.splits.values())
    look, start = Look.empty(sum(map(len, splits))), 0
    kind = splits[0].images.target_kind if splits else None
    tallies = {name: Tally.of(len(dataset.classes)) for name in dataset.splits if kind is not None}
    for name, split in dataset.splits.items():
        for chunk, part in _parts(split, granted_cores() if workers is None else workers):
            look.put(start + chunk, part)
            if name in tallies:
                tallies[name].add(part.tally)
            advance(len(part.spread))
        start += len(split)
    return Seen(
        classes=dataset.classes,
        splits=tuple(dataset.splits),
        split=np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
        labels=np.concatenate([split.labels for split in splits]),
        names=[name for split in splits for name in split.names],
        look=look,
        kind=kind,
        tallies=tallies,
    )


def _parts(split: Split, workers: int) -> Iterator[tuple[int, Look]]:
    """(first position, what was seen) of one chunk of a split after the other."""
    chunks = _Chunks(split.images, split.indices)
    # With a generator of its own, since without one it takes a number from torch's global generator.
    loader = DataLoader(chunks, batch_size=None, num_workers=min(workers, len(chunks)), generator=torch.Generator())
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise UserError(
            f"A process that reads images died: {error}",
            "Memory may be short, or an image may crash its decoder: use fewer --workers.",
        ) from error


class _Chunks(TorchDataset):
    """Item i is what was seen of the i-th chunk, so that little crosses the process boundary, and seldom."""

    def __init__(self, images: ImageSet, indices: np.ndarray) -> None:
        self._images, self._indices = images, indices

    def __len__(self) -> int:
        return -(-len(self._indices) // _CHUNK)

    def __getitem__(self, number: int) -> tuple[int, Look]:
        start = number * _CHUNK
        indices = self._indices[start : start + _CHUNK]
        part = Look.empty(len(indices), self._images.labels.shape[1] if self._images.target_kind else 0)
        for position, index in enumerate(indices):
            _look(self._images, int(index), part, position)
        return start, part


def _look(images: ImageSet, index: int, part: Look, position: int) -> None:
    try:
        pixels = _read(images, index, part, position)
    except UserError as error:
        part.errors[position] = error.problem.rstrip(".")
    except Exception as error:  # a decoder may raise anything on damaged content, and the next image is to be seen too
        part.errors[position] = _reason(error)
    else:
        part.pixels[position] = _digest(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes())
        part.sizes[position] = pixels.shape[-2:]
        part.spread[position] = int(pixels.max()) - int(pixels.min())
        part.thumbnails[position] = _thumbnail(pixels)
        if images.target_kind is not None and (reason := _annotation(images, index, pixels, part)):
            part.torn[position] = reason


def _annotation(images: ImageSet, index: int, pixels: torch.Tensor, part: Look) -> str:
    """What is wrong with an image's annotation; what it holds is added up."""
    size = (pixels.shape[-2], pixels.shape[-1])
    if size != images.size(index):
        annotated = " x ".join(map(str, images.size(index)))
        return f"the annotation is of {annotated} pixels, the image has {size[0]} x {size[1]}"
    try:
        return part.tally.count(images, index)
    except UserError as error:
        return error.problem.rstrip(".")
    except Exception as error:  # as for images: the next one is to be seen too
        return _reason(error)


def _read(images: ImageSet, index: int, part: Look, position: int) -> torch.Tensor:
    """Decode one image in full, uint8 (3, H, W); of a file, keep its digest as well."""
    if not isinstance(images, FileImages):
        return images.read(index)
    content = (images.root / images.names[index]).read_bytes()
    part.files[position] = _digest(content)
    if not content:
        raise UserError("the file is empty")
    return decode(content)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "truncated" in str(error):
        return "it is truncated"
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is not an image"
    return first_line(error)


def _digest(content: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def _thumbnail(pixels: torch.Tensor) -> np.ndarray:
    # Luma, as JPEG keeps it: the mean of the channels would change with its coarser colours.
    grey = torch.einsum("chw,c->hw", pixels.float(), torch.tensor(_LUMA))[None, None]
    small = torch.nn.functional.interpolate(grey, (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    return small[0, 0].round().clamp(0, 255).to(torch.uint8).numpy()
