"""Records by the hundred thousand, byte for byte as bob writes them; a part of `leaderboard.py`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json

from bob.catalogue import load_backbone_cards, load_task_cards
from bob.cores import granted_cores
from bob.results.draws import KEPT_RESAMPLES
from bob.results.metrics import get_metric
from bob.results.reading import read_record
from bob.results.record import RECORD_FILE, RUNS, Cost, Record, Request, sealed

_PLACE = re.compile(r'"<(\w+)>"')
_GRID = [{"l2": float(10.0 ** (k / 2))} for k in range(-9, 4)]
_CLASSES = 20
_SHARE = 0.8  # correlation of two backbones' scores over resamples of the test images


def write_records(results: Path, backbones: int, tasks: int) -> None:
    """Write a record for every pair of so many backbones and tasks, and say how long it took."""
    started = time.perf_counter()
    (results / RUNS).mkdir(parents=True, exist_ok=True)
    cards = _backbone_cards(backbones)
    forms = [_Form.of(number) for number in range(tasks)]
    chunks = [list(range(start, min(start + 10, backbones))) for start in range(0, backbones, 10)]
    with ProcessPoolExecutor(granted_cores(), mp_context=get_context("fork")) as pool:
        write = partial(_write_some, results / RUNS, cards, forms)
        written = sum(pool.map(write, chunks))
    _require_as_written(results / RUNS)
    print(f"{written:,} records written in {time.perf_counter() - started:.0f} s")


def _backbone_cards(count: int) -> list[dict[str, Any]]:
    known = [card.model_dump(mode="json") for card in load_backbone_cards([]).values()]
    return [{**known[k % len(known)], "name": f"backbone_{k:04d}"} for k in range(count)]


@dataclass(frozen=True)
class _Form:
    """The text of all records of one task, cut where they differ.

    Attributes:
        pieces: Text, a key, text, a key, ..., text.
        request: The same of what the run's id is the hash of.
        name: Of the task.
        metrics: Their names, the primary one first.
        n: Size of the test split.
        shared: (draws,) what the resamples of the test images do to all backbones.
    """

    pieces: tuple[str, ...]
    request: tuple[str, ...]
    name: str
    metrics: tuple[str, ...]
    n: int
    shared: np.ndarray

    @classmethod
    def of(cls, number: int) -> _Form:
        """The form of task number `number`: a card of the repository's under another name."""
        known = sorted(load_task_cards().values(), key=lambda card: card.name)
        card = known[number % len(known)]
        rng = np.random.default_rng([1, number])
        name, n = f"task_{number:03d}", int(rng.integers(500, 10_000))
        record = _example({**card.model_dump(mode="json"), "name": name}, card.primary, tuple(card.metrics), n)
        content = record.model_dump(mode="json") | {
            **{key: f"<{key}>" for key in ("content_sha256", "run_id", "card", "resampled", "predictions_sha256")},
            **{key: f"<{key}>" for key in ("metrics", "per_class", "grid", "command", "created", "cost")},
        }
        text = to_json(content, indent=1).decode() + "\n"
        request = json.dumps(content["request"], sort_keys=True)
        shared = rng.standard_normal(KEPT_RESAMPLES)
        pieces, parts = (tuple(_PLACE.split(whole)) for whole in (text, request))
        return cls(pieces, parts, name, tuple(record.request.metrics), n, shared)


def _example(task_card: dict[str, Any], primary: str, metrics: tuple[str, ...], n: int) -> Record:
    splits = {name: {"n": size, "sha256": _hex(name)} for name, size in (("train", 8 * n), ("val", n), ("test", n))}
    identity = {"model": "timm:resnet50", "options": {}, "weights_sha256": "<weights>", "code": {"timm": "1.0.29"}}
    request = Request(
        backbone="<backbone>",
        backbone_identity={**identity, "preprocess": {"size": [224, 224], "crop_fraction": 0.95}},
        task=task_card["name"],
        task_version=1,
        data={"classes": _CLASSES, "images_sha256": {name: _hex(name) for name in splits}, "splits": splits},
        protocol={"name": "linear", "version": 3, "probe": "LogisticRegression", "grid": _GRID},
        metrics=(primary, *(name for name in metrics if name != primary)),
        seed=0,
        precision="float32",
    )
    packages = {name: "1.2.3" for name in ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "scikit-learn")}
    where = {"bob": "0.7.0", "python": "3.11.7", "platform": "Linux x86_64", "packages": packages, "device": "cpu"}
    return Record(
        run_id="",
        request=request,
        card={},
        task_card=task_card,
        data_facts={"splits": "train: the source's own; test: the source's own", "split_seed": 0},
        feature_width=2048,
        chosen={"l2": 1.0},
        grid=[],
        notes=("chosen at the edge of the grid: l2 = 1.0",),
        primary=primary,
        metrics={},
        per_class=[],
        environment={**where, "cores": 2, "threads": 2},
        cost=Cost(seconds={}, images_per_second=1, waiting_fraction=0, peak_memory_bytes=1, parameters=1, flops=1),
        created="",
    )


