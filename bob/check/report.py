"""Everything that one `bob check` found out: facts, findings, and the verdict."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bob.backbones.base import Backbone
from bob.check.base import Finding, Subject, open_subject
from bob.check.batchnorm import check_batchnorm
from bob.check.behaviour import check_determinism, check_drift, check_frozen, check_neighbours, check_scale
from bob.check.features import check_dimensions, check_pooling, check_rank
from bob.check.knn import TWIN_IMAGES, check_knn, pixels_rival, random_rival, shape_features
from bob.check.normalisation import check_normalisation
from bob.check.reference import MOST_IMAGES, check_reference
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.features.store import SHARD_ROWS
from bob.machine import count_flops, peak_memory_bytes
from bob.plan import seconds_per_image
from bob.progress import Reporter

# Findings that judge what was learnt; of a baseline, which learnt nothing, they are told and not held against it.
_ABOUT_LEARNING = ("batchnorm", "rank", "dimensions", "pooling", "knn", "parameters")


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        facts: The backbone's source, identity, size and cost, JSON-ready.
        findings: In the order of the checks.
    """

    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.status != "fail" for finding in self.findings)

    def lines(self) -> list[str]:
        """For people: the facts, a line for each finding, the verdict."""
        return [
            *(f"{key}: {value}" for key, value in _readable(self.facts)),
            "",
            *map(_line, self.findings),
            "",
            self.verdict(),
        ]

    def verdict(self) -> str:
        """One sentence: what to make of it."""
        named = {status: [f.name for f in self.findings if f.status == status] for status in ("fail", "warn")}
        if named["fail"]:
            return f"FAIL: {', '.join(named['fail'])}. Scores of this backbone mean nothing before this is mended."
        if named["warn"]:
            return f"WARN: {', '.join(named['warn'])}. Nothing failed; read these lines before trusting scores."
        if skipped := [finding.name for finding in self.findings if finding.status == "skip"]:
            return f"PASS: {len(self.findings) - len(skipped)} checks; skipped: {', '.join(skipped)}."
        return f"PASS: all {len(self.findings)} checks."

    def to_json(self) -> str:
        """One JSON document."""
        findings = [finding.as_dict() for finding in self.findings]
        content = {"facts": self.facts, "findings": findings, "passed": self.passed, "verdict": self.verdict()}
        return json.dumps(_finite(content), indent=1)


def examine(
    backbone: Backbone,
    how: Extraction,
    data_root: Path,
    reporter: Reporter,
    quick: bool = False,
    sheet: Path | None = None,
) -> Report:
    """Run every check on an opened backbone.

    Args:
        backbone: Opened.
        how: Device and precision of the runs to come.
        data_root: Where ImageNet may lie.
        reporter: Told what happens.
        quick: Leave out k-NN on `shapes`; rank and dimensions then rest on fewer images.
        sheet: Where its contact sheet lies, for the report.
    """
    identity = backbone.identity()
    subject = open_subject(backbone, how)
    reporter.say(f"{subject.name}: behaviour on {len(subject.photographs) + len(subject.shapes)} images")
    findings = list(_collect(_behaviour(subject, identity["weights_sha256"])))
    if quick:
        findings += _collect(_about_features(subject, lambda: _few_features(subject)))
    else:
        sound = all(finding.status != "fail" for finding in findings)
        findings += _on_shapes(subject, identity, reporter, keep=sound)
    with reporter.images(f"{subject.name} on ImageNet", MOST_IMAGES) as advance:
        findings += _collect([("reference", lambda: check_reference(subject, data_root, advance))])
    reporter.say(f"{subject.name}: speed and memory")
    judged = tuple(_leniently(finding) if subject.is_baseline else finding for finding in findings)
    return Report({**_facts(subject, identity), "sheet": None if sheet is None else str(sheet)}, judged)


def _behaviour(subject: Subject, weights_sha256: str) -> list[tuple[str, Callable[[], Finding]]]:
    return [
        ("frozen", lambda: check_frozen(subject, weights_sha256)),
        ("determinism", lambda: check_determinism(subject)),
        ("neighbours", lambda: check_neighbours(subject)),
        ("scale", lambda: check_scale(subject)),
        ("drift", lambda: check_drift(subject)),
        ("normalisation", lambda: check_normalisation(subject)),
        ("batchnorm", lambda: check_batchnorm(subject)),
        ("parameters", lambda: _check_parameters(subject.backbone)),
    ]


