"""Pickles of plain containers and arrays, read without running anything that they bring."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from bob.errors import UserError

# NumPy's own way of saying an array, under its old name and its new one.
_ARRAYS = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}
_ARRAY_FUNCTIONS = {"_reconstruct", "scalar", "_frombuffer"}
_BYTES = {("_codecs", "encode"), ("__builtin__", "bytes"), ("builtins", "bytes")}


class _Plain(pickle.Unpickler):
    """Knows arrays, and refuses every other name, for calling it might do anything."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in _ARRAYS and name in _ARRAY_FUNCTIONS:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) in _BYTES:
            return _as_bytes
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _as_bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes, and none at all, into an old protocol; no other encoding is wanted."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def load_plain(path: Path) -> Any:
    """Read a pickle of dictionaries, lists, tuples, text, numbers and arrays.

    Raises:
        UserError: If the file is missing or damaged, or asks for anything else, of which nothing is then run.
    """
    try:
        with path.open("rb") as file:
            return _Plain(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Put it there.") from error
    except Exception as error:  # a damaged pickle makes Python raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is no pickle of plain containers and arrays: {reason}.", "Download it again from its publisher."
        ) from error
