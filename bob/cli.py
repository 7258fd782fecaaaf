"""The `bob` command: it reads arguments, calls the rooms that do the work, and prints what they give."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from bob import (
    analyze,
    attack,
    cache,
    compare,
    data_command,
    depth,
    leaderboard,
    listing,
    plot,
    prior,
    rank,
    report_command,
    results_command,
    score,
    shift,
)
from bob.check import command
from bob.console import print_error, print_lines, print_plan
from bob.errors import UserError
from bob.options import (
    BatchSize,
    DataRoot,
    Device,
    Folders,
    Precision,
    Results,
    TaskFolders,
    Workers,
    extraction,
    split_commas,
)
from bob.pick.command import pick

if TYPE_CHECKING:
    from bob.cards import BackboneCard

# OpenMP threads that wait should sleep, not spin: decoding needs the cores meanwhile. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compare pretrained vision backbones across tasks, under one protocol each.",
)
app.add_typer(cache.app, name="cache")
app.add_typer(data_command.app, name="data")
app.add_typer(results_command.app, name="results")
app.add_typer(score.app, name="score")
app.command("analyze")(analyze.analyze)
app.command("attack")(attack.attack)
app.command("check")(command.check)
app.command("compare")(compare.compare)
app.command("depth")(depth.depth)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("list")(listing.list_)
app.command("pick")(pick)
app.command("plot")(plot.plot)
app.command("prior")(prior.prior)
app.command("rank")(rank.rank)
app.command("report")(report_command.report)
app.command("shift")(shift.shift)
app.command("show")(listing.show)

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_BAD_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


@app.command()
def run(
    backbone: Annotated[
        list[str],
        typer.Option(
            "--backbone",
            "-b",
            help="Card, timm name, file.py:make, timm:NAME@FILE, open_clip:NAME/TAG, torchvision:NAME, hf:REPOSITORY; "
            "commas, globs and repeats work.",
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            "--task",
            "-t",
            help="Card, folder:PATH, torchvision:NAME, hf:REPOSITORY, wilds:NAME, coco:IMAGES:ANNOTATIONS.json, "
            "voc:FOLDER, masks:IMAGES:MASKS, ...; commas, globs and repeats work.",
        ),
    ],
    protocol: Annotated[
        Optional[list[str]],
        typer.Option(
            "--protocol",
            "-p",
            help="linear, knn, ... (`bob list protocols`); also few shots (linear@5shot, linear@10%), one block or all "
            "(knn@block3, knn@blocks), crops (knn@patches9), another engine (finetune@detectron2); default: the "
            "task's own.",
        ),
    ] = None,
    seed: Annotated[
        Optional[list[int]],
        typer.Option("--seed", min=0, help="One run for each; repeatable. Default: 0, or 0 to 4 for few shots."),
    ] = None,
    results: Results = Path("results"),
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    data_root: DataRoot = None,
    registry: Folders = None,
    tasks: TaskFolders = None,
    setting: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="KEY=VALUE of a training recipe, as epochs=10; repeatable; part of a run's id."),
    ] = None,
    max_steps: Annotated[
        Optional[int], typer.Option(min=1, help="Stop training after that many steps; part of a run's id.")
    ] = None,
    max_hours: Annotated[
        Optional[float], typer.Option(min=0, help="Stop training after that long; part of a run's id.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, what is stored, how long; run nothing.")
    ] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Replace stored features and records.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run backbones on tasks. The same command again goes on where it stopped, or says what is already there."""
    from bob.catalogue import load_backbone_cards, load_task_cards, resolve_tasks

    task_cards = resolve_tasks(_names("--task", task), load_task_cards(tasks or []))
    backbone_cards = load_backbone_cards(registry or [])

    from bob.backbones.sources import resolve_backbones
    from bob.requested import Settings
    from bob.run import run_all

    cards = resolve_backbones(_names("--backbone", backbone), backbone_cards)
    settings = Settings(
        results=results,
        how=extraction(device, precision, batch_size, workers),
        protocols=tuple(_names("--protocol", protocol)) if protocol else (),
        seeds=tuple(dict.fromkeys(seed or [])),
        data_root=data_root,
        recompute=recompute,
        overrides=settings_of(setting or []),
        max_steps=max_steps,
        max_hours=max_hours,
    )
    if dry_run:
        from bob.plan import plan

        print_plan(planned := plan(cards, task_cards, settings))
        return _report(list(dict.fromkeys(failure for pair in planned for failure in pair.failures)))
    _announce_user_code(cards, quiet)
    from bob.machine import launched_processes
    from bob.progress import Reporter

    quiet = quiet or launched_processes()[0] > 0
    summary = run_all(cards, task_cards, settings, Reporter(quiet))
    if not quiet and (summary.written or summary.present):
        print_lines([f"{len(summary.written)} runs written to {results}, {len(summary.present)} already there."])
    _report(summary.failed)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(args=given, prog_name="bob", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        # Who reads us, such as `head`, has seen enough; nothing may be left for the interpreter to flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        _fail(_explain(error))
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # Typer's own complaints about arguments; the class has moved between its versions, the method has not.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().strip()
        _fail(f"{message}{'' if message.endswith(('.', '?', '!')) else '.'} See --help.")
    if code == 130:
        print_error("Interrupted. What is finished is kept; the same command goes on from there.")
    sys.exit(code or 0)


def _explain(error: OSError) -> str:
    """One line for an error of the disk that a user can mend; anything else is ours, and raised again."""
    if error.errno in _FULL_DISK:
        return f"The disk is full: {error}. Free some space (`bob cache ls`), then give the same command again."
    if error.errno in _BAD_PLACE and error.filename is not None:
        return f"Cannot use {error.filename}: {error.strerror}. Give another place (--results, --out, $BOB_HOME)."
    raise error


def settings_of(values: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE pairs as a dictionary.

    Raises:
        UserError: If one of them is no such pair.
    """
    pairs = [value.partition("=") for value in values]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise UserError(f"--set {key} has no value.", "Write it as KEY=VALUE, such as --set epochs=10.")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _names(option: str, values: Iterable[str]) -> list[str]:
    """Split at commas; at least one name must be left."""
    names = split_commas(values)
    if not names:
        raise UserError(f"{option} names nothing.", f"See `bob list {option.removeprefix('--')}s`.")
    return names


def _announce_user_code(cards: Iterable[BackboneCard], quiet: bool) -> None:
    for card in cards:
        if card.weights.source == "custom" and not quiet:
            print(f"Running your code: {card.weights.model}", file=sys.stderr)


def _report(failures: Sequence[str]) -> None:
    """Say what went wrong, a line each, and end with exit code 2; nothing if nothing did."""
    for failure in failures[:-1]:
        print_error(failure)
    if failures:
        _fail(failures[-1])


def _fail(line: str) -> NoReturn:
    print_error(" ".join(line.split()))
    sys.exit(2)
