"""What a task card may say: which images, split how, and which protocols run on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from bob.cards import SHA256, Card, Table
from bob.task_tables import OtherSet, RetrievalSpec

SplitName = Literal["train", "val", "test"]
# Data sets that bob draws itself come with their splits.
GENERATED = ("shapes", "shapes_multilabel", "shapes_detection", "shapes_segmentation")
DENSE = ("detection", "segmentation")
# Keys of [data] that not every source reads -> the beginnings of those that do.
_DATA_READ_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("config", "revision", "image_column", "label_column"), ("hf:",)),
    "options": ("torchvision:",),
    "only": ("coco:", "voc:", "cityscapes:"),
    "drop_invalid": ("coco:", "voc:", "cityscapes:", "masks:", "panoptic:"),
    **dict.fromkeys(("ignore", "values", "image_suffix", "mask_suffix"), ("masks:",)),
    "test_source": ("coco:", "voc:", "cityscapes:"),
}
_SPLIT_KEYS = (
    *("splits", "val_fraction", "test_fraction", "split_seed", "train_count", "val_count", "test_count"),
    *("subset", "subset_sha256"),
)


def _checked_origins(origins: str) -> str:
    if not all(name.strip() for name in origins.split("+")):
        raise ValueError(f"'{origins}' names no split of the source (several are joined by '+')")
    return origins


class DataSpec(Table):
    """Where a task's images come from and how they are split.

    Attributes:
        source: `shapes`, `shapes_multilabel`, `orl_faces`, `folder:PATH` (a relative PATH is below the data root),
            `domains:PATH` (PATH/DOMAIN/CLASS/image; the domains are its splits), `torchvision:NAME`, `hf:REPOSITORY`
            (or `hf:PATH` of a local folder), `wilds:NAME` or `chexpert:FOLDER`.
            With objects: `shapes_detection`, `coco:IMAGES:ANNOTATIONS.json`, `voc:FOLDER`, `cityscapes:FOLDER`; with a
            class for each pixel: `shapes_segmentation`, `masks:IMAGES:MASKS`, `panoptic:IMAGES:PNGS:ANNOTATIONS.json`,
            `voc:FOLDER`. `{split}` in these paths stands for the source's own name of each split.
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
        only: Names of the categories that count, in this order; empty for all.
        drop_invalid: Whether annotations that cannot be right are left out and counted, instead of refused.
        ignore: Values of a mask that count for nothing.
        values: A mask's value for each class, in order; empty for 0, 1, ...
        image_suffix: How an image's name ends where its mask's ends otherwise, such as `_leftImg8bit.png`.
        mask_suffix: How the mask's name ends there.
        test_source: Another source, whose images (its `test`, or all) are the test: out of distribution.
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
    only: tuple[str, ...] = ()
    drop_invalid: bool = False
    ignore: tuple[int, ...] = (255,)
    values: tuple[int, ...] = ()
    image_suffix: str = ""
    mask_suffix: str = ""
    test_source: str = ""

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        for key, sources in _DATA_READ_BY.items():
            if self._says(key) and not self.source.startswith(sources):
                raise ValueError(f"the source '{self.source}' does not read '{key}', {_in_words(sources)}")
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


