"""What a card may say: exactly which backbone and which task are meant."""

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
    ValidationInfo,
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


class _Table(BaseModel):
    """A TOML table: unknown keys are errors and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Weights(_Table):
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


class PreprocessOverride(_Table):
    """Preprocessing that replaces, field by field, what the source declares for the checkpoint."""

    size: Size | None = None
    crop_fraction: float | None = Field(default=None, gt=0, le=1)
    crop_mode: Literal["center", "squash", "border"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None


class Feature(_Table):
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


class Reference(_Table):
    """A published number that this backbone should reproduce, and who published it."""

    dataset: str
    metric: str
    value: float
    source: str


class Card(_Table):
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


SplitName = Literal["train", "val", "test"]
# Data sets that bob draws itself come with their splits.
GENERATED = ("shapes", "shapes_multilabel")
# Keys of [data] that not every source reads -> the beginnings of those that do.
_DATA_READ_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("config", "revision", "image_column", "label_column"), ("hf:",)),
    "options": ("torchvision:",),
}
_SPLIT_KEYS = (
    *("splits", "val_fraction", "test_fraction", "split_seed", "train_count", "val_count", "test_count"),
    *("subset", "subset_sha256"),
)


def _checked_origins(origins: str) -> str:
    if not all(name.strip() for name in origins.split("+")):
        raise ValueError(f"'{origins}' names no split of the source (several are joined by '+')")
    return origins


class DataSpec(_Table):
    """Where a task's images come from and how they are split.

    Attributes:
        source: `shapes`, `shapes_multilabel`, `orl_faces`, `folder:PATH` (a relative PATH is below the data root),
            `torchvision:NAME`, `hf:REPOSITORY` (or `hf:PATH` of a local folder), `wilds:NAME` or `chexpert:FOLDER`.
        config: Configuration of the hub data set; empty for its only one.
        revision: Commit, tag or branch of the hub data set; empty for its newest.
        image_column: Column of the hub data set that holds the images; empty for its only one of that type.
        label_column: Column of the hub data set that holds the labels; empty for its only one of that type.
        options: Further arguments of the torchvision class, such as `partition` of DTD; `root` is a folder below the
            data root.
        splits: Our split -> the source's own split, or several joined by `+`; a split that is not named is cut by the
            rules below. Without it the source's own are taken, and its val is the test where it has no test.
        val_fraction: Share of the training images (per class) cut off for validation where the source has no `val`.
        test_fraction: Share of all images (per class) cut off for testing where the source has no `test`.
        split_seed: Seed of those cuts; the cut belongs to the task, not to the run.
        train_count: Images of each class to learn from, before a val is cut off from them; of the others come the
            test images where the source has no `test`.
        val_count: Images of each class in a val that is cut, instead of `val_fraction`.
        test_count: Images of each class in a test that is cut, instead of `test_fraction`; with `train_count` at most
            as many.
        subset: List of the only images to learn from, one name a line: a path (if relative, below the data root) or an
            https URL.
        subset_sha256: Checksum of that list.
        unseen_classes: Whether val and test may have classes that train lacks, as a few images of many classes do;
            their images can only be got wrong.
        expect: Number of images of each split; opening fails if one differs.
        classes: Number of classes; opening fails if it differs.
        layout: What must lie where, for whoever has to download it.
    """

    source: str
    config: str = ""
    revision: str = ""
    image_column: str = ""
    label_column: str = ""
    options: dict[str, bool | int | float | str] = {}
    splits: dict[SplitName, Annotated[str, AfterValidator(_checked_origins)]] = {}
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    test_fraction: float = Field(default=0.25, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    train_count: PositiveInt | None = None
    val_count: PositiveInt | None = None
    test_count: PositiveInt | None = None
    subset: str = ""
    subset_sha256: str | None = SHA256
    unseen_classes: bool = False
    expect: dict[SplitName, PositiveInt] = {}
    classes: PositiveInt | None = None
    layout: str = ""

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        for key, sources in _DATA_READ_BY.items():
            if self._says(key) and not self.source.startswith(sources):
                raise ValueError(f"the source '{self.source}' does not read '{key}', '{sources[0]}' does")
        for key in _SPLIT_KEYS if self.source in GENERATED else ():
            if self._says(key):
                raise ValueError(f"the source '{self.source}' has splits of its own and does not read '{key}'")
        if self.subset_sha256 and not self.subset:
            raise ValueError("'subset_sha256' is the checksum of 'subset', which is missing")
        return self

    @model_validator(mode="after")
    def _splits_are_apart(self) -> Self:
        if self.splits and "train" not in self.splits:
            raise ValueError("'splits' needs 'train'")
        origins = [origin.strip() for names in self.splits.values() for origin in names.split("+")]
        if twice := [origin for origin in origins if origins.count(origin) > 1]:
            raise ValueError(f"'splits' uses the source's '{twice[0]}' twice")
        return self

    def _says(self, key: str) -> bool:
        return bool(getattr(self, key) != type(self).model_fields[key].default)


PROMPT_SETS = ("default", "simple_imagenet", "openai_imagenet")


def _checked_prompts(prompts: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(prompts, str):
        if prompts not in PROMPT_SETS:
            raise ValueError(f"there are no prompts '{prompts}', only {', '.join(PROMPT_SETS)} and arrays of your own")
        return prompts
    if not prompts:
        raise ValueError("the array is empty")
    for template in prompts:
        if "{}" not in template:
            raise ValueError(f"the prompt '{template}' has no {{}} where the class name goes")
    return prompts


def _checked_class_names(names: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
    if isinstance(names, str):
        if names != "imagenet":
            raise ValueError(f"there are no class names '{names}', only imagenet and arrays of your own")
        return names
    twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"'{twice[0]}' is the name of two classes")
    wanted = info.data["data"].classes if "data" in info.data else None
    if names and wanted not in (None, len(names)):
        raise ValueError(f"there are {len(names)} names for {wanted} classes")
    return names


class TaskCard(Card):
    """An adapter, a data set and the protocols to run on it.

    Attributes:
        version: Raised whenever the card's data or splits change what is computed.
        protocols: Run when `--protocol` is not given.
        primary: The metric that the leaderboard ranks by.
        prompts: Sentences with `{}` where the class name goes, for zero-shot; or the name of a set of them.
        class_names: Readable names in the order of the labels, for zero-shot; `imagenet` for OpenAI's 1,000 of
            ImageNet-1k; empty for the data set's own.
    """

    adapter: Literal["classification", "multilabel"]
    version: int = Field(default=1, ge=1)
    data: DataSpec
    protocols: tuple[str, ...] = Field(default=("linear", "knn"), min_length=1)
    metrics: tuple[str, ...] = Field(default=("top1", "mean_per_class", "nll", "ece"), min_length=1)
    primary: str = "top1"
    prompts: Annotated[str | tuple[str, ...], AfterValidator(_checked_prompts)] = "default"
    class_names: Annotated[str | tuple[str, ...], AfterValidator(_checked_class_names)] = ()


TWIN_SUFFIX = ".random"
