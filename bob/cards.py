"""Cards: the TOML files that say exactly which backbone and which task are meant, found, read and checked."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from bob.errors import UserError, did_you_mean, first_problem

Paradigm = Literal["supervised", "ssl", "vlm", "generative", "depth", "baseline", "unknown"]
SHA256 = Field(default=None, pattern="^[0-9a-f]{64}$")
# (height, width); one number stands for both.
Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(lambda s: (s, s) if isinstance(s, int) else s)]


class _Table(BaseModel):
    """A TOML table: unknown keys are errors and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Weights(_Table):
    """Where a backbone's weights come from.

    Attributes:
        source: Which file of `bob/backbones/` loads it.
        model: What to load, in that source's own words: a timm name, or `file.py:make` for `custom`.
        pretrained: False for random initialisation from `seed`.
        seed: Seed of whatever is initialised at random.
        file: Checkpoint path, or `package:NAME/path/inside` for a file that an installed package carries.
        sha256: Checksum of that file; a file that differs is refused.
        keys: How the checkpoint's tensors find their place: by `name`, or by `order` (kind and shape checked).
        install: The command that makes the weights available where they cannot be downloaded on use.
    """

    source: Literal["timm", "checkpoint", "custom", "pixels", "constant"]
    model: str = ""
    pretrained: bool = True
    seed: int = 0
    file: str | None = None
    sha256: str | None = SHA256
    keys: Literal["name", "order"] = "name"
    install: str = ""

    @model_validator(mode="after")
    def _names_what_to_load(self) -> Self:
        needed = {"timm": ("model",), "custom": ("model",), "checkpoint": ("model", "file")}.get(self.source, ())
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"the source '{self.source}' needs '{key}'")
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
        layer: Where it is read: `pre_logits` is the input of the classifier that was removed.
        pooling: How the map becomes a vector; `default` is the checkpoint's own.
        width: D, checked against what the backbone returns.
    """

    layer: Literal["pre_logits"] = "pre_logits"
    pooling: Literal["default", "avg", "max", "token", "map"] = "default"
    width: int | None = Field(default=None, gt=0)


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
        weights = Weights(source="timm", model=self.weights.model, pretrained=False)
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
        return self.weights.source in ("timm", "checkpoint") and self.weights.pretrained


class DataSpec(_Table):
    """Where a task's images come from and how they are split.

    Attributes:
        source: `shapes`, `orl_faces`, `folder:PATH` or `torchvision:NAME`.
        val_fraction: Share of the training images (per class) cut off for validation where the source has no `val`.
        test_fraction: Share of all images (per class) cut off for testing where the source has no `test`.
        split_seed: Seed of those cuts; the cut belongs to the task, not to the run.
    """

    source: str
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    test_fraction: float = Field(default=0.25, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)


class TaskCard(Card):
    """An adapter, a data set and the protocols to run on it.

    Attributes:
        version: Raised whenever the card's data or splits change what is computed.
        protocols: Run when `--protocol` is not given.
        primary: The metric that the leaderboard ranks by.
    """

    adapter: Literal["classification"]
    version: int = Field(default=1, ge=1)
    data: DataSpec
    protocols: tuple[str, ...] = Field(default=("linear", "knn"), min_length=1)
    metrics: tuple[str, ...] = Field(default=("top1", "mean_per_class", "nll", "ece"), min_length=1)
    primary: str = "top1"


TWIN_SUFFIX = ".random"
C = TypeVar("C", bound=Card)


def load_backbone_cards(extra: Sequence[Path] = ()) -> dict[str, BackboneCard]:
    """Return name -> card of the built-in registry and the folders in `extra`.

    Raises:
        UserError: On an unreadable card, an unknown key, a wrong type, or one name in two files.
    """
    return _load_cards(BackboneCard, [_builtin("registry"), *extra])


def load_task_cards(extra: Sequence[Path] = ()) -> dict[str, TaskCard]:
    """Return name -> card of the built-in tasks and the folders in `extra`; raises as `load_backbone_cards`."""
    return _load_cards(TaskCard, [_builtin("tasks"), *extra])


def resolve_tasks(specs: Iterable[str], cards: Mapping[str, TaskCard]) -> list[TaskCard]:
    """Return the task cards meant by names, globs, `folder:PATH` and `torchvision:NAME`, in order, without repeats.

    Raises:
        UserError: If a name is unknown; suggests close ones.
    """
    return [_resolve_task(name, cards) for name in match_names(specs, cards)]


def read_card(path: Path, kind: type[C]) -> C:
    """Read one TOML card.

    Raises:
        UserError: Naming the file, the key and the mend.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the card {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, kind)}") from error


def match_names(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Expand globs against known names, in the order given and without repeats; a plain name stays as it is.

    Raises:
        UserError: If a glob matches nothing.
    """
    known, found = list(names), []
    for pattern in patterns:
        if any(character in pattern for character in "*?[") and ":" not in pattern:
            matches = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
            if not matches:
                raise UserError(f"'{pattern}' matches no name.", "See `bob list backbones` and `bob list tasks`.")
            found.extend(matches)
        else:
            found.append(pattern)
    return list(dict.fromkeys(found))


def _resolve_task(name: str, cards: Mapping[str, TaskCard]) -> TaskCard:
    if name in cards:
        return cards[name]
    kind, _, what = name.partition(":")
    if kind == "folder" and what:
        # The whole path, so that two folders of one name are two tasks.
        source = f"folder:{Path(os.path.expanduser(what)).absolute()}"
    elif kind == "torchvision" and what:
        source = name
    else:
        hint = did_you_mean(name, cards) or "See `bob list tasks`."
        raise UserError(f"Unknown task '{name}'.", f"{hint} Your own images: folder:PATH.")
    card = TaskCard(name=kind, adapter="classification", data=DataSpec(source=source))
    return card.model_copy(update={"name": source})


def _builtin(folder: str) -> Path:
    """The cards inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def _load_cards(kind: type[C], folders: Iterable[Path]) -> dict[str, C]:
    cards: dict[str, C] = {}
    origin: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"The card folder {folder} does not exist.", "Give an existing folder of TOML cards.")
        for path in sorted(folder.rglob("*.toml")):
            card = read_card(path, kind)
            # The same file again is no clash: `--registry registry` in a checkout names the built-in folder.
            if card.name in cards and not path.samefile(origin[card.name]):
                raise UserError(
                    f"{path}: key 'name': '{card.name}' is already the name of {origin[card.name]}.",
                    "Rename one of them.",
                )
            cards[card.name], origin[card.name] = card, path
    return cards
