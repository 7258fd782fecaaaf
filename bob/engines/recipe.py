"""What a fine-tuning recipe says, as data that a record can keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, Literal

from bob.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to a training image; the defaults are those of *Battle of the Backbones* for fine-tuning.

    Attributes:
        scale: Smallest and largest share of the image's area in a random resized crop.
        ratio: Smallest and largest aspect ratio of that crop.
        hflip: Probability of a horizontal flip.
        color_jitter: Strength of the jitter of brightness, contrast and saturation; as in timm, not used beside
            `auto_augment`.
        auto_augment: timm's name of a RandAugment policy; None for none.
        erase: Probability of erasing a rectangle with noise.
        mixup: Alpha of mixup's Beta distribution; 0 for none.
        cutmix: Alpha of CutMix's; 0 for none.
        mixup_switch: Probability of CutMix rather than mixup where both are on.
        label_smoothing: Share of the target spread over all classes.

    Source: arXiv 2310.19909, bob-classification/model_configs.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.4
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    erase: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_switch: float = 0.5
    label_smoothing: float = 0.1


# Random resized crops and flips alone, as for a linear probe.
CROP_AND_FLIP = Augmentation(color_jitter=0.0, auto_augment=None, erase=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0)


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in words, " or ".join(f"'{word}'" for word in words)


_POSITIVE: tuple[Callable[[Any], bool], str] = (lambda value: value > 0, "positive")
_NOT_NEGATIVE: tuple[Callable[[Any], bool], str] = (lambda value: value >= 0, "0 or more")
_POSITIVE_OR_NONE: tuple[Callable[[Any], bool], str] = (lambda value: value is None or value > 0, "positive, or None")
_SHARE: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < 1, "from 0 to below 1")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": _POSITIVE,
    "momentum": _SHARE,
    "weight_decay": _NOT_NEGATIVE,
    "layer_decay": (lambda value: value is None or 0 < value <= 1, "above 0 and up to 1, or None"),
    "epochs": (lambda value: isinstance(value, int) and value > 0, "a positive whole number"),
    "warmup_lr": _NOT_NEGATIVE,
    "min_lr": _NOT_NEGATIVE,
    "batch_size": (lambda value: isinstance(value, int) and value > 0, "a positive whole number"),
    "micro_batch": (lambda value: value is None or (isinstance(value, int) and value > 0), "a positive whole number"),
    "drop_path": _SHARE,
    "ema_decay": (lambda value: value is None or 0 < value < 1, "between 0 and 1, or None"),
    "clip_grad": _POSITIVE_OR_NONE,
    "trainable": _one_of("all", "head"),
    "head": _one_of("linear", "batchnorm_linear"),
    "loss": _one_of("cross_entropy", "bce"),
}


@dataclass(frozen=True)
class Recipe:
    """How a backbone and a new head are trained.

    Attributes:
        name: What the recipe is called in a record.
        lr: Peak learning rate at `batch_size`, absolute.
        optimizer: timm's name, e.g. `adamw`, `sgd` or `lars`.
        momentum: Of the optimizers that have one; AdamW keeps its own betas.
        weight_decay: On weights; biases and norms have none.
        layer_decay: Factor on the learning rate from each layer to the one below; None for one rate everywhere.
        epochs: Passes over the training images; the cosine ends with the last.
        warmup_epochs: Of which so many raise the rate from `warmup_lr`.
        warmup_lr: First learning rate.
        min_lr: Last learning rate.
        batch_size: Images in one update, over all processes and accumulated parts.
        micro_batch: Most images of one forward pass on one device; None for as many as usually fit.
        drop_path: Probability of dropping the last block; falls to 0 at the first.
        ema_decay: Of an exponential moving average of the weights, which then predicts; None for none.
        clip_grad: Largest norm of the gradient; None for any.
        trainable: `all`, or `head` for a backbone that stays as it is, BatchNorm statistics included.
        head: `linear`, or `batchnorm_linear` for an affine-free BatchNorm before it.
        augmentation: None for the checkpoint's own evaluation crop and hard labels.
        loss: `cross_entropy`, or `bce` for one sigmoid a class.
        prior: As `bob.engines.prior.load_prior` reads it, e.g. `l2sp:0.01`; None for none.

    Raises:
        UserError: If a number is out of range, or a word is not one of those above.
    """

    name: str
    _: KW_ONLY
    lr: float = 1e-3
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.05
    layer_decay: float | None = 0.75
    epochs: int = 100
    warmup_epochs: int = 5
    warmup_lr: float = 1e-4
    min_lr: float = 1e-6
    batch_size: int = 1024
    micro_batch: int | None = None
    drop_path: float = 0.1
    ema_decay: float | None = None
    clip_grad: float | None = None
    trainable: Literal["all", "head"] = "all"
    head: Literal["linear", "batchnorm_linear"] = "linear"
    augmentation: Augmentation | None = Augmentation()
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    prior: str | None = None

    def __post_init__(self) -> None:
        for name, (fits, expected) in _RULES.items():
            if not fits(value := getattr(self, name)):
                raise _refused(self.name, name, expected, value)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise _refused(self.name, "warmup_epochs", f"from 0 to below {self.epochs} epochs", self.warmup_epochs)
        if self.prior is not None and self.trainable == "head":
            raise UserError(
                f"Recipe '{self.name}' has a prior on a backbone that it does not train.", "Drop the prior."
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-ready fields, for identities and records."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Limits:
    """When to stop early; the schedule stays that of the whole training, so a later call can go on.

    Attributes:
        max_steps: Updates in all, those before an interruption included; None for no limit.
        max_hours: Hours of training in all, those before an interruption included; None for no limit.

    Raises:
        UserError: If a limit is not positive.
    """

    max_steps: int | None = None
    max_hours: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:
                raise UserError(
                    f"Expected {name} to be positive, but got {value}.", f"Correct {name}, or leave it out."
                )

    def reached(self, step: int, seconds: float) -> bool:
        """Whether training stops after so many steps and seconds."""
        out_of_steps = self.max_steps is not None and step >= self.max_steps
        return out_of_steps or (self.max_hours is not None and seconds >= self.max_hours * 3600)


def _refused(recipe: str, name: str, expected: str, value: object) -> UserError:
    return UserError(f"Expected {name} of recipe '{recipe}' to be {expected}, but got {value!r}.", f"Correct {name}.")


# The fine-tuning recipe of BoB, model_configs/*_ft.yaml: 8 GPUs of 128 images.
BOB_FINE_TUNE = Recipe("bob_finetune")
# Its linear probe, linear_probe.py, which is MAE's: blr 0.1 a 256 images, 4 GPUs of 512 images.
BOB_LINEAR = Recipe(
    "bob_linear",
    lr=0.8,
    optimizer="lars",
    weight_decay=0.0,
    layer_decay=None,
    epochs=90,
    warmup_epochs=10,
    warmup_lr=0.0,
    min_lr=0.0,
    batch_size=2048,
    drop_path=0.0,
    trainable="head",
    head="batchnorm_linear",
    augmentation=CROP_AND_FLIP,
)
