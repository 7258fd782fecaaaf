"""The `bob score` commands: what predictions that are there already are worth, by published annotations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bob.console import print_lines, print_table
from bob.options import Results

if TYPE_CHECKING:
    import pandas as pd

    from bob.factors.annotations import Annotations

app = typer.Typer(rich_markup_mode=None, help="Score predictions that are there already.")

_SIDE_BY_SIDE = 3  # models of which each factor is printed; of more, a line each


class WhichFactor(StrEnum):
    """Which annotations count."""

    top = "top"
    multi = "multi"


class Partition(StrEnum):
    """Of ImageNet."""

    val = "val"
    train = "train"


class ErrorType(StrEnum):
    """What a prediction is compared with."""

    class_ = "class"
    metaclass = "metaclass"
    real_class = "real_class"


@app.callback()
def _commands() -> None:
    """Score predictions that are there already."""  # the callback keeps the command's name on the command line


@app.command("imagenet-x")
def imagenet_x(
    predictions: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE_OR_FOLDER_OR_RUN",
            help="CSV files with file_name, predicted_class[, predicted_probability], folders of them, ids of runs.",
        ),
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="Write all numbers, NAME.csv, or a picture, NAME.png or .svg; repeatable."),
    ] = None,
    which_factor: Annotated[
        WhichFactor, typer.Option(help="The factor that matters most in an image, or all that were seen.")
    ] = WhichFactor.top,
    error_type: Annotated[
        ErrorType, typer.Option(help="Right is: the label, a class of its metaclass, or any of ReaL's labels.")
    ] = ErrorType.class_,
    include_prototypes: Annotated[
        bool, typer.Option("--include-prototypes", help="Count the typical images of each class, too.")
    ] = False,
    partition: Annotated[Partition, typer.Option(help="Of ImageNet.")] = Partition.val,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap over images.")] = 2000,
    results: Results = Path("results"),
) -> None:
    """Say which factors (pose, background, ...) make a classifier fail on ImageNet, with 95% intervals."""
    import pandas as pd

    from bob.factors.annotations import load_annotations
    from bob.factors.predicted import read_all
    from bob.factors.table import score
    from bob.pictures.factor_chart import draw_error_ratios, require_drawable
    from bob.results.files import PICTURES, require_suffix, write_csv, write_figure

    for path in out or []:
        require_suffix(path, (".csv", *PICTURES))
    every = read_all(predictions, results)
    if any(path.suffix in PICTURES for path in out or []):
        require_drawable([predicted.model for predicted in every])
    annotations = load_annotations(which_factor.value, partition.value, include_prototypes)
    tables = [score(predicted, annotations, error_type.value, resamples=resamples) for predicted in every]
    table = pd.concat(tables, ignore_index=True)
    title = _title(annotations, which_factor, error_type, include_prototypes)
    _print(table, title)
    for path in out or []:
        if path.suffix in PICTURES:
            write_figure(draw_error_ratios(table[table["metaclass"] == "all"], title), path)
        else:
            write_csv(table, path)
        print_lines([f"Written: {path.absolute()}"])


def _title(annotations: Annotations, which: WhichFactor, error_type: ErrorType, with_prototypes: bool) -> str:
    prototypes = "with" if with_prototypes else "without"
    return (
        f"ImageNet-X, {annotations.partition}, {which.value} factor, error by {error_type.value}, "
        f"{len(annotations):,} images {prototypes} prototypes"
    )


def _print(table: pd.DataFrame, title: str) -> None:
    overall = table[table["metaclass"] == "all"]
    by_model = {str(model): rows.to_dict("records") for model, rows in overall.groupby("model", sort=False)}
    print_lines([f"{title}:", ""])
    if len(by_model) > _SIDE_BY_SIDE:
        columns = ["model", "accuracy", "worst factor", "its accuracy", "95%", "error ratio", "95%"]
        return print_table(columns, [_summary(*pair) for pair in by_model.items()], numeric_from=3)
    columns = ["factor", "n", *(f"{model} {what}" for model in by_model for what in ("accuracy", "ratio", "95%"))]
    print_table(columns, [_row(rows) for rows in zip(*by_model.values(), strict=True)], numeric_from=1)
    print_lines(["", "ratio: error on the factor's images over error on all; intervals by bootstrap over images."])


def _row(of_models: Sequence[Mapping[Hashable, Any]]) -> list[object]:
    """One factor, side by side; the worst factor can be another for each model, and so can its number of images."""
    counts = dict.fromkeys(row["n"] for row in of_models)
    cells: list[object] = [of_models[0]["factor"], " / ".join(f"{n:,}" for n in counts)]
    for row in of_models:
        cells += [_number(row["accuracy"], 3), _number(row["error_ratio"], 3), _bounds(row, "error_ratio", 2)]
    return cells


def _summary(model: str, of_factors: Sequence[Mapping[Hashable, Any]]) -> list[object]:
    rows = {row["factor"]: row for row in of_factors}
    worst = rows["worst_factor"]
    name = next((factor for factor, row in rows.items() if row["accuracy"] == worst["accuracy"]), "none")
    return [
        *(model, _number(rows["average"]["accuracy"], 3), f"{name} ({worst['n']:,})"),
        *(_number(worst["accuracy"], 3), _bounds(worst, "accuracy", 3)),
        *(_number(worst["error_ratio"], 3), _bounds(worst, "error_ratio", 2)),
    ]


def _bounds(row: Mapping[Hashable, Any], name: str, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low != low else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _number(value: float, digits: int) -> str:
    """Empty where there is no value."""
    return "" if value != value else f"{value:.{digits}f}"
