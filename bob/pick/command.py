"""The `bob pick` command: which backbone suits a folder of images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines, print_table
from bob.errors import UserError
from bob.options import BatchSize, Device, Folders, Precision, Results, Workers, extraction, split_commas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bob.pick.candidates import Candidates
    from bob.task_cards import TaskCard


def pick(
    folder: Annotated[Path, typer.Argument(help="Class folders, split folders of these, or a CSV of path,label.")],
    budget: Annotated[str, typer.Option("--budget", help="Wall time in all: 30s, 10m, 1h, 1h30m.")] = "1h",
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            "-b",
            help="Candidates, as for `bob run`; default: those of the registry whose weights are here, then cheap ones "
            "that can be downloaded.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to compare on all images, if time allows.")] = 3,
    finetune: Annotated[bool, typer.Option(help="Fine-tune the best at the end, if that fits.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the images that the first rungs see.")] = 0,
    results: Results = Path("results"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table: NAME.csv.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    registry: Folders = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer and errors only.")] = False,
) -> None:
    """Find which backbone suits a folder of labelled images, within a budget of time.

    Successive halving: every candidate on few images, the best on more, the last on all, fine-tuning if that fits.
    The same command again goes on where it stopped, with the budget anew.
    """
    from bob.pick.budget import BudgetSpent, Deadline, parse_budget, spoken, startup_seconds
    from bob.results.files import require_suffix, write_csv
    from bob.results.record import require_writable

    deadline = Deadline(parse_budget(budget), started=time.monotonic() - startup_seconds())
    if out:
        require_suffix(out, (".csv",))
    require_writable(results)
    try:
        with deadline.enforced():  # from here on: what is imported takes the user's time too
            from bob.pick.picker import pick as find
            from bob.pick.report import COLUMNS, closing_lines, printed, table
            from bob.progress import Reporter
            from bob.requested import Settings

            task, candidates = _task(folder), _candidates(backbone or [], registry or [])
            settings = Settings(results, extraction(device, precision, batch_size, workers))
    except BudgetSpent:
        problem = f"A budget of {spoken(deadline.seconds)} is up before bob and its libraries are loaded."
        raise UserError(problem, "Give a few minutes, such as --budget 10m.") from None
    reporter = Reporter(quiet)
    for card in candidates.cards:
        if card.weights.source == "custom":
            reporter.say(f"Running your code: {card.weights.model}")
    found = find(task, candidates, settings, deadline, reporter, top=top, seed=seed, finetune=finetune)
    print_table(COLUMNS, printed(found), numeric_from=5)
    print_lines(["", *closing_lines(found)])
    if out:
        write_csv(table(found), out)
        print_lines([f"Written: {out.absolute()}"])


def _task(folder: Path) -> TaskCard:
    from bob.catalogue import resolve_tasks

    return resolve_tasks([f"folder:{folder}"], {})[0]


def _candidates(names: Sequence[str], folders: Sequence[Path]) -> Candidates:
    """Those named, cheap first, or those of the registry."""
    from bob.backbones.sources import resolve_backbones
    from bob.catalogue import load_backbone_cards
    from bob.pick.candidates import Candidates, cheap_first, default_candidates

    cards = load_backbone_cards(folders)
    if not names:
        return default_candidates(cards.values())
    asked = split_commas(names)
    if not asked:
        raise UserError("--backbone names nothing.", "See `bob list backbones`, or leave it out.")
    return Candidates(tuple(cheap_first(resolve_backbones(asked, cards))), {})
