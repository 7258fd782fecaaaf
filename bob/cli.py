"""The `bob` command: it reads arguments, calls the rooms that do the work, and prints what they give."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from bob.console import print_card, print_error, print_lines, print_table
from bob.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from bob.cards import BackboneCard, TaskCard
    from bob.features.extract import Extraction
    from bob.run import Settings

# OpenMP threads that wait should sleep, not spin: decoding needs the cores meanwhile. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compare pretrained vision backbones across tasks, under one protocol each.",
)
cache_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show and free the space that features take.")
app.add_typer(cache_app, name="cache")

Folders = Annotated[
    Optional[list[Path]], typer.Option("--registry", help="Folder of your own backbone cards; repeatable.")
]
TaskFolders = Annotated[
    Optional[list[Path]], typer.Option("--tasks", help="Folder of your own task cards; repeatable.")
]
Results = Annotated[Path, typer.Option("--results", help="Folder of the records.")]
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@app.command()
def run(
    backbone: Annotated[
        list[str],
        typer.Option(
            "--backbone", "-b", help="Card, timm name, file.py:make, timm:NAME@WEIGHTS; commas, globs and repeats work."
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option("--task", "-t", help="Card, folder:PATH, torchvision:NAME; commas, globs and repeats work."),
    ],
    protocol: Annotated[
        Optional[list[str]], typer.Option("--protocol", "-p", help="linear, knn; default: those of the task's card.")
    ] = None,
    seed: Annotated[Optional[list[int]], typer.Option("--seed", help="One run for each; repeatable.")] = None,
    results: Results = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(help="auto (float16 on CUDA, else float32), float32, bfloat16 or float16; part of a run's id."),
    ] = "auto",
    batch_size: Annotated[Optional[int], typer.Option(min=1, help="Images in one forward pass.")] = None,
    workers: Annotated[
        Optional[int], typer.Option(min=0, help="Decoding processes; default: one a granted core.")
    ] = None,
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of downloaded data; default: $BOB_DATA.")] = None,
    registry: Folders = None,
    tasks: TaskFolders = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, what is stored, how long; run nothing.")
    ] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Replace stored features and records.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run backbones on tasks. The same command again goes on where it stopped, or says what is already there."""
    from bob.cards import load_backbone_cards, load_task_cards, resolve_tasks

    task_cards = resolve_tasks(_split_commas(task), load_task_cards(tasks or []))
    backbone_cards = load_backbone_cards(registry or [])

    from bob.backbones.sources import resolve_backbones
    from bob.run import Settings, run_all

    cards = resolve_backbones(_split_commas(backbone), backbone_cards)
    settings = Settings(
        results=results,
        how=_extraction(device, precision, batch_size, workers),
        protocols=tuple(_split_commas(protocol or [])),
        seeds=tuple(dict.fromkeys(seed or [0])),
        data_root=data_root,
        recompute=recompute,
    )
    if dry_run:
        return _print_plan(cards, task_cards, settings)
    _announce_user_code(cards, quiet)
    from bob.progress import Reporter

    summary = run_all(cards, task_cards, settings, Reporter(quiet))
    if not quiet:
        print_lines([f"{len(summary.written)} runs written to {results}, {len(summary.present)} already there."])
    for failure in summary.failed[:-1]:
        print_error(failure)
    if summary.failed:
        _fail(summary.failed[-1])


@app.command()
def leaderboard(
    results: Results = Path("results"),
    out: Annotated[
        Optional[list[Path]], typer.Option("--out", "-o", help="Write the table: NAME.csv or NAME.md; repeatable.")
    ] = None,
    backbone: Annotated[Optional[list[str]], typer.Option("--backbone", "-b", help="Only these; globs work.")] = None,
    task: Annotated[Optional[list[str]], typer.Option("--task", "-t", help="Only these; globs work.")] = None,
    protocol: Annotated[Optional[list[str]], typer.Option("--protocol", "-p", help="Only these; globs work.")] = None,
    ddof: Annotated[
        int, typer.Option(min=0, max=1, help="Of the z-scores' standard deviation: 1 sample, 0 population.")
    ] = 1,
) -> None:
    """Rank the backbones whose records are in the results folder, with 95% intervals, z-scores and mean ranks."""
    from bob.results import leaderboard as table_of
    from bob.results.record import read_records

    filters = [_split_commas(patterns or []) for patterns in (backbone, task, protocol)]
    records = table_of.select(read_records(results), *filters)
    table = table_of.leaderboard(table_of.tidy(records), ddof=ddof)
    shown = table_of.compact(table)
    print_table(shown.columns, shown.to_numpy().tolist(), numeric_from=2)
    unranked = int(table["rank"].isna().sum())
    if unranked:
        print_lines(
            [f"{unranked} of {len(table)} backbones lack a setting: they have no rank, and no cell is filled in."]
        )
    for path in out or []:
        table_of.write_table(table, path)
        print_lines([f"Written: {path.absolute()}"])


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="backbones or tasks.")],
    paradigm: Annotated[Optional[str], typer.Option(help="Only backbones of this paradigm.")] = None,
    registry: Folders = None,
    tasks: TaskFolders = None,
) -> None:
    """List the cards of backbones or tasks."""
    from bob.cards import load_backbone_cards, load_task_cards

    if what == "backbones":
        return _list_backbones(list(load_backbone_cards(registry or []).values()), paradigm)
    if what == "tasks":
        rows = [
            [card.name, card.adapter, ", ".join(card.protocols), card.primary, card.description]
            for card in load_task_cards(tasks or []).values()
        ]
        print_table(["task", "adapter", "protocols", "ranked by", "what it is"], rows)
        print_lines(
            ["Without a card: folder:PATH (class folders or a CSV of path,label[,split]) and torchvision:NAME."]
        )
        return
    raise UserError(f"Cannot list '{what}'.", did_you_mean(what, ["backbones", "tasks"]) or "Use backbones or tasks.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A backbone or a task.")],
    registry: Folders = None,
    tasks: TaskFolders = None,
) -> None:
    """Show a card in full, and for a backbone whether its weights are here."""
    from bob.cards import load_backbone_cards, load_task_cards, resolve_tasks

    task_cards, backbone_cards = load_task_cards(tasks or []), load_backbone_cards(registry or [])
    if name in task_cards or name.startswith(("folder:", "torchvision:")):
        return print_card(resolve_tasks([name], task_cards)[0].model_dump(mode="json"))

    from bob.backbones.sources import resolve_backbone, weights_status

    try:
        card = resolve_backbone(name, backbone_cards)
    except UserError as error:
        raise UserError(
            f"Unknown backbone or task '{name}'.", did_you_mean(name, [*task_cards, *backbone_cards])
        ) from error
    print_card(card.model_dump(mode="json", exclude_defaults=True))
    print_lines([f"weights: {weights_status(card)}"])


