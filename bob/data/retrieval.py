"""From a retrieval task's card to queries, a database and what should be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bob.data.asked import Asked
from bob.data.base import Dataset, ImageSet, Split
from bob.data.joined import JoinedImages
from bob.data.relevance import ByClass, Relevance
from bob.data.sealed import seal
from bob.data.sources import Pools, expected_there, open_pools
from bob.data.two_level import by_class, two_level
from bob.errors import UserError
from bob.task_cards import DataSpec, TaskCard

QUERY, DATABASE = "query", "database"
_BENCHMARKS = ("revisited", "gldv2", "copydays")
# Keys of [data] that say how to cut a train, val and test, or learn from them.
_UNREAD = (
    *("val_fraction", "test_fraction", "split_seed", "train_count", "val_count", "test_count"),
    *("subset", "subset_sha256", "unseen_classes", "test_source"),
)
_NAMED = 3  # queries, in an error or a record


@dataclass(frozen=True)
class RetrievalDataset(Dataset):
    """Images that ask and images that are searched: the splits `query` and `database`, which also is `train`.

    Attributes:
        relevance: What each query should find; None where it is sealed.
        rule: How queries and database were told, as on the card.
    """

    relevance: Relevance | None = None
    rule: str = ""

    def answers(self) -> Relevance:
        """What each query should find.

        Raises:
            RuntimeError: If it is sealed.
        """
        if self.relevance is None:
            raise RuntimeError("What the queries should find is sealed until everything is searched.")
        return self.relevance

    def identity(self) -> dict[str, Any]:
        """See `Dataset.identity`; the answers are no part of the splits."""
        return {"retrieval": {"rule": self.rule, **self.answers().identity()}}

    def sealed(self, split: str = QUERY) -> Dataset:
        """See `Dataset.sealed`; the answers are sealed with the queries' labels."""
        relevance = None if split == QUERY else self.relevance
        return replace(self, splits=seal(self.splits, split), relevance=relevance)


def load_retrieval(card: TaskCard, root: Path, check: bool = True) -> RetrievalDataset:
    """Open the data of a retrieval task.

    Queries that have nothing to find are left out, and `facts` says which.

    Args:
        card: Its card; `[retrieval]` says the rule.
        root: The data root.
        check: Whether there must be queries and what they should find, in the numbers that the card expects (`test` for
            the queries, `train` for the database).

    Raises:
        UserError: If the data cannot be had or do not suit the rule, or no query has anything to find.
    """
    spec = card.data
    _require_read(card)
    try:
        asked = _asked(card, root)
    except UserError as error:
        if not spec.layout:
            raise
        raise UserError(error.problem, f"{error.remedy} {expected_there(spec)}") from error
    if check:
        asked = _answerable(asked, spec)
    splits = {QUERY: asked.query, DATABASE: asked.database, "train": asked.database}
    facts = {
        "splits": f"{card.retrieval.rule}: {len(asked.query)} queries, {len(asked.database)} images",
        **asked.facts,
    }
    if check:
        _require_expected(asked, spec)
    return RetrievalDataset(
        spec.source, asked.classes, splits, facts, relevance=asked.relevance, rule=card.retrieval.rule
    )


def _asked(card: TaskCard, root: Path) -> Asked:
    rule = card.retrieval.rule
    if rule in _BENCHMARKS:
        prefix, _, name = card.data.source.partition(":")
        if prefix != "folder" or not name:
            raise UserError(f"The rule '{rule}' reads a folder, not {card.data.source}.", "Give it as folder:PATH.")
        return _benchmark(card, root / Path(name).expanduser())
    if rule == "splits":
        return _of_splits(card.data, root)
    classes, pools = _pools(card.data, root)
    chosen = _chosen(card.data, pools, [name for origins in card.data.splits.values() for name in _names(origins)])
    members = by_class(chosen.labels, chosen.names, card.retrieval.cap)
    if rule == "leave_one_out":
        every = np.concatenate(members)
        relevance = ByClass(chosen.labels[every], chosen.labels[every], np.arange(len(every)))
        return Asked(classes, Split(chosen, every), Split(chosen, every), relevance)
    asking, searched = (Split(chosen, part) for part in two_level(members, card.retrieval.query_fraction))
    return Asked(classes, asking, searched, ByClass(asking.labels, searched.labels), _alone(members, chosen, classes))


def _benchmark(card: TaskCard, folder: Path) -> Asked:
    if card.retrieval.rule == "revisited":
        from bob.data.revisited import load_revisited

        return load_revisited(folder, card.retrieval.crop_queries)
    if card.retrieval.rule == "gldv2":
        from bob.data.gldv2 import load_gldv2

        return load_gldv2(folder)
    from bob.data.copydays import load_copydays

    return load_copydays(folder)


def _pools(spec: DataSpec, root: Path) -> Pools:
    classes, pools = open_pools(spec, root, "classification")
    if all(images.labels.ndim == 1 and images.target_kind is None for images in pools.values()):
        return classes, pools
    raise UserError(f"{spec.source} has no single class an image.", "Retrieval by class needs one.")


