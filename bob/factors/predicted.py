"""Predictions on ImageNet that are to be scored: from anyone's CSV files, and from the records of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.errors import UserError, first_line
from bob.factors.annotations import CLASSES, Annotations, Partition, val_numbers
from bob.results.predictions import Predictions
from bob.results.reading import find_record, predictions_of, read_record
from bob.results.record import RECORD_FILE
from bob.results.terms import Floats

_NEEDED = ("file_name", "predicted_class")
_PROBABILITY = "predicted_probability"
_PICKLES = (".pickle", ".pkl", ".pt", ".pth")
_COLUMNS = f"Give a CSV file with the columns {', '.join(_NEEDED)} and, if you like, {_PROBABILITY}."


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a classifier said about n images of ImageNet.

    Attributes:
        model: What tables call it.
        source: Where it comes from, for messages.
        names: n file names without folders.
        classes: (n,) int64, the class predicted for each, from 0 to 999.
        confidence: (n,) float64, the probability of that class; None where it is not known.
        labels: (n,) int64, what a run took for the labels, which must be ImageNet's; None for a file.
    """

    model: str
    source: str
    names: NDArray[np.object_]
    classes: NDArray[np.int64]
    confidence: Floats | None = None
    labels: NDArray[np.int64] | None = None


def read_all(inputs: Sequence[str], results: Path) -> list[Predicted]:
    """Read everything that is to be scored, in order.

    Args:
        inputs: Each a CSV file, a folder of such files, or a run: its record's folder, the folder's name, or the id.
        results: Where runs are looked for.

    Raises:
        UserError: If one of them is nothing of that kind, or holds no usable predictions; if two have the same name.
    """
    every = [predicted for given in inputs for predicted in _read(given, results)]
    names = [predicted.model for predicted in every]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"Two of the inputs are called '{twice[0]}'.", "Rename one of the files.")
    return every


def _read(given: str, results: Path) -> list[Predicted]:
    path = Path(given).expanduser()
    if path.is_file():
        return [read_csv(path)]
    if path.is_dir() and not (path / RECORD_FILE).is_file():
        return _read_folder(path)
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise UserError(f"There is no {path}.", "Give a CSV file, a folder of them, or the id of a run.")
    return [read_run(find_record(results, given))]


