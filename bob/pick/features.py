"""The features of nested sets of images: each computed once, and handed on to the store of the whole in the end."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from bob.backbones.base import Backbone
from bob.data.base import ImageSet
from bob.features.extract import Advance, Extraction, fill_store, open_store
from bob.features.store import FeatureStore, ShardCost
from bob.pick.pool import Part, Pool, some_of

# Hashing more files than this takes longer than a small rung; then only the last one looks for features of the whole.
_QUICKLY_HASHED = 50_000


class NestedFeatures:
    """The features of a pool's images by one backbone.

    What a small set has computed lies in a store of its own. When all images are wanted, its rows are copied into the
    stores that `bob run` reads, which then lack only the others.

    Args:
        backbone: Opened.
        identity: The backbone's.
        pool: The images.
        how: Device, precision and workers.
    """

    def __init__(self, backbone: Backbone, identity: dict[str, Any], pool: Pool, how: Extraction) -> None:
        self._backbone, self._identity, self._pool, self._how = backbone, identity, pool, how
        self._opened: dict[int, tuple[ImageSet, FeatureStore]] = {}  # with its images, whose id is the key
        self._cost = ShardCost(0, 0.0, 0.0)

    @property
    def seconds_per_image(self) -> float:
        """Of the features that were computed, now or before; 0 if none were."""
        return self._cost.seconds / self._cost.images if self._cost.images else 0.0

    def lacking(self, level: int) -> int:
        """How many images of a level, 0 for the whole, have no features yet; a large set is said to lack all."""
        if level:
            return sum(_rows_missing(store) for _, store in self._lacking_parts(level))
        return sum(self._lacking_of(owner) for owner in self._pool.dataset.image_sets())

    def provide(self, level: int, advance: Advance) -> np.ndarray:
        """Compute what a level above 0 lacks; return its features float32 (n, D), in the order of `Pool.rows`."""
        for part, store in self._lacking_parts(level):
            fill_store(store, self._backbone, part.images, self._how, advance)
            self._add_cost(store)
        rows = self._pool.rows(level)
        found = np.empty((len(rows), self._width()), dtype=np.float32)
        for part in self._parts(level):
            whole = self._whole_if_complete(part.owner)
            own = np.searchsorted(rows, part.rows)
            if whole is None:
                found[own] = self._store(part.images).read()
            else:
                self._add_cost(whole)
                found[own] = whole.read()[part.positions]
        return found

    def complete(self, advance: Advance) -> None:
        """Make the stores of all images complete, from what is there and by computing the others."""
        for owner in self._pool.dataset.image_sets():
            whole = self._store(owner)
            if whole.missing():
                self._complete(owner, whole, advance)
            for part in self._parts(1):
                if part.owner is owner:
                    shutil.rmtree(self._store(part.images).path, ignore_errors=True)
            self._add_cost(whole)

    def _complete(self, owner: ImageSet, whole: FeatureStore, advance: Advance) -> None:
        parts, rest = self._begun(owner), self._rest(owner)
        if not parts:
            fill_store(whole, self._backbone, owner, self._how, advance)
            return
        pieces = [(part.positions, part.images) for part in parts]
        pieces += [(rest, some_of(owner, rest))] if len(rest) else []
        for _, images in pieces:
            fill_store(self._store(images), self._backbone, images, self._how, advance)
        _hand_over([(positions, self._store(images)) for positions, images in pieces], whole)
        for _, images in pieces:
            shutil.rmtree(self._store(images).path, ignore_errors=True)

    def _lacking_of(self, owner: ImageSet) -> int:
        if _slow_to_hash(owner):
            return len(owner)
        if not self._store(owner).missing():
            return 0
        begun = sum(_rows_missing(self._store(part.images)) for part in self._begun(owner))
        return begun + len(self._rest(owner))

    def _begun(self, owner: ImageSet) -> list[Part]:
        """The parts of an image set of which anything is stored; they are finished, so that none of it is lost."""
        return [part for part in self._parts(1) if part.owner is owner and self._store(part.images).cost().images]

    def _rest(self, owner: ImageSet) -> np.ndarray:
        """Positions in an image set of those images that neither its store nor a part that has begun holds."""
        missing = [np.arange(rows.start, rows.stop) for _, rows in self._store(owner).missing()]
        had = [part.positions for part in self._begun(owner)]
        nothing = [np.empty(0, dtype=np.int64)]
        return np.setdiff1d(np.concatenate(missing + nothing), np.concatenate(had + nothing)).astype(np.int64)

    def _parts(self, level: int) -> list[Part]:
        return [part for part in self._pool.parts if part.level >= level]

    def _lacking_parts(self, level: int) -> list[tuple[Part, FeatureStore]]:
        wanted = [part for part in self._parts(level) if self._whole_if_complete(part.owner) is None]
        stores = [(part, self._store(part.images)) for part in wanted]
        return [(part, store) for part, store in stores if store.missing()]

    def _whole_if_complete(self, owner: ImageSet) -> FeatureStore | None:
        """The store of a whole image set, as `bob run` leaves it; None if it lacks anything."""
        if _slow_to_hash(owner):
            return None
        store = self._store(owner)
        return None if store.missing() else store

    def _store(self, images: ImageSet) -> FeatureStore:
        if id(images) not in self._opened:
            self._opened[id(images)] = images, open_store(self._backbone, self._identity, images, self._how)
        return self._opened[id(images)][1]

    def _width(self) -> int:
        return self._store(self._pool.parts[0].images).shape[1]

    def _add_cost(self, store: FeatureStore) -> None:
        # The newest says most, since it was computed on this machine as it is now.
        cost = store.cost()
        self._cost = cost if cost.images else self._cost


def _slow_to_hash(owner: ImageSet) -> bool:
    return len(owner) > _QUICKLY_HASHED


def _rows_missing(store: FeatureStore) -> int:
    return sum(len(rows) for _, rows in store.missing())


def _hand_over(sources: list[tuple[np.ndarray, FeatureStore]], whole: FeatureStore) -> None:
    """Write the shards that the store of the whole lacks, from stores of which each has some of its rows."""
    source = np.full(whole.shape[0], -1)
    place = np.zeros(whole.shape[0], dtype=np.int64)
    for number, (positions, _) in enumerate(sources):
        source[positions], place[positions] = number, np.arange(len(positions))
    arrays = [store.read() for _, store in sources]
    costs = [store.cost() for _, store in sources]
    images = sum(cost.images for cost in costs)
    each = (sum(cost.seconds for cost in costs) / images, sum(cost.waiting for cost in costs) / images)
    for shard, rows in whole.missing():
        wanted = slice(rows.start, rows.stop)
        content = np.empty((len(rows), whole.shape[1]), dtype=whole.dtype)
        for number, array in enumerate(arrays):
            own = source[wanted] == number
            content[own] = array[place[wanted][own]]
        whole.write(shard, content, ShardCost(len(rows), each[0] * len(rows), each[1] * len(rows)))
