"""The `bob check` command: facts, findings and a verdict on one backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bob.console import print_lines
from bob.options import Device, Folders, Precision, Quiet, extraction


def check(
    backbone: Annotated[str, typer.Argument(help="Card, timm name, file.py:make, timm:NAME@FILE.")],
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of downloaded data, where imagenet/val may be; default: $BOB_DATA.")
    ] = None,
    registry: Folders = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG of what the backbone sees; default: check-NAME.png.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out k-NN on `shapes`.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check one backbone. Exit code 0 without a FAIL, 1 with one."""
    from bob.catalogue import load_backbone_cards

    cards = load_backbone_cards(registry or [])

    from bob import places
    from bob.backbones.sources import open_backbone, resolve_backbone
    from bob.check.report import examine
    from bob.check.sheet import require_png, write_sheet
    from bob.progress import Reporter

    card, reporter = resolve_backbone(backbone, cards), Reporter(quiet)
    path = require_png(sheet or Path(places.sheet_name(card.name))).absolute()
    how = extraction(device, precision)
    if card.weights.source == "custom":
        reporter.say(f"Running your code: {card.weights.model}")
    opened = open_backbone(card)
    write_sheet(opened, path)
    report = examine(opened, how, data_root or places.data_root(), reporter, quick, sheet=path)
    print_lines([report.to_json()] if json else report.lines())
    raise typer.Exit(0 if report.passed else 1)
