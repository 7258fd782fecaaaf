"""The commands `bob list` and `bob show`: which backbones and tasks there are, and what is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_backbone, print_backbones, print_card, print_lines, print_table
from bob.errors import UserError, did_you_mean
from bob.options import DataRoot, Folders, Results, TaskFolders

if TYPE_CHECKING:
    from bob.backbones.blueprint import Blueprint
    from bob.cards import BackboneCard


def list_(
    what: Annotated[str, typer.Argument(help="backbones, tasks or protocols.")],
    names: Annotated[list[str] | None, typer.Argument(help="Only these; globs work, as in '*dino*'.")] = None,
    paradigm: Annotated[str | None, typer.Option(help="Only backbones of this paradigm.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Only backbones whose weights are on this machine.")] = False,
    registry: Folders = None,
    tasks: TaskFolders = None,
) -> None:
    """List the cards of backbones or tasks, or the protocols of each kind of task."""
    if what == "backbones":
        print_backbones(_backbones(names, paradigm, here, registry or []))
    elif what == "tasks":
        _list_tasks(names, tasks or [])
    elif what == "protocols":
        _list_protocols()
    else:
        kinds = ["backbones", "tasks", "protocols"]
        hint = did_you_mean(what, kinds) or f"Use one of {', '.join(kinds)}."
        raise UserError(f"Cannot list '{what}'.", hint)


def show(
    name: Annotated[str, typer.Argument(help="A backbone, a task, or a run: its folder, or its id.")],
    registry: Folders = None,
    tasks: TaskFolders = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card, or the record, as JSON.")] = False,
    results: Results = Path("results"),
    images: Annotated[
        bool, typer.Option("--images", help="Draw what a run predicted over test images, beside what is true.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write: NAME.png or NAME.svg.")] = Path("run.png"),
    count: Annotated[int, typer.Option(min=1, help="How many images to draw.")] = 8,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a detection to draw.")] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images.")] = 0,
    data_root: DataRoot = None,
) -> None:
    """Show a card in full, or a run: for a backbone what it is, what it needs, and whether its weights are here."""
    if images:
        from bob.results.reading import find_record

        return _draw(find_record(results, name), out, count, threshold, seed, data_root)
    if (run := _run_of(results, name)) is not None:
        return _show_run(run, as_json)
    from bob.catalogue import load_backbone_cards, load_task_cards, resolve_tasks

    task_cards, backbone_cards = load_task_cards(tasks or []), load_backbone_cards(registry or [])
    if name in task_cards or _is_data(name):
        task = resolve_tasks([name], task_cards)[0]
        return print_lines([task.model_dump_json(indent=2)]) if as_json else print_card(task.model_dump(mode="json"))

    from bob.backbones.sources import resolve_backbone, weights_status

    try:
        card = resolve_backbone(name, backbone_cards)
    except UserError as error:
        if ":" in name:
            raise  # a spec says by its prefix that it is a backbone
        hint = did_you_mean(name, [*task_cards, *backbone_cards]) or error.remedy
        raise UserError(f"Unknown backbone or task '{name}'.", hint) from error
    if as_json:
        print_lines([card.model_dump_json(indent=2)])
    else:
        print_backbone(card, _shape(card), weights_status(card))


def _draw(record: Path, out: Path, count: int, threshold: float, seed: int, data_root: Path | None) -> None:
    from bob.pictures.of_run import draw_run

    names = draw_run(record, out, count=count, threshold=threshold, seed=seed, data_root=data_root)
    print_lines([f"Written: {out.absolute()} ({', '.join(names)})"])


def _run_of(results: Path, name: str) -> Path | None:
    """The record that a name means, unless no run is called so."""
    from bob.results.reading import find_record

    try:
        return find_record(results, name)
    except UserError:
        return None


def _show_run(path: Path, as_json: bool) -> None:
    from bob.results.reading import read_record

    record = read_record(path)
    if as_json:
        return print_lines([record.model_dump_json(indent=2)])
    request = record.request
    print_card(
        {
            "run": record.run_id,
            "what": f"{request.backbone} on {request.task}, {request.protocol['name']}, seed {request.seed}",
            "metrics": {
                name: f"{each.value:.4f} [{each.low:.4f}, {each.high:.4f}], n = {each.n}"
                for name, each in record.metrics.items()
            },
            "chosen": record.chosen,
            "notes": "; ".join(record.notes),
            "seconds": {stage: f"{seconds:.1f}" for stage, seconds in record.cost.seconds.items()},
            "created": record.created,
            **({"again": record.command} if record.command else {}),
            "files": str(path.parent),
        }
    )
    groups = {"groups": record.per_group} if record.per_group else {}
    for name, rows in {**groups, **record.breakdown}.items():
        print_lines(["", f"{name.replace('_', ' ')}:"])
        columns = list(dict.fromkeys(key for row in rows for key in row))
        print_table(columns, [[_cell(row.get(key)) for key in columns] for row in rows], numeric_from=1)


def _cell(value: object) -> object:
    """A value of a record's table; what is not defined stays empty."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else value


