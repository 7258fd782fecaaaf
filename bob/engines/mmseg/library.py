"""mmsegmentation found, and kept from changing the process around it."""

from __future__ import annotations

import io
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import numpy as np
import torch

from bob.errors import UserError, first_line
from bob.extras import import_extra

_OURS, _THEIRS = "onedl-mmsegmentation", "mmsegmentation"
_PARTS = (_OURS, _THEIRS, "onedl-mmcv", "mmcv", "mmcv-lite", "onedl-mmengine", "mmengine")
# What tells whether all of it can be imported.
_MODULES = ("mmengine", "mmcv", "mmseg", "mmengine.runner", "mmseg.models", "mmseg.datasets.transforms")
_SCOPE = "mmseg"
_QUIET = 100  # above every level of `logging`


def load(module: str) -> ModuleType:
    """Import a module of mmengine, mmcv or mmsegmentation.

    Raises:
        UserError: If they are not installed, or do not work with one another or with this torch, as mmsegmentation and
            mmcv of OpenMMLab themselves, of which onedl's are the ones kept up.
    """
    if module in sys.modules and _MODULES[-1] in sys.modules:
        return sys.modules[module]
    # They say on standard output what else they could have imported.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for needed in _MODULES:
                import_extra(needed, "mmseg")
            return import_module(module)
        except UserError:
            raise
        except Exception as error:  # whatever a library raises that does not fit the others
            raise _broken(error) from error


def version() -> str:
    """Name and version of the mmsegmentation that is installed.

    Raises:
        UserError: See `load`.
    """
    module = load("mmseg")
    for name in (_OURS, _THEIRS):
        if number := _version_of(name):
            return f"{name} {number}"
    return f"{_THEIRS} {module.__version__}"


@contextmanager
def contained(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block mmengine is silent and random numbers are those of `seed`; after it all is as it was.

    What mmengine registers for the whole process (loggers, hubs, visualizers, the scope of its registries) is gone
    after the block, so that trainings do not see one another.

    Args:
        seed: Of Python's, NumPy's and torch's random numbers.
        device: Whose random numbers count too.
    """
    cv2 = import_module("cv2")
    threads, states = cv2.getNumThreads(), (random.getstate(), np.random.get_state())
    kinds = _process_wide()
    before = [dict(kind._instance_dict) for kind in kinds]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cv2.setNumThreads(0)  # its threads do not survive the fork into worker processes
            _seed(seed)
            silent_logger(f"bob-{seed}")
            load("mmengine.registry").DefaultScope.get_instance("bob", scope_name=_SCOPE)
            yield
    finally:
        cv2.setNumThreads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        for kind, instances in zip(kinds, before, strict=True):
            kind._instance_dict.clear()
            kind._instance_dict.update(instances)


def silent_logger(name: str) -> Any:
    """A logger of mmengine's that writes nowhere; the newest is the one that the libraries write to."""
    logger = load("mmengine.logging").MMLogger.get_instance(name, log_level=_QUIET)
    logger.handlers.clear()
    return logger


def _process_wide() -> list[Any]:
    logging = load("mmengine.logging")
    scope, visualizer = load("mmengine.registry").DefaultScope, load("mmengine.visualization").Visualizer
    return [logging.MMLogger, logging.MessageHub, scope, visualizer]


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _broken(error: Exception) -> UserError:
    found = [f"{name} {number}" for name in _PARTS if (number := _version_of(name))]
    return UserError(
        f"mmsegmentation cannot be imported ({first_line(error)}); installed are {', '.join(found)}.",
        "Keep the maintained builds alone: `pip uninstall -y mmcv mmcv-lite mmengine mmsegmentation`, "
        "then `pip install --force-reinstall --no-deps onedl-mmcv onedl-mmengine onedl-mmsegmentation`.",
    )


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
