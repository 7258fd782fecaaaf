"""Try timm's architectures, family by family, without weights; run as a script it writes docs/timm_families.md.

Large architectures are built on torch's meta device, which knows shapes but holds no numbers.
"""

from __future__ import annotations

import fnmatch
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import timm
import torch

from bob.backbones.sources import open_backbone
from bob.backbones.timm import TimmBackbone, timm_names
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, first_line

PAGE = Path(__file__).parents[1] / "docs" / "timm_families.md"
REAL_BELOW = 12_000_000  # parameters; smaller ones run faster for real, and then finite numbers are checked too
_SLOW_ON_META = ("sequencer",)  # families with LSTMs, which the meta device takes apart step by step

EMBED, SIZES, META = "no vector", "maps off the grid", "no shapes without numbers"
# Every timm model that does not do all of it, and why: pattern -> (what it lacks, why).
_UNPADDED = "The first convolutions do not pad, so maps are a little smaller than input / stride."
_TOKENS = "An encoder for a language model: it gives tokens and has no pooling of its own."
KNOWN: dict[str, tuple[str, str]] = {
    "inception_v[34]*": (SIZES, _UNPADDED),
    "inception_resnet_*": (SIZES, _UNPADDED),
    "legacy_xception*": (SIZES, _UNPADDED),
    "pit_*": (SIZES, _UNPADDED),
    "gemma4_vit_*": (META, "Its forward pass looks at numbers, so that only a real device can run it."),
    "deepseek_vit_*_enc*": (EMBED, _TOKENS),
    "qwen3_vit_*_enc*": (EMBED, _TOKENS),
}


_INTRODUCTION = """# timm, family by family

Written by `python scripts/survey_timm.py`; tests try every row again. A *family* is a file of `timm.models`.

Every timm model gives a feature vector, its blocks one by one, and feature maps at the strides it declares, each as
large as input / stride (rounded up or down), except these:

| models | lack | why |
|---|---|---|""".splitlines()
_FAMILIES = """
The smallest architecture of each family, at random weights and its own input size. `preprocess.size` on a card sets
another: timm resamples positions and windows for it, and what a model cannot take is refused when it is opened.

| family | architecture | input | width | strides | lacks |
|---|---|---|---|---|---|""".splitlines()


@dataclass(frozen=True)
class Finding:
    """What one architecture gave.

    Attributes:
        lacks: What it does not do, in the words of `KNOWN`; empty if it does everything.
        detail: What went wrong, for the reader of a failed test.
    """

    name: str
    size: tuple[int, int]
    width: int | None
    strides: list[int]
    lacks: str = ""
    detail: str = ""


def family(name: str) -> str:
    """The file of timm that defines an architecture."""
    return timm.model_entrypoint(name.partition(".")[0]).__module__.rpartition(".")[2]


def known_lack(name: str) -> str:
    """What `KNOWN` says that a timm model lacks; empty for nothing."""
    return next((lack for pattern, (lack, _) in KNOWN.items() if fnmatch.fnmatchcase(name, pattern)), "")


def sample(count: int, seed: int = 0, without: frozenset[str] = frozenset()) -> list[str]:
    """Return names of timm models, with their tags where they have any, taking one of each family in turn."""
    rng = random.Random(seed)
    tagged = {name.partition(".")[0] for name in timm.list_pretrained()}
    names = [name for name in timm_names() if name not in tagged]
    decks: dict[str, list[str]] = {}
    for name in sorted(set(names) - without):
        decks.setdefault(family(name), []).append(name)
    for deck in decks.values():
        rng.shuffle(deck)
    turns = max(map(len, decks.values()))
    return [deck[turn] for turn in range(turns) for deck in decks.values() if turn < len(deck)][:count]


def smallest(of: str) -> str:
    """The architecture of a family with the fewest parameters."""
    return min(timm.list_models(module=of), key=lambda name: (_open(name, "meta").parameter_count(), name))


def try_out(name: str) -> Finding:
    """Build an architecture without weights, embed an image, and read its blocks and feature maps."""
    backbone = _open(name, "meta")
    if backbone.parameter_count() < REAL_BELOW or family(name) in _SLOW_ON_META:
        backbone = _open(name, "cpu")
    size, strides = backbone.preprocess.size, backbone.strides
    images = torch.zeros(1, 3, *size, device=backbone.device)
    width = None
    try:
        with torch.inference_mode():
            width = _checked_width(backbone, images)
            _check_maps(backbone, images)
    except UserError as error:
        return Finding(name, size, width, strides, EMBED, str(error))
    except _OffTheGrid as error:
        return Finding(name, size, width, strides, SIZES, str(error))
    except RuntimeError as error:
        if "meta tensor" not in str(error):
            raise
        return Finding(name, size, width, strides, META, first_line(error))
    return Finding(name, size, width, strides)


