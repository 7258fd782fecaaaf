"""Retrieval searches without seeing what is relevant, and gives a constant backbone what chance gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from bob.adapters.base import Outcome, Protocol
from bob.adapters.retrieval import Retrieval
from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard, PreprocessOverride, Weights
from bob.catalogue import load_task_cards
from bob.data.base import ImageSet, Split
from bob.data.relevance import ByClass
from bob.data.retrieval import RetrievalDataset
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.features.multiscale import MULTISCALE, require_scales, scaled_size
from bob.features.reading import FEATURE, Reading
from bob.results.metrics import METRICS
from bob.results.reading import read_record
from bob.results.retrieval import RetrievalPredictions

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
SPECS = ["cosine", "whitened", pytest.param("cosine@faiss", marks=needs_faiss), "cosine@multiscale"]


class Labels(ImageSet):
    """Images that nobody looks at."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.names = [f"image {i}" for i in range(len(labels))]

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError("A search works on features, not on images.")

    def fingerprint(self) -> str:
        return "0" * 64


class Toy:
    """What a run is given, of features made up on the spot: 40 queries, 200 images, four classes."""

    def __init__(self, noise: float, width: int = 8, constant: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.how = Extraction(torch.device("cpu"))
        means = rng.normal(size=(4, width))
        splits, self._features = {}, {}
        for name, size in (("query", 40), ("database", 200)):
            labels = np.arange(size) % 4
            splits[name] = Split(Labels(labels), np.arange(size))
            made = np.ones((size, width)) if constant else means[labels] + noise * rng.normal(size=(size, width))
            self._features[name] = made.astype(np.float32)
        relevance = ByClass(*(splits[name].labels for name in ("query", "database")))
        splits["train"] = splits["database"]
        self.open = RetrievalDataset("toy", tuple("abcd"), splits, relevance=relevance, rule="two_level")
        self.dataset = self.open.sealed("query")

    def features(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        return self._features[split].copy()


def _run(spec: str, toy: Toy, seed: int = 0, **settings: str) -> tuple[Outcome, RetrievalPredictions]:
    protocol = Retrieval.protocol(spec).configured(settings, None, None)
    outcome = protocol.run(cast(Any, toy), seed)
    return outcome, Retrieval().judge(toy.open, "query", outcome.predicted)


@pytest.mark.parametrize("spec", SPECS)
def test_contract(spec: str) -> None:
    outcome, judged = _run(spec, Toy(noise=0.1))
    assert METRICS["retrieval_map"].compute(judged) > 0.95 and len(judged) == 40 and judged.database == 200
    assert judged.names == [f"image {i}" for i in range(40)] and judged.classes == tuple("abcd")
    assert outcome.chosen == {} and outcome.grid == []
    assert set(outcome.seconds) == {"prepare", "search"}, "the search is counted, though it waits for the judge"
    protocol = Retrieval.protocol(spec)
    assert protocol.title == spec == protocol.as_dict()["name"]
    json.dumps([outcome.notes, outcome.seconds, protocol.as_dict()], allow_nan=False)


@pytest.mark.parametrize("spec", ["cosine", pytest.param("cosine@faiss", marks=needs_faiss)])
def test_a_constant_backbone_gets_what_chance_gives(spec: str) -> None:
    """A quarter of the images is positive: MRR of a random order is 0.44 (1.0 if ties were settled in favour)."""
    toy = Toy(noise=0, constant=True)
    seeds = [METRICS["mrr"].compute(_run(spec, toy, seed)[1]) for seed in range(20)]
    chance = np.mean([1 / (1 + np.random.default_rng(i).permutation(200)[:50].min()) for i in range(4000)])
    # faiss draws one order for all queries of a run, so that a run is one draw for each of four classes.
    assert np.mean(seeds) == pytest.approx(chance, abs=0.05 if spec == "cosine" else 0.15)


def test_what_is_relevant_is_sealed_during_the_run() -> None:
    toy = Toy(noise=1)
    for read in (lambda: toy.dataset.answers(), lambda: toy.dataset.splits["query"].labels):  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="sealed"):
            read()


def test_settings_of_whitening() -> None:
    outcome, _ = _run("whitened", Toy(noise=1), dims="3")
    assert outcome.width == 3 and outcome.notes == ("whitened in 3 directions",)
    assert Retrieval.protocol("whitened").settings == {"dims"}
    assert Retrieval.protocol("cosine").settings == frozenset()


@needs_faiss
def test_settings_of_faiss() -> None:
    outcome, judged = _run("cosine@faiss", Toy(noise=1), depth="50", index="Flat")
    assert outcome.notes == ("of 200 images the first 50 of each ranking were looked at",)
    assert judged.ranks.min() == -1 and judged.ranks.max() < 50
    assert Retrieval.protocol("cosine@faiss").settings == {"index", "depth", "nprobe"}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Retrieval.protocol("cosine@5shot"), "sees no training image"),
        (lambda: Retrieval.protocol("cosine@block3"), "does not read single blocks"),
        (lambda: Retrieval.protocol("cosine@faiss@faiss"), "has a modifier twice"),
        (lambda: Retrieval.protocol("cosin"), "Unknown protocol 'cosin'. Did you mean: cosine"),
        (lambda: Retrieval.protocol("cosine@fais"), "no modifier '@fais'"),
        (lambda: Retrieval.protocol("whitened").configured({"dims": "0"}, None, None), "'0' is no dims"),
        (lambda: Retrieval.protocol("cosine@faiss").configured({"depth": "x"}, None, None), "'x' is no depth"),
    ],
)
def test_mistakes_are_one_line(ask: Callable[[], Protocol], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_every_card_of_retrieval_names_its_protocols() -> None:
    cards = [card for card in load_task_cards().values() if card.adapter == "retrieval"]
    assert len(cards) >= 12
    for card in cards:
        assert all(Retrieval.protocol(spec) for spec in card.protocols)


def _tiny(model: str) -> Backbone:
    small = PreprocessOverride(size=96, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    weights = Weights(source="timm", model=model, pretrained=False)
    return open_backbone(BackboneCard(name="tiny", weights=weights, preprocess=small))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """One that takes images of any size."""
    return _tiny("test_resnet")


class TestMultiscale:
    def test_sizes_fit_the_strides(self, backbone: Backbone) -> None:
        cell = max(backbone.strides)
        for reading in MULTISCALE[1:]:
            size = scaled_size(backbone, reading.scale)  # type: ignore[attr-defined]
            assert all(edge % cell == 0 for edge in size) and size < backbone.preprocess.size
            image = torch.zeros(3, 300, 200, dtype=torch.uint8)
            assert tuple(reading.crop(backbone)(image).shape) == (3, *size)

    def test_each_scale_has_a_store_of_its_own(self) -> None:
        assert MULTISCALE[0] == FEATURE, "the whole image is shared with every other protocol"
        assert len({str(reading.identity()) for reading in MULTISCALE}) == 3
        assert len({reading.crops for reading in MULTISCALE}) == 3

    def test_convolutions_take_every_size(self, backbone: Backbone) -> None:
        require_scales(backbone)

    def test_a_backbone_of_one_size_is_refused_in_one_line(
        self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(images: torch.Tensor) -> torch.Tensor:
            raise AssertionError(f"Input height ({images.shape[2]}) doesn't match model (96).")

        monkeypatch.setattr(backbone, "embed", refuse)
        message = "Backbone 'tiny' takes images of 96 x 96 px only, not of 64 x 64, which @multiscale needs"
        with pytest.raises(UserError, match=message) as caught:
            Retrieval.protocol("cosine@multiscale").expanded(backbone)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_folder_from_images_to_record(run_bob: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    card = (
        f'name = "mine"\nadapter = "retrieval"\n[data]\nsource = "folder:{photos}"\n[retrieval]\nquery_fraction = 0.3\n'
    )
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.toml").write_text(card)
    asked = ("run", "--tasks", tmp_path / "tasks", "-b", "pixels", "-t", "mine", "-p", "cosine")
    ended = run_bob(*asked)
    assert ended.code == 0, ended.err
    [path] = Path("results/runs").glob("*/record.json")
    record = read_record(path)
    assert record.primary == "retrieval_map" and record.metrics["mrr"].n == 9
    assert {row["class"] for row in record.per_class} == {"ant", "bee", "cat"}
    again = RetrievalPredictions.read(path.with_name("predictions.parquet"))
    assert METRICS["retrieval_map"].compute(again) == record.metrics["retrieval_map"].value
