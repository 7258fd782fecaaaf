"""Data sets of the Hugging Face hub, through its own library, cache and offline switches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from bob.data.base import ImageSet
from bob.data.hf_images import image_set
from bob.data.hf_labels import read_labels
from bob.data.manifest import SPLIT_NAMES
from bob.errors import UserError, did_you_mean, first_line
from bob.extras import import_extra
from bob.task_cards import DataSpec

# Whose errors, other than of Python's own kinds, tell that a data set cannot be had.
_THEIRS = ("datasets", "huggingface_hub", "httpx", "requests", "pyarrow", "fsspec")


def load_hf(name: str, spec: DataSpec, origins: Sequence[str]) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Open a data set as `datasets.load_dataset(NAME, config, revision=revision)` does, downloading it if need be.

    Args:
        name: Repository, or path of a local folder in a layout that the library reads.
        spec: The task card's `[data]`: config, revision, and the columns where they are not the only ones of their
            type (`Image`; `ClassLabel`, or a list of them for several labels).
        origins: The splits to open, by the data set's names or slices (`train[:90%]`); those that are some train, val
            and test if empty.

    Returns:
        Class names, and the image set of each split.

    Raises:
        UserError: If the library is not installed, the data set cannot be had, or its columns leave open which is
            meant.
    """
    library = import_extra("datasets", "hf")
    with _quiet(library):
        tables = _tables(library, name, spec, origins)
    first = next(iter(tables.values()))
    image_column = spec.image_column or _only(first, "Image", _of_type(first, library.Image), "image_column", name)
    labelled = _of_type(first, library.ClassLabel)
    label_column = spec.label_column or _only(first, "ClassLabel", labelled, "label_column", name)
    for split, table in tables.items():
        for column in (image_column, label_column):
            _require_column(table, column, f"'{name}' ({split})")
    if not isinstance(first.features[image_column], library.Image):
        raise UserError(
            f"The column '{image_column}' of '{name}' holds no images.", "Correct image_column on the task card."
        )
    classes, labels = read_labels(tables, label_column, name)
    undecoded = {split: t.cast_column(image_column, library.Image(decode=False)) for split, t in tables.items()}
    pools = {
        split: image_set(table, image_column, labels[split], f"{name}/{split}") for split, table in undecoded.items()
    }
    return classes, pools


def _tables(library: ModuleType, name: str, spec: DataSpec, origins: Sequence[str]) -> dict[str, Any]:
    """The opened split of each of our names, or of the source's where the card gives them."""
    sliced_only = bool(origins) and all("[" in origin for origin in origins)
    whole: Any = {} if sliced_only else _load(library, name, spec, None)
    if origins:
        return {origin: _origin(library, name, spec, whole, origin) for origin in origins}
    tables = {SPLIT_NAMES[split.lower()]: table for split, table in whole.items() if split.lower() in SPLIT_NAMES}
    return tables or ({"all": next(iter(whole.values()))} if len(whole) == 1 else dict(whole))


def _origin(library: ModuleType, name: str, spec: DataSpec, whole: Any, origin: str) -> Any:
    if "[" in origin:
        return _load(library, name, spec, origin)
    if origin not in whole:
        raise UserError(
            f"'{name}' has no split '{origin}', only {', '.join(whole)}.",
            did_you_mean(origin, whole) or "Correct 'splits' on the task card.",
        )
    return whole[origin]


def _load(library: ModuleType, name: str, spec: DataSpec, split: str | None) -> Any:
    try:
        return library.load_dataset(name, spec.config or None, split=split, revision=spec.revision or None)
    except Exception as error:
        known = isinstance(error, (OSError, ValueError, RuntimeError, KeyError))
        if not known and type(error).__module__.partition(".")[0] not in _THEIRS:
            raise
        where = f"'{name}'" + (f", config '{spec.config}'" if spec.config else "")
        where += f" at revision '{spec.revision}'" if spec.revision else ""
        raise UserError(
            f"The hub's data set {where} cannot be opened ({first_line(error)}).",
            "Correct the name, config or revision; if it is private or gated, `hf auth login`; without a network, "
            "copy the cache of a machine with one ($HF_HOME).",
        ) from error


def _of_type(table: Any, kind: type) -> list[str]:
    """Columns of a type, or of lists of it."""
    return [name for name, feature in table.features.items() if isinstance(element(feature), kind)]


def element(feature: Any) -> Any:
    """Return the type of a list's elements, or the type itself; lists were Python's own or `Sequence` before `List`."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", feature)


def _only(table: Any, kind: str, found: list[str], key: str, name: str) -> str:
    if len(found) == 1:
        return found[0]
    which = f"the {kind} columns {', '.join(found)}" if found else f"no {kind} column, only {', '.join(table.features)}"
    raise UserError(f"'{name}' has {which}.", f"Say which is meant: {key} in [data] of a task card.")


def _require_column(table: Any, column: str, where: str) -> None:
    if column not in table.features:
        hint = did_you_mean(column, table.features) or f"It has {', '.join(table.features)}."
        raise UserError(f"{where} has no column '{column}'.", hint)


@contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """Keep retries off the terminal, and progress bars where nobody watches: what matters is an error in bob."""
    import huggingface_hub.utils.logging as hub_logging

    logs = [library.utils.logging, hub_logging]
    levels = [log.get_verbosity() for log in logs]
    bars = not sys.stderr.isatty() and not library.utils.are_progress_bars_disabled()
    for log in logs:
        log.set_verbosity_error()
    if bars:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        if bars:
            library.enable_progress_bars()
