"""Adversarial robustness of a classifier: how many images stay right when an attacker may change them a little."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from bob.errors import UserError
from bob.extras import import_extra
from bob.robustness.attacks import LIBRARY, Attacker, compute_logits

Attack = Literal["pgd", "autoattack"]
Norm = Literal["linf", "l2"]

STEPS: dict[str, int] = {"pgd": 40, "autoattack": 100}
"""Gradient steps of each attack, where none are asked for."""


@dataclass(frozen=True)
class RobustResult:
    """What an attack left.

    Attributes:
        n: Number of images.
        clean: Accuracy before the attack, in [0, 1].
        robust: Accuracy under it: the share of images that are right before it and that it could not turn.
        correct: (n,) bool, the images that make up `robust`.
        correct_clean: (n,) bool, those right before it.
        attack: What was done, with the library and its version.
    """

    n: int
    clean: float
    robust: float
    correct: np.ndarray
    correct_clean: np.ndarray
    attack: str


def robust_accuracy(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor | np.ndarray,
    attack: Attack = "pgd",
    eps: float = 4.0,
    norm: Norm = "linf",
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> RobustResult:
    """Attack each image that a classifier gets right, and count those that it still gets right.

    `pgd` is one run of projected gradient ascent on the cross-entropy from a random start. `autoattack` is an ensemble
    in the manner of AutoAttack: APGD on the cross-entropy, APGD on the difference of logits ratio towards each of the
    nine likeliest other classes, and, in `linf`, the gradient-free Square. An image is robust if none turns it.
    AutoAttack's FAB is not in the library, and its Square in `l2` divides by zero there.

    Args:
        model: Maps (B, 3, H, W) in [0, 1] to logits (B, C), differentiably. Left as it was found, but on `device`.
        images: (N, 3, H, W) floating, in [0, 1].
        labels: (N,) integers in [0, C).
        attack: `pgd` or `autoattack`.
        eps: Radius of the ball around each image: in 1/255 for `linf`, in units of [0, 1] pixel values for `l2`.
        norm: `linf` or `l2`.
        steps: Gradient steps; None for 40 (`pgd`) or 100 (`autoattack`). Square gets 50 queries for each.
        batch_size: Images in one forward pass.
        seed: Of the random starts. Random numbers are drawn batch by batch, so it fixes the result only for one
            `batch_size`.
        device: Where to compute: cpu or cuda.

    Raises:
        UserError: If the library is missing or no gradient comes through the model.
        ValueError: If shapes, range, labels or settings do not make sense.

    Source: Madry et al. 2018 (arXiv 1706.06083) for PGD; Croce and Hein 2020 (arXiv 2003.01690) for AutoAttack;
        Andriushchenko et al. 2020 (arXiv 1912.00049) for Square; the attacks are those of the Adversarial Robustness
        Toolbox.
    """
    images, targets = _checked_images(images), _checked_labels(labels, len(images))
    steps = STEPS.get(attack, 0) if steps is None else steps
    _check_settings(attack, eps, norm, steps, batch_size)
    place = _checked_device(device)
    import_extra("art", "robust")
    with _frozen(model, place), _current(place):
        logits = compute_logits(model, images, batch_size, place)
        if targets.max() >= logits.shape[1]:
            raise ValueError(f"Expected `labels` in [0, {logits.shape[1]}), but got {targets.max()}.")
        if not np.isfinite(logits).all():
            raise ValueError("Expected finite logits, but got some that are not.")
        clean = logits.argmax(axis=1) == targets
        correct, ensemble = clean.copy(), "none"
        if eps > 0:
            attacker = Attacker(model, images, targets, logits, eps, norm, steps, batch_size, place)
            with _seeded(seed):
                ensemble = attacker.run(attack, correct)
    radius = f"eps {eps:g}/255 in L-inf" if norm == "linf" else f"eps {eps:g} in L2"
    return RobustResult(
        n=len(images),
        clean=float(clean.mean()),
        robust=float(correct.mean()),
        correct=correct,
        correct_clean=clean,
        attack=f"{ensemble}, {radius}, seed {seed}, {LIBRARY} {metadata.version(LIBRARY)}",
    )


@contextmanager
def _frozen(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within the block, the model is on the device and in eval mode and its parameters need no gradient."""
    modes = [(module, module.training) for module in model.modules()]
    needs = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.to(device).eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, needed in needs:
            parameter.requires_grad_(needed)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within the block, the global generators that the library draws from start at `seed`; then as they were."""
    before = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """The library always takes the current CUDA device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _checked_device(device: torch.device | str) -> torch.device:
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"These attacks do not run on the device '{device}'.", "Use cpu or cuda.")
    return device


def _checked_images(images: torch.Tensor) -> torch.Tensor:
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(f"Expected `images` floating (N, C, H, W), but got {images.dtype} {tuple(images.shape)}.")
    if not 0 <= images.min() <= images.max() <= 1:
        raise ValueError(f"Expected `images` in [0, 1], but got {images.min():.3g} to {images.max():.3g}.")
    return images.detach().to("cpu", torch.float32)


def _checked_labels(labels: torch.Tensor | np.ndarray, count: int) -> np.ndarray:
    values = np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels)
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise ValueError(f"Expected `labels` to be {count} integers >= 0, but got {values.dtype} {values.shape}.")
    return values.astype(np.int64)


def _check_settings(attack: str, eps: float, norm: str, steps: int, batch_size: int) -> None:
    for name, value, known in (("attack", attack, tuple(STEPS)), ("norm", norm, ("linf", "l2"))):
        if value not in known:
            raise ValueError(f"Expected `{name}` to be one of {known}, but got {value!r}.")
    if not 0 <= eps < math.inf:
        raise ValueError(f"Expected `eps` to be finite and >= 0, but got {eps}.")
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"Expected `{name}` to be a positive integer, but got {count}.")
