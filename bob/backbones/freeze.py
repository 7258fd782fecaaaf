"""Modules that stay in eval mode whatever the module around them does, with or without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module) -> Module:
    """Freeze a module for good, and return it.

    Its parameters take no gradients, and it and all its parts stay in eval mode through every `train()`, so that
    BatchNorm keeps its running statistics, and dropout and drop path do nothing. `requires_grad` alone does not do
    that: BoB's linear probe changed the statistics of its frozen BatchNorms. Copies by `copy.deepcopy` are frozen
    too, and the names in `state_dict` stay.
    """
    module.requires_grad_(False)
    for part in module.modules():
        # On each part, because code that walks over `modules()` does not ask their parent.
        part.__dict__["train"] = _StayInEval(part)
        part.training = False
    return module


def keep_statistics(module: Module) -> Module:
    """Keep all BatchNorms of a module in eval mode through every `train()`, and return the module.

    Their running statistics, which batches of a few images would spoil, stay as they are and are what normalises; their
    weights train. So does all else: dropout and drop path follow `train()`.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.running_mean is not None:
            part.__dict__["train"] = _StayInEval(part)
            part.training = False
    return module


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, and each part's own mode after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class _StayInEval:
    """Stands in for a module's `train`; an object, because a closure's copy would still hold the first module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        for part in self._module.modules():
            part.training = False
        return self._module
