"""What the page of results knows, as compact JSON: arrays by column, with every text that repeats kept once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bob.report.chart_data import paradigms
from bob.report.encode import Numbered, compact
from bob.report.looks import INK, LOOKS
from bob.report.views import views

if TYPE_CHECKING:
    from bob.report.backbones import Details
    from bob.report.findings import Findings

# Stands for the backbone in a command: those of a setting then differ in nothing, and no command has a NUL.
PLACE = "\0"
Json = dict[str, Any]


def payload(findings: Findings) -> Json:
    """Everything that the page's script reads; the same findings give the same content.

    Numbers have six digits, and what is not known is null. Times are seconds since 1970.

    Args:
        findings: What the report is about.
    """
    table = findings.cells.table
    names = sorted(table["backbone"].unique())
    settings = table.drop_duplicates("setting").sort_values("setting")
    backbones = {name: number for number, name in enumerate(names)}
    numbers = {name: number for number, name in enumerate(settings["setting"])}
    words = Numbered()
    facts = _backbone_facts(names, findings)
    return {
        "policy": vars(findings.policy),
        "paradigms": _paradigms(facts["paradigm"]),
        "backbones": _backbones(names, facts, words),
        "quoted": [shlex.quote(name) for name in names],
        "settings": _settings(settings),
        **_cells(table, backbones, numbers),
        **_runs(findings, backbones, settings.set_index(["task", "protocol", "metric"])["setting"].map(numbers), words),
        "views": views(findings, backbones, numbers),
        "cards": [_card(findings.details.get(name)) for name in names],
        "sheets": [findings.details[name].sheet if name in findings.details else None for name in names],
        "words": words.texts,
    }


def _backbone_facts(names: list[str], findings: Findings) -> pd.DataFrame:
    """What is known of each backbone: by its newest run, else by what a published table says."""
    newest = findings.runs.sort_values(["created", "run_id"]).drop_duplicates("backbone", keep="last")
    columns = ["method", "architecture", "parameters"]
    facts = newest.set_index("backbone")[columns].reindex(names).astype({"parameters": np.float64})
    facts["paradigm"] = paradigms(pd.Series(names, index=names), findings.runs)
    published = findings.cells.table.drop_duplicates("backbone").set_index("backbone").reindex(names)
    own = facts.index.isin(newest["backbone"])
    for column in ("architecture", "parameters", "paradigm"):
        if column in published:
            said = (
                published[column].where(published[column].isin(list(LOOKS)), "unknown")
                if column == "paradigm"
                else published[column]
            )
            facts[column] = facts[column].where(own, said)
    return facts


def _paradigms(of_backbones: pd.Series[str]) -> list[Json]:
    """Those that occur, in the order of the charts."""
    return [
        {
            "name": name,
            "label": look.name,
            "colour": None if look.colour == INK else look.colour,
            "count": int((of_backbones == name).sum()),
        }
        for name, look in _occurring(of_backbones)
    ]


def _occurring(of_backbones: pd.Series[str]) -> list[tuple[str, Any]]:
    present = set(of_backbones)
    return [(name, look) for name, look in LOOKS.items() if name in present]


def _backbones(names: list[str], facts: pd.DataFrame, words: Numbered) -> Json:
    order = {name: number for number, (name, _) in enumerate(_occurring(facts["paradigm"]))}
    return {
        "name": names,
        "paradigm": [order[name] for name in facts["paradigm"]],
        "method": words.numbers(facts["method"]),
        "architecture": words.numbers(facts["architecture"]),
        "parameters": compact(facts["parameters"]),
    }


def _settings(settings: pd.DataFrame) -> Json:
    return {
        "name": settings["setting"].tolist(),
        "task": settings["task"].tolist(),
        "protocol": settings["protocol"].tolist(),
        "metric": settings["metric"].tolist(),
        "higher": [bool(value) for value in settings["higher_is_better"]],
    }


def _cells(table: pd.DataFrame, backbones: Mapping[str, int], settings: Mapping[str, int]) -> Json:
    ordered = table.sort_values(["backbone", "setting"])
    sources = Numbered()
    sources.number("")  # our own runs
    return {
        "cells": {
            "backbone": [backbones[name] for name in ordered["backbone"]],
            "setting": [settings[name] for name in ordered["setting"]],
            **{name: compact(ordered[name]) for name in ("score", "low", "high", "seeds", "n")},
            "source": sources.numbers(ordered["source"]),
        },
        "sources": sources.texts,
    }


def _runs(findings: Findings, backbones: Mapping[str, int], settings: pd.Series[int], words: Numbered) -> Json:
    runs = findings.runs.sort_values(["backbone", "task", "protocol", "seed", "run_id"])
    commands, environments = Numbered(), Numbered()
    templates = [_template(*pair) for pair in zip(runs["command"], runs["backbone"], strict=True)]
    keys = zip(runs["task"], runs["protocol"], runs["metric"], strict=True)
    return {
        "runs": {
            "backbone": [backbones[name] for name in runs["backbone"]],
            "setting": [int(settings[key]) for key in keys],
            **{name: compact(runs[name]) for name in ("seed", "score", "low", "high", "n")},
            "run_id": runs["run_id"].tolist(),
            "created": [int(datetime.fromisoformat(text).timestamp()) for text in runs["created"]],
            "command": commands.numbers(templates),
            "environment": environments.numbers(runs["environment"]),
            "notes": words.numbers(runs["notes"]),
        },
        "commands": commands.texts,
        "environments": [json.loads(text) for text in environments.texts],
    }


def _template(command: str, backbone: str) -> str:
    """A command with a mark for its backbone; the page puts the name back."""
    return command.replace(shlex.quote(backbone), PLACE)


def _card(details: Details | None) -> Json | None:
    if details is None:
        return None
    return {"fields": details.fields, "facts": details.facts, "references": details.references}
