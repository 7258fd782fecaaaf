"""Running a backbone over an image set, once, into the feature store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from bob.backbones.base import Backbone
from bob.data.base import ImageSet
from bob.data.loader import Batch, load_batches
from bob.errors import UserError
from bob.features import memory
from bob.features.reading import FEATURE, Reader, Reading
from bob.features.store import FeatureStore, ShardCost

# Raised when the same identity would give other features than before.
EXTRACTION_VERSION = 1
Precision = Literal["float32", "bfloat16", "float16"]
Advance = Callable[[int], None]  # told how many more images are done


@dataclass(frozen=True)
class Extraction:
    """How to run the forward pass; only `precision` may change the features.

    Attributes:
        device: Where the backbone runs.
        precision: `float32`, or the type of mixed precision (autocast).
        batch_size: Images in one forward pass; None for 16 on a CPU (its caches), 128 elsewhere.
        workers: Decoding processes; None for one a granted core.
    """

    device: torch.device
    precision: Precision = "float32"
    batch_size: int | None = None
    workers: int | None = None

    @property
    def images_per_batch(self) -> int:
        """The batch size that is used."""
        return self.batch_size or (16 if self.device.type == "cpu" else 128)


Stores = Mapping[Reading, FeatureStore]  # of one backbone and image set


def open_store(
    backbone: Backbone, identity: dict[str, Any], images: ImageSet, how: Extraction, reading: Reading = FEATURE
) -> FeatureStore:
    """Open the store of a backbone's features of an image set; it may still lack shards.

    Args:
        backbone: Opened.
        identity: `backbone.identity()`, given because hashing the weights takes time.
        images: The image set.
        how: Its precision is part of the store's identity.
        reading: What of the output is stored.
    """
    content = {
        "extraction": EXTRACTION_VERSION,
        "backbone": identity,
        "images_sha256": images.fingerprint(),
        "precision": how.precision,
        **reading.identity(),
    }
    width = Reader(backbone.eval(), [reading]).widths()[0]
    return FeatureStore(content, rows=len(images), width=width, dtype=reading.dtype)


def images_to_embed(stores: Stores) -> int:
    """How many images `fill_stores` would read: each once for all readings of the same crops."""
    return sum(len(rows) for together in _passes(stores).values() for _, rows in _missing(together))


def fill_store(
    store: FeatureStore, backbone: Backbone, images: ImageSet, how: Extraction, advance: Advance = lambda count: None
) -> int:
    """Compute the shards that the store of the plain feature lacks; see `fill_stores`."""
    return fill_stores({FEATURE: store}, backbone, images, how, advance)


def fill_stores(
    stores: Stores, backbone: Backbone, images: ImageSet, how: Extraction, advance: Advance = lambda count: None
) -> int:
    """Compute the shards that the stores lack: one pass for all readings of the same crops.

    Args:
        stores: As `open_store` gives them.
        backbone: The stores'.
        images: The stores'.
        how: Its precision is the stores'.
        advance: Told after each batch how many images it had.

    Returns:
        Number of images computed, counted once for each pass; 0 if every store was complete.

    Raises:
        UserError: If an image cannot be read, or a feature is NaN, infinite or out of the store's range (names the
            image).
        OSError: If the disk is full; before any work, if it has no room for all features.
    """
    passes = _passes(stores)
    for together in passes.values():
        for store in together.values():
            store.create()  # so that a full disk shows before any work
    return sum(_fill(together, backbone, images, how, advance) for together in passes.values())


def _passes(stores: Stores) -> dict[tuple[object, ...], dict[Reading, FeatureStore]]:
    """The stores that lack something, by the crops that they are made from."""
    passes: dict[tuple[object, ...], dict[Reading, FeatureStore]] = {}
    for reading, store in stores.items():
        if store.missing():
            passes.setdefault(reading.crops, {})[reading] = store
    return passes


def _missing(stores: Stores) -> list[tuple[int, range]]:
    """The shards that any of the stores lacks, in order."""
    return sorted({number: rows for store in stores.values() for number, rows in store.missing()}.items())


def _fill(
    stores: dict[Reading, FeatureStore], backbone: Backbone, images: ImageSet, how: Extraction, advance: Advance
) -> int:
    missing = _missing(stores)
    # Batches never cross a shard, so a resumed run forms the very batches of an undisturbed one.
    batches = [
        rows[i : i + how.images_per_batch] for _, rows in missing for i in range(0, len(rows), how.images_per_batch)
    ]
    embedded = _embed_batches(Reader(backbone, list(stores)), backbone, images, [list(b) for b in batches], how)
    widths = [store.shape[1] for store in stores.values()]
    lacking = {reading: {number for number, _ in store.missing()} for reading, store in stores.items()}
    for number, rows in missing:
        features, cost = _one_shard(embedded, len(rows), advance)
        _require_finite(features, rows, backbone, images)
        parts = np.split(features, np.cumsum(widths)[:-1], axis=1)
        for (reading, store), part in zip(stores.items(), parts, strict=True):
            if number in lacking[reading]:
                _require_range(part, store, rows, backbone, images)
                store.write(number, part, cost)
    return sum(len(rows) for _, rows in missing)


def require_same_features(store: FeatureStore, backbone: Backbone, images: ImageSet, how: Extraction) -> None:
    """Embed the first stored batch again and compare it with the store; nothing happens if nothing is stored yet.

    Weights, preprocessing and source are in the store's identity, but a user's code may read more than these.

    Raises:
        UserError: If the features differ by more than rounding does.
    """
    finished = store.finished()
    if finished is None:
        return
    rows = list(finished[0][: how.images_per_batch])
    reader = Reader(backbone, [FEATURE])
    now = torch.cat([part for part, _ in _embed_batches(reader, backbone, images, [rows], replace(how, workers=0))])
    stored = torch.from_numpy(np.array(finished[1][: len(rows)]))
    tolerance = 1e-3 if how.precision == "float32" else 5e-2
    # Not `>`, because NaN is never close.
    if not (now.float().cpu() - stored).norm() <= tolerance * stored.norm():
        raise UserError(
            f"Backbone '{backbone.card.name}' no longer gives the features stored for the same code and weights.",
            "If it is random, make it deterministic; if it reads another file, run again with --recompute.",
        )


def _one_shard(
    embedded: Iterator[tuple[torch.Tensor, float]], rows: int, advance: Advance
) -> tuple[np.ndarray, ShardCost]:
    """Collect batches until the shard is full; features stay on the device until then."""
    started, waiting = time.perf_counter(), 0.0
    parts: list[torch.Tensor] = []
    while sum(map(len, parts)) < rows:
        part, waited = next(embedded)
        parts.append(part)
        waiting += waited
        advance(len(part))
    features = torch.cat(parts).float().cpu().numpy()
    return features, ShardCost(rows, time.perf_counter() - started, waiting)


def _embed_batches(
    reader: Reader, backbone: Backbone, images: ImageSet, batches: list[list[int]], how: Extraction
) -> Iterator[tuple[torch.Tensor, float]]:
    """Yield the features of each batch, on the device, and the seconds spent waiting for its images."""
    memory.keep_freed()
    memory.release_freed()  # before the loader forks
    forward = BackingOff(prepare(backbone, how.device), how, reader)
    pin = how.device.type == "cuda"
    crop = reader.readings[0].crop(backbone)
    loaded = load_batches(images, batches, crop, how.workers, pin_memory=pin)
    while True:
        asked = time.perf_counter()
        batch: Batch | None = next(loaded, None)
        if batch is None:
            return
        waited = time.perf_counter() - asked
        yield forward(batch.images), waited


def prepare(backbone: Backbone, device: torch.device) -> Backbone:
    """Put a backbone on the device in eval mode and, as convolutions run faster that way, channels-last."""
    backbone.eval().to(device=device)
    for parameter in backbone.parameters():
        if parameter.ndim == 4:  # `Module.to(memory_format=...)` fails on the weights of a Conv3d
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return backbone


class BackingOff:
    """The forward pass from uint8 images to features, halving its batch when memory runs out.

    Args:
        backbone: Already prepared on the device.
        how: Device and precision.
        reader: What to take off the backbone; None for its feature.
    """

    def __init__(self, backbone: Backbone, how: Extraction, reader: Reader | None = None) -> None:
        self._backbone = backbone
        self._how = how
        self._reader = reader or Reader(backbone, [FEATURE])
        self.largest = how.images_per_batch

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, h, w), or (B, patches, 3, h, w), anywhere -> (B, D) on the device.

        Raises:
            UserError: If one image alone is too much.
        """
        while True:
            try:
                return torch.cat([self._forward(part) for part in images.split(self.largest)])
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                if self.largest == 1:
                    raise UserError(
                        f"Backbone '{self._backbone.card.name}' does not fit in the memory of {self._how.device}, even "
                        "with one image at a time.",
                        "Use a larger device, --device cpu, or --precision bfloat16.",
                    ) from error
            # Outside the handler, whose traceback keeps the failed pass's tensors alive.
            self.largest = max(1, min(self.largest, len(images)) // 2)
            if self._how.device.type == "cuda":
                torch.cuda.empty_cache()

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        mixed = self._how.precision != "float32"
        dtype = getattr(torch, self._how.precision) if mixed else None
        moved = images.to(self._how.device, non_blocking=True).flatten(0, -4)
        moved = moved.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self._how.device.type, dtype=dtype, enabled=mixed):
            return self._reader(self._backbone.preprocess.normalize(moved))


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator, MPS and CUDA's libraries raise a plain RuntimeError.
    texts = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def _require_finite(features: np.ndarray, rows: range, backbone: Backbone, images: ImageSet) -> None:
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise UserError(
            f"Backbone '{backbone.card.name}' gives NaN or infinite features for {len(broken)} of {len(rows)} images, "
            f"the first being {images.names[rows[broken[0]]]} (index {rows[broken[0]]}).",
            "Check its weights and its normalisation, or use --precision float32.",
        )


def _require_range(
    features: np.ndarray, store: FeatureStore, rows: range, backbone: Backbone, images: ImageSet
) -> None:
    """Fail if the store's type of number cannot hold a feature."""
    if store.dtype.itemsize > 2:
        return
    largest = np.maximum(features.max(axis=1), -features.min(axis=1))
    beyond = np.flatnonzero(largest > np.finfo(store.dtype).max)
    if len(beyond):
        raise UserError(
            f"Backbone '{backbone.card.name}' gives maps with numbers up to {largest.max():.3g}, the first for "
            f"{images.names[rows[beyond[0]]]} (index {rows[beyond[0]]}); in half precision, in which maps are stored, "
            f"the largest is {np.finfo(store.dtype).max:g}.",
            "Check its weights and its normalisation; protocols that do not store maps can read it.",
        )
