"""From the image processor that a transformers checkpoint declares to bob's `Preprocess`, or a refusal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from bob.backbones.preprocess import Preprocess
from bob.cards import PreprocessOverride
from bob.errors import UserError, first_line
from bob.extras import import_extra

_FILES = ("preprocessor_config.json", "processor_config.json")
# Pillow's numbers.
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
# Steps that change the image in a way that `Preprocess` does not have.
_FOREIGN_STEPS = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_color_quantize")
# Mean difference between the processor's image and ours, in 8-bit levels, that libraries' rounding explains.
_TOLERANCE = 1.0


def is_complete(override: PreprocessOverride) -> bool:
    """Whether a card's [preprocess] says everything."""
    return all(value is not None for value in override.model_dump().values())


def read_preprocess(folder: Path | None, override: PreprocessOverride, name: str) -> Preprocess:
    """Return the preprocessing of a checkpoint's folder with the card's overrides, or the card's alone if it is whole.

    Raises:
        UserError: If neither says it, or `Preprocess` cannot express it.
    """
    if is_complete(override):
        return Preprocess().overridden(override)
    if folder is None or not any((folder / file).is_file() for file in _FILES):
        raise UserError(
            f"'{name}' does not say how images are prepared (no {_FILES[0]}).",
            "Fill in [preprocess] on a card: size, crop_fraction, crop_mode, interpolation, mean, std.",
        )
    library = import_extra("transformers", "hf")
    try:
        processor = library.AutoImageProcessor.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(
            f"The image processor of '{name}' cannot be read ({first_line(error)}).",
            "Correct its preprocessor_config.json, or fill in all of [preprocess] on a card.",
        ) from error
    preprocess = from_processor(processor, name)
    require_same(processor, preprocess, name)
    return preprocess.overridden(override)


def from_processor(processor: Any, name: str) -> Preprocess:
    """Express a transformers image processor as a `Preprocess`.

    Where a centre crop leaves an odd margin, the two may choose neighbouring pixels: torchvision, with which the
    checkpoints were trained, rounds the half pixel, and transformers drops it.

    Raises:
        UserError: Naming the step that `Preprocess` does not have.
    """
    for step in _FOREIGN_STEPS:
        if getattr(processor, step, None):
            raise _inexpressible(name, step)
    if not getattr(processor, "do_resize", True):
        raise _inexpressible(name, "do_resize = false")
    resample = int(getattr(processor, "resample", 2))
    if resample not in _INTERPOLATIONS:
        raise _inexpressible(name, f"resample = {resample}")
    size, crop_fraction, crop_mode = _geometry(processor, name)
    mean, std = _normalisation(processor)
    return Preprocess(size, crop_fraction, crop_mode, _INTERPOLATIONS[resample], mean, std)


def require_same(processor: Any, preprocess: Preprocess, name: str) -> None:
    """Prepare one image both ways: some processors do more than their fields say.

    Raises:
        UserError: If the results differ by more than rounding.
    """
    image = _test_image()
    theirs = processor(images=image.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"][0]
    ours = preprocess.normalize(preprocess.crop(image)[None])[0]
    if theirs.shape == ours.shape:
        levels = (theirs - ours).abs().mean(dim=(1, 2)) * torch.tensor(preprocess.std) * 255
        if levels.max() < _TOLERANCE:
            return
    raise _inexpressible(name, f"what {type(processor).__name__} does beyond its fields")


def _geometry(processor: Any, name: str) -> tuple[tuple[int, int], float, str]:
    """Size of the input (height, width), crop fraction and crop mode."""
    size, crop = _edges(processor.size), None
    if getattr(processor, "do_center_crop", None):
        crop = _edges(processor.crop_size)
    if {"height", "width"} <= size.keys():
        resized, mode = (size["height"], size["width"]), "squash"
        return _cropped(resized, crop, mode, name)
    if size.keys() != {"shortest_edge"}:
        raise _inexpressible(name, f"size = {size}")
    edge = size["shortest_edge"]
    if crop is not None:
        return _cropped((edge, edge), crop, "center", name)
    if type(processor).__name__.startswith("ConvNext"):
        # Its rule: crop a fraction below 384 px, and squash at 384 px and above.
        return (edge, edge), (processor.crop_pct, 1.0)[edge >= 384], ("center", "squash")[edge >= 384]
    raise _inexpressible(name, f"size = {size} without a centre crop")


def _cropped(
    resized: tuple[int, int], crop: dict[str, int] | None, mode: str, name: str
) -> tuple[tuple[int, int], float, str]:
    if crop is None:
        return resized, 1.0, mode
    size = (crop["height"], crop["width"])
    fraction = size[0] / resized[0]
    if math.floor(size[0] / fraction) < resized[0]:
        fraction = math.nextafter(fraction, 0)  # the division must give the resized edge back, not one pixel less
    fits = fraction <= 1 and all(math.floor(s / fraction) == r for s, r in zip(size, resized, strict=True))
    if not fits or (mode == "center" and size[0] != size[1]):
        raise _inexpressible(name, f"a crop of {size} from {resized}")
    return size, fraction, mode


def _normalisation(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation for RGB in [0, 1], whatever scale the processor normalises on."""
    factor = processor.rescale_factor if getattr(processor, "do_rescale", True) else 1.0
    shift = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", True):
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    if getattr(processor, "include_top", False):
        # EfficientNet divides by the standard deviation once more.
        std = tuple(s * t for s, t in zip(std, processor.image_std, strict=True))
    scale = 255 * factor
    # Without this, 1/255 and its reciprocal would turn 0.485 into 0.48499999.
    scale = 1.0 if math.isclose(scale, 1.0, rel_tol=1e-9) else scale
    means, stds = [(m + shift) / scale for m in mean], [s / scale for s in std]
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def _edges(size: Any) -> dict[str, int]:
    """The edges that a size sets, whatever form it has in this version of transformers."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    items = dict(size) if hasattr(size, "keys") else vars(size)
    return {key: int(value) for key, value in items.items() if value is not None}


def _test_image() -> torch.Tensor:
    """Waves and a slope, uint8 (3, 256, 512): whatever moves, stretches or recolours an image changes it."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 256), torch.linspace(0, 1, 512), indexing="ij")
    waves = torch.stack([torch.sin(9 * x + 4 * y), torch.cos(7 * y - 3 * x), 2 * x * y - 1])
    return ((waves + 1) * 127.5).to(torch.uint8)


def _inexpressible(name: str, what: str) -> UserError:
    return UserError(
        f"'{name}' prepares images in a way that bob does not: {what}.",
        "Fill in all of [preprocess] on a card to choose another preparation.",
    )
