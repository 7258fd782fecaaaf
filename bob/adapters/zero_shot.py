"""Zero-shot classification: the text tower names the classes, and nothing is fitted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import softmax

from bob.adapters.base import Inputs, Outcome, Protocol
from bob.adapters.modifiers import Shots
from bob.backbones.base import Backbone
from bob.backbones.text_tower import TextTower
from bob.errors import UserError
from bob.features.reading import FEATURE, Reading
from bob.probes.prompts import Template, fill, templates
from bob.probes.zero_shot import zero_shot_logits, zero_shot_weights
from bob.task_cards import TaskCard

_ANY_CLASS = "CLASS"  # in the prompts of a record; templates may be functions, which no record can hold


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Protocol):
    """Image embeddings compared with the mean text embedding of each class's prompts (CLIP, arXiv 2103.00020, 3.1)."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """See `Protocol.readings`."""
        return (FEATURE,)

    def with_shots(self, shots: Shots) -> Protocol:
        """See `Protocol.with_shots`; zero-shot sees no image of the task."""
        raise UserError(f"The protocol '{self.name}' sees no training image.", f"Take it without '@{shots}'.")

    def text_identity(self, backbone: Backbone, task: TaskCard, classes: Sequence[str]) -> dict[str, Any]:
        """See `Protocol.text_identity`: the tower, its tokenizer and the prompts."""
        tower = _tower(backbone).text_identity()
        spelled = [fill(template, _ANY_CLASS) for template in prompts_of(task)]
        return {**tower, "prompts": spelled, "class_names": readable(classes)}

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`."""
        tower, started = _tower(given.backbone.to(given.how.device)), time.perf_counter()
        weights = zero_shot_weights(tower, readable(given.dataset.classes), prompts_of(given.task))
        named = time.perf_counter()
        features = given.features("test")
        logits = zero_shot_logits(features, weights, tower.logit_scale, tower.logit_bias)
        seconds = {"text": named - started, "predict": time.perf_counter() - named}
        return Outcome(softmax(logits, axis=1), {}, [], (), seconds, width=features.shape[1])


def prompts_of(task: TaskCard) -> Sequence[Template]:
    """The templates that a task's card asks for.

    Raises:
        UserError: If it names a set that there is not.
    """
    return templates(task.prompts) if isinstance(task.prompts, str) else tuple(task.prompts)


def readable(classes: Sequence[str]) -> list[str]:
    """Class names as a sentence would have them: words with spaces instead of underscores."""
    return [name.replace("_", " ") for name in classes]


def _tower(backbone: Backbone) -> TextTower:
    if not isinstance(backbone, TextTower):
        raise UserError(
            f"Backbone '{backbone.card.name}' has no text tower, which zero_shot needs.",
            "Take a vision-language backbone (`bob list backbones --paradigm vlm`), or another protocol.",
        )
    return backbone