def _about_features(subject: Subject, features: Callable[[], np.ndarray]) -> list[tuple[str, Callable[[], Finding]]]:
    return [
        ("pooling", lambda: check_pooling(subject)),
        ("rank", lambda: check_rank(features())),
        ("dimensions", lambda: check_dimensions(features())),
    ]


def _few_features(subject: Subject) -> np.ndarray:
    """Features of the subject's own images."""
    return subject.embed(subject.mixed(len(subject.photographs), len(subject.shapes))).numpy()


def _collect(checks: Iterable[tuple[str, Callable[[], Finding]]]) -> Iterator[Finding]:
    """Carry the checks out; where the backbone cannot even be run, that is the finding."""
    for name, check in checks:
        try:
            yield check()
        except UserError as error:
            yield Finding(name, "fail", error.problem.rstrip("."), error.remedy)


def _on_shapes(subject: Subject, identity: dict[str, Any], reporter: Reporter, keep: bool) -> list[Finding]:
    """What the features of `shapes` tell."""
    started = time.perf_counter()
    try:
        with reporter.images(f"{subject.name} on shapes", SHARD_ROWS) as advance:
            features = subject.run(lambda: shape_features(subject.backbone, identity, subject.how, advance, keep))
        with reporter.images("random initialisation on shapes", TWIN_IMAGES) as advance:
            rivals = [random_rival(subject, advance), pixels_rival(subject)]
    except UserError as error:
        return [Finding("knn", "fail", error.problem.rstrip("."), error.remedy)]
    reporter.say(f"{subject.name}: k-NN on {len(features)} shapes, {time.perf_counter() - started:.1f} s")
    found = [check_knn(subject, features, [rival for rival in rivals if rival is not None])]
    return [*found, *_collect(_about_features(subject, lambda: features))]


def _check_parameters(backbone: Backbone) -> Finding:
    """Compare the number of parameters with the card's."""
    found, declared = backbone.parameter_count(), backbone.card.parameters
    detail = f"{found:,}" + ("" if declared is None else f"; the card says {declared:,}")
    if declared in (None, found):
        return Finding("parameters", "pass", detail, values={"found": found, "declared": declared})
    remedy = "Correct weights.model or weights.options, or `parameters` on the card."
    return Finding("parameters", "fail", detail, remedy, {"found": found, "declared": declared})


def _leniently(finding: Finding) -> Finding:
    """A baseline is meant to be untrained; what follows from that is a warning."""
    if finding.status != "fail" or finding.name not in _ABOUT_LEARNING:
        return finding
    return replace(finding, status="warn", remedy=f"Expected of a baseline. Otherwise: {finding.remedy}")


def _facts(subject: Subject, identity: dict[str, Any]) -> dict[str, Any]:
    backbone, how = subject.backbone, subject.how
    return {
        "backbone": subject.name,
        "source": identity["model"],
        "paradigm": backbone.card.paradigm,
        "identity": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "weights_sha256": identity["weights_sha256"],
        "preprocess": identity["preprocess"],
        "width": backbone.width(),
        "parameters": backbone.parameter_count(),
        "flops": count_flops(backbone),
        "device": str(how.device),
        "precision": how.precision,
        "images_per_second": _speed(subject),
        "peak_memory_bytes": peak_memory_bytes(how.device),
    }


def _speed(subject: Subject) -> float | None:
    """Images a second; None if the user's code does not take a batch."""
    with contextlib.suppress(UserError):
        return 1 / subject.run(lambda: seconds_per_image(subject.backbone, subject.how))
    return None


def _readable(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts as people read them."""
    size = " x ".join(map(str, facts["preprocess"]["size"]))
    yield "backbone", f"{facts['backbone']} ({facts['source']}, {facts['paradigm']})"
    yield "identity", f"{facts['identity'][:16]}, weights {facts['weights_sha256'][:16]}"
    yield "input", f"{size}, {facts['preprocess']['crop_mode']}, {facts['preprocess']['interpolation']}"
    yield "feature", f"D = {facts['width']}"
    yield "size", f"{facts['parameters'] / 1e6:.2f} M parameters, {facts['flops'] / 1e9:.2f} GFLOPs an image"
    speed = "?" if facts["images_per_second"] is None else f"{facts['images_per_second']:.1f}"
    memory = f"peak memory {facts['peak_memory_bytes'] / 2**20:.0f} MiB"
    yield "cost", f"{speed} images/s on {facts['device']} in {facts['precision']}, {memory}"
    if facts["sheet"]:
        yield "what it sees", facts["sheet"]


def _line(finding: Finding) -> str:
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{finding.status.upper()} {finding.name}: {finding.detail}{remedy}"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
