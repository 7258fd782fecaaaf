"""Splits whose labels cannot be read, so that nothing can be chosen by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bob.data.base import ImageSet, Split
from bob.data.view import View

SEALED = int(np.iinfo(np.int64).min)
"""What stands in place of a sealed label; as an index it is an error everywhere, where -1 would pass for a class."""

# What detection data have besides, and may be known of a test split.
_OPEN = ("image_ids", "category_ids", "has_masks", "federated")


def seal(splits: Mapping[str, Split], name: str) -> dict[str, Split]:
    """Return the splits with the labels and groups of one of them out of reach; see `Dataset.sealed`."""
    chosen = splits[name]
    views: dict[int, ImageSet] = {id(split.images): split.images for split in splits.values()}
    # One view for all other splits, so that they go on sharing an image set.
    views[id(chosen.images)] = _WithoutSome(chosen.images, chosen.indices, name)
    sealed = Split(_WithoutLabels(chosen.images, name), chosen.indices)
    return {
        other: sealed if other == name else Split(views[id(split.images)], split.indices)
        for other, split in splits.items()
    }


class _Sealed(View):
    """The images of another set, with what all may know of them."""

    def __init__(self, images: ImageSet, split: str) -> None:
        super().__init__(images)
        self._split = split
        self.group_names = images.group_names
        self.target_kind = images.target_kind  # type: ignore[misc]

    def annotations_sha256(self) -> str | None:
        """See `ImageSet.annotations_sha256`; a checksum gives nothing away."""
        return self._images.annotations_sha256()

    def __getattr__(self, name: str) -> Any:
        if name not in _OPEN:
            raise AttributeError(f"{type(self).__name__} has no {name}.")
        return getattr(self._images, name)


class _WithoutLabels(_Sealed):
    """All labels are sealed."""

    @property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        raise RuntimeError(f"The labels of '{self._split}' are sealed until everything is chosen.")

    @property
    def groups(self) -> np.ndarray | None:  # type: ignore[override]
        # Groups are often made of labels, as in Waterbirds.
        raise RuntimeError(f"The groups of '{self._split}' are sealed until everything is chosen.")

    @property
    def subjects(self) -> np.ndarray | None:  # type: ignore[override]
        return self._images.subjects

    def target(self, index: int) -> Any:
        """See `ImageSet.target`."""
        raise RuntimeError(f"The annotations of '{self._split}' are sealed until everything is chosen.")


class _WithoutSome(_Sealed):
    """The labels of one split are sealed; the other splits of the set keep theirs."""

    def __init__(self, images: ImageSet, indices: np.ndarray, split: str) -> None:
        super().__init__(images, split)
        self.labels = _blank(images.labels, indices)
        self.groups = None if images.groups is None else _blank(images.groups, indices)
        self.subjects = images.subjects
        self._sealed = frozenset(indices.tolist())

    def target(self, index: int) -> Any:
        """See `ImageSet.target`."""
        if int(index) in self._sealed:
            raise RuntimeError(f"The annotations of '{self._split}' are sealed until everything is chosen.")
        return self._images.target(index)


def _blank(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    blanked = values.copy()
    blanked[indices] = SEALED
    return blanked
