"""The `bob prior` command: a Gaussian prior over a backbone's weights, learnt by SWAG at a source task."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bob.console import print_lines
from bob.errors import UserError
from bob.options import DataRoot, Device, Folders, TaskFolders, Workers


def prior(
    backbone: Annotated[str, typer.Option("--backbone", "-b", help="Whose weights; one.")],
    task: Annotated[str, typer.Option("--task", "-t", help="The source task, whose train split is learnt from; one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the prior: NAME.safetensors.")],
    rank: Annotated[int, typer.Option(min=2, help="Deviations that make the low-rank part.")] = 10,
    burn_in: Annotated[int, typer.Option(min=0, help="Epochs before the first that is collected.")] = 10,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe, as epochs=20; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the head, the order of the images and augmentation.")] = 0,
    device: Device = "auto",
    workers: Workers = None,
    data_root: DataRoot = None,
    registry: Folders = None,
    tasks: TaskFolders = None,
) -> None:
    """Learn a prior at a source task, for `bob run --protocol finetune --set prior=FILE.safetensors:LAMBDA`.

    SGD at a constant rate from the checkpoint; the weights after each epoch give mean, diagonal and low-rank part
    ("Pre-Train Your Loss", arXiv 2205.10279). An isotropic prior around the checkpoint needs no learning:
    --set prior=l2sp:STRENGTH.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"A prior is written as safetensors, not as '{out.name}'.", "Give --out NAME.safetensors.")

    from bob.backbones.sources import open_backbone, resolve_backbone
    from bob.catalogue import load_backbone_cards, load_task_cards, resolve_tasks
    from bob.cli import settings_of
    from bob.data.sources import load_task
    from bob.engines.settings import overridden
    from bob.engines.swag import SWAG_RECIPE, learn_prior
    from bob.features.extract import Extraction
    from bob.machine import launched_processes, resolve_device
    from bob.progress import Reporter

    cards = resolve_tasks([task], load_task_cards(tasks or []))
    if len(cards) > 1:
        raise UserError(f"'{task}' names {len(cards)} tasks.", "Give one.")
    recipe = overridden(SWAG_RECIPE, settings_of(setting or []))
    how = Extraction(resolve_device(device), workers=workers)
    opened = open_backbone(resolve_backbone(backbone, load_backbone_cards(registry or [])))
    dataset = load_task(cards[0], data_root).sealed("test")
    _require_writable(out)
    first = launched_processes()[0] == 0
    with Reporter(quiet=not first).training(f"{opened.card.name} on {cards[0].name}, prior") as progress:
        learnt = learn_prior(opened, dataset, recipe, how=how, seed=seed, rank=rank, burn_in=burn_in, progress=progress)
    if not first:
        return  # the first of several processes writes for all
    learnt.save(out)
    print_lines([f"Written: {out.absolute()}", f"Use it: --protocol finetune --set prior={out}:LAMBDA"])


def _require_writable(out: Path) -> None:
    """Fail before anything is learnt, not after."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot write to {out.parent}: {error.strerror}.", "Give another place: --out FILE."
        ) from error
