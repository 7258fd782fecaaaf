"""Google Landmarks v2: test images ask for those of the same landmark in the index, by the published solution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bob.data.asked import Asked, everything, require_files
from bob.data.files import FileImages
from bob.data.ragged import Ragged
from bob.data.relevance import Listed
from bob.errors import UserError, first_line

SOLUTION, INDEX = "retrieval_solution_v2.1.csv", "index.csv"
_AGAIN = "Download it again from the dataset's site."


def load_gldv2(folder: Path) -> Asked:
    """Read the retrieval benchmark: queries are the test images that the solution does not call `Ignored`.

    Args:
        folder: With `index/A/B/C/ID.jpg`, `test/A/B/C/ID.jpg` (the first three characters of the id), `index.csv` (id)
            and `retrieval_solution_v2.1.csv` (id, images, Usage).

    Raises:
        UserError: If a file is missing, or the solution names an image that the index lacks.

    Source: Weyand et al. 2020, arXiv 2004.01804; github.com/cvdfoundation/google-landmark.
    """
    index = _table(folder / INDEX, ["id"])["id"].tolist()
    solution = _table(folder / SOLUTION, ["id", "images", "Usage"])
    solution = solution[(solution["Usage"] != "Ignored") & ~solution["images"].isin(["", "None"])]
    positions = {name: position for position, name in enumerate(index)}
    asks: list[str] = solution["id"].tolist()
    wanted: list[str] = solution["images"].tolist()
    items = [_positions(name, own.split(), positions, folder) for name, own in zip(asks, wanted, strict=True)]
    queries, database = (_paths(part, names) for part, names in (("test", asks), ("index", index)))
    require_files(folder, [*queries, *database])
    asking, searched = (FileImages(folder, names, np.zeros(len(names))) for names in (queries, database))
    relevance = Listed(Ragged.of(items), Ragged.of([[0] * len(own) for own in items]))
    return Asked(("landmark",), everything(asking), everything(searched), relevance)


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Put it there.") from error
    except ValueError as error:
        raise UserError(f"{path} is no CSV: {first_line(error)}.", _AGAIN) from error
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise UserError(f"{path} lacks the column '{lacking[0]}'.", _AGAIN)
    if short := [name for name in table["id"] if len(name) < 3]:
        raise UserError(f"{path} has the id '{short[0]}', too short for a folder.", _AGAIN)
    return table[columns]


def _positions(query: str, wanted: list[str], index: dict[str, int], folder: Path) -> list[int]:
    for name in wanted:
        if name not in index:
            raise UserError(f"{folder / SOLUTION}: '{name}', to be found by '{query}', is not in {INDEX}.", _AGAIN)
    return [index[name] for name in dict.fromkeys(wanted)]


def _paths(part: str, ids: list[str]) -> list[str]:
    return [f"{part}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg" for name in ids]
