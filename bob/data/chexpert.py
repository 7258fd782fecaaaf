"""CheXpert: chest radiographs with five findings each, uncertain ones included, from the folder Stanford gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bob.data.base import ImageSet
from bob.data.files import FileImages
from bob.errors import UserError

# Our split -> the table that lists it.
_TABLES = {"train": "train.csv", "val": "valid.csv"}
# The five that CheXpert's own ranking uses -> what an uncertain mention counts as.
FINDINGS = {"Cardiomegaly": 0, "Edema": 1, "Consolidation": 0, "Atelectasis": 1, "Pleural Effusion": 0}
UNCERTAIN = -1.0
_COLUMNS = ("Path", "Frontal/Lateral", *FINDINGS)
_LAYOUT = (
    "It should be CheXpert-v1.0-small or CheXpert-v1.0 as Stanford's archive unpacks it: train.csv, valid.csv, "
    "train/patient*/study*/view*.jpg and valid/..."
)


def load_chexpert(folder: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read the frontal images of `train.csv` and `valid.csv`, with five labels each.

    An uncertain finding (-1) counts as present for Edema and Atelectasis and as absent for the others; one that is not
    mentioned is absent. `subjects` are the patients.

    Returns:
        The five findings, and the image sets `train` and `val`.

    Raises:
        UserError: If the folder or a table is missing or not what it should be.

    Source: Irvin et al. 2019, arXiv 1901.07031; uncertain findings as in the code of Medical MAE (Xiao et al. 2022,
    arXiv 2210.12843), which BoB used.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.", _LAYOUT)
    return tuple(FINDINGS), {split: _split(folder, name) for split, name in _TABLES.items()}


def _split(folder: Path, name: str) -> FileImages:
    table = _table(folder / name)
    table = table[table["Frontal/Lateral"] == "Frontal"]
    if table.empty:
        raise UserError(f"{folder / name} has no frontal image.", _LAYOUT)
    # Paths begin with the name of the folder as it was published, whatever it is called here.
    paths = table["Path"].str.extract(r"((?:train|valid)/(patient\d+)/.*)")
    if paths[0].isna().any():
        strange = table["Path"][paths[0].isna()].iloc[0]
        raise UserError(f"{folder / name} has the path '{strange}', which names no patient.", _LAYOUT)
    if not (folder / paths[0].iloc[0]).is_file():
        raise UserError(f"{folder / name} names {paths[0].iloc[0]}, which is not there.", _LAYOUT)
    images = FileImages(folder, paths[0].tolist(), _labels(table, folder / name))
    images.subjects = paths[1].str.removeprefix("patient").to_numpy(np.int64)
    return images


def _labels(table: pd.DataFrame, path: Path) -> np.ndarray:
    """(N, 5) int64."""
    columns = []
    for finding, when_uncertain in FINDINGS.items():
        mentioned = pd.to_numeric(table[finding].replace("", "0"), errors="coerce")
        if not mentioned.isin([0, 1, UNCERTAIN]).all():
            raise UserError(f"{path} has a value other than 1, 0, -1 and none in the column '{finding}'.", _LAYOUT)
        columns.append(mentioned.replace(UNCERTAIN, when_uncertain).to_numpy(np.int64))
    return np.stack(columns, axis=1)


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {str(error).strip().rstrip('.')}.", _LAYOUT) from error
    if lacking := [column for column in _COLUMNS if column not in table.columns]:
        raise UserError(f"{path} has no column '{lacking[0]}'.", _LAYOUT)
    return table
