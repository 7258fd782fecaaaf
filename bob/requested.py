"""What a user asks for: how to run, and by which protocols with which settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bob.adapters.base import Protocol
from bob.adapters.registry import ADAPTERS
from bob.engines.settings import require_setting
from bob.errors import UserError, did_you_mean
from bob.features.extract import Extraction
from bob.machine import launched_processes
from bob.results.metrics import get_metric
from bob.task_cards import TaskCard


@dataclass(frozen=True)
class Settings:
    """How to run, as opposed to what.

    Attributes:
        results: Folder of the records.
        how: Device, precision, batch size and workers.
        protocols: Names, with modifiers; empty for those of each task's card.
        seeds: One run for each; empty for those of each protocol.
        data_root: Folder of downloaded data sets; None for the default.
        recompute: Replace stored features and records instead of using them.
        overrides: Settings of a training protocol's recipe, by name.
        max_steps: Budget of a training run in optimizer steps; None for none.
        max_hours: Budget of a training run in hours; None for none.
    """

    results: Path
    how: Extraction
    protocols: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    data_root: Path | None = None
    recompute: bool = False
    overrides: dict[str, str] = field(default_factory=dict)
    max_steps: int | None = None
    max_hours: float | None = None


def protocols_of(task: TaskCard, settings: Settings) -> list[Protocol]:
    """The protocols asked for, or else those of the task's card, without repeats.

    Raises:
        UserError: If the task's adapter has no such protocol, the card names an unknown metric, or settings of a recipe
            are given and none of the protocols has a recipe.
    """
    for metric in (task.primary, *task.metrics):
        get_metric(metric, task.adapter)
    names = dict.fromkeys(settings.protocols or task.protocols)
    protocols = [_protocol(task, name) for name in names]
    if launched_processes()[1] > 1 and (alone := [p.title for p in protocols if not p.trains]):
        raise UserError(
            f"Several processes can share training, but not '{alone[0]}'.",
            "Run it without torchrun or accelerate launch, and training apart from it.",
        )
    taken = {key for protocol in protocols for key in protocol.settings}
    trains = any(protocol.trains for protocol in protocols)
    if not trains and (settings.max_steps or settings.max_hours or settings.overrides.keys() - taken):
        raise UserError(
            f"None of the protocols {', '.join(names)} trains, so --set, --max-steps and --max-hours mean nothing.",
            "Leave them out, or add a training protocol such as finetune.",
        )
    for key in settings.overrides:
        require_setting(key, taken)
    return [_configured(protocol, task, settings) for protocol in protocols]


def _configured(protocol: Protocol, task: TaskCard, settings: Settings) -> Protocol:
    """The protocol with the settings that it takes: the card's and, above these, the user's.

    Raises:
        UserError: If no protocol of the adapter takes a setting of the card, or the protocol not its value.
    """
    known = {key for own in ADAPTERS[task.adapter].protocols.values() for key in own.settings}
    for key in task.recipe:
        if key not in known:
            hint = did_you_mean(key, known) or f"Use some of {', '.join(sorted(known))}."
            raise UserError(f"The card of the task '{task.name}' has an unknown setting '{key}' in [recipe].", hint)
    asked = {**{key: str(value) for key, value in task.recipe.items()}, **settings.overrides}
    own = {key: value for key, value in asked.items() if key in protocol.settings}
    return protocol.configured(own, settings.max_steps, settings.max_hours)


def _protocol(task: TaskCard, spec: str) -> Protocol:
    own, name = ADAPTERS[task.adapter], spec.partition("@")[0]
    if name not in own.protocols and any(name in kind.protocols for kind in ADAPTERS.values()):
        raise UserError(
            f"The protocol '{name}' is not for tasks of the kind {task.adapter}, as {task.name} is.",
            f"Use one of {', '.join(own.protocols)}.",
        )
    return own.protocol(spec)
