"""Engines by name: the libraries that train, each behind the same function."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.engines.recipe import Limits

if TYPE_CHECKING:
    from bob.engines.finished import Finished
    from bob.engines.training import Progress
    from bob.features.extract import Extraction

# Name -> module that has `train` and `version`. A module is imported when its engine is asked for: most need a library
# that not everybody has.
ENGINES = {
    "fine_tune": "bob.engines.fine_tune",
    "torchvision": "bob.engines.detection",
    "detectron2": "bob.engines.detectron2",
    "smp": "bob.engines.segmentation",
    "mmseg": "bob.engines.mmseg",
}


class Engine(typing.Protocol):
    """A module that trains."""

    def train(
        self,
        backbone: Backbone,
        dataset: Dataset,
        recipe: Any,
        *,
        how: Extraction,
        folder: Path,
        seed: int,
        splits: Sequence[str] = ("train",),
        limits: Limits = ...,
        progress: Progress = ...,
    ) -> Finished:
        """Train a copy of the backbone and a head on it; see `bob.engines.fine_tune.train`."""
        ...

    def version(self) -> str:
        """The library that trains, and its version."""
        ...


def get_engine(name: str) -> Engine:
    """Return the engine of that name.

    Raises:
        UserError: If its library is not installed.
    """
    return typing.cast(Engine, import_module(ENGINES[name]))