def read_page() -> list[tuple[str, Finding]]:
    """Return (family, finding) for each row of the page's table of families."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    found = []
    for of, name, height, width, strides, lacks in (row for row in rows if len(row) == 6):
        size = (int(height.partition(" x ")[0]), int(height.partition(" x ")[2]))
        listed = [int(stride) for stride in strides.split(", ")]
        known = int(width) if width != "none" else None
        found.append(
            (of.strip("`"), Finding(name.strip("`"), size, known, listed, "" if lacks == "nothing" else lacks))
        )
    return found


def page(findings: dict[str, Finding]) -> str:
    """The page for family -> what its smallest architecture gave."""
    lacking = [f"| `{pattern}` | {lack} | {why} |" for pattern, (lack, why) in KNOWN.items()]
    rows = [
        f"| `{of}` | `{f.name}` | {f.size[0]} x {f.size[1]} | {f.width or 'none'} "
        f"| {', '.join(map(str, f.strides))} | {f.lacks or 'nothing'} |"
        for of, f in findings.items()
    ]
    return "\n".join([*_INTRODUCTION, *lacking, *_FAMILIES, *rows, ""])


class _OffTheGrid(Exception):
    """A feature map is smaller than its stride says."""


def _open(name: str, device: str) -> TimmBackbone:
    card = BackboneCard(name=name, weights=Weights(source="timm", model=name, pretrained=False))
    with torch.device(device), without_initialisation() if device == "meta" else mock.MagicMock():
        backbone = open_backbone(card)
    if not isinstance(backbone, TimmBackbone):
        raise TypeError(f"{name} is a {type(backbone).__name__}")
    return backbone


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Leave out what fills tensors with numbers: on the meta device it takes most of the time and does nothing."""
    fillers = ("normal_", "uniform_", "erfinv_", "fill_", "zero_", "mul_", "add_", "clamp_")
    with mock.patch.multiple(torch.Tensor, **{filler: lambda self, *_, **__: self for filler in fillers}):
        yield


def _checked_width(backbone: TimmBackbone, images: torch.Tensor) -> int:
    features = backbone.embed(images)
    declared = {getattr(backbone.model, key, None) for key in ("num_features", "head_hidden_size")}
    if features.shape[1] not in declared or not _finite(features):
        raise ValueError(f"{backbone.card.name}: {features.shape}, timm declares {declared}, or it is not finite")
    return features.shape[1]


def _check_maps(backbone: TimmBackbone, images: torch.Tensor) -> None:
    """Fail unless layers and feature maps have the shapes that timm's `feature_info` and the strides promise."""
    name, info = backbone.card.name, list(backbone.model.feature_info)
    layers, maps, strides = backbone.layers(images), backbone.feature_maps(images), backbone.strides
    if strides != sorted(set(strides)) or len(maps) != len(strides):
        raise ValueError(f"{name}: {len(maps)} maps for the strides {strides}")
    if [layer.map.shape[1] for layer in layers] != [block["num_chs"] for block in info]:
        raise ValueError(f"{name}: layers of another width than feature_info says")
    if any(layer.pooled.shape != layer.map.shape[:2] or not _finite(layer.pooled) for layer in layers):
        raise ValueError(f"{name}: pooled layers of another width than their maps, or not finite")
    last = {b["reduction"]: layer.map.shape for b, layer in zip(info, layers, strict=True) if b["module"]}
    if [map_.shape for map_ in maps] != list(last.values()):
        raise ValueError(f"{name}: feature maps are not the last of each stride")
    for stride, map_ in zip(strides, maps, strict=True):
        edges = zip(images.shape[2:], map_.shape[2:], strict=True)
        if not all(whole // stride <= edge <= math.ceil(whole / stride) for whole, edge in edges):
            raise _OffTheGrid(f"{tuple(images.shape[2:])} at stride {stride} gave {tuple(map_.shape[2:])}")


def _finite(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or bool(tensor.isfinite().all())


if __name__ == "__main__":
    PAGE.write_text(page({of: try_out(smallest(of)) for of in timm.list_modules()}))
