"""Write docs/tasks.md, the table of every task card, its splits and where its data come from; --check compares only."""

from __future__ import annotations

import sys
from pathlib import Path

from bob.catalogue import load_task_cards
from bob.task_cards import DataSpec, TaskCard
from bob.task_tables import OtherSet

FILE = Path(__file__).parents[1] / "docs" / "tasks.md"
INTRODUCTION = """\
# Tasks

Every card of `tasks/`, made from the cards by `python scripts/task_table.py`. Data sets lie below the data root
(`$BOB_DATA` or `--data-root`). torchvision downloads its own where their publishers still let it; what has to be
fetched by hand is described below the table, and by `bob show TASK`. `bob data verify TASK` compares what is on disk
with the numbers here.

- A split in `code` is the source's own, under its own name. Everything else is cut by bob class by class, the same on
  every machine: a class's draw depends on the card's `split_seed`, the name of the class and its images alone.
  CheXpert is cut by patients; data of boxes or masks image by image, none of a class's last images being cut off.
- Hyperparameters are chosen on val, which is never part of a published test split.
- A number is given where a source confirms it; opening data with another number of images or classes fails.
- Zero-shot uses the names and prompts that CLIP published, where the card has them, and else the data set's own names.
- VTAB-1k: 800 images to learn from and 200 to choose on, the first of each in the order of TensorFlow Datasets, without
  regard to classes. VTAB's authors publish no lists of files; ours are those that a script of NOAH's authors writes
  with VTAB's code, in a layout that later work shares. It saves every image as JPEG.
- Detection and segmentation: the official val is the test, since test labels are withheld, and a val to choose on is
  cut from train. `[recipe]` on the card says at which sizes and for how long is trained; `bob show TASK` prints it.

- `ood` and `ood_detection` test on further sets, named behind the test split ([ood.md](ood.md),
  [ood_detection.md](ood_detection.md)); `retrieval` searches a database ([retrieval.md](retrieval.md)); `factors` is
  classification on images whose factors are known ([factors.md](factors.md)).

A data set of your own needs a card only where its folder does not say everything: `--task coco:IMAGES:BOXES.json` and
`--task masks:IMAGES:MASKS` run as they are. Detection with splits is this, in a folder that `--tasks` names:

    name = "bees"
    adapter = "detection"
    [data]
    source = "coco:bees/{split}:bees/{split}.json"
    splits = { train = "train", test = "test" }
    val_fraction = 0.1

and segmentation this; without `values` the numbers in the masks are the classes, and 255 counts for nothing:

    name = "fields"
    adapter = "segmentation"
    class_names = ["wheat", "maize", "other"]
    [data]
    source = "masks:fields/images/{split}:fields/masks/{split}"
    values = [1, 2, 9]
    ignore = [0]

"""
HEADER = ["task", "adapter", "what it shows", "source", "train", "val", "test", "classes", "ranked by", "licence"]
BY_HAND = """
## Data to fetch by hand

"""


def origin(name: str, data: DataSpec) -> str:
    """Say where the images of a split come from."""
    own = {str(ours): f"`{theirs}`" for ours, theirs in data.splits.items()}
    if name == "test" and data.test_source:
        return f"`{data.test_source}`"
    if name in own:
        return f"a list of {own[name]}" if name == "train" and data.subset else own[name]
    if ":" not in data.source:
        return "built in"
    if name == "train":
        return f"{data.train_count} a class" if data.train_count else "the rest"
    if name == "test" and data.train_count:
        return "the others"
    count = data.val_count if name == "val" else data.test_count
    fraction = data.val_fraction if name == "val" else data.test_fraction
    share = f"{count} a class" if count else f"{fraction:.0%}"
    return f"{share} of {'train' if name == 'val' else 'all'}"


def split(name: str, data: DataSpec) -> str:
    """Return a cell: how many images, and where they come from."""
    counts = {str(known): f"{count:,}: " for known, count in data.expect.items()}
    return counts.get(name, "") + origin(name, data)


def page(cards: dict[str, TaskCard]) -> str:
    """Return the page."""
    ordered = sorted(cards.values(), key=lambda card: (card.is_dense, card.name.startswith("vtab_"), card.name))
    rows = [HEADER, ["---"] * len(HEADER), *(_row(card) for card in ordered)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{INTRODUCTION}{len(cards)} tasks.\n\n{table}{BY_HAND}{_layouts(ordered)}"


def _layouts(cards: list[TaskCard]) -> str:
    """Say what to fetch for which tasks, once for those that differ in nothing but the folder."""
    sharing: dict[str, list[TaskCard]] = {}
    for card in (card for card in cards if card.data.layout):
        sharing.setdefault(card.data.layout.replace(_folder(card), "FOLDER"), []).append(card)
    parts = []
    for text, group in sharing.items():
        folders = {card.name: _folder(card) for card in group}
        same = len(set(folders.values())) == 1
        names = (name if same else f"{name} (`{folder}`)" for name, folder in folders.items())
        parts.append(f"**{', '.join(names)}.** {_marked_up(group[0].data.layout if same else text)}")
    return "\n".join(parts)


def _folder(card: TaskCard) -> str:
    return card.data.source.partition(":")[2]


def _row(card: TaskCard) -> list[str]:
    data = card.data
    splits = _searched(card) if card.adapter == "retrieval" else [split(n, data) for n in ("train", "val", "test")]
    if card.sets:
        splits[-1] += f"; then {', '.join(_set(each) for each in card.sets)}"
    classes = "" if data.classes is None else f"{data.classes:,}"
    return [card.name, card.adapter, card.description, data.source, *splits, classes, card.primary, card.licence]


def _searched(card: TaskCard) -> list[str]:
    """The cells of a retrieval task: its database, nothing to choose on, and its queries."""
    database, queries = (
        f"{card.data.expect[name]:,} " if name in card.data.expect else "" for name in ("train", "test")
    )
    return [f"{database}searched", "", f"{queries}queries: {card.retrieval.rule}"]


def _set(each: OtherSet) -> str:
    """A further set that is tested on."""
    if not each.corruptions:
        return each.name
    return f"{each.name} ({len(each.corruptions)} corruptions x {len(each.severities)} severities)"


def _marked_up(layout: str) -> str:
    """Put commands into blocks of their own."""
    return "".join(f"\n    {line}\n" if line.startswith("python ") else f"{line}\n" for line in layout.splitlines())


def main() -> None:
    """Write the page, or with --check fail if it is not up to date."""
    text = page(load_task_cards())
    if "--check" not in sys.argv[1:]:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"{FILE.name} is not up to date. Run `python scripts/task_table.py`.")


if __name__ == "__main__":
    main()
