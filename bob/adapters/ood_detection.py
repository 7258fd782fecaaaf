"""Detection of outliers: a score a protocol, all of them on stored features and on one linear head."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from bob.adapters.base import Adapter, Inputs, Outcome, Protocol, named
from bob.adapters.classification import LINEAR, Classification
from bob.adapters.probing import Choice
from bob.data.base import Dataset
from bob.data.other_sets import PartedDataset
from bob.errors import UserError
from bob.features.reading import FEATURE, Reading
from bob.outliers.base import Score
from bob.outliers.distances import KthNearest, Mahalanobis, Vim
from bob.outliers.head import LinearHead
from bob.outliers.logits import Energy, MaximumLogit, MaximumSoftmax, Odin
from bob.outliers.shaping import Ash, FeatureShaping, React, She
from bob.probes.logistic import LogisticRegression
from bob.results.ood_detection import KNOWN, OODDetectionPredictions
from bob.task_cards import TaskCard


@dataclass(frozen=True)
class FittedHead:
    """The linear head of the known classes, how its L2 strength was chosen, and the seconds that took."""

    head: LinearHead
    choice: Choice
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scoring(Protocol):
    """A score of outliers, fitted on the features of the known classes' training images.

    The head that most scores read is the probe of classification's `linear` protocol, chosen and fitted alike, once for
    all scores of a backbone. Nothing is chosen by outliers: settings are the published ones.

    Attributes:
        score: The score.
    """

    score: type[Score]

    @property
    def readings(self) -> tuple[Reading, ...]:
        """See `Protocol.readings`."""
        return (FEATURE,)

    def as_dict(self) -> dict[str, Any]:
        """See `Protocol.as_dict`."""
        own = {"score": self.score.__name__, "settings": self.score().settings()}
        return super().as_dict() | own | ({"head": self._linear.as_dict()} if self.score.needs_head else {})

    def require(self, task: TaskCard, dataset: Dataset) -> None:
        """See `Protocol.require`."""
        LINEAR.require(task, dataset)
        images = sum(len(dataset.splits[name]) for name in self.final_splits)
        k = self.score().settings().get("k", 0)
        if images < k:
            raise UserError(
                f"{task.name} has {images} training images, too few for '{self.title}', which looks at the {k}th "
                "nearest.",
                "Add some, or take another score.",
            )

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`."""
        fitted = self._head(given, seed) if self.score.needs_head else None
        started = time.perf_counter()
        features, labels = self._training(given)
        score = self.score(device=str(given.how.device))
        score.fit(features, labels, len(given.dataset.classes), fitted.head if fitted else None)
        ready = time.perf_counter()
        scores = score.score(given.features("test"))
        seconds = {"fit": ready - started, "predict": time.perf_counter() - ready}
        if fitted is None:
            return Outcome(scores, {}, [], (), seconds, width=features.shape[1])
        # Its cost stands in every record, as that of the features does, though it was fitted for all scores at once.
        seconds = {"head": fitted.seconds, **seconds}
        return Outcome(scores, fitted.choice.point, fitted.choice.grid, fitted.notes, seconds, width=features.shape[1])

    @property
    def _linear(self) -> Any:
        return replace(LINEAR, shots=self.shots)

    def _head(self, given: Inputs, seed: int) -> FittedHead:
        fitted: FittedHead = given.once(("linear head", self.shots, seed), lambda: self._fit_head(given, seed))
        return fitted

    def _fit_head(self, given: Inputs, seed: int) -> FittedHead:
        started = time.perf_counter()
        choice = self._linear.choose(given, seed)
        features, labels = self._training(given)
        probe = LogisticRegression(**choice.point, device=str(given.how.device))
        probe.fit(features, labels, len(given.dataset.classes))
        notes = () if probe.converged_ else ("the linear head's final fit did not converge",)
        return FittedHead(LinearHead.of(probe), choice, choice.notes + notes, time.perf_counter() - started)

    def _training(self, given: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels that the head and the scores are fitted on."""
        labels = [given.dataset.splits[name].labels for name in self.final_splits]
        features = [given.features(name) for name in self.final_splits]
        return np.concatenate(features), np.concatenate(labels)


def _scoring(name: str, score: type[Score], description: str) -> Scoring:
    return Scoring(name=name, version=1, description=description, score=score)


class OODDetection(Adapter):
    """Images of the known classes and outliers, to be told apart; `test` holds both, and only `judge` knows which.

    Validation has images of the known classes alone, so the head is chosen as a classifier is.
    """

    protocols: ClassVar = named(
        [
            _scoring("msp", MaximumSoftmax, "Maximum softmax probability of the linear head."),
            _scoring("max_logit", MaximumLogit, "Maximum logit of the linear head."),
            _scoring("energy", Energy, "Free energy of the linear head's logits."),
            _scoring("odin", Odin, "Softmax at temperature 1000 after ODIN's step, in the standardised feature."),
            _scoring("mahalanobis", Mahalanobis, "Mahalanobis distance to the nearest class mean, shared covariance."),
            _scoring("vim", Vim, "Virtual-logit matching: energy and what the principal space leaves over."),
            _scoring("knn", KthNearest, "Distance to the 50th nearest training image, on the unit sphere."),
            _scoring("react", React, "Energy of features clipped at their 90th percentile."),
            _scoring("ash", Ash, "Energy of features of which the largest 35% are kept and made equal (ASH-B)."),
            _scoring("she", She, "Inner product with the pattern of the predicted class."),
            _scoring("feature_shaping", FeatureShaping, "Logit of features weighed by size, in closed form."),
        ]
    )
    choose_by: ClassVar = Classification.choose_by

    def judge(self, dataset: Dataset, split: str, predicted: np.ndarray) -> OODDetectionPredictions:
        """See `Adapter.judge`; `predicted` is (n,), a score for each image of a test split made of several sets."""
        if not isinstance(dataset, PartedDataset) or split != "test":
            raise TypeError(
                f"Expected the test split of a data set with outliers, but got '{split}' of {dataset.source}."
            )
        others = dataset.open_parts()[1:]
        members = np.full(len(dataset.splits[split]), KNOWN, dtype=np.int64)
        for number, part in enumerate(others):
            members[part.rows] = number
        return OODDetectionPredictions.from_scores(
            dataset.splits[split].names,
            predicted,
            members,
            [part.name for part in others],
            [part.said["near"] for part in others],
        )

    def scores(self, dataset: Dataset, split: str, predicted: np.ndarray) -> dict[str, float]:
        """See `Adapter.scores`; of the linear head, on images of the known classes."""
        return Classification().scores(dataset, split, predicted)
