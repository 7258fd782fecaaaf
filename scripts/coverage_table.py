"""Write docs/backbones.md, the table of every card, its source and how it was tried; with --check, compare only."""

from __future__ import annotations

import sys
from pathlib import Path

from bob.cards import BackboneCard
from bob.catalogue import load_backbone_cards

FILE = Path(__file__).parents[1] / "docs" / "backbones.md"
INTRODUCTION = """\
# Backbones

Every card of `registry/`, made from the cards by `python scripts/coverage_table.py`. A card is one exact checkpoint:
`bob show NAME` tells its input, its feature maps, and whether its weights are on your machine.

What the last column means:

- **real weights**: the tests load the published weights and look at real photographs with them.
- **publisher's layout**: the tests load random weights in the exact key layout of the publisher's file, strictly, and
  compare the output with the publisher's architecture written independently.
- **architecture**: the tests build the architecture and compare parameters, width, strides and preprocessing with the
  card; the library that publishes the weights loads them. No test has seen these weights.
- **computed**: there are no weights.

"""
HEADER = ["backbone", "kind", "method, architecture", "pretrained on", "source", "params (M)", "width", "tried"]


def tried(card: BackboneCard) -> str:
    """Say how the tests try a card; they hold it to that (tests/backbones/test_registry.py, test_publishers.py)."""
    weights = card.weights
    if weights.source in ("pixels", "constant"):
        return "computed"
    if weights.source == "checkpoint":
        return "real weights" if (weights.file or "").startswith("package:") else "publisher's layout"
    return "architecture"


def table(cards: dict[str, BackboneCard]) -> str:
    """Return the page."""
    rows = [HEADER, ["---"] * len(HEADER)]
    for card in sorted(cards.values(), key=lambda card: (card.paradigm, card.name)):
        weights = card.weights
        rows.append(
            [
                card.name,
                card.paradigm,
                f"{card.method}, {card.architecture}",
                card.pretraining_data,
                f"{weights.source}: {weights.model}" if weights.model else weights.source,
                "" if card.parameters is None else f"{card.parameters / 1e6:.1f}",
                str(card.feature.width or ""),
                tried(card),
            ]
        )
    count = f"{len(cards)} cards; each but those without an architecture has a random twin, `NAME.random`.\n\n"
    return INTRODUCTION + count + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Write the page, or with --check fail if it is not up to date."""
    page = table(load_backbone_cards())
    if "--check" not in sys.argv[1:]:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(page, encoding="utf-8")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != page:
        sys.exit(f"{FILE.name} is not up to date. Run `python scripts/coverage_table.py`.")


if __name__ == "__main__":
    main()
