"""The library itself: whether it is there, which one it is, and what it would write to the console."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from bob.errors import UserError

_LOGGERS = ("detectron2", "fvcore", "iopath", "torch.fx")


def require_library() -> None:
    """Make sure that detectron2 can be imported.

    Raises:
        UserError: If it is not installed.
    """
    try:
        with quiet():
            importlib.import_module("detectron2")
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise  # it is installed; something that it needs itself is not
        raise UserError("detectron2 is not installed.", "Run scripts/install-detectron2.") from error


def version() -> str:
    """Which detectron2 is installed and from where, e.g. `detectron2 0.6 (sal-detectron2 0.7.2)`.

    Raises:
        UserError: If it is not installed.
    """
    require_library()
    number = importlib.import_module("detectron2").__version__
    names = metadata.packages_distributions().get("detectron2", [])
    return f"detectron2 {number} ({_origin(names[0])})" if names else f"detectron2 {number}"


def _origin(name: str) -> str:
    """The package by its name and version; where it was built from a repository, by the commit."""
    distribution = metadata.distribution(name)
    said = json.loads(distribution.read_text("direct_url.json") or "{}")
    commit = said.get("vcs_info", {}).get("commit_id")
    return f"commit {commit[:8]}" if commit else f"{name} {distribution.version}"


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block detectron2 says nothing: what matters comes back as values and errors."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            # It is older than the PyTorch that it runs on, and told so at each call.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
