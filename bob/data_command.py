"""The `bob data` commands: what lies on disk for a task, and whether it is what it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines
from bob.errors import UserError
from bob.options import DataRoot, Quiet, TaskFolders, Workers

if TYPE_CHECKING:
    from bob.data.base import Dataset
    from bob.task_cards import TaskCard

app = typer.Typer(rich_markup_mode=None, help="Look at the images of a task before running anything on them.")


@app.callback()
def data() -> None:
    """Look at the images of a task before running anything on them."""


@app.command("verify")
def verify(
    task: Annotated[str, typer.Argument(help="Card, folder:PATH, torchvision:NAME, hf:REPOSITORY, wilds:NAME.")],
    data_root: DataRoot = None,
    tasks: TaskFolders = None,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the report as JSON to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Quiet = False,
) -> None:
    """Read every image of a task, and its boxes and masks: counts, classes, broken files, bad annotations, duplicates.

    Exit code 0 without a FAIL, 1 with one.
    """
    from bob.catalogue import load_task_cards, resolve_tasks

    known = load_task_cards(tasks or [])
    cards = resolve_tasks([task], known)
    if len(cards) > 1:
        raise UserError(f"'{task}' names {len(cards)} tasks.", "Give one.")

    from bob.data.other_sets import PartedDataset
    from bob.data.sources import load_task
    from bob.progress import Reporter
    from bob.verify import report as verifying

    card, dataset = _opened(cards[0], data_root, has_card=cards[0].name in known)
    report = verifying.verify(card, dataset, Reporter(quiet), workers)
    if card.sets:
        parted = load_task(card, data_root, check=False)
        if isinstance(parted, PartedDataset):
            report += verifying.verify_sets(card, parted, Reporter(quiet), workers)
    if out is not None:
        report.save(out)
    print_lines([report.to_json()] if json else report.lines())
    raise typer.Exit(0 if report.passed else 1)


def _opened(card: TaskCard, data_root: Path | None, has_card: bool) -> tuple[TaskCard, Dataset]:
    """The task's own images, of retrieval the database as `train` and the queries as `test`, without checks."""
    from bob.data.sources import load_dataset, load_task

    if card.adapter == "retrieval":
        dataset = load_task(card, data_root, check=False)
        splits = {"train": dataset.splits["database"], "test": dataset.splits["query"]}
        if card.retrieval.rule == "leave_one_out":
            del splits["test"]  # the same images again
            expected = {name: count for name, count in card.data.expect.items() if name in splits}
            card = card.model_copy(update={"data": card.data.model_copy(update={"expect": expected})})
        return card, replace(dataset, splits=splits)
    # A folder without a card is whatever it is; a run would say which card it needs.
    adapter = card.adapter if has_card else None
    # What a run refuses is a finding here: all bad annotations are left out, to be listed.
    spec = card.data.model_copy(update={"drop_invalid": True})
    dataset = load_dataset(spec, data_root, adapter, check=False)
    if len(card.class_names) == len(dataset.classes):
        dataset = replace(dataset, classes=tuple(card.class_names))
    return card, dataset


@app.command("export")
def export(
    what: Annotated[str, typer.Argument(help="shapes: the scenes behind shapes_detection and shapes_segmentation.")],
    format_: Annotated[str, typer.Option("--format", "-f", help="coco, voc or masks.")] = "coco",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; it must not hold anything.")] = Path(
        "shapes"
    ),
) -> None:
    """Write built-in images and what is where in them as files, to look at or to try another tool on."""
    from bob.data.scene_files import export_scenes

    if what != "shapes":
        raise UserError(f"Cannot export '{what}'.", "Say `bob data export shapes`.")
    source = export_scenes(format_, out)
    print_lines([f"Written: {out.absolute()}. To use it: --task '{source}'"])
