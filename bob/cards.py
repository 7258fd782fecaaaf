"""What a card may say of a backbone: exactly which checkpoint is meant."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Source = Literal[
    "timm", "open_clip", "torchvision", "transformers", "diffusers", "checkpoint", "custom", "pixels", "constant"
]
Paradigm = Literal["supervised", "ssl", "vlm", "generative", "depth", "baseline", "unknown"]


def _checked_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression ({error})") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_checked_pattern)]
SHA256 = Field(default=None, pattern="^[0-9a-f]{64}$")
# (height, width); one number stands for both.
Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(lambda s: (s, s) if isinstance(s, int) else s)]


# Keys of [weights] that not every source reads -> those that do.
_READ_BY: dict[str, tuple[Source, ...]] = {
    "revision": ("open_clip", "transformers", "diffusers"),
    "file": ("checkpoint", "open_clip"),
    "sha256": ("checkpoint", "open_clip", "torchvision"),
    **dict.fromkeys(("keys", "nest", "drop", "rename", "fixed", "absent"), ("checkpoint",)),
    "options": ("timm", "open_clip", "torchvision", "transformers", "diffusers", "checkpoint", "custom"),
}


class Table(BaseModel):
    """A TOML table: unknown keys are errors and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Weights(Table):
    """Where a backbone's weights come from.

    Attributes:
        source: Which file of `bob/backbones/` loads it.
        model: What to load, in that source's own words: a timm name (also for `checkpoint`), ARCHITECTURE/TAG for
            `open_clip`, NAME or NAME/WEIGHTS for `torchvision`, a hub repository for `transformers` and `diffusers`,
            `file.py:make` for `custom`.
        pretrained: False for random initialisation from `seed`.
        seed: Seed of whatever is initialised at random.
        revision: Commit of the hub repository; empty for its newest.
        file: Checkpoint as path, https URL, or `package:NAME/path/inside` for a file that an installed package carries.
        sha256: Checksum of that file; a file that differs is refused.
        keys: How the checkpoint's tensors find their place: by `name`, or by `order` (kind and shape checked).
        nest: Key of the file under which the tensors lie; empty for the usual ones.
        drop: Patterns of tensors left out on purpose, such as a projector; matched before `rename`.
        rename: Pattern -> replacement (`re.sub`), applied in turn to the names that are left.
        options: Arguments of the architecture that differ from the source's own, such as `num_heads`; of the
            function, for `custom`.
        fixed: Parameters whose values in the file training must never change, such as sine-cosine positions.
        absent: Patterns of the architecture's parameters that the publisher's network does without: not in the file,
            they keep the neutral value that `options` gives them (a layer scale of one) and are never trained.
        install: The command that makes the weights available where they cannot be downloaded on use.
    """

    source: Source
    model: str = ""
    pretrained: bool = True
    seed: int = 0
    revision: str = ""
    file: str | None = None
    sha256: str | None = SHA256
    keys: Literal["name", "order"] = "name"
    nest: str = ""
    drop: tuple[Pattern, ...] = ()
    rename: dict[Pattern, str] = {}
    options: dict[str, bool | int | float | str] = {}
    fixed: tuple[str, ...] = ()
    absent: tuple[Pattern, ...] = ()
    install: str = ""

    @model_validator(mode="after")
    def _names_what_to_load(self) -> Self:
        needed = {"pixels": (), "constant": (), "checkpoint": ("model", "file")}.get(self.source, ("model",))
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"the source '{self.source}' needs '{key}'")
        return self

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        for key, sources in _READ_BY.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.source not in sources:
                raise ValueError(f"the source '{self.source}' does not read '{key}'")
        return self


class PreprocessOverride(Table):
    """Preprocessing that replaces, field by field, what the source declares for the checkpoint."""

    size: Size | None = None
    crop_fraction: float | None = Field(default=None, gt=0, le=1)
    crop_mode: Literal["center", "squash", "border"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None


class Feature(Table):
    """The global feature that `embed` returns.

    Attributes:
        layer: Where it is read: `pre_logits` is the input of the classifier that was removed, `image_embedding` the
            output that a vision-language model compares with text, `mid_block` the middle of a diffusion UNet,
            `descriptor` the head of a copy detector (generalised mean, linear layer, unit length), as wide as `width`.
        pooling: How the map becomes a vector; `default` is the checkpoint's own.
        width: D, checked against what the backbone returns.
    """

    layer: Literal["pre_logits", "image_embedding", "mid_block", "descriptor"] = "pre_logits"
    pooling: Literal["default", "avg", "max", "token", "map"] = "default"
    width: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _descriptor_has_a_width(self) -> Self:
        if self.layer == "descriptor" and self.width is None:
            raise ValueError("the layer 'descriptor' needs 'width'")
        return self


class Reference(Table):
    """A published number that this backbone should reproduce, and who published it."""

    dataset: str
    metric: str
    value: float
    source: str


class Card(Table):
    """What every card has: a unique name and where its facts come from."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][^\s,*?\[\]]*$")
    description: str = ""
    licence: str = "unknown"
    facts: tuple[str, ...] = ()


class BackboneCard(Card):
    """One exact checkpoint with its own preprocessing.

    Attributes:
        parameters: Number of parameters of the feature extractor, without classifier.
        pretraining_images: Number of images (or image-text pairs) that it was pretrained on.
    """

    weights: Weights
    paradigm: Paradigm = "unknown"
    method: str = ""
    architecture: str = ""
    pretraining_data: str = ""
    pretraining_images: int | None = None
    parameters: int | None = None
    preprocess: PreprocessOverride = PreprocessOverride()
    feature: Feature = Feature()
    references: tuple[Reference, ...] = ()

    def random_twin(self) -> BackboneCard:
        """Return the card of the same architecture and preprocessing at random initialisation."""
        kept: dict[str, Any] = self.weights.model_dump(include={"source", "model", "revision", "options"})
        if self.weights.source == "checkpoint":
            kept["source"] = "timm"
        weights = Weights(**kept, pretrained=False)
        return self.model_copy(
            update={
                "name": f"{self.name}{TWIN_SUFFIX}",
                "description": f"{self.architecture or self.weights.model} at random initialisation (seed 0).",
                "weights": weights,
                "paradigm": "baseline",
                "method": "random initialisation",
                "pretraining_data": "none",
                "pretraining_images": 0,
                "licence": "not applicable",
                "references": (),
            }
        )

    @property
    def has_random_twin(self) -> bool:
        """Whether the architecture can be built without its weights."""
        return self.weights.pretrained and self.weights.source not in ("custom", "pixels", "constant")


TWIN_SUFFIX = ".random"
