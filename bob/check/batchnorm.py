"""Whether activations have the statistics that BatchNorm stored in training: needs no label, and is hard to fool.

A network that was trained on natural images carries in every BatchNorm the mean and variance that its activations had.
If images, architecture and weights belong together, photographs give the same again, near enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bob.check.base import Finding, Subject, hooked
from bob.check.normalisation import BGR, alternatives

# Measured on EfficientNet-Lite0, 1, 2 and MobileNetV2 with ImageNet weights, on the photographs used here. Right ones
# have 0.2 (mean), 0.2 (variance) in the median layer and 0.1 to 0.3, 0.1 to 0.2 in the first (other parts of the same
# photographs: variance up to 0.4). Another activation function in the same weights gives 0.4 to 1.1 and 0.6 to 2.2;
# another normalisation 1.2 to 10 in the first variance; the other order of channels 1.5 to 3 times the first mean.
_WARN, _FAIL = (0.35, 0.5), (0.55, 0.9)
_FIRST = 0.75
_BETTER = 0.8
Mismatch = tuple[float, float]  # of means and of variances, as `_mismatch` gives them


def check_batchnorm(subject: Subject) -> Finding:
    """Compare stored and measured statistics, and find out which normalisation would fit the first layer better."""
    layers = {n: m for n, m in subject.backbone.model.named_modules() if _keeps_statistics(m)}
    if not layers:
        return Finding("batchnorm", "skip", "no BatchNorm with stored statistics: nothing to compare")
    if all(_is_initial(layer) for layer in layers.values()):
        detail = f"all {len(layers)} BatchNorm layers hold the statistics of initialisation (mean 0, variance 1)"
        remedy = "Load the checkpoint's running_mean and running_var, unless this network is meant to be untrained."
        return Finding("batchnorm", "fail", detail, remedy)
    images = subject.backbone.preprocess.normalize(subject.photographs.to(subject.how.device))
    measured = _measure(subject, layers, images)
    if not measured:
        return Finding("batchnorm", "warn", "no BatchNorm was seen at work", "Call the modules themselves in forward.")
    return _judge(subject, layers, measured)


def _judge(subject: Subject, layers: dict[str, nn.Module], measured: dict[str, Mismatch]) -> Finding:
    name, first = next(iter(measured.items()))
    mean, variance = (float(np.median(column)) for column in zip(*measured.values(), strict=True))
    fits = _fits_of_alternatives(subject, {name: layers[name]})
    way = min(fits, key=lambda key: sum(fits[key]))
    values = {"layers": len(measured), "first": first, "median": (mean, variance), "alternatives": fits}
    detail = (
        f"on photographs, stored statistics are off by {first[0]:.2f} (mean, in deviations) and {first[1]:.2f} "
        f"(log variance) in the first of {len(measured)} layers, {mean:.2f} and {variance:.2f} in the median layer"
    )
    if not first[1] <= _FIRST:
        better = f": {way}." if sum(fits[way]) < _BETTER * sum(first) else "."
        return Finding(
            "batchnorm", "fail", detail, f"The network was trained on other numbers than these{better}", values
        )
    if fits[BGR][0] < _BETTER * first[0]:
        return Finding("batchnorm", "warn", detail, f"Another order of channels fits better: {BGR}.", values)
    if mean <= _WARN[0] and variance <= _WARN[1]:
        return Finding("batchnorm", "pass", detail, values=values)
    remedy = (
        "The first layer gets what it was trained on but later ones do not: mend the architecture (activation, "
        "padding, stride, a tensor in the wrong place) or the weights."
    )
    wrong = not (mean <= _FAIL[0] and variance <= _FAIL[1])
    return Finding("batchnorm", "fail" if wrong else "warn", detail, remedy, values)


def _measure(subject: Subject, layers: dict[str, nn.Module], images: torch.Tensor) -> dict[str, Mismatch]:
    """How far each layer's stored mean and variance are off, in the order in which the layers are run."""
    measured: dict[str, Mismatch] = {}

    def compare(name: str, layer: Any, given: tuple[torch.Tensor, ...], output: object) -> None:
        measured.setdefault(name, _mismatch(layer, given[0].detach().float()))

    with hooked(layers, compare):
        subject.forward(images)
    return measured


def _mismatch(layer: Any, x: torch.Tensor) -> Mismatch:
    """Root mean square, over channels, of the mean's error in standard deviations; median |log ratio| of variances."""
    over = [axis for axis in range(x.ndim) if axis != 1]
    variance, stored = x.var(dim=over, unbiased=False) + layer.eps, layer.running_var + layer.eps
    shift = (x.mean(dim=over) - layer.running_mean) / stored.sqrt()
    return float(shift.square().mean().sqrt()), float((variance / stored).log().abs().median())


class _Enough(Exception):
    """Raised by a hook once the first layer is measured."""


def _fits_of_alternatives(subject: Subject, first: dict[str, nn.Module]) -> dict[str, Mismatch]:
    """How well other ways of feeding the network fit its first BatchNorm, by description of the mend."""
    fits: dict[str, Mismatch] = {}
    for way, images in alternatives(subject).items():

        def compare(name: str, layer: Any, given: tuple[torch.Tensor, ...], output: object, way: str = way) -> None:
            fits[way] = _mismatch(layer, given[0].detach().float())
            raise _Enough

        with hooked(first, compare):
            _until_enough(subject, images)
    return fits


def _until_enough(subject: Subject, images: torch.Tensor) -> None:
    try:
        with torch.inference_mode():
            subject.backbone.embed(images)
    except _Enough:
        return


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and not module.training


def _is_initial(layer: Any) -> bool:
    return bool((layer.running_mean == 0).all() and (layer.running_var == 1).all())