def _backbones(
    names: Sequence[str] | None, paradigm: str | None, here: bool, registry: Sequence[Path]
) -> list[BackboneCard]:
    """The cards asked for; random twins only where they are asked for, by name or as baselines."""
    from bob.backbones.sources import resolve_backbones, weights_status
    from bob.catalogue import load_backbone_cards

    cards = load_backbone_cards(registry)
    twins = [card.random_twin() for card in cards.values() if card.has_random_twin]
    known = sorted({card.paradigm for card in [*cards.values(), *twins]})
    if paradigm is not None and paradigm not in known:
        hint = did_you_mean(paradigm, known) or f"Use one of {', '.join(known)}."
        raise UserError(f"No backbone has the paradigm '{paradigm}'.", hint)
    unnamed = [*cards.values(), *(twins if paradigm == "baseline" else [])]
    chosen = resolve_backbones(names, cards) if names else unnamed
    chosen = [card for card in chosen if paradigm in (None, card.paradigm)]
    return [card for card in chosen if weights_status(card).startswith(("here", "none needed"))] if here else chosen


def _list_tasks(names: Sequence[str] | None, folders: Sequence[Path]) -> None:
    from bob.catalogue import load_task_cards, resolve_tasks

    cards = load_task_cards(folders)
    chosen = resolve_tasks(names, cards) if names else list(cards.values())
    rows = [[card.name, card.adapter, ", ".join(card.protocols), card.primary, card.description] for card in chosen]
    print_table(["task", "adapter", "protocols", "ranked by", "what it is"], rows)
    print_lines(
        [
            "Without a card: folder:PATH (class folders or a CSV of path,label[,split][,group]), torchvision:NAME, "
            "hf:REPOSITORY and wilds:NAME; with objects coco:IMAGES:ANNOTATIONS.json, voc:FOLDER and "
            "cityscapes:FOLDER; with a class of each pixel masks:IMAGES:MASKS and "
            "panoptic:IMAGES:PNGS:ANNOTATIONS.json.",
        ]
    )


def _list_protocols() -> None:
    from bob.adapters.modifiers import FORMS
    from bob.adapters.registry import ADAPTERS

    rows = [
        [protocol.name, adapter, protocol.version, protocol.description]
        for adapter, kind in ADAPTERS.items()
        for protocol in kind.protocols.values()
    ]
    print_table(["protocol", "adapter", "version", "what it is"], rows)
    print_lines([f"After a protocol's name, for example linear@5shot: {FORMS}."])


def _is_data(name: str) -> bool:
    """Whether a name without a card means images; torchvision spells its models, but no data set, in lower case."""
    kind, _, what = name.partition(":")
    paths = ("folder", "coco", "voc", "cityscapes", "masks", "panoptic")
    return kind in paths or (kind == "torchvision" and not what.partition("/")[0].islower())


def _shape(card: BackboneCard) -> Blueprint | str:
    """What the architecture tells, or why it tells nothing."""
    from bob.backbones.blueprint import blueprint

    try:
        return blueprint(card)
    except UserError as error:
        return str(error)
