"""Backbones opened one after the other on one task: their stored features, or every block's, measured and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bob.analysis.geometry import alignment
from bob.analysis.lidar import lidar
from bob.analysis.measure import MEASURES, OF_VIEWS, measure
from bob.analysis.moments import Floats
from bob.analysis.rows import Features, Rows
from bob.analysis.similarity import NEIGHBOURS, cka_matrix, mutual_neighbours
from bob.analysis.views import embed_views
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard
from bob.data.base import Dataset, Split
from bob.errors import UserError, did_you_mean
from bob.features.reading import BLOCKS, FEATURE, OUTPUT
from bob.progress import Reporter
from bob.requested import Settings
from bob.run import provide_features
from bob.task_cards import TaskCard
from bob.workbench import Workbench

COLUMNS = ["backbone", "block", "depth", "images", "width", *MEASURES]


@dataclass(frozen=True)
class Question:
    """What to look at.

    Attributes:
        split: Of the task.
        blocks: Every block too.
        images: How many are drawn for what looks at pairs of images, and for views.
        views: Of each of these images; 0 for none, which leaves LiDAR and the alignment of views out.
        seed: Of the draw, of the views and of NLEEP's mixture.
    """

    split: str = "train"
    blocks: bool = False
    images: int = 1024
    views: int = 0
    seed: int = 0


@dataclass
class Analysis:
    """What was found.

    Attributes:
        rows: One for each set of features: `COLUMNS`; block is None for the backbone's own feature.
        spectra: Eigenvalues of the covariance of each, by title (`BACKBONE` or `BACKBONE@blockN`).
        drawn: Features of the drawn images, by title.
        identities: Of the backbones, by name.
        failed: Why backbones are missing.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    spectra: dict[str, Floats] = field(default_factory=dict)
    drawn: dict[str, np.ndarray] = field(default_factory=dict)
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(self.rows, columns=COLUMNS).astype({"block": "Int64"})

    def similarity(self) -> pd.DataFrame:
        """Every pair of features: first, second, cka (unbiased), cka_biased, mutual_neighbours; by the drawn images."""
        titles = list(self.drawn)
        own = [self.drawn[title] for title in titles]
        count = len(own[0])
        plain = cka_matrix(own, unbiased=False)
        unbiased = cka_matrix(own) if count > 3 else np.full_like(plain, np.nan)
        near = mutual_neighbours(own, min(NEIGHBOURS, count - 1))
        pairs = [(i, j) for i in range(len(titles)) for j in range(len(titles))]
        return pd.DataFrame(
            [[titles[i], titles[j], unbiased[i, j], plain[i, j], near[i, j]] for i, j in pairs],
            columns=["first", "second", "cka", "cka_biased", "mutual_neighbours"],
        )


def analyse(
    cards: Sequence[BackboneCard],
    task: TaskCard,
    dataset: Dataset,
    question: Question,
    settings: Settings,
    reporter: Reporter,
) -> Analysis:
    """Measure each backbone's features of one split; those that are not stored yet are, and are there for later runs.

    A backbone that fails does not stop the others: why is in `Analysis.failed`.

    Raises:
        UserError: If the data have no such split, or too few images of it.
    """
    split = _split(dataset, task, question.split)
    alone = Dataset(dataset.source, dataset.classes, {question.split: split})  # so that no other split is computed
    rng = np.random.default_rng(question.seed)
    drawn = np.sort(rng.permutation(len(split))[: question.images])
    found = Analysis()
    for card in cards:
        try:
            backbone = open_backbone(card)
            identity = backbone.identity()
            bench = Workbench(backbone, identity, task, alone, settings)
            _measure(bench, split, drawn, question, found, reporter)
            found.identities[card.name] = identity
        except UserError as error:
            found.failed.append(str(error))
    return found


def _measure(
    bench: Workbench, split: Split, drawn: np.ndarray, question: Question, found: Analysis, reporter: Reporter
) -> None:
    name = bench.backbone.card.name
    title = f"{name} on {bench.task.name}"
    readings = {FEATURE, BLOCKS} if question.blocks else {FEATURE}
    provide_features(bench, readings, title, reporter)
    labels = split.labels if split.labels.ndim == 1 else None
    for block, depth, features in _features(bench, split, question.blocks):
        numbers, eigenvalues = measure(features, labels, len(bench.dataset.classes), drawn, question.seed)
        if block is None:
            numbers |= _of_views(bench, split, drawn, question, reporter)
        own = name if block is None else f"{name}@block{block}"
        shape = {"images": features.shape[0], "width": features.shape[1]}
        found.rows.append({"backbone": name, "block": block, "depth": depth, **shape, **numbers})
        found.spectra[own], found.drawn[own] = eigenvalues, np.array(features[drawn])


def _features(bench: Workbench, split: Split, blocks: bool) -> Iterator[tuple[int | None, float, Features]]:
    """Block, depth and features of each block, if asked for, and of the backbone's own feature."""
    if blocks:
        stored, columns = bench.stored(split, BLOCKS), bench.columns(BLOCKS)
        count = sum(part != OUTPUT and not part.endswith(".mean") for part in columns)
        for block in range(count):
            yield block, (block + 1) / count, Rows(stored, split.indices, columns[f"block{block}"])
    yield None, 1.0, Rows(bench.stored(split, FEATURE), split.indices)


def _of_views(
    bench: Workbench, split: Split, drawn: np.ndarray, question: Question, reporter: Reporter
) -> dict[str, float]:
    if not question.views:
        return dict.fromkeys(OF_VIEWS, float("nan"))
    title = f"{bench.backbone.card.name}, {question.views} views of {len(drawn)} images"
    with reporter.images(title, len(drawn)) as advance:
        how, indices = bench.settings.how, split.indices[drawn]
        views = embed_views(bench.backbone, split.images, indices, question.views, how, question.seed, advance)
    differ = np.ptp(views.mean(axis=1), axis=0).any()
    return {"lidar": lidar(views) if differ else float("nan"), "view_alignment": alignment(views)}


def _split(dataset: Dataset, task: TaskCard, name: str) -> Split:
    if name not in dataset.splits:
        hint = did_you_mean(name, dataset.splits) or f"Use one of {', '.join(dataset.splits)}."
        raise UserError(f"{task.name} has no split '{name}'.", hint)
    if len(dataset.splits[name]) < 3:
        raise UserError(f"The split '{name}' of {task.name} has {len(dataset.splits[name])} images.", "Take another.")
    return dataset.splits[name]
