"""The `bob analyze` command: what stored features say without training, and how well that foretells scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_error, print_lines, print_table
from bob.errors import UserError
from bob.options import (
    BatchSize,
    DataRoot,
    Device,
    Folders,
    Precision,
    Quiet,
    TaskFolders,
    Workers,
    extraction,
    split_commas,
)

if TYPE_CHECKING:
    import pandas as pd

    from bob.analysis.gather import Analysis

_SHOWN = 8  # sets of features up to which their likeness is printed


def analyze(
    backbone: Annotated[list[str], typer.Option("--backbone", "-b", help="As for `bob run`; globs work.")],
    task: Annotated[str, typer.Option("--task", "-t", help="As for `bob run`; one.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    blocks: Annotated[bool, typer.Option("--blocks", help="Every block of the backbones too.")] = False,
    images: Annotated[int, typer.Option(min=4, help="How many are drawn for what compares pairs of images.")] = 1024,
    views: Annotated[
        int, typer.Option(min=0, help="Augmented views of each drawn image, for LiDAR and alignment; 0 for none.")
    ] = 0,
    results: Annotated[Path, typer.Option("--results", help="Folder of the records to agree with.")] = Path("results"),
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="Write NAME.csv, NAME.png or NAME.svg; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    data_root: DataRoot = None,
    registry: Folders = None,
    tasks: TaskFolders = None,
    quiet: Quiet = False,
) -> None:
    """Measure stored features without training: rank, spectrum, geometry, likeness, and estimates of transfer."""
    from bob.catalogue import load_backbone_cards, load_task_cards, resolve_tasks
    from bob.results.files import PICTURES, require_suffix

    for path in out or []:
        require_suffix(path, (".csv", *PICTURES))
    if views == 1:
        raise UserError("One view of an image has nothing to be compared with.", "Give --views 2 or more, or leave it.")
    chosen = resolve_tasks([task], load_task_cards(tasks or []))
    if len(chosen) > 1:
        raise UserError(f"'{task}' names {len(chosen)} tasks.", "Give one.")

    from bob.analysis.gather import Question, analyse
    from bob.backbones.sources import resolve_backbones
    from bob.data.sources import load_task
    from bob.progress import Reporter
    from bob.requested import Settings

    names = split_commas(backbone)
    if not names:
        raise UserError("--backbone names nothing.", "See `bob list backbones`.")
    cards = resolve_backbones(names, load_backbone_cards(registry or []))
    how = extraction(device, precision, batch_size, workers)
    settings = Settings(results=results, how=how, data_root=data_root)
    question = Question(split, blocks, images, views, seed)
    found = analyse(cards, chosen[0], load_task(chosen[0], data_root), question, settings, Reporter(quiet))
    if found.rows:
        _show(found, chosen[0].name, results, out or [], seed)
    for failure in found.failed[:-1]:
        print_error(failure)
    if found.failed:
        raise UserError(found.failed[-1])


def _show(found: Analysis, task: str, results: Path, out: list[Path], seed: int) -> None:
    """Print the tables, and write what is asked for."""
    from bob.analysis.agreement import agreement, scores_of
    from bob.analysis.measure import MEASURES
    from bob.analysis.picture import analysis_figure
    from bob.results.files import write_csv, write_figure
    from bob.results.reading import read_records
    from bob.results.record import RECORD_FILE, RUNS

    table, similarity = found.table(), found.similarity()
    records = list(read_records(results)) if any((results / RUNS).glob(f"[!.]*/{RECORD_FILE}")) else []
    scores, stale = scores_of(records, task, found.identities)
    agreed = agreement(table[table["block"].isna()], scores, MEASURES, seed)
    _print_measures(table)
    _print_similarity(similarity, len(found.drawn), len(next(iter(found.drawn.values()))))
    _print_agreement(agreed, scores, stale, results)
    for path in out:
        if path.suffix == ".csv":
            parts = {"": table, ".similarity": similarity, ".agreement": agreed}
            for part, content in parts.items():
                if not content.empty:
                    write_csv(content, own := path.with_name(f"{path.stem}{part}.csv"))
                    print_lines([f"Written: {own.absolute()}"])
        else:
            write_figure(analysis_figure(table, found.spectra, similarity, agreed), path)
            print_lines([f"Written: {path.absolute()}"])


def _print_measures(table: pd.DataFrame) -> None:
    import pandas as pd

    from bob.analysis.measure import MEASURES

    shown = [name for name in MEASURES if table[name].notna().any()]
    layered = bool(table["block"].notna().any())
    places = ["feature" if pd.isna(block) else f"block{block}" for block in table["block"]]
    rows = [
        [row["backbone"], *([place] if layered else []), row["width"], *(_number(row[name]) for name in shown)]
        for place, row in zip(places, table.to_dict("records"), strict=True)
    ]
    columns = ["backbone", *(["block"] if layered else []), "width", *shown]
    print_table(columns, rows, numeric_from=2 if layered else 1)


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4g}"


def _print_similarity(similarity: pd.DataFrame, sets: int, images: int) -> None:
    if sets < 2:
        return
    if sets > _SHOWN:
        return print_lines([f"The likeness of {sets} sets of features is not printed: --out writes it."])
    for column, title in (("cka", "linear CKA, unbiased"), ("mutual_neighbours", "shared nearest neighbours")):
        wide = similarity.pivot(index="first", columns="second", values=column)
        names = list(dict.fromkeys(similarity["first"]))
        rows = [[name, *(f"{wide.loc[name, other]:.3f}" for other in names)] for name in names]
        print_table([f"{title} ({images} images)", *names], rows, numeric_from=1)


def _print_agreement(agreed: pd.DataFrame, scores: pd.DataFrame, stale: int, results: Path) -> None:
    if stale:
        print_lines([f"{stale} runs on other weights or preprocessing than these are left out."])
    if agreed.empty:
        ran = scores["backbone"].nunique()
        return print_lines([f"{ran} of these backbones have scores in {results}; agreement needs 3 that differ."])
    rows = [
        [
            row["measure"],
            row["protocol"],
            row["metric"],
            row["n"],
            f"{row['spearman']:+.2f}",
            f"[{row['chance_low']:+.2f}, {row['chance_high']:+.2f}]",
            f"{row['kendall']:+.2f}",
            f"{row['p']:.3g}",
        ]
        for row in agreed.to_dict("records")
    ]
    columns = ["measure", "protocol", "score", "n", "spearman", "95% by chance", "kendall", "p"]
    print_table(columns, rows, numeric_from=3)
