"""A detector is trained on any backbone, goes on where it stopped, and finds what is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bob.backbones.preprocess import Preprocess
from bob.data.objects import decode_masks
from bob.engines import detection
from bob.engines.detection.network import Detector
from bob.engines.devices import open_accelerator
from bob.engines.recipe import Limits
from bob.engines.registry import get_engine
from bob.errors import UserError


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes."""
    inner = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = inner.clip(0).prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_it_learns_four_images_by_heart(open_tiny, train, recipe, make_blocks, name) -> None:
    data = make_blocks(4)
    longer = replace(recipe, epochs=200, lr=3e-3, clip_grad=1.0)
    trained = train(open_tiny(name), longer, data)
    split = data.splits["train"]
    found = trained.predict(split)
    assert len(found) == 4 and trained.finished
    for position, detections in enumerate(found):
        target = split.target(position)
        surest = detections.boxes[: len(target)]
        assert len(target) or not (detections.scores > 0.5).any()
        for box, label, mask in zip(target.boxes, target.labels, target.masks(), strict=True):
            best = int(np.argmax([overlap(box, own) for own in surest]))
            assert overlap(box, surest[best]) > 0.6 and detections.labels[best] == label
            own = decode_masks((detections.rles[best],), target.size)[0]
            assert (own & mask).sum() / (own | mask).sum() > 0.6


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_the_loss_falls_and_the_backbone_given_stays(open_tiny, train, recipe, make_blocks, name) -> None:
    backbone, losses = open_tiny(name), []
    before = backbone.weights_sha256()
    trained = train(backbone, replace(recipe, epochs=8), progress=lambda update: losses.append(update.loss))
    assert backbone.weights_sha256() == before != trained.network.backbone.weights_sha256()
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])
    predicted = trained.predict(make_blocks(8).splits["val"])
    assert len(predicted) == 4
    for detections in predicted:
        assert len(detections) <= 10 and len(detections.rles) == len(detections) == len(detections.labels)
        assert detections.boxes.dtype == detections.scores.dtype == np.float32
        assert (np.diff(detections.scores) <= 0).all() and (detections.scores > 0.05).all()
        assert (detections.boxes >= 0).all() and (detections.boxes <= [96, 72, 96, 72]).all()


def test_a_stopped_training_goes_on_as_if_it_had_not(open_tiny, train, recipe, same) -> None:
    backbone = open_tiny("test_vit")
    shaken = replace(recipe, drop_path=0.2, ema_decay=0.5)
    undisturbed = train(backbone, shaken)
    short = replace(shaken, name="short")
    assert not train(backbone, short, limits=Limits(max_steps=1)).finished
    resumed = train(backbone, short)
    assert resumed.finished and resumed.steps == 4 and same(resumed.network, undisturbed.network)


def test_accumulated_parts_are_the_batch_in_expectation(open_tiny, train, recipe) -> None:
    parts, seen = replace(recipe, micro_batch=2), []
    trained = train(open_tiny(), parts, progress=lambda update: seen.append(update.loss))
    assert trained.batch_size == 4 and len(seen) == 4
    whole: list[float] = []
    train(open_tiny(), recipe, progress=lambda update: whole.append(update.loss))
    assert seen[0] == pytest.approx(whole[0], rel=0.3)  # other regions are drawn


def test_frozen_means_frozen(open_tiny, train, recipe, same, tmp_path) -> None:
    backbone = open_tiny()
    trained = train(backbone, replace(recipe, trainable="head", lr=1e-2))
    assert same(trained.network.backbone.model, backbone.model)
    trained.save(tmp_path)
    assert not (tmp_path / "backbone.safetensors").exists()
    assert load_file(tmp_path / "head.safetensors").keys() == trained.network.head.state_dict().keys()


def test_statistics_of_batchnorm_stay_and_its_weights_train(open_tiny, train, recipe, tmp_path) -> None:
    backbone = open_tiny()
    trained = train(backbone, replace(recipe, lr=1e-2))
    before, after = backbone.model.state_dict(), trained.network.backbone.model.state_dict()
    statistics = [name for name in before if "running" in name]
    assert statistics and all(torch.equal(before[name], after[name]) for name in statistics)
    assert not torch.equal(before["layer4.0.bn1.weight"], after["layer4.0.bn1.weight"])
    trained.save(tmp_path)
    assert load_file(tmp_path / "backbone.safetensors").keys() == after.keys()


