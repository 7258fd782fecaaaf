"""How lines, tables, cards and plans are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from bob.backbones.blueprint import Blueprint
    from bob.cards import BackboneCard
    from bob.plan import PlannedPair

_MOST_FOLDED = 200  # rows that a terminal gets folded to its width


def print_table(columns: Iterable[str], rows: Iterable[Sequence[object]], numeric_from: int | None = None) -> None:
    """Print a table; columns from number `numeric_from` on are set flush right."""
    from rich.console import Console

    lines = [[str(cell) for cell in line] for line in (list(columns), *rows)]
    flush_right = [numeric_from is not None and place >= numeric_from for place in range(len(lines[0]))]
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal and len(lines) <= _MOST_FOLDED:
        console.print(_folding(lines, flush_right))
    else:
        _print_plain(lines, flush_right)


def _folding(lines: Sequence[Sequence[str]], flush_right: Sequence[bool]) -> Table:
    """The table as a terminal wants it: what is too wide is folded."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, right in zip(lines[0], flush_right, strict=True):
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for line in lines[1:]:
        table.add_row(*line)
    return table


def _print_plain(lines: Sequence[Sequence[str]], flush_right: Sequence[bool]) -> None:
    """A line a row: a log or a pipe has no width of its own, and many rows take rich seconds."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        gaps = [" " * (width - cell_len(cell)) for width, cell in zip(widths, line, strict=True)]
        cells = zip(line, gaps, flush_right, strict=True)
        print("  ".join(gap + cell if right else cell + gap for cell, gap, right in cells).rstrip())


def print_card(content: dict[str, object], indent: str = "") -> None:
    """Print a card as `key: value` lines, tables indented."""
    for key, value in content.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            print_card(value, indent + "  ")
        else:
            print(f"{indent}{key}: {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")


def print_backbones(cards: Iterable[BackboneCard]) -> None:
    """Print a table of backbones, by paradigm and name."""
    rows = [
        [card.name, card.paradigm, card.method, card.pretraining_data, _millions(card.parameters), card.licence]
        for card in sorted(cards, key=lambda card: (card.paradigm, card.name))
    ]
    print_table(["backbone", "paradigm", "method", "pretrained on", "params (M)", "licence"], rows)
    print_lines(
        [
            "NAME.random is a backbone's random twin, file.py:make your own. Without a card: any timm name, "
            "open_clip:NAME/TAG, torchvision:NAME, hf:REPOSITORY.",
            "`bob show NAME` tells what it needs; --here lists those whose weights are on this machine.",
        ]
    )


def print_backbone(card: BackboneCard, shape: Blueprint | str, weights: str) -> None:
    """Print what a backbone is, what it is fed and gives, and where its weights are.

    Args:
        card: Its card.
        shape: Of its architecture, or why it is not known.
        weights: Where its weights are, in words.
    """
    source = f"{card.weights.source} {card.weights.model}".strip()
    data = card.pretraining_data or "unknown"
    lines = {
        "name": card.name,
        "what it is": card.description,
        "kind": ", ".join(filter(None, [card.paradigm, card.method, card.architecture])),
        "pretrained on": f"{data}, {card.pretraining_images:,} images" if card.pretraining_images else data,
        **_shape_lines(card, shape),
        "licence": card.licence,
        "published": "; ".join(f"{r.metric} {r.value:g} on {r.dataset} ({r.source})" for r in card.references),
        "facts from": ", ".join(card.facts),
        "source": source if card.weights.pretrained else f"{source} at random initialisation",
        "options": ", ".join(f"{key} = {value}" for key, value in card.weights.options.items()),
        "weights": weights,
    }
    print_card({key: value for key, value in lines.items() if value})


def _shape_lines(card: BackboneCard, shape: Blueprint | str) -> dict[str, str]:
    feature = card.feature.layer + ("" if card.feature.pooling == "default" else f", pooling {card.feature.pooling}")
    if isinstance(shape, str):
        return {"feature": feature, "shape": shape}
    given = shape.preprocess
    height, width = given.size
    maps = [f"{channels} at stride {stride}" for stride, channels in zip(shape.strides, shape.channels, strict=True)]
    return {
        "parameters": f"{shape.parameters:,}",
        "feature": f"{feature}, width {shape.width}",
        "input": f"{height} x {width}, {given.crop_mode} crop {given.crop_fraction:.3g}, {given.interpolation}",
        "normalised by": f"mean {given.mean}, std {given.std}",
        "feature maps": ", ".join(maps) or "none",
    }


def print_plan(pairs: Sequence[PlannedPair]) -> None:
    """Print what a command would do."""
    rows = [
        [
            pair.backbone,
            pair.task,
            f"{pair.runs - pair.present} of {pair.runs}",
            f"{pair.to_embed} of {pair.images}",
            f"{pair.bytes_per_image:,}",
            f"{pair.seconds:.0f} s",
        ]
        for pair in pairs
    ]
    print_table(["backbone", "task", "runs to do", "images to embed", "bytes/image", "about"], rows)
    print_lines([f"About {sum(pair.seconds for pair in pairs) / 60:.1f} minutes of forward passes. Nothing was run."])


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output."""
    for line in lines:
        print(line)


def print_error(line: str) -> None:
    """Print one line to standard error."""
    print(f"bob: {line}", file=sys.stderr)


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def number(value: float, form: str) -> str:
    """A number in a format; nothing for NaN."""
    return "" if value != value else format(value, form)  # NaN is not itself


def span(low: float, high: float, form: str, between: str) -> str:
    """Both ends of an interval in a format; nothing where one is NaN."""
    return "" if low != low or high != high else f"{format(low, form)}{between}{format(high, form)}"
