"""What a fine-tuning recipe says, as data that a record can keep."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, Literal

from bob.errors import UserError

# Of the training loop: raised when the same identity would give other weights than before.
ENGINE_VERSION = 1


# Whether a value fits, and what is expected in words.
Rule = tuple[Callable[[Any], bool], str]


def check(of: str, name: str, value: object, rule: Rule) -> None:
    """Make sure that a field of a recipe has a value that makes sense.

    Raises:
        UserError: If not, saying what is expected of the field `name` of `of`.
    """
    fits, expected = rule
    try:
        accepted = fits(value)
    except TypeError:  # None, or a word, where a number is wanted
        accepted = False
    if not accepted:
        raise UserError(f"Expected {name} of {of} to be {expected}, but got {value!r}.", f"Correct {name}.")


def one_of(*words: str) -> Rule:
    """One of these words."""
    return lambda value: value in words, " or ".join(f"'{word}'" for word in words)


def or_none(rule: Rule) -> Rule:
    """What the rule wants, or None."""
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or None"


POSITIVE: Rule = (lambda value: 0 < value < math.inf, "positive")
NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, "0 or more")
SHARE: Rule = (lambda value: 0 <= value < 1, "from 0 to below 1")
PROBABILITY: Rule = (lambda value: 0 <= value <= 1, "from 0 to 1")
WHOLE: Rule = (lambda value: isinstance(value, int) and value > 0, "a positive whole number")
_AUGMENTATION_RULES: dict[str, Rule] = {
    "scale": (lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] <= 1, "two rising numbers above 0 and up to 1"),
    "ratio": (lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] < math.inf, "two rising positive numbers"),
    "hflip": PROBABILITY,
    "color_jitter": PROBABILITY,
    "erase": PROBABILITY,
    "mixup": NOT_NEGATIVE,
    "cutmix": NOT_NEGATIVE,
    "mixup_switch": PROBABILITY,
    "label_smoothing": SHARE,
}
_RULES: dict[str, Rule] = {
    "lr": POSITIVE,
    "lr_batch": or_none(WHOLE),
    "momentum": SHARE,
    "weight_decay": NOT_NEGATIVE,
    "layer_decay": or_none((lambda value: 0 < value <= 1, "above 0 and up to 1")),
    "epochs": WHOLE,
    "schedule": one_of("cosine", "multistep", "poly"),
    "milestones": (
        lambda shares: all(0 < share < 1 for share in shares) and list(shares) == sorted(shares),
        "rising numbers between 0 and 1",
    ),
    "warmup_steps": or_none((lambda value: isinstance(value, int) and value >= 0, "a whole number, 0 or more")),
    "warmup_lr": NOT_NEGATIVE,
    "min_lr": NOT_NEGATIVE,
    "batch_size": WHOLE,
    "micro_batch": or_none(WHOLE),
    "drop_path": SHARE,
    "ema_decay": or_none((lambda value: 0 < value < 1, "between 0 and 1")),
    "clip_grad": or_none(POSITIVE),
    "trainable": one_of("all", "head"),
    "head": one_of("linear", "batchnorm_linear"),
    "loss": one_of("cross_entropy", "bce"),
}


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

    def __post_init__(self) -> None:
        for name, rule in _AUGMENTATION_RULES.items():
            check("the augmentation", name, getattr(self, name), rule)


# Random resized crops and flips alone, as for a linear probe.
CROP_AND_FLIP = Augmentation(color_jitter=0.0, auto_augment=None, erase=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0)


@dataclass(frozen=True)
class Recipe:
    """How a backbone and a new head are trained.

    Attributes:
        name: What the recipe is called in a record.
        lr: Peak learning rate: absolute, whatever the batch comes to, unless there is an `lr_batch`.
        lr_batch: Number of images that `lr` is meant for: the rate grows and shrinks with the batch; None for an
            absolute one.
        optimizer: timm's name, e.g. `adamw`, `sgd` or `lars`.
        momentum: Of the optimizers that have one; AdamW keeps its own betas.
        weight_decay: On weights; biases and norms have none.
        layer_decay: Factor on the learning rate from each layer to the one below; None for one rate everywhere.
        epochs: Passes over the training images; the schedule ends with the last.
        schedule: How the rate falls: `cosine`, `poly` (to `min_lr` in a straight line) or `multistep` (to a tenth at
            each of the milestones).
        milestones: Shares of all updates, for `multistep`.
        warmup_epochs: Of which so many raise the rate from `warmup_lr`.
        warmup_steps: Updates that do so, instead of epochs: at most half of all; None for `warmup_epochs`.
        warmup_lr: First learning rate; no more than the peak.
        min_lr: Last learning rate; no more than the peak.
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
    lr_batch: int | None = None
    schedule: Literal["cosine", "multistep", "poly"] = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_steps: int | None = None

    def __post_init__(self) -> None:
        of = f"recipe '{self.name}'"
        for name, rule in _RULES.items():
            check(of, name, getattr(self, name), rule)
        warm_up: Rule = (lambda value: 0 <= value < self.epochs, f"from 0 to below {self.epochs} epochs")
        check(of, "warmup_epochs", self.warmup_epochs, warm_up)
        if self.prior is not None and self.trainable == "head":
            raise UserError(
                f"Recipe '{self.name}' has a prior on a backbone that it does not train.", "Drop the prior."
            )

    def peak_lr(self, batch: int) -> float:
        """The highest learning rate of a training whose updates have `batch` images."""
        return self.lr if self.lr_batch is None else self.lr * batch / self.lr_batch

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-ready fields, for identities and records; a schedule is said only where it is not the cosine."""
        fields = json.loads(json.dumps(asdict(self)))
        added: dict[str, Any] = {"schedule": "cosine", "milestones": [], "warmup_steps": None}
        return {key: value for key, value in fields.items() if key not in added or value != added[key]}


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


# The fine-tuning recipe of BoB, model_configs/*_ft.yaml: 8 GPUs of 128 images; its rate is absolute.
BOB_FINE_TUNE = Recipe("bob_finetune")
# Its linear probe, linear_probe.py, which is MAE's: a rate of 0.1 for every 256 images of the
# batch, so 0.8 with 4 GPUs of 512 images.
BOB_LINEAR = Recipe(
    "bob_linear",
    lr=0.1,
    lr_batch=256,
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
