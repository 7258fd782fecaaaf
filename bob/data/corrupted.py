"""Images with the corruptions of ImageNet-C, computed when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import io
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import torch
from PIL import Image

from bob.data.base import ImageSet, Split
from bob.errors import UserError, did_you_mean
from bob.extras import import_extra

FIFTEEN = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The corruptions of ImageNet-C that mean corruption error is about."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Its four further ones, which were held out for choosing hyperparameters."""

VERSION = 1
"""Raised whenever the same image would be corrupted otherwise by the same library."""

_SMALLEST = 32  # pixels, of either side
_RESIZED, _CROPPED = 256, 224  # pixels, of the images that ImageNet-C was made from
_DISTRIBUTIONS = ("imagecorruptions-imaug", "imagecorruptions")


class CorruptedImages(ImageSet):
    """The images of a split, each with one corruption of one severity, the same at every reading.

    What is random is seeded by the image's position in its set. Corruptions act on the pixels as the data have them,
    and their severities were set for images of 224 px: on small ones they are stronger.

    Args:
        split: The clean images.
        corruption: One of `FIFTEEN` or `EXTRA`.
        severity: 1 to 5.
        seed: Of what is random.
        published: Whether images are first brought to 224 px as ImageNet-C's were: shorter side to 256, centre cut out.

    Raises:
        UserError: If there is no such corruption, or the library is not installed.

    Source: Hendrycks & Dietterich 2019, arXiv 1903.12261, by the package imagecorruptions (Michaelis et al. 2019,
        arXiv 1907.07484), whose maintained build is imagecorruptions-imaug.
    """

    def __init__(self, split: Split, corruption: str, severity: int, seed: int = 0, published: bool = False) -> None:
        require_corruption(corruption)
        if severity not in (1, 2, 3, 4, 5):
            raise ValueError(f"Expected `severity` to be 1 to 5, but got {severity}.")
        self.library = library_version()
        self.labels = split.labels
        self.names = split.names
        self._split, self._corruption, self._severity = split, corruption, severity
        self._seed, self._published = seed, published

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`; raises a UserError if a side of the image is shorter than 32 pixels."""
        place = int(self._split.indices[index])
        pixels = self._split.images.read(place).permute(1, 2, 0).numpy()
        if self._published:
            pixels = _as_published(pixels)
        if min(pixels.shape[:2]) < _SMALLEST:
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise UserError(
                f"The image {self.names[index]} has {size} pixels, too few for the corruption '{self._corruption}'.",
                f"Leave out images with a side under {_SMALLEST} pixels.",
            )
        seed = [self._seed, self._severity, place, *self._corruption.encode()]
        changed = _corrupt(np.ascontiguousarray(pixels), self._corruption, self._severity, seed)
        return torch.from_numpy(np.array(changed)).permute(2, 0, 1).contiguous()

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; of the clean images, the library and what it is asked for."""
        said = (VERSION, self.library, self._corruption, self._severity, self._seed, self._published)
        digest = hashlib.sha256(f"{self._split.images.fingerprint()} {said}".encode())
        digest.update(np.ascontiguousarray(self._split.indices, dtype="<i8").tobytes())
        return digest.hexdigest()


def require_corruption(name: str) -> None:
    """Fail unless there is a corruption of that name.

    Raises:
        UserError: Naming the closest.
    """
    known = (*FIFTEEN, *EXTRA)
    if name not in known:
        raise UserError(f"There is no corruption '{name}'.", did_you_mean(name, known) or f"Use {', '.join(known)}.")


def library_version() -> str:
    """Name and version of the library that computes corruptions.

    Raises:
        UserError: If it is not installed; gives the command that installs it.
    """
    # Only looked for: importing it takes seconds, and the processes that read images do it.
    if importlib.util.find_spec("imagecorruptions") is None:
        import_extra("imagecorruptions", "ood")
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    raise UserError("The library imagecorruptions has no version.", f"Run `pip install {_DISTRIBUTIONS[0]}`.")


def _corrupt(pixels: np.ndarray, name: str, severity: int, seed: list[int]) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (H, W, 3)."""
    library = import_extra("imagecorruptions", "ood")
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    # Two corruptions have generators of their own; the others draw from numpy's global one.
    own = "seed" in inspect.signature(library.corruption_dict[name]).parameters
    with _seeded(number), contextlib.redirect_stdout(io.StringIO()):
        changed: np.ndarray = library.corrupt(
            pixels, severity=severity, corruption_name=name, **({"seed": number} if own else {})
        )
    return changed


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, and put back what it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _as_published(pixels: np.ndarray) -> np.ndarray:
    """Shorter side to 256 pixels (bilinear), then the 224 in the middle: uint8 (H, W, 3) -> uint8 (224, 224, 3)."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = (width * _RESIZED // short, height * _RESIZED // short)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - _CROPPED) / 2) for side in size)
    return np.asarray(image.crop((left, top, left + _CROPPED, top + _CROPPED)))
