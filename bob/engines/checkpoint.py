"""Where an interrupted training goes on: one file for each thing that was asked for, replaced whole."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bob import places
from bob.errors import UserError, first_line

_FILE, _IDENTITY = "checkpoint.pt", "identity.json"


class Checkpoints:
    """The newest state of one training, in a folder named by the hash of what decides its weights.

    Another recipe, seed, data set or backbone has another folder, so its state is never read here.

    Args:
        root: Folder of all trainings.
        identity: JSON-ready description of everything that decides the weights.
    """

    def __init__(self, root: Path, identity: dict[str, Any]) -> None:
        self._identity = json.dumps(identity, sort_keys=True, indent=1)
        self.folder = root / hashlib.sha256(self._identity.encode()).hexdigest()[:24]
        self.path = self.folder / _FILE

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state by this one: tensors, numbers, strings, and lists and dicts of them.

        Raises:
            UserError: If the disk refuses; the state before is still there.
            OSError: The same, where the disk says so itself.
        """
        if not (self.folder / _IDENTITY).is_file():
            with places.atomic_file(self.folder / _IDENTITY) as temporary:
                temporary.write_text(self._identity)
        try:
            with places.atomic_file(self.path) as temporary:
                torch.save({"identity": self._identity, **state}, temporary)
        except RuntimeError as error:  # torch's writer has no other for a full disk
            raise _refused(self.path, error) from error

    def load(self) -> dict[str, Any] | None:
        """Return the newest state, on the CPU; None if there is none.

        Raises:
            UserError: If the file is damaged, or of another training.
        """
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(f"Cannot read the checkpoint {self.path} ({first_line(error)}).", "Delete it.") from error
        if state.get("identity") != self._identity:
            raise UserError(f"The checkpoint {self.path} is of another training.", "Delete it.")
        return state


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; one that is there is replaced when the new one is whole.

    Args:
        tensors: On the CPU, contiguous, none sharing memory with another.
        path: Of the file.
        metadata: Text beside them.

    Raises:
        UserError: If the disk refuses.
    """
    try:
        with places.atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (SafetensorError, OSError) as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> UserError:
    return UserError(
        f"Cannot write {path} ({first_line(error)}).", "Free some space there, then give the same command again."
    )