@cache_app.command("ls")
def cache_ls() -> None:
    """List the stored features, largest first."""
    from bob.features.store import default_root, list_stores

    stores = list_stores()
    rows = [[s.path.name, s.model, f"{s.rows} x {s.width}", f"{s.size / 2**20:.1f} MiB"] for s in stores]
    print_table(["key", "backbone", "features", "size"], rows)
    print_lines([f"{sum(s.size for s in stores) / 2**20:.1f} MiB in {default_root()}"])


@cache_app.command("rm")
def cache_rm(
    keys: Annotated[Optional[list[str]], typer.Argument(help="Keys, as `bob cache ls` shows them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove every stored feature.")] = False,
) -> None:
    """Remove stored features; they are computed again when needed."""
    import shutil

    from bob.features.store import list_stores

    stores = {store.path.name: store for store in list_stores()}
    unknown = [key for key in keys or [] if key not in stores]
    if unknown or not (keys or all_):
        problem = f"No stored features have the key '{unknown[0]}'." if unknown else "Nothing to remove was named."
        raise UserError(problem, "Give keys as `bob cache ls` shows them, or --all.")
    chosen = list(stores) if all_ else keys or []
    for key in chosen:
        shutil.rmtree(stores[key].path)
    print_lines([f"Removed {len(chosen)} stores, {sum(stores[key].size for key in chosen) / 2**20:.1f} MiB."])


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="bob", standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        _fail(f"The disk is full: {error}. Free some space (`bob cache ls`), then give the same command again.")
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # Typer's own complaints about arguments; the class has moved between its versions, the method has not.
        if not hasattr(error, "format_message"):
            raise
        _fail(f"{error.format_message()} See --help.")
    if code == 130:
        print_error("Interrupted. What is finished is kept; the same command goes on from there.")
    sys.exit(code or 0)


def _extraction(device: str, precision: str, batch_size: int | None, workers: int | None) -> Extraction:
    from bob.features.extract import Extraction
    from bob.run import resolve_device

    resolved = resolve_device(device)
    known = ("float32", "bfloat16", "float16")
    if precision == "auto":
        precision = "float16" if resolved.type == "cuda" else "float32"
    if precision not in known:
        raise UserError(
            f"Unknown precision '{precision}'.", did_you_mean(precision, known) or f"Use {', '.join(known)}."
        )
    return Extraction(resolved, precision, batch_size, workers)  # type: ignore[arg-type]


def _split_commas(values: Iterable[str]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _announce_user_code(cards: Iterable[BackboneCard], quiet: bool) -> None:
    for card in cards:
        if card.weights.source == "custom" and not quiet:
            print(f"Running your code: {card.weights.model}", file=sys.stderr)


def _list_backbones(cards: Sequence[BackboneCard], paradigm: str | None) -> None:
    twins = [card.random_twin() for card in cards if card.has_random_twin]
    known = sorted({card.paradigm for card in [*cards, *twins]})
    if paradigm is not None and paradigm not in known:
        hint = did_you_mean(paradigm, known) or f"Use one of {', '.join(known)}."
        raise UserError(f"No backbone has the paradigm '{paradigm}'.", hint)
    chosen = [card for card in [*cards, *twins] if paradigm in (None, card.paradigm)]
    rows = [
        [c.name, c.paradigm, c.method, c.pretraining_data, f"{(c.parameters or 0) / 1e6:.2f}", c.licence]
        for c in sorted(chosen, key=lambda card: (card.paradigm, card.name))
    ]
    print_table(["backbone", "paradigm", "method", "pretrained on", "params (M)", "licence"], rows)
    print_lines(["Any timm name works without a card, NAME.random is its random twin, and file.py:make is your own."])


def _print_plan(cards: Sequence[BackboneCard], tasks: Sequence[TaskCard], settings: Settings) -> None:
    from bob.plan import plan

    pairs = plan(cards, tasks, settings)
    rows = [
        [
            pair.backbone,
            pair.task,
            f"{pair.runs - pair.present} of {pair.runs}",
            f"{pair.images - pair.stored} of {pair.images}",
            f"{pair.bytes_per_image:,}",
            f"{pair.seconds:.0f} s",
        ]
        for pair in pairs
    ]
    print_table(["backbone", "task", "runs to do", "images to embed", "bytes/image", "about"], rows)
    print_lines([f"About {sum(pair.seconds for pair in pairs) / 60:.1f} minutes of forward passes. Nothing was run."])


def _fail(line: str) -> NoReturn:
    print_error(" ".join(line.split()))
    sys.exit(2)