def _in_words(sources: tuple[str, ...]) -> str:
    quoted = [f"'{source}'" for source in sources]
    return f"{', '.join(quoted)} {'does' if len(quoted) == 1 else 'do'}"


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
        primary: The metric that the leaderboard ranks by; like `metrics`, the adapter's own by default.
        prompts: Sentences with `{}` where the class name goes, for zero-shot; or the name of a set of them.
        class_names: Readable names in the order of the labels, for zero-shot; `imagenet` for OpenAI's 1,000 of
            ImageNet-1k; empty for the data set's own.
        recipe: Settings of the training protocols on this task, as after `--set`: sizes, epochs, rates.
        score_at: Where a segmenter is scored: `original`, the masks' own resolution, or a short side in pixels that
            masks and predictions are brought to.
        sets: Further sets that `ood` and `ood_detection` test on.
        retrieval: Which images are queries and which the database, for `retrieval`.
        factors: Where the factors of the test images come from, for `factors`: `own` for those that the source has,
            `imagenet-x` for ImageNet-X's annotations, or a CSV below the data root.
    """

    adapter: Literal[
        "classification", "multilabel", "detection", "segmentation", "ood", "ood_detection", "factors", "retrieval"
    ]
    version: int = Field(default=1, ge=1)
    data: DataSpec
    protocols: tuple[str, ...] = Field(default=("linear", "knn"), min_length=1)
    metrics: tuple[str, ...] = Field(default=("top1", "mean_per_class", "nll", "ece"), min_length=1)
    primary: str = "top1"
    prompts: Annotated[str | tuple[str, ...], AfterValidator(_checked_prompts)] = "default"
    class_names: Annotated[str | tuple[str, ...], AfterValidator(_checked_class_names)] = ()
    recipe: dict[str, str | int | float] = {}
    score_at: Literal["original"] | PositiveInt = "original"
    sets: tuple[OtherSet, ...] = ()
    retrieval: RetrievalSpec = RetrievalSpec()
    factors: Annotated[str, Field(pattern=r"^(own|imagenet-x|.+\.csv)$")] = "own"

    @model_validator(mode="before")
    @classmethod
    def _as_its_adapter(cls, given: Any) -> Any:
        known = isinstance(given, dict) and isinstance(given.get("adapter"), str)
        return {**_DEFAULTS.get(given["adapter"], {}), **given} if known else given

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        for key, adapters in _READ_BY.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.adapter not in adapters:
                raise ValueError(f"'{key}' is for {' and '.join(adapters)}, not for {self.adapter}")
        if self.adapter in _READ_BY["sets"] and not self.sets:
            raise ValueError(f"{self.adapter} needs [[sets]] to test on")
        names = [each.name for each in self.sets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two of the sets are called '{twice[0]}'")
        return self

    @property
    def is_dense(self) -> bool:
        """Whether its data say what is where, not only what an image shows."""
        return self.adapter in DENSE


# Keys that not every adapter reads -> those that do.
_READ_BY: dict[str, tuple[str, ...]] = {
    "score_at": ("segmentation",),
    "sets": ("ood", "ood_detection"),
    "retrieval": ("retrieval",),
    "factors": ("factors",),
}
_SIZES = ("", "50", "75", "_small", "_medium", "_large")
# What a card of another adapter than classification means if it does not say.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "multilabel": {"metrics": ("mean_auroc", "map"), "primary": "mean_auroc"},
    "detection": {
        "protocols": ("finetune", "frozen"),
        "metrics": tuple(f"{kind}_ap{size}" for kind in ("box", "mask") for size in _SIZES),
        "primary": "box_ap",
    },
    "segmentation": {
        "protocols": ("linear", "upernet"),
        "metrics": ("miou", "mean_accuracy", "pixel_accuracy"),
        "primary": "miou",
    },
    "ood": {
        "metrics": ("shifted_top1", "clean_top1", "drop", "worst_set", "shifted_ece"),
        "primary": "shifted_top1",
    },
    "ood_detection": {
        "protocols": ("msp", "max_logit", "energy", "mahalanobis", "vim", "knn"),
        "metrics": ("auroc", "near_auroc", "far_auroc", "aupr_out", "aupr_in", "fpr95"),
        "primary": "auroc",
    },
    "factors": {
        "metrics": ("worst_factor", "max_error_ratio", "top1", "nll", "ece"),
        "primary": "worst_factor",
    },
    "retrieval": {
        "protocols": ("cosine",),
        "metrics": ("retrieval_map", "mrr", *(f"{kind}_{k}" for kind in ("precision", "recall") for k in (1, 5, 10))),
        "primary": "retrieval_map",
    },
}
