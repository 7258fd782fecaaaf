"""Options that several commands have, under one name and one help text each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from bob.features.extract import Extraction

Results = Annotated[Path, typer.Option("--results", help="Folder of the records.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", help="auto (float16 on CUDA, else float32), float32, bfloat16 or float16; part of a run's id."
    ),
]
BatchSize = Annotated[Optional[int], typer.Option("--batch-size", min=1, help="Images in one forward pass.")]
Workers = Annotated[
    Optional[int], typer.Option("--workers", min=0, help="Decoding processes; default: one a granted core.")
]
DataRoot = Annotated[Optional[Path], typer.Option("--data-root", help="Folder of downloaded data; default: $BOB_DATA.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
Folders = Annotated[
    Optional[list[Path]], typer.Option("--registry", help="Folder of your own backbone cards; repeatable.")
]
TaskFolders = Annotated[
    Optional[list[Path]], typer.Option("--tasks", help="Folder of your own task cards; repeatable.")
]

# Filters of records, and how a ranking is made of them.
OnlyBackbones = Annotated[
    Optional[list[str]], typer.Option("--backbone", "-b", help="Only these; commas, globs and repeats work.")
]
OnlyTasks = Annotated[
    Optional[list[str]], typer.Option("--task", "-t", help="Only these; commas, globs and repeats work.")
]
OnlyProtocols = Annotated[
    Optional[list[str]], typer.Option("--protocol", "-p", help="Only these; commas, globs and repeats work.")
]
By = Annotated[str, typer.Option("--by", help="What ranks: mean_z, mean_rank, borda or win_rate.")]
Over = Annotated[
    str, typer.Option("--over", help="What counts alike: categories, tasks or settings (a task and a protocol).")
]
Missing = Annotated[
    str,
    typer.Option(
        "--missing",
        help="Where settings were not run: show (without a rank), common (only settings that all have) or drop (only "
        "backbones that have all).",
    ),
]
Ddof = Annotated[
    int, typer.Option("--ddof", min=0, max=1, help="Of the z-scores' standard deviation: 1 sample, 0 population.")
]

Join = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--join", help="Published scores beside ours: TABLE.csv, or the name of one that bob has; repeatable."
    ),
]
Scaling = Annotated[
    bool, typer.Option("--scaling", help="How mean z goes with parameters and pretraining images, by family.")
]
Correlations = Annotated[
    str,
    typer.Option("--correlations", metavar="OF", help="Rank correlations of any two tasks, categories or settings."),
]


def extraction(device: str, precision: str, batch_size: int | None = None, workers: int | None = None) -> Extraction:
    """How to run a backbone, as the options say.

    Raises:
        UserError: If there is no such device, or it does not have that precision.
    """
    from bob.features.extract import Extraction
    from bob.machine import resolve_device, resolve_precision

    resolved = resolve_device(device)
    return Extraction(resolved, resolve_precision(precision, resolved), batch_size, workers)


def split_commas(values: Iterable[str]) -> list[str]:
    """The names in values, each of which may hold several."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]
