"""A user's own backbone: any callable, in a file or an importable module, that returns an `nn.Module`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard
from bob.errors import UserError, did_you_mean

T = TypeVar("T")


def load_custom(card: BackboneCard) -> Backbone:
    """Call `file.py:make` or `package.module:make` and give what it returns the interface.

    The module may carry `preprocess` (a `bob.backbones.preprocess.Preprocess`) or a timm `pretrained_cfg`; without
    either it gets 224 px, bicubic, crop 0.875 and ImageNet's mean and standard deviation.

    Raises:
        UserError: If the code cannot be imported or called, or does not return an `nn.Module`.
    """
    where, _, name = card.weights.model.rpartition(":")
    module = _import(where)
    model = _call(_attribute(module, name, where), card.weights.model)
    if isinstance(model, Backbone):
        return model
    if not isinstance(model, nn.Module):
        raise UserError(f"{card.weights.model} returned a {type(model).__name__}.", "Return a torch.nn.Module.")
    return Backbone(card, model, _preprocess(model).overridden(card.preprocess), code=_code(module))


def is_custom(spec: str) -> bool:
    """Whether a name on the command line has the form `file.py:make` or `package.module:make`."""
    where, _, name = spec.rpartition(":")
    return name.isidentifier() and (where.endswith(".py") or all(part.isidentifier() for part in where.split(".")))


def _import(where: str) -> ModuleType:
    """Import the user's module; its neighbours are importable from it, as they are when it is run as a script."""
    if not where.endswith(".py"):
        return _running_user_code(where, lambda: _import_named(where))
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"There is no file {where}.", "Give the path of a Python file, as in `my_model.py:make`.")
    return _running_user_code(where, lambda: _import_file(path))


def _import_named(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    # A name of its own, so that the user's `torch.py` or `bob.py` hides nothing.
    name = f"_bob_custom_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported.", "Give the path of a Python file.")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # pickling and dataclasses look a class's module up by name
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, name: str, where: str) -> Callable[[], object]:
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{where} has no function '{name}'.", did_you_mean(name, known) or "Define it.")
    return found


def _call(make: Callable[[], object], what: str) -> object:
    return _running_user_code(what, make)


def _running_user_code(what: str, run: Callable[[], T]) -> T:
    """Run code that is not ours; an error in it is the user's to mend, so it becomes one line with its place."""
    try:
        return run()
    except UserError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename}:{frame.lineno}"
        raise UserError(f"{what} failed: {type(error).__name__}: {error} ({place}).", "Mend that line.") from error


def _preprocess(model: nn.Module) -> Preprocess:
    own = getattr(model, "preprocess", None)
    if isinstance(own, Preprocess):
        return own
    config = getattr(model, "pretrained_cfg", None)
    return Preprocess.from_timm(config) if isinstance(config, dict) else Preprocess()


def _code(module: ModuleType) -> dict[str, str]:
    """Hash the user's source: the module's file and every loaded module that lies beside or below it."""
    file = Path(module.__file__ or "").resolve()
    sources = {file}
    for name, other in list(sys.modules.items()):
        path = Path(getattr(other, "__file__", None) or "/").resolve()
        is_ours = name == "bob" or name.startswith("bob.")
        if not is_ours and path.is_relative_to(file.parent) and "site-packages" not in path.parts:
            sources.add(path)
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.relative_to(file.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return {"source_sha256": digest.hexdigest()}
