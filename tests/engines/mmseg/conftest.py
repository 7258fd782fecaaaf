"""The images and the recipe of the tests of bob's own engine of segmentation."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_spec = spec_from_file_location("squares", Path(__file__).parents[1] / "segmentation" / "conftest.py")
if _spec is None or _spec.loader is None:
    raise ImportError("Expected tests/engines/segmentation/conftest.py to be there.")
_shared = module_from_spec(_spec)
_spec.loader.exec_module(_shared)

accuracy, backbone, recipe, squares = (getattr(_shared, name) for name in ("accuracy", "backbone", "recipe", "squares"))
