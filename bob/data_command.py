"""The `bob data` commands: what lies on disk for a task, and whether it is what it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bob.console import print_lines
from bob.errors import UserError
from bob.listing import TaskFolders

app = typer.Typer(rich_markup_mode=None, help="Look at the images of a task before running anything on them.")


@app.callback()
def data() -> None:
    """Look at the images of a task before running anything on them."""


@app.command("verify")
def verify(
    task: Annotated[str, typer.Argument(help="Card, folder:PATH, torchvision:NAME, hf:REPOSITORY, wilds:NAME.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder of downloaded data; default: $BOB_DATA.")] = None,
    tasks: TaskFolders = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; default: one a granted core.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the report as JSON to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
) -> None:
    """Read every image of a task: counts, classes, broken files, duplicates. Exit code 0 without a FAIL, 1 with one."""
    from bob.catalogue import load_task_cards, resolve_tasks

    known = load_task_cards(tasks or [])
    cards = resolve_tasks([task], known)
    if len(cards) > 1:
        raise UserError(f"'{task}' names {len(cards)} tasks.", "Give one.")

    from bob.data.sources import load_dataset
    from bob.progress import Reporter
    from bob.verify.report import verify as verify_data

    # A folder without a card is whatever it is; a run would say which card it needs.
    several = cards[0].adapter == "multilabel" if cards[0].name in known else None
    dataset = load_dataset(cards[0].data, data_root, several, check=False)  # what a run refuses is a finding here
    report = verify_data(cards[0], dataset, Reporter(quiet), workers)
    if out is not None:
        report.save(out)
    print_lines([report.to_json()] if json else report.lines())
    raise typer.Exit(0 if report.passed else 1)
