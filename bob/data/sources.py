"""From a task card's data table to images in train, val and test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bob import places
from bob.data.base import Dataset, ImageSet
from bob.data.partition import partition, require_learnable
from bob.errors import UserError, did_you_mean
from bob.task_cards import GENERATED, DataSpec, TaskCard

# Adapters of images that have one class each.
ONE_CLASS = ("ood", "ood_detection", "factors")
_LONGEST_LAYOUT = 200  # characters, in an error
BUILT_IN = (*GENERATED, "orl_faces")
PREFIXES = (
    *("folder:", "domains:", "torchvision:", "hf:", "wilds:", "chexpert:"),
    *("coco:", "voc:", "cityscapes:", "masks:", "panoptic:"),
)
Pools = tuple[tuple[str, ...], dict[str, ImageSet]]  # classes, and images by the source's own names of its splits


def load_task(card: TaskCard, data_root: Path | None = None, check: bool = True) -> Dataset:
    """Open the data set of a task: `load_dataset` for its adapter, with the card's `class_names` as classes.

    Raises:
        UserError: As `load_dataset`; if there are more or fewer names than classes.
    """
    if card.adapter == "retrieval":
        from bob.data.retrieval import load_retrieval

        return load_retrieval(card, _root(data_root), check)
    dataset = _tested_as_asked(card, load_dataset(card.data, data_root, card.adapter, check=check), _root(data_root))
    if card.adapter == "segmentation":
        dataset = replace(dataset, facts={**dataset.facts, "score_at": card.score_at})
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


def _tested_as_asked(card: TaskCard, dataset: Dataset, root: Path) -> Dataset:
    """The data set with what its adapter tests on beside, or knows of, the task's own test images."""
    if card.adapter == "ood":
        from bob.data.shifted import with_shifts

        return with_shifts(card, dataset, root)
    if card.adapter == "ood_detection":
        from bob.data.outlier_sets import with_outliers

        return with_outliers(card, dataset, root)
    if card.adapter == "factors":
        from bob.data.factors import with_factors

        return with_factors(card, dataset, root)
    return dataset


def _root(data_root: Path | None) -> Path:
    return (data_root or places.data_root()).expanduser()


def load_dataset(
    spec: DataSpec, data_root: Path | None = None, adapter: str | None = None, check: bool = True
) -> Dataset:
    """Open a data set and make sure that it has train, val and test.

    Args:
        spec: The task card's `[data]`.
        data_root: Folder of downloaded data sets; `places.data_root()` if None.
        adapter: What the images are for, as on a task card; None for whatever the source has.
        check: Whether no split may be empty or hold a class that train lacks, and numbers must be those of `expect` and
            `classes`; `bob data verify` asks later, and for all of it.

    Raises:
        UserError: If the source is unknown, its data cannot be had, cannot be split, do not suit the adapter, or differ
            in number from what `expect` and `classes` say.
    """
    root = _root(data_root)
    dataset = _drawn(spec) if spec.source in ("shapes", "shapes_multilabel") else _divided(spec, root, adapter)
    if adapter is not None and dataset.splits:
        _require_fit(dataset, spec, adapter)
    if check:
        require_learnable(dataset.splits, dataset.classes, spec)
        _require_expected(dataset, spec)
    return dataset


def _drawn(spec: DataSpec) -> Dataset:
    if spec.source == "shapes":
        from bob.data.shapes import load_shapes

        return load_shapes()
    from bob.data.shapes_multilabel import load_shapes_multilabel

    return load_shapes_multilabel()


def _require_fit(dataset: Dataset, spec: DataSpec, adapter: str) -> None:
    """Fail unless the data say what the adapter asks; which objects there are also says which labels an image has."""
    images = dataset.splits["train"].images
    own = images.target_kind or ("multilabel" if dataset.multilabel else "classification")
    fits = (adapter == "multilabel" and dataset.multilabel) or (own == "classification" and adapter in ONE_CLASS)
    if adapter != own and not fits:
        raise UserError(
            f"{spec.source} has {_WHAT[own]} for each image.",
            f'Use adapter = "{own}" on a task card of yours (a TOML file; --tasks names its folder).',
        )


_WHAT = {
    "classification": "one class",
    "multilabel": "several labels",
    "detection": "objects with boxes",
    "segmentation": "a class of each pixel",
}


