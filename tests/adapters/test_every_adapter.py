"""Whatever the kind of task: a run on built-in images keeps one contract from the sealed test split to the record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bob.adapters.registry import ADAPTERS
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.catalogue import load_backbone_cards
from bob.data.sources import load_task
from bob.features.extract import Extraction
from bob.features.reading import FEATURE
from bob.progress import Reporter
from bob.requested import Settings
from bob.results.metrics import get_metric
from bob.results.reading import predictions_of, read_record
from bob.results.record import RECORD_FILE
from bob.run import provide_features, run_all
from bob.task_cards import DENSE, TaskCard
from bob.workbench import Workbench

SHAPES = {"source": "shapes"}
CARDS: dict[str, dict[str, Any]] = {
    "classification": {"data": SHAPES, "protocols": ["knn"]},
    "multilabel": {"data": {"source": "shapes_multilabel"}, "protocols": ["knn"]},
    "ood": {"data": SHAPES, "protocols": ["knn"], "sets": [{"name": "grey", "source": "shapes_grey"}]},
    "ood_detection": {"data": SHAPES, "protocols": ["mahalanobis"], "sets": [{"name": "n", "source": "shapes_noise"}]},
    "factors": {"data": SHAPES, "protocols": ["knn"]},
    "retrieval": {"data": SHAPES, "retrieval": {"rule": "splits"}},
}


@pytest.fixture(scope="module", autouse=True)
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One BOB_HOME for all, so that images are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module", params=CARDS)
def card(request: pytest.FixtureRequest) -> TaskCard:
    return TaskCard.model_validate({"name": f"toy_{request.param}", "adapter": request.param, **CARDS[request.param]})


@pytest.fixture(scope="module")
def bench(card: TaskCard, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Raw pixels on the task, with every feature stored."""
    backbone = open_backbone(resolve_backbone("pixels", load_backbone_cards()))
    settings = Settings(tmp_path_factory.mktemp("results"), Extraction(torch.device("cpu"), workers=0))
    bench = Workbench(backbone, backbone.identity(), card, load_task(card), settings)
    provide_features(bench, {FEATURE}, card.name, Reporter(quiet=True))
    return bench


def test_all_kinds_are_here() -> None:
    assert set(CARDS) == set(ADAPTERS) - set(DENSE)  # those train, and have tests of their own


def test_what_is_tested_is_sealed(bench: Workbench) -> None:
    [job, *_] = bench.jobs
    given = bench.inputs(job, Reporter(quiet=True))
    split = given.dataset.splits[bench.adapter.tested]
    for ask in (lambda: split.labels, lambda: split.images.labels, lambda: split.checksum()):
        with pytest.raises(RuntimeError, match="sealed"):
            ask()
    with pytest.raises(RuntimeError, match="sealed"):
        bench.adapter.judge(given.dataset, bench.adapter.tested, job.protocol.run(given, 0).predicted)


def test_request_is_json_and_the_same_again(bench: Workbench, card: TaskCard) -> None:
    again = Workbench(bench.backbone, bench.backbone.identity(), card, load_task(card), bench.settings)
    ids = [[job.request.run_id() for job in each.jobs] for each in (bench, again)]
    assert ids[0] == ids[1]
    json.dumps(bench.dataset.identity(), allow_nan=False)


def test_predictions_have_what_the_card_asks_for(bench: Workbench, tmp_path: Path) -> None:
    [job, *_] = bench.jobs
    outcome = job.protocol.run(bench.inputs(job, Reporter(quiet=True)), 0)
    judged = bench.adapter.judge(job.dataset, bench.adapter.tested, outcome.predicted)
    assert len(judged) == len(judged.names) > 0
    for name in job.request.metrics:
        metric = get_metric(name, bench.task.adapter)
        if name == bench.task.primary or metric.defined_on(judged):
            value = metric.compute(judged)
            ones = np.ones((len(judged), 1))
            assert metric.weighted(judged)(ones)[0] == pytest.approx(value, abs=1e-12)
    json.dumps([judged.per_class(), judged.per_group(), judged.breakdown()], allow_nan=False)
    json.dumps([outcome.chosen, outcome.grid, outcome.notes, outcome.seconds], allow_nan=False)


def test_record_can_be_computed_again_from_its_predictions(bench: Workbench, card: TaskCard, tmp_path: Path) -> None:
    settings = Settings(tmp_path, bench.settings.how)
    runs = []
    for _ in range(2):
        summary = run_all([bench.backbone.card], [card], settings, Reporter(quiet=True))
        assert not summary.failed and len(summary.written) == len(bench.jobs)
        path = summary.written[0] / RECORD_FILE
        record, judged = read_record(path), predictions_of(path)
        for name, result in record.metrics.items():
            assert get_metric(name).compute(judged) == result.value
            assert result.low <= result.high and result.n == len(judged)
        assert record.breakdown == judged.breakdown() and record.per_class == judged.per_class()
        assert run_all([bench.backbone.card], [card], settings, Reporter(quiet=True)).present == summary.written
        runs.append((record.run_id, record.metrics, record.predictions_sha256))
        shutil.rmtree(summary.written[0].parent)
    assert runs[0] == runs[1]
