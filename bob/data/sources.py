"""From a task card's data table to images in train, val and test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bob import places
from bob.data.base import Dataset, ImageSet
from bob.data.partition import partition, require_learnable
from bob.errors import UserError, did_you_mean
from bob.task_cards import GENERATED, DataSpec, TaskCard

_LONGEST_LAYOUT = 200  # characters, in an error
BUILT_IN = (*GENERATED, "orl_faces")
PREFIXES = ("folder:", "torchvision:", "hf:", "wilds:", "chexpert:")


def load_task(card: TaskCard, data_root: Path | None = None, check: bool = True) -> Dataset:
    """Open the data set of a task: `load_dataset`, with one label an image or several as its adapter wants it, and with
    the card's `class_names` as classes.

    Raises:
        UserError: As `load_dataset`; if there are more or fewer names than classes.
    """
    dataset = load_dataset(card.data, data_root, multilabel=card.adapter == "multilabel", check=check)
    names = _imagenet_names() if card.class_names == "imagenet" else tuple(card.class_names)
    if not names:
        return dataset
    if len(names) != len(dataset.classes):
        raise UserError(
            f"The task '{card.name}' has {len(names)} class_names, but {card.data.source} has "
            f"{len(dataset.classes)} classes.",
            "Correct class_names on the task card.",
        )
    return replace(dataset, classes=names)


def load_dataset(
    spec: DataSpec, data_root: Path | None = None, multilabel: bool | None = None, check: bool = True
) -> Dataset:
    """Open a data set and make sure that it has train, val and test.

    Args:
        spec: The task card's `[data]`.
        data_root: Folder of downloaded data sets; `places.data_root()` if None.
        multilabel: Whether images must have several labels or one; None for whatever the source has.
        check: Whether no split may be empty or hold a class that train lacks, and numbers must be those of `expect` and
            `classes`; `bob data verify` asks later, and for all of it.

    Raises:
        UserError: If the source is unknown, its data cannot be had, cannot be split, are of the other kind, or differ
            in number from what `expect` and `classes` say.
    """
    root = (data_root or places.data_root()).expanduser()
    dataset = _generated(spec) if spec.source in GENERATED else _divided(spec, root, multilabel)
    if multilabel is not None and dataset.splits and dataset.multilabel != multilabel:
        raise UserError(
            f"{spec.source} has {'several labels' if dataset.multilabel else 'one class'} for each image.",
            f'Use adapter = "{"multilabel" if dataset.multilabel else "classification"}" on a task card of yours '
            "(a TOML file; --tasks names its folder).",
        )
    if check:
        require_learnable(dataset.splits, dataset.classes, spec)
        _require_expected(dataset, spec)
    return dataset


def _generated(spec: DataSpec) -> Dataset:
    if spec.source == "shapes":
        from bob.data.shapes import load_shapes

        return load_shapes()
    from bob.data.shapes_multilabel import load_shapes_multilabel

    return load_shapes_multilabel()


def _divided(spec: DataSpec, root: Path, multilabel: bool | None) -> Dataset:
    try:
        classes, pools = _open(spec, root, multilabel)
    except UserError as error:
        if spec.layout:
            raise UserError(error.problem, f"{error.remedy} {_expected_there(spec)}") from error
        raise
    several = next(iter(pools.values())).labels.ndim == 2
    if len(classes) < 2 and not several:
        raise UserError(f"{spec.source} has only one class, '{classes[0]}'.", "Classification needs at least two.")
    splits, rule = partition(pools, spec, classes, root)
    groups = splits["train"].images.group_names
    return Dataset(spec.source, classes, splits, {"splits": rule, "split_seed": spec.split_seed}, groups)


def _open(spec: DataSpec, root: Path, multilabel: bool | None) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    prefix, _, name = spec.source.partition(":")
    if spec.source == "orl_faces":
        from bob.data.orl_faces import load_orl_faces

        return load_orl_faces()
    if prefix == "folder" and name:
        from bob.data.folder import load_folder

        return load_folder(root / Path(name).expanduser(), bool(multilabel))
    if prefix == "torchvision" and name:
        from bob.data.torchvision import load_torchvision

        return load_torchvision(name, root, spec.options, _origins(spec))
    if prefix == "hf" and name:
        from bob.data.hf import load_hf

        return load_hf(name, spec, _origins(spec))
    if prefix == "wilds" and name:
        from bob.data.wilds import load_wilds

        return load_wilds(name, root)
    if prefix == "chexpert" and name:
        from bob.data.chexpert import load_chexpert

        return load_chexpert(root / Path(name).expanduser())
    known = [*BUILT_IN, *(f"{prefix}..." for prefix in PREFIXES)]
    hint = did_you_mean(spec.source, known) or f"Use one of {', '.join(known)}."
    raise UserError(f"Unknown data source '{spec.source}'.", hint)


def _origins(spec: DataSpec) -> tuple[str, ...]:
    """The source's own names of all splits that the card asks for."""
    return tuple(dict.fromkeys(origin.strip() for names in spec.splits.values() for origin in names.split("+")))


def _require_expected(dataset: Dataset, spec: DataSpec) -> None:
    """Fail unless numbers of images and classes are those of the card."""
    found = {name: len(split) for name, split in dataset.splits.items()}
    wrong = [
        f"{found[name]:,} images in {name} instead of {count:,}"
        for name, count in spec.expect.items()
        if found[name] != count
    ]
    if spec.classes not in (None, len(dataset.classes)):
        wrong.append(f"{len(dataset.classes):,} classes instead of {spec.classes:,}")
    if wrong:
        raise UserError(
            f"{spec.source} has {' and '.join(wrong)}.",
            "Complete the data (`bob data verify TASK` looks closer), or correct 'expect' and 'classes' on the card."
            + (f" {_expected_there(spec)}" if spec.layout else ""),
        )


def _expected_there(spec: DataSpec) -> str:
    """The card's `layout`, or where to read it if it is too long for one line."""
    if len(spec.layout) <= _LONGEST_LAYOUT:
        return f"Expected there: {spec.layout}"
    return "`bob show TASK` says what is expected there and where it comes from."


def _imagenet_names() -> tuple[str, ...]:
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)