def _divided(spec: DataSpec, root: Path, adapter: str | None) -> Dataset:
    try:
        classes, pools = open_pools(spec, root, adapter)
        if spec.test_source:
            pools, spec = _tested_elsewhere(classes, pools, spec, root, adapter)
    except UserError as error:
        if spec.layout:
            raise UserError(error.problem, f"{error.remedy} {expected_there(spec)}") from error
        raise
    several = next(iter(pools.values())).labels.ndim == 2
    if len(classes) < 2 and not several:
        raise UserError(f"{spec.source} has only one class, '{classes[0]}'.", "Classification needs at least two.")
    splits, rule = partition(pools, spec, classes, root)
    facts: dict[str, str | int | float] = {"splits": rule, "split_seed": spec.split_seed}
    return Dataset(spec.source, classes, splits, facts, splits["train"].images.group_names)


def open_pools(spec: DataSpec, root: Path, adapter: str | None) -> Pools:
    """What a source has, before anything is cut.

    Args:
        spec: The task card's `[data]`.
        root: The data root.
        adapter: What the images are for; None for whatever the source has.

    Returns:
        Class names, and images by the source's own names of its splits.

    Raises:
        UserError: If the source is unknown, or its data cannot be had.
    """
    if spec.source in BUILT_IN:
        return _built_in(spec)
    prefix, _, name = spec.source.partition(":")
    if prefix in ("coco", "voc", "cityscapes", "masks", "panoptic") and name:
        return _dense(prefix, name, root, spec, adapter)
    if prefix == "folder" and name:
        from bob.data.folder import load_folder

        return load_folder(root / Path(name).expanduser(), adapter == "multilabel")
    if prefix == "domains" and name:
        from bob.data.domains import load_domains

        return load_domains(root / Path(name).expanduser())
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


def _built_in(spec: DataSpec) -> Pools:
    if spec.source == "shapes_detection":
        from bob.data.scene_files import load_shapes_detection

        return load_shapes_detection(spec)
    if spec.source == "shapes_segmentation":
        from bob.data.masks import load_shapes_segmentation

        return load_shapes_segmentation(spec)
    if spec.source in ("shapes", "shapes_multilabel"):
        drawn = _drawn(spec)
        return drawn.classes, {name: split.images for name, split in drawn.splits.items()}
    from bob.data.orl_faces import load_orl_faces

    return load_orl_faces()


def _dense(prefix: str, name: str, root: Path, spec: DataSpec, adapter: str | None) -> Pools:
    """Sources that say what is where."""
    if prefix == "coco":
        from bob.data.coco import load_coco

        return load_coco(name, root, spec)
    if prefix == "voc" and adapter == "segmentation":
        from bob.data.voc_masks import load_voc_masks

        return load_voc_masks(name, root, spec)
    if prefix == "voc":
        from bob.data.voc import load_voc

        return load_voc(name, root, spec)
    if prefix == "cityscapes":
        from bob.data.cityscapes import load_cityscapes

        return load_cityscapes(name, root, spec)
    if prefix == "masks":
        from bob.data.masks import load_masks

        return load_masks(name, root, spec)
    from bob.data.panoptic import load_panoptic

    return load_panoptic(name, root, spec)


def _tested_elsewhere(
    classes: tuple[str, ...], pools: dict[str, ImageSet], spec: DataSpec, root: Path, adapter: str | None
) -> tuple[dict[str, ImageSet], DataSpec]:
    """The pools with another source's images as `test`, and the specification that says so."""
    other = spec.model_copy(update={"source": spec.test_source, "test_source": "", "splits": {}})
    other_classes, other_pools = open_pools(other, root, adapter)
    if other_classes != classes:
        raise UserError(
            f"{spec.test_source} has the classes {', '.join(other_classes)}, but {spec.source} has "
            f"{', '.join(classes)}.",
            "Name those that both have, in 'only' on the task card.",
        )
    # The best that is annotated: the test sets of benchmarks often are not.
    name = next(name for name in ("test", "val", *other_pools) if name in other_pools)
    learnt = {"train" if own == "all" else own: images for own, images in pools.items() if own != "test"}
    splits = {**spec.splits, "test": "test"} if spec.splits else {}
    return {**learnt, "test": other_pools[name]}, spec.model_copy(update={"splits": splits})


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
            + (f" {expected_there(spec)}" if spec.layout else ""),
        )


def expected_there(spec: DataSpec) -> str:
    """The card's `layout`, or where to read it if it is too long for one line."""
    if len(spec.layout) <= _LONGEST_LAYOUT:
        return f"Expected there: {spec.layout}"
    return "`bob show TASK` says what is expected there and where it comes from."


def _imagenet_names() -> tuple[str, ...]:
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)