def _read_folder(folder: Path) -> list[Predicted]:
    """One model a file; whatever is neither a table nor hidden is refused, so that nothing is left out in silence."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not paths:
        raise UserError(f"There is nothing in {folder}.", _COLUMNS)
    return [read_csv(path) for path in paths]


def read_csv(path: Path) -> Predicted:
    """Read a table with the columns file_name, predicted_class and perhaps predicted_probability.

    Raises:
        UserError: If it is no such table, a value is missing or out of range, or an image occurs twice.

    Source: the prediction files of ImageNet-X, https://github.com/facebookresearch/imagenetx.
    """
    if path.suffix in _PICKLES:
        raise UserError(f"{path} is a pickle, which could run code when it is read.", _COLUMNS)
    if path.suffix != ".csv":
        raise UserError(f"{path} is no CSV file.", _COLUMNS)
    try:
        table = pd.read_csv(path, dtype={_NEEDED[0]: str})
    except (OSError, ValueError) as error:  # pandas' own errors of parsing are ValueErrors
        raise UserError(f"Cannot read {path}: {first_line(error)}.", _COLUMNS) from error
    if lacking := [name for name in _NEEDED if name not in table]:
        raise UserError(f"{path} has no column {' and '.join(lacking)}.", _COLUMNS)
    if table.empty:
        raise UserError(f"{path} has no rows.", _COLUMNS)
    names = _base_names(table["file_name"], path)
    return Predicted(path.stem, str(path), names, _classes(table, path), _confidence(table, path))


def read_run(record_path: Path) -> Predicted:
    """Take the predictions of a run on ImageNet's validation images.

    Raises:
        UserError: If the run is of another kind, or not on 1,000 classes.
    """
    record, predictions = read_record(record_path), predictions_of(record_path)
    request = record.request
    source = f"the run {record.run_id} ({request.backbone} on {request.task})"
    if not isinstance(predictions, Predictions) or len(predictions.classes) != CLASSES:
        raise UserError(f"In {source}, nothing is said of ImageNet's {CLASSES:,} classes.", "Give a run on ImageNet.")
    names = _base_names(pd.Series(predictions.names), record_path)
    seed = f" (seed {request.seed})" if request.seed else ""
    model = f"{request.backbone} {request.protocol['name']}{seed}"
    confidence = np.minimum(predictions.confidence, 1.0)
    return Predicted(model, source, names, predictions.predicted, confidence, predictions.labels)


def positions(predicted: Predicted, annotations: Annotations) -> NDArray[np.int64]:
    """(n,) int64: where each annotated image stands among the predictions.

    Predictions on images without annotations do not count; the images must be ImageNet's, however.

    Raises:
        UserError: If an annotated image is missing, a name is none of ImageNet's, or a run's labels are others.
    """
    found = pd.Index(predicted.names).get_indexer(pd.Index(annotations.names)).astype(np.int64)
    missing = np.flatnonzero(found < 0)
    if len(missing) == len(annotations):
        raise UserError(
            f"None of the {len(predicted.names):,} images in {predicted.source} is one of ImageNet-X's "
            f"{len(annotations):,} of '{annotations.partition}'; the first is {predicted.names[0]}.",
            f"They are called as {annotations.names[0]}; --partition chooses val or train.",
        )
    _require_known(predicted, annotations.partition)
    if len(missing):
        raise UserError(
            f"{predicted.source} lacks {len(missing):,} of ImageNet-X's {len(annotations):,} images, the first of "
            f"them {annotations.names[missing[0]]}.",
            "Predict all of them, for the numbers to be comparable.",
        )
    if predicted.labels is not None and (predicted.labels[found] != annotations.classes).any():
        raise UserError(f"In {predicted.source}, the classes are not in the order of ImageNet's.", "Give another run.")
    return found


def _require_known(predicted: Predicted, partition: Partition) -> None:
    names = pd.Series(predicted.names, dtype=object)
    known = val_numbers(predicted.names) > 0 if partition == "val" else names.str.match(r"n\d{8}_\d+\.JPEG$").to_numpy()
    if not known.all():
        unknown = np.flatnonzero(~known)
        raise UserError(
            f"{len(unknown):,} images in {predicted.source} are none of ImageNet's '{partition}', the first of them "
            f"{predicted.names[unknown[0]]}.",
            "Correct their names, or leave them out.",
        )


def _base_names(names: pd.Series[str], path: Path) -> NDArray[np.object_]:
    """File names without folders, each once."""
    if names.isna().any():
        raise UserError(f"{path} has no file_name in row {_row(names.isna())}.", "Correct the file.")
    base = names.map(lambda name: name.replace("\\", "/").rpartition("/")[2])
    if base.duplicated().any():
        raise UserError(
            f"{path} has {base[base.duplicated()].iloc[0]} more than once.", "Give one prediction an image."
        )
    return base.to_numpy(dtype=object)


def _classes(table: pd.DataFrame, path: Path) -> NDArray[np.int64]:
    column = table["predicted_class"]
    given = pd.to_numeric(column, errors="coerce")
    bad = ~(given.between(0, CLASSES - 1) & (given % 1 == 0))
    if bad.any():
        raise UserError(
            f"{path} has the predicted_class {column[bad].iloc[0]} in row {_row(bad)}.",
            f"Classes are whole numbers from 0 to {CLASSES - 1}, in the order of ImageNet's sorted WordNet ids.",
        )
    return given.to_numpy(np.int64)


def _confidence(table: pd.DataFrame, path: Path) -> Floats | None:
    if _PROBABILITY not in table:
        return None
    column = table[_PROBABILITY]
    given = pd.to_numeric(column, errors="coerce")
    bad = ~given.between(0, 1)
    if bad.any():
        raise UserError(
            f"{path} has the {_PROBABILITY} {column[bad].iloc[0]} in row {_row(bad)}.",
            "Probabilities are from 0 to 1; leave the column out if there are none.",
        )
    return given.to_numpy(np.float64)


def _row(bad: pd.Series[bool]) -> int:
    """Of the first that is bad, counted as an editor does that shows the head as row 1."""
    return int(np.flatnonzero(bad.to_numpy())[0]) + 2
