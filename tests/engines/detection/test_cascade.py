"""Matching, sampling, pooling and losses: by hand, and against torchvision's own heads."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads

from bob.engines.detection.cascade import Cascade, chosen
from bob.engines.detection.proposals import Anchors, Proposals
from bob.engines.detection.regions import Pooling, match, sample

TARGET = {"boxes": torch.tensor([[10.0, 10, 30, 30], [40, 40, 60, 60]]), "labels": torch.tensor([1, 0])}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
SIZES = [(64, 96), (60, 90)]


def maps_of(channels: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, channels, -(-64 // s), -(-96 // s)) for s in (4, 8, 16, 32, 64)]


def proposals_of(count: int = 40) -> list[torch.Tensor]:
    """Random ones, and some around the objects."""
    torch.manual_seed(2)
    starts = torch.rand(count, 2) * torch.tensor([60.0, 40])
    random = torch.cat([starts, starts + 4 + torch.rand(count, 2) * 20], dim=1)
    around = TARGET["boxes"].repeat(6, 1) + torch.randn(12, 4) * 2
    return [torch.cat([random, around]), random]


def test_boxes_are_matched_by_the_overlap_of_their_stage() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 30, 23], [10, 10, 30, 21], [40, 45, 60, 60], [0, 0, 5, 5]])
    # IoU 1, 0.65 and 0.55 with the first object; 0.75 with the second; 0
    found = {least: match(boxes, TARGET, least, 2) for least in (0.5, 0.6, 0.7)}
    assert found[0.5].labels.tolist() == [1, 1, 1, 0, 2] and found[0.5].truths.tolist() == [0, 0, 0, 1, 0]
    assert found[0.6].labels.tolist() == [1, 1, 2, 0, 2]
    assert found[0.7].labels.tolist() == [1, 2, 2, 0, 2]
    assert match(boxes, NOTHING, 0.5, 2).labels.tolist() == [2] * 5


def test_at_most_a_quarter_of_a_sample_is_objects() -> None:
    boxes = torch.cat([TARGET["boxes"].repeat(10, 1), torch.rand(50, 4)])
    drawn = sample(match(boxes, TARGET, 0.5, 2), 16, 2)
    assert len(drawn.boxes) == 16 and (drawn.labels != 2).sum() == 4
    assert len(sample(match(boxes, NOTHING, 0.5, 2), 16, 2).boxes) == 16


def test_pooling_is_right_to_the_pixel_on_every_level() -> None:
    # A map whose values are the places of its cells' centres gives the places of the pooled cells' centres.
    maps = []
    for stride in (4, 8, 16, 32):
        places = (torch.arange(1024 // stride) + 0.5) * stride
        maps.append(torch.stack(torch.meshgrid(places, places, indexing="xy"))[None].repeat(2, 1, 1, 1))
    boxes = torch.tensor([[100.0 + k, 50, 100 + k + e, 50 + e / 2] for k, e in enumerate((20, 100, 250, 800))])
    pooled = Pooling(7, 224)(maps, [boxes[:1], boxes[1:]])
    centres = (torch.arange(7) + 0.5) / 7
    for box, found in zip(boxes, pooled, strict=True):
        torch.testing.assert_close(found[0, 3], box[0] + centres * (box[2] - box[0]))
        torch.testing.assert_close(found[1, :, 3], box[1] + centres * (box[3] - box[1]))


def test_pooling_takes_the_level_of_the_size() -> None:
    maps = [torch.full((1, 1, n, n), float(level)) for level, n in enumerate((256, 128, 64, 32), start=2)]
    boxes = torch.tensor([[200.0, 200, 200 + edge, 200 + edge] for edge in (40, 113, 223, 225, 449)])
    assert Pooling(2, 224)(maps, [boxes])[:, 0, 0, 0].tolist() == [2, 3, 3, 4, 5]
    assert Pooling(2, 112)(maps, [boxes])[:, 0, 0, 0].tolist() == [2, 4, 4, 5, 5]


class _Predictor(nn.Module):
    """A stage as torchvision wants it: background first, and a box for each class."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, deltas = self.stage(pooled)
        return logits.roll(1, dims=1), deltas.repeat(1, logits.shape[1])


def one_stage(threshold: float = 0.3) -> tuple[Cascade, RoIHeads]:
    """A cascade of one stage, and torchvision's heads with the same weights and pooling."""
    torch.manual_seed(0)
    cascade = Cascade(3, 16, 2, samples=1000, canonical=56.0, overlaps=(0.5,))
    nn.init.normal_(cascade.stages[0].logits.weight, std=0.5)
    nn.init.normal_(cascade.stages[0].deltas.weight, std=0.5)

    def pool(features, boxes, sizes):
        return cascade.pooling(list(features.values()), boxes)

    heads = RoIHeads(pool, nn.Identity(), _Predictor(cascade.stages[0]), 0.5, 0.5, 1000, 0.25, None, threshold, 0.5, 20)
    return cascade, heads


def test_one_stage_loses_what_torchvisions_heads_lose(monkeypatch) -> None:
    cascade, heads = one_stage()
    maps, proposals = maps_of(), proposals_of()
    found, regions = cascade.losses(maps, proposals, SIZES, [TARGET, NOTHING])
    # torchvision's loss of boxes is quadratic where it is small, detectron2's is not.
    monkeypatch.setattr(F, "smooth_l1_loss", lambda a, b, beta, reduction: F.l1_loss(a, b, reduction=reduction))
    theirs = [{**t, "labels": t["labels"] + 1} for t in (TARGET, NOTHING)]
    _, expected = heads.train()(OrderedDict((str(i), m) for i, m in enumerate(maps)), proposals, SIZES, theirs)
    torch.testing.assert_close(found["class_1"], expected["loss_classifier"])
    torch.testing.assert_close(found["box_1"], expected["loss_box_reg"])
    assert [len(image.boxes) for image in regions] == [54, 40]  # the true boxes are among them


