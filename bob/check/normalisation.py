"""Whether images reach the network in the numbers that it was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from bob.backbones.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from bob.check.base import Finding, Subject

# Published pairs of mean and standard deviation; timm's names for them.
KNOWN = {
    "ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "OpenAI CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "0 and 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
BGR = "turn the channels around in forward, for the network expects BGR"
_MEAN = 1.5  # of natural images after normalisation; even black has no more than 2.2 in ImageNet's numbers
_STD = (0.15, 3.0)
_BYTES = 0.01


def check_normalisation(subject: Subject) -> Finding:
    """Judge the declared mean and standard deviation, alone and by what photographs become with them."""
    preprocess = subject.backbone.preprocess
    seen = preprocess.normalize(subject.photographs)
    mean, std = seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3))
    values = {"mean": mean.tolist(), "std": std.tolist(), "declared": known_as(preprocess)}
    detail = (
        f"mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)} "
        f"({known_as(preprocess) or 'no common pair'}); "
        f"photographs come out at mean {_numbers(mean.tolist())}, std {_numbers(std.tolist())}"
    )
    swapped = known_as(replace(preprocess, mean=preprocess.std, std=_positive(preprocess.mean)))
    if swapped and swapped != known_as(preprocess):
        remedy = f"Swap preprocess.mean and preprocess.std: these are {swapped}'s, the wrong way round."
        return Finding("normalisation", "fail", detail, remedy, values)
    if max(preprocess.mean) > 1 or max(preprocess.std) > 2:
        remedy = "bob scales images to [0, 1] first: divide preprocess.mean and preprocess.std by 255."
        return Finding("normalisation", "fail", detail, remedy, values)
    unit = 255 if max(preprocess.std) <= _BYTES else 1  # some networks take pixels from 0 to 255
    low, high = float(std.min()) / unit, float(std.max()) / unit
    if float(mean.abs().max()) / unit > _MEAN or not _STD[0] <= low <= high <= _STD[1]:
        remedy = "Correct preprocess.mean and preprocess.std: photographs should come out near mean 0 and std 1."
        return Finding("normalisation", "fail", detail, remedy, values)
    if published := _disagreement(subject):
        remedy = f"The checkpoint's own are {published}: remove preprocess.mean and preprocess.std from the card."
        return Finding("normalisation", "fail", detail, remedy, values)
    if _reversed(preprocess):
        remedy = "The channels stand in the order BGR, bob's images are RGB: reverse preprocess.mean and std."
        return Finding("normalisation", "warn", detail, remedy, values)
    return Finding("normalisation", "pass", detail, values=values)


def known_as(preprocess: Preprocess) -> str:
    """Whose mean and standard deviation these are; "" if nobody's."""
    for name, pair in KNOWN.items():
        if all(
            abs(a - b) < 1e-3
            for ours, theirs in zip((preprocess.mean, preprocess.std), pair, strict=True)
            for a, b in zip(ours, theirs, strict=True)
        ):
            return name
    return ""


def alternatives(subject: Subject) -> dict[str, torch.Tensor]:
    """How else the photographs might be meant to reach the network: description of the mend -> float32 (N, 3, h, w)."""
    preprocess, images = subject.backbone.preprocess, subject.photographs.to(subject.how.device)
    ways = {
        f"set preprocess.mean and preprocess.std to those of {name} ({_numbers(mean)}; {_numbers(std)})": replace(
            preprocess, mean=mean, std=std
        ).normalize(images)
        for name, (mean, std) in KNOWN.items()
        if name != known_as(preprocess)
    }
    ways["swap preprocess.mean and preprocess.std"] = replace(
        preprocess, mean=preprocess.std, std=_positive(preprocess.mean)
    ).normalize(images)
    ways["give it pixels from 0 to 255: preprocess.mean = 0 and std = 1/255"] = images.float()
    ways[BGR] = preprocess.normalize(images.flip(1))
    return ways


def _disagreement(subject: Subject) -> str:
    """What timm publishes for the model inside, if that is something else than what is used; else ""."""
    config = getattr(subject.backbone.model, "pretrained_cfg", None)
    if not isinstance(config, dict) or not {"mean", "std"} <= set(config):
        return ""
    own, used = (tuple(config["mean"]), tuple(config["std"])), subject.backbone.preprocess
    same = np.allclose(own, (used.mean, used.std), atol=1e-3)
    return "" if same else f"mean {_numbers(own[0])}, std {_numbers(own[1])}"


def _reversed(preprocess: Preprocess) -> bool:
    return not known_as(preprocess) and bool(
        known_as(replace(preprocess, mean=preprocess.mean[::-1], std=preprocess.std[::-1]))
    )


def _positive(values: tuple[float, float, float]) -> tuple[float, float, float]:
    """As a standard deviation, which must not be 0."""
    red, green, blue = (value if value > 0 else 1.0 for value in values)
    return red, green, blue


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