def _of_splits(spec: DataSpec, root: Path) -> Asked:
    """The source's own queries and database; else its test images ask, and all others are searched."""
    prefix, _, name = spec.source.partition(":")
    folder = root / Path(name).expanduser()
    if prefix == "folder" and (folder / QUERY).is_dir() and (folder / DATABASE).is_dir():
        classes, pools = _two_folders(folder)
    else:
        classes, pools = _pools(spec, root)
    named = {ours: _names(origins) for ours, origins in spec.splits.items()}
    ask = named.get("test") or [QUERY if QUERY in pools else "test"]
    search = [name for ours in ("train", "val") for name in named.get(ours, ())] or [n for n in pools if n not in ask]
    if not search:
        raise UserError(f"{spec.source} has nothing to search beside '{ask[0]}'.", "Use the rule two_level.")
    asking, searched = (_chosen(spec, pools, names) for names in (ask, search))
    queries, database = (Split(images, np.arange(len(images))) for images in (asking, searched))
    return Asked(classes, queries, database, ByClass(queries.labels, database.labels))


def _two_folders(folder: Path) -> Pools:
    from bob.data.folder import load_folder
    from bob.data.other_sets import Relabelled

    opened = {name: load_folder(folder / name) for name in (QUERY, DATABASE)}
    classes = tuple(sorted({own for names, _ in opened.values() for own in names}))
    number = {name: label for label, name in enumerate(classes)}
    pools: dict[str, ImageSet] = {}
    for name, (names, own) in opened.items():
        if list(own) != ["all"]:
            raise UserError(f"{folder / name} has splits of its own.", "Put class folders there.")
        pools[name] = Relabelled(own["all"], np.array([number[each] for each in names])[own["all"].labels])
    return classes, pools


def _names(origins: str) -> list[str]:
    return [origin.strip() for origin in origins.split("+")]


def _chosen(spec: DataSpec, pools: dict[str, ImageSet], names: Sequence[str]) -> ImageSet:
    """The images of some of the source's own splits, all if none are named, as one set."""
    for name in names:
        if name not in pools:
            raise UserError(f"{spec.source} has no split '{name}', but {', '.join(pools)}.", "Correct 'splits'.")
    chosen = [pools[name] for name in names or pools]
    return chosen[0] if len(chosen) == 1 else JoinedImages(chosen)


def _alone(members: Sequence[np.ndarray], images: ImageSet, classes: Sequence[str]) -> dict[str, str | int | float]:
    """Which classes have one image, which can be searched but not ask."""
    alone = [classes[int(images.labels[own[0]])] for own in members if len(own) == 1]
    return {"classes_of_one_image": _listed(alone)} if alone else {}


def _answerable(asked: Asked, spec: DataSpec) -> Asked:
    """Without the queries that have nothing to find.

    Raises:
        UserError: If nothing is left, or no query has a positive at the level that scores mean.
    """
    if not len(asked.query) or not len(asked.database):
        lacking = "query" if len(asked.database) else "image to search"
        raise UserError(f"{spec.source} has no {lacking}.", "Each class needs at least two images.")
    valid = asked.relevance.has_positive()
    lost = [asked.query.names[i] for i in np.flatnonzero(~valid)]
    if not valid.any():
        raise UserError(
            f"None of the {len(valid)} queries of {spec.source} has anything to find in the database: {_listed(lost)}.",
            "Add images of the queries' classes to the database, or correct the ground truth.",
        )
    if not lost:
        return asked
    kept = np.flatnonzero(valid)
    query = Split(asked.query.images, asked.query.indices[kept])
    facts = {**asked.facts, "queries_with_nothing_to_find": _listed(lost)}
    return replace(asked, query=query, relevance=asked.relevance.only(kept), facts=facts)


def _listed(names: Sequence[str]) -> str:
    """How many, and the first few."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{rest})"


def _require_read(card: TaskCard) -> None:
    """Fail if the card says what its rule does not read."""
    spec, rule = card.data, card.retrieval.rule
    for key in _UNREAD:
        if getattr(spec, key) != type(spec).model_fields[key].default:
            raise UserError(f"The task '{card.name}' is of retrieval, which does not read '{key}'.", "Leave it out.")
    refused = {
        "cap": card.retrieval.cap is not None and rule not in ("two_level", "leave_one_out"),
        "crop_queries": card.retrieval.crop_queries and rule != "revisited",
        "splits": bool(spec.splits) and rule in _BENCHMARKS,
    }
    for key, said in refused.items():
        if said:
            raise UserError(f"The rule '{rule}' of the task '{card.name}' does not read '{key}'.", "Leave it out.")


def _require_expected(asked: Asked, spec: DataSpec) -> None:
    found = {"test": ("queries", len(asked.query)), "train": ("images in the database", len(asked.database))}
    wrong = [
        f"{number:,} {what} instead of {spec.expect[key]:,}"
        for key, (what, number) in found.items()
        if key in spec.expect and spec.expect[key] != number
    ]
    if spec.classes not in (None, len(asked.classes)):
        wrong.append(f"{len(asked.classes):,} classes instead of {spec.classes:,}")
    if wrong:
        raise UserError(f"{spec.source} has {' and '.join(wrong)}.", "Complete the data, or correct the task's card.")