def _write_some(runs: Path, cards: list[dict[str, Any]], forms: list[_Form], numbers: list[int]) -> int:
    for number in numbers:
        for place, form in enumerate(forms):
            folder, content = _record_of(cards[number], number, form, place)
            os.mkdir(runs / folder)
            with open(runs / folder / RECORD_FILE, "wb") as file:
                file.write(content)
    return len(numbers) * len(forms)


def _record_of(card: dict[str, Any], number: int, form: _Form, place: int, draw: int = 0) -> tuple[str, bytes]:
    """Name of the folder and text of the record of one pair; another `draw` gives another score."""
    rng = np.random.default_rng([2, number, place, draw])
    ability = float(np.random.default_rng([3, number]).standard_normal())
    score = 1 / (1 + np.exp(-(0.8 * ability + 0.3 * rng.standard_normal() + 0.5)))
    deviation = np.sqrt(score * (1 - score) / form.n)
    own = rng.standard_normal(KEPT_RESAMPLES)
    draws = score + deviation * (np.sqrt(_SHARE) * form.shared + np.sqrt(1 - _SHARE) * own)
    recalls, points = rng.random(_CLASSES).tolist(), rng.random((len(_GRID), 2)).tolist()
    values: dict[str, Any] = {
        "backbone": card["name"],
        "weights": _hex(card["name"]),
        "card": card,
        "metrics": {name: _result(name, float(score), float(deviation), form.n) for name in form.metrics},
        "resampled": base64.b64encode(draws.astype("<f4").tobytes()).decode(),
        "per_class": [{"class": f"class {k}", "n": form.n // _CLASSES, "recall": r} for k, r in enumerate(recalls)],
        "grid": [{**g, "val_top1": a, "val_nll": b} for g, (a, b) in zip(_GRID, points, strict=True)],
        "predictions_sha256": _hex(f"{number} {place} {draw}"),
        "command": f"bob run --backbone {card['name']} --task {form.name} --protocol linear --seed 0",
        "created": "2026-01-01T00:00:00.000+00:00",
        "content_sha256": "",
        "cost": _cost(number, score),
    }
    request = _filled(form.request, values)
    values["run_id"] = hashlib.sha256(request.encode()).hexdigest()[:16]
    text = _filled(form.pieces, values)
    digest = hashlib.sha256(text.encode()).hexdigest()
    sealed_text = text.replace('"content_sha256": ""', f'"content_sha256": "{digest}"', 1)
    return f"{card['name']}__{form.name}__linear__s0__{values['run_id']}", sealed_text.encode()


def _result(name: str, score: float, deviation: float, n: int) -> dict[str, Any]:
    low, high = max(score - 1.96 * deviation, 0.0), min(score + 1.96 * deviation, 1.0)
    return {"value": score, "low": low, "high": high, "n": n, "higher_is_better": get_metric(name).higher_is_better}


def _cost(number: int, score: float) -> dict[str, Any]:
    seconds = {"load": 1.5, "extract": 60.0 + 40.0 * float(score), "fit": 12.25, "bootstrap": 0.5}
    size = {"parameters": 5_000_000 + 300_000 * number, "flops": 500_000_000 + 90_000_000 * number}
    speed = {
        "images_per_second": 5000 / (1 + number / 50),
        "waiting_fraction": 0.125,
        "peak_memory_bytes": 2_000_000_000,
    }
    return {"seconds": seconds, **speed, **size}


def _filled(pieces: tuple[str, ...], values: dict[str, Any]) -> str:
    """The text with each value in its place, as JSON indented like what is around it."""
    parts = list(pieces)
    for place in range(1, len(parts), 2):
        value = values[parts[place]]
        is_nested = isinstance(value, (dict, list))
        parts[place] = to_json(value, indent=1).decode().replace("\n", "\n ") if is_nested else f'"{value}"'
    return "".join(parts)


def _require_as_written(runs: Path) -> None:
    """Make sure that the first record has the very bytes that bob would have written, and the name."""
    folder = min(runs.iterdir())
    record = read_record(folder / RECORD_FILE)
    if sealed(record) != (folder / RECORD_FILE).read_text(encoding="utf-8"):
        sys.exit(f"{folder} is not what bob would write. The form of records has changed: change this script.")
    if record.request.folder_name() != folder.name:
        sys.exit(f"{folder} should be called {record.request.folder_name()}.")


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
