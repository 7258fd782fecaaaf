"""What one candidate does in one stage: scored on some images, tested on all, fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bob.backbones.sources import open_backbone
from bob.data.base import Dataset
from bob.errors import UserError
from bob.features.extract import Advance
from bob.pick import scores
from bob.pick.budget import Deadline, spoken
from bob.pick.entry import Entry, Tested
from bob.pick.features import NestedFeatures
from bob.pick.pool import Pool
from bob.pick.times import ProbeTimes
from bob.progress import Reporter
from bob.requested import Settings
from bob.results.reading import read_record
from bob.results.record import RECORD_FILE
from bob.run import Summary, run_pair
from bob.task_cards import TaskCard
from bob.workbench import Workbench


@dataclass(frozen=True)
class Ground:
    """What all stages share.

    Attributes:
        task: A card of a classification task.
        dataset: Its images.
        pool: Those learnt from, in nested sets.
        settings: How to run; its protocols are not used.
        deadline: The budget.
        times: Of scoring.
        reporter: Told what happens.
        seed: Of the folds.
    """

    task: TaskCard
    dataset: Dataset
    pool: Pool
    settings: Settings
    deadline: Deadline
    times: ProbeTimes
    reporter: Reporter
    seed: int

    def kind(self, level: int, first: bool) -> str:
        """How a level is scored: leave-one-out in the first rung, then by folds, in the last by the linear protocol."""
        if level == 0:
            return "linear"
        return "few" if first and len(self.pool.rows(level)) <= scores.FEW else "folds"

    def probe_seconds(self, level: int, first: bool) -> float:
        """Predicted for scoring one candidate's features."""
        return self.times.predicted(self.kind(level, first), len(self.pool.rows(level)))


def score_some(ground: Ground, entry: Entry, level: int, first: bool) -> None:
    """Score a candidate on the images of a level above 0, on none of which the last rung tests.

    Raises:
        UserError: If its weights or an image cannot be read, or a feature is not finite.
    """
    backbone = open_backbone(entry.card)
    features = NestedFeatures(backbone, backbone.identity(), ground.pool, ground.settings.how)
    y, classes = ground.pool.labels[ground.pool.rows(level)], len(ground.dataset.classes)
    with _extracting(ground, entry, features.lacking(level)) as advance:
        x = features.provide(level, advance)
    _learn_cost(ground, entry, features)
    began, kind = ground.deadline.spent(), ground.kind(level, first)
    if kind == "few":
        score = scores.few_shot(x, y, classes)
    else:
        score = scores.probed(x, y, classes, ground.seed, str(ground.settings.how.device))
    ground.times.measured(kind, len(y), ground.deadline.spent() - began)
    entry.scores.append(score)
    entry.level = level
    ground.reporter.say(
        f"{entry.name}: top-1 {score.top1:.3f} ({score.method}, {len(y)} images), RankMe {score.rank_me:.1f}, "
        f"LogME {score.log_me:.3f}, {entry.images_per_second:.1f} images/s"
    )


def test_on_all(ground: Ground, entry: Entry) -> None:
    """Run the linear protocol on all images: it leaves a record, as `bob run` would.

    Raises:
        UserError: As `score_some`; if the protocol does not suit the data.
    """
    began = ground.deadline.spent()
    backbone = open_backbone(entry.card)
    identity, opening = backbone.identity(), ground.deadline.spent() - began
    features = NestedFeatures(backbone, identity, ground.pool, ground.settings.how)
    with _extracting(ground, entry, features.lacking(0)) as advance:
        features.complete(advance)
    _learn_cost(ground, entry, features)
    settings = replace(ground.settings, protocols=("linear",), seeds=())
    bench = Workbench(backbone, identity, ground.task, ground.dataset, settings)
    began = ground.deadline.spent()
    entry.linear, is_new = run_alone(bench, ground.reporter, opening)
    if is_new:  # a record that was there already says nothing of time
        ground.times.measured("linear", len(ground.pool), ground.deadline.spent() - began)


def run_alone(bench: Workbench, reporter: Reporter, opening: float) -> tuple[Tested, bool]:
    """Carry out the one run of a pair; return it, and whether its record is new.

    Args:
        bench: Asked for one protocol and seed.
        reporter: Told what happens.
        opening: Seconds that opening the backbone took, for the record.

    Raises:
        UserError: If it fails.
    """
    summary = Summary()
    run_pair(bench, summary, reporter, opening)
    if summary.failed:
        raise UserError(summary.failed[0])
    folder = (summary.written or summary.present)[0]
    return Tested(folder, read_record(folder / RECORD_FILE)), bool(summary.written)


@contextmanager
def _extracting(ground: Ground, entry: Entry, lacking: int) -> Iterator[Advance]:
    """Show how an extraction goes, and say what it took."""
    began = ground.deadline.spent()
    with ground.reporter.images(entry.name, lacking) as advance:
        yield advance
    if lacking:
        ground.reporter.say(f"{entry.name}: {lacking} features computed in {spoken(ground.deadline.spent() - began)}")


def _learn_cost(ground: Ground, entry: Entry, features: NestedFeatures) -> None:
    """From now on reckon with what an image really took."""
    if entry.cost is None or not features.seconds_per_image:
        return
    if not entry.timed:
        ground.times.extracted(entry.cost.per_image, features.seconds_per_image)
    entry.cost, entry.timed = replace(entry.cost, per_image=features.seconds_per_image), True
