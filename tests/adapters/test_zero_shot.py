"""The zero-shot protocol: a record with the text tower's identity in it, and one line where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from scipy.special import softmax

from bob.adapters.zero_shot import readable
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard, Feature, PreprocessOverride, Weights
from bob.catalogue import load_backbone_cards
from bob.data.sources import load_task
from bob.features.extract import Extraction
from bob.probes.zero_shot import zero_shot_logits, zero_shot_weights
from bob.progress import Reporter
from bob.requested import Settings
from bob.results.reading import predictions_of, read_record
from bob.run import run_all
from bob.task_cards import DataSpec, TaskCard

open_clip.add_model_config(Path(__file__).parents[1] / "backbones" / "open_clip_models")
HOW = Extraction(torch.device("cpu"), workers=0)


def _clip() -> BackboneCard:
    normal = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return BackboneCard(
        name="tiny_clip",
        weights=Weights(source="open_clip", model="tiny-vit", pretrained=False),
        preprocess=PreprocessOverride(size=(64, 64), **normal),
        feature=Feature(layer="image_embedding"),
    )


def _task(photos: Path, **more: object) -> TaskCard:
    return TaskCard(name="toy", adapter="classification", data=DataSpec(source=f"folder:{photos}"), **more)


def _run(card: BackboneCard, task: TaskCard) -> list[str | Path]:
    summary = run_all([card], [task], Settings(Path("results"), HOW, ("zero_shot",)), Reporter(quiet=True))
    return [*summary.failed, *summary.written]


def test_record_is_open_clips_recipe(home: Path, photos: Path) -> None:
    task = _task(photos, prompts=("a photo of a {}.", "art of the {}"))
    (folder,) = _run(_clip(), task)
    record, predictions = read_record(folder / "record.json"), predictions_of(folder / "record.json")
    backbone, dataset = open_backbone(_clip()), load_task(task)
    weights = zero_shot_weights(backbone, readable(dataset.classes), task.prompts)
    split = dataset.splits["test"]
    images = torch.stack([backbone.preprocess.crop(split.images.read(int(i))) for i in split.indices])
    with torch.inference_mode():
        features = backbone.embed(backbone.preprocess.normalize(images)).numpy()
    expected = softmax(zero_shot_logits(features, weights, backbone.logit_scale), axis=1)
    np.testing.assert_allclose(predictions.confidence, expected.max(axis=1), rtol=1e-4)
    text = record.request.backbone_identity["text"]
    assert text["prompts"] == ["a photo of a CLASS.", "art of the CLASS"] and text["class_names"] == list(
        dataset.classes
    )
    assert text["logit_scale"] == backbone.logit_scale and len(text["text_sha256"]) == 64
    assert record.chosen == {} and record.grid == []


def test_other_prompts_are_another_run(home: Path, photos: Path) -> None:
    (one,) = _run(_clip(), _task(photos))
    (other,) = _run(_clip(), _task(photos, prompts=("a sketch of a {}.",)))
    assert isinstance(one, Path) and isinstance(other, Path) and one != other


def test_no_text_tower(home: Path, photos: Path) -> None:
    (failure,) = _run(load_backbone_cards()["pixels"], _task(photos))
    assert "Backbone 'pixels' has no text tower, which zero_shot needs" in str(failure)


@pytest.mark.parametrize(("name", "words"), [("great_white_shark", "great white shark"), ("cat", "cat")])
def test_names_are_words(name: str, words: str) -> None:
    assert readable([name]) == [words]