def test_boxes_alone_where_there_are_no_masks(open_tiny, train, recipe, make_blocks) -> None:
    data = make_blocks(8, has_masks=False)
    trained = train(open_tiny(), recipe, data)
    assert trained.network.head.masks is None
    assert all(detections.rles is None for detections in trained.predict(data.splits["val"]))


def test_images_without_any_object_are_trained_on(open_tiny, train, recipe, make_blocks) -> None:
    trained = train(open_tiny(), recipe, make_blocks(4, empty=True))
    assert np.isfinite(trained.train_loss)
    assert all(torch.isfinite(p).all() for p in trained.network.parameters())


def test_boxes_are_in_pixels_of_the_image_as_it_lies_on_disk(open_tiny, train, recipe, make_blocks) -> None:
    data = make_blocks(8)
    trained = train(open_tiny(), replace(recipe, epochs=4, score_threshold=0.0))
    larger = replace(trained, recipe=replace(trained.recipe, view=replace(recipe.view, short=36, long=48)))
    for detections in larger.predict(data.splits["val"]):
        assert (detections.boxes <= [96, 72, 96, 72]).all() and detections.boxes[:, 2].max() > 60
        assert all(rle["size"] == [72, 96] for rle in detections.rles)


def test_bfloat16_trains_with_float32_losses(open_tiny, train, recipe, on_cpu, make_blocks) -> None:
    mixed = replace(on_cpu, precision="bfloat16")
    trained = train(open_tiny(), recipe, how=mixed)
    assert np.isfinite(trained.train_loss) and trained.predict(make_blocks(8).splits["val"])
    batch, sizes = torch.randn(1, 3, 96, 96), [(72, 96)]
    target = {"boxes": torch.tensor([[5.0, 5, 30, 30]]), "labels": torch.tensor([0])}
    target["masks"] = torch.ones(1, 96, 96, dtype=torch.uint8)
    with open_accelerator(mixed).autocast():
        losses = trained.network.train()(batch, sizes, [target])
    assert len(losses) == 9 and all(loss.dtype == torch.float32 for loss in losses.values())


def test_images_are_normalised_by_the_checkpoints_own_statistics(open_tiny, train, recipe, monkeypatch) -> None:
    backbone, seen = open_tiny(), []
    backbone.preprocess = replace(backbone.preprocess, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    original = Preprocess.normalize
    monkeypatch.setattr(Preprocess, "normalize", lambda self, x: seen.append(self.mean) or original(self, x))
    train(backbone, recipe)
    assert set(seen) == {(0.1, 0.2, 0.3)}


def test_a_batch_that_does_not_fit_is_halved(open_tiny, train, recipe, make_blocks, monkeypatch) -> None:
    forward, detect = Detector.forward, Detector.detect

    def limited(method):
        def call(self, images, *rest):
            if len(images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return method(self, images, *rest)

        return call

    monkeypatch.setattr(Detector, "forward", limited(forward))
    monkeypatch.setattr(Detector, "detect", limited(detect))
    trained = train(open_tiny(), recipe)
    assert any("Memory held 1 images" in note for note in trained.notes)
    data = make_blocks(8)
    halved = trained.predict(data.splits["val"])
    monkeypatch.undo()
    for own, whole in zip(halved, trained.predict(data.splits["val"]), strict=True):
        np.testing.assert_allclose(own.scores, whole.scores, atol=1e-5)
        np.testing.assert_allclose(own.boxes, whole.boxes, atol=1e-3)
    monkeypatch.setattr(Detector, "detect", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(UserError, match="does not fit in the memory of cpu"):
        trained.predict(data.splits["val"])


def test_the_engine_is_found_by_name() -> None:
    assert get_engine("torchvision").train is detection.train
    assert detection.version().startswith("torchvision 0.")
