"""Images that are in two sets at once, found by the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from bob import places
from bob.cores import granted_cores
from bob.data.base import ImageSet, Split
from bob.data.files import FileImages, content_hashes
from bob.errors import UserError


def require_disjoint(known: Mapping[str, Split], name: str, other: Split) -> None:
    """Make sure that no image of a set is one of a data set's own.

    Where all are files, the files' bytes are compared, whose hashes are remembered; else the decoded pixels, whose
    hashes are remembered too.

    Args:
        known: The data set's splits.
        name: Of the other set, for the error.
        other: The other set's images.

    Raises:
        UserError: Naming the first image that is in both, and how many are.
    """
    as_files = all(isinstance(part, FileImages) for split in (*known.values(), other) for part in split.images.parts)
    seen: dict[str, str] = {}
    for split_name, split in known.items():
        for key, image in zip(_keys(split, as_files), split.names, strict=True):
            seen.setdefault(key, f"{image} ({split_name})")
    shared = [(image, seen[key]) for key, image in zip(_keys(other, as_files), other.names, strict=True) if key in seen]
    if shared:
        image, twin = shared[0]
        count = "One image" if len(shared) == 1 else f"{len(shared)} images"
        raise UserError(
            f"{count} of the set '{name}' {'is' if len(shared) == 1 else 'are'} among the known classes' own images, "
            f"by content hash: {image} is {twin}.",
            "Remove them from the set, or give it a 'subset' that lists the others.",
        )


def _keys(split: Split, as_files: bool) -> list[str]:
    hashes = [key for part in split.images.parts for key in (_of_files(part) if as_files else pixel_hashes(part))]
    return [hashes[index] for index in split.indices]


def _of_files(images: ImageSet) -> list[str]:
    if not isinstance(images, FileImages):
        raise TypeError(f"Expected `images` to be files, but got {type(images).__name__}.")
    return content_hashes(images.root, images.names)


def pixel_hashes(images: ImageSet) -> list[str]:
    """Return the SHA-256 (hex) of each image's size and decoded pixels, remembered by the set's fingerprint.

    Raises:
        UserError: If an image cannot be read.
    """
    path = places.home() / "pixel-hashes" / f"{images.fingerprint()[:32]}.npy"
    # What is missing or damaged only means that images are read again.
    with suppress(OSError, ValueError, EOFError):
        known = np.load(path)
        if known.shape == (len(images), 32) and known.dtype == np.uint8:
            return [bytes(row).hex() for row in known]

    def look(index: int) -> bytes:
        pixels = images.read(index)
        content = np.ascontiguousarray(pixels.numpy()).tobytes()
        return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + content).digest()

    with ThreadPoolExecutor(granted_cores()) as pool:
        found = list(pool.map(look, range(len(images))))
    with places.atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32))
    return [digest.hex() for digest in found]