def test_one_stage_detects_what_torchvisions_heads_detect() -> None:
    cascade, heads = one_stage()
    maps, proposals = maps_of(), proposals_of()
    with torch.no_grad():
        found = cascade.detect(maps, proposals, SIZES, 0.3, 20)
        expected, _ = heads.eval()(OrderedDict((str(i), m) for i, m in enumerate(maps)), proposals, SIZES)
    for own, theirs in zip(found, expected, strict=True):
        assert len(own.boxes) > 5
        torch.testing.assert_close(own.boxes, theirs["boxes"])
        torch.testing.assert_close(own.scores, theirs["scores"])
        assert torch.equal(own.labels, theirs["labels"] - 1)


def test_each_stage_starts_from_the_boxes_of_the_one_before(monkeypatch) -> None:
    torch.manual_seed(0)
    cascade, seen = Cascade(3, 16, 2, samples=64, canonical=56.0), []
    for number, stage in enumerate(cascade.stages):
        nn.init.constant_(stage.deltas.bias, 0.0)
        stage.deltas.weight.data.zero_()
        stage.deltas.bias.data[0] = float((number + 1) * 10 * 0.5)  # by half a width to the right, each
    monkeypatch.setattr(Cascade, "_run", _recorded(Cascade._run, seen))
    (found, _) = cascade.detect(maps_of(), [torch.tensor([[10.0, 10, 20, 30]])] * 2, SIZES, 0.0, 5)
    assert [boxes[0][0].tolist() for boxes in seen] == [[10, 10, 20, 30], [15, 10, 25, 30], [20, 10, 30, 30]]
    torch.testing.assert_close(found.boxes[0], torch.tensor([25.0, 10, 35, 30]))
    torch.testing.assert_close(found.scores.sum() + _background(cascade, seen), torch.tensor(1.0))


def _recorded(run, seen):
    def wrapped(self, number, maps, boxes):
        seen.append(boxes)
        return run(self, number, maps, boxes)

    return wrapped


def _background(cascade: Cascade, seen) -> torch.Tensor:
    """Mean of the stages' probabilities that the first image's box shows nothing."""
    maps = maps_of()
    stages = zip(cascade.stages, list(seen), strict=True)
    return torch.stack([s(cascade.pooling(maps, boxes))[0].softmax(1)[0, -1] for s, boxes in stages]).mean()


def test_maps_get_the_mean_of_the_stages_gradients() -> None:
    gradients = []
    for overlaps in ((0.5,), (0.5, 0.6, 0.7)):
        torch.manual_seed(0)
        cascade = Cascade(3, 16, 2, 1000, 56.0, overlaps)
        for stage in cascade.stages[1:]:
            for parameter in stage.parameters():
                parameter.data.zero_()
        maps = [map_.requires_grad_() for map_ in maps_of()]
        losses, _ = cascade.losses(maps, proposals_of(), SIZES, [TARGET, NOTHING])
        sum(losses.values()).backward()
        gradients.append(maps[0].grad)
    torch.testing.assert_close(gradients[1], gradients[0] / 3)


def test_no_object_anywhere_and_no_region_at_all_are_no_error() -> None:
    cascade = Cascade(3, 16, 2, 64, 56.0)
    for proposals in (proposals_of(), [torch.zeros(0, 4)] * 2):
        losses, _ = cascade.losses(maps_of(), proposals, SIZES, [NOTHING, NOTHING])
        total = sum(losses.values())
        total.backward()
        assert torch.isfinite(total) and all(p.grad is not None for p in cascade.parameters())
    assert [len(f.boxes) for f in cascade.detect(maps_of(), [torch.zeros(0, 4)] * 2, SIZES, 0.05, 9)] == [0, 0]


def test_overlaps_of_a_class_are_one_detection() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [5, 5, 5, 9]])
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.3], [0.1, 0.04], [0.99, 0.99]])
    found = chosen(boxes, scores, 0.05, 10)
    assert found.scores.tolist() == pytest.approx([0.9, 0.3, 0.1]) and found.labels.tolist() == [0, 1, 0]
    assert len(chosen(boxes, scores, 0.05, 2).boxes) == 2


def test_anchors_stand_on_their_strides() -> None:
    maps = maps_of()
    (first, second) = Anchors(16.0)(ImageList(torch.zeros(2, 3, 64, 96), SIZES), maps)
    assert torch.equal(first, second) and len(first) == sum(m[0, 0].numel() * 3 for m in maps)
    edges = (first[:, 2:] - first[:, :2]).prod(dim=1).sqrt()
    assert edges.round().unique().tolist() == [16, 32, 64, 128, 256]
    last = first[-3 * 2 :]  # two places of stride 64
    torch.testing.assert_close((last[:, :2] + last[:, 2:]) / 2, torch.tensor([[0.0, 0]] * 3 + [[64, 0]] * 3))
    assert (last[0, 3] - last[0, 1]) * 2 == pytest.approx(float(last[0, 2] - last[0, 0]))  # the first is wide


def test_losses_of_proposals_by_hand() -> None:
    proposals = Proposals(4, 16.0, 10)
    labels = [torch.tensor([1.0, 0, -1]), torch.tensor([0.0, 0, 0])]
    wanted = [torch.tensor([[1.0, 0, 0, 0.5]] * 3), torch.zeros(3, 4)]
    seen, placed = proposals.compute_loss(torch.zeros(6, 1), torch.zeros(6, 4), labels, wanted)
    assert float(seen) == pytest.approx(5 * 0.6931472 / 512) and float(placed) == pytest.approx(1.5 / 512)
