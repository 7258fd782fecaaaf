"""Planted faults between the last layer and the feature: pooled twice, collapsed, dead, padded."""

import numpy as np
import pytest

from bob.check.features import check_dimensions, check_pooling, check_rank, effective_rank

MAPS = "m = self.trunk.forward_features(x); "


@pytest.fixture
def normal():
    return np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)


def test_a_healthy_backbone_passes(healthy):
    assert check_pooling(healthy).status == "pass"
    features = healthy.embed(healthy.mixed(18, 12)).numpy()
    assert check_rank(features).status == check_dimensions(features).status == "pass"


@pytest.mark.parametrize(
    "body", ["return m", "return m.mean((2, 3))", "return torch.cat([m.mean((2, 3)), m.amax((2, 3))], 1)"]
)
def test_pooled_once(wrapped, body):
    assert check_pooling(wrapped(MAPS + body)).status == "pass"


@pytest.mark.parametrize(
    ("body", "width"),
    [
        ("return self.trunk(x).mean(1, keepdim=True)", 1),
        ("return self.trunk(x).view(len(x), 1, 32, 40)", 1),
        ("return F.adaptive_avg_pool1d(self.trunk(x)[:, None], 64)[:, 0]", 64),
        (MAPS + "return m.mean((1, 2))", 4),
        (MAPS + "return m.mean(1).flatten(1)", 16),
        (MAPS + "return m.permute(0, 2, 3, 1)", 4),
    ],
)
def test_pooled_twice_or_over_the_wrong_axis(wrapped, body, width):
    finding = check_pooling(wrapped(body))
    assert finding.status == "fail" and "pool it once, over H and W" in finding.remedy
    assert (finding.values["width"], finding.values["channels"]) == (width, 1280)
    assert ("wrong axis" in finding.remedy) == (width in (4, 16))


def test_a_projection_is_no_pooling(wrapped):
    more = "def train(self, mode=True): self.proj = nn.Parameter(torch.randn(1280, 64)); return super().train(mode)"
    assert check_pooling(wrapped("return self.trunk(x) @ self.proj", more)).status == "pass"


def test_a_vit_that_averages_the_wrong_axis(altered, subject_of):
    subject = subject_of(altered("timm:test_vit.random"))
    subject.backbone.model.forward_head = lambda tokens: tokens.mean(2)
    finding = check_pooling(subject)
    assert finding.status == "fail" and "wrong axis" in finding.remedy and finding.values["channels"] == 64


def test_nothing_learned(altered, subject_of):
    for name in ("pixels", "constant"):
        assert check_pooling(subject_of(altered(name))).status == "skip"


@pytest.mark.parametrize(
    "name", ["timm:test_vit", "timm:test_vit4", "timm:test_convnext", "timm:test_resnet", "timm:test_mambaout"]
)
def test_other_architectures_pass(altered, subject_of, name):
    assert check_pooling(subject_of(altered(f"{name}.random"))).status == "pass"


def test_collapsed_features(wrapped):
    subject = wrapped("f = self.trunk(x); return f.mean(1, keepdim=True).expand_as(f)")
    features = subject.embed(subject.mixed(18, 12)).numpy()
    rank, dimensions = check_rank(features), check_dimensions(features)
    assert rank.status == "fail" and rank.values["effective_rank"] < 1.1 and "pooling too many" in rank.remedy
    assert dimensions.status == "fail" and dimensions.values["repeated"] == 1279


def test_effective_rank(normal):
    assert effective_rank(np.ones((20, 5))) == 0
    assert effective_rank(np.arange(20.0)[:, None] * np.ones(7)) == pytest.approx(1)
    orthogonal = np.linalg.qr(normal - normal.mean(0))[0]
    assert effective_rank(orthogonal) == pytest.approx(50, rel=1e-3)
    assert effective_rank(normal * 3 + 100) == pytest.approx(effective_rank(normal), rel=1e-3)


def test_few_directions_warn(normal):
    few = normal[:, :4] @ np.random.default_rng(1).normal(size=(4, 150)).astype(np.float32)
    finding = check_rank(few)
    assert finding.status == "warn" and 3 < finding.values["effective_rank"] <= 4 and finding.remedy
    assert check_rank(normal).status == "pass" and check_rank(normal).remedy == ""


def test_dead_and_repeated_dimensions(normal):
    assert check_dimensions(normal).values == {"dead": 0, "repeated": 0, "width": 50}
    dead = np.concatenate([normal, np.full((200, 10), 3.0, np.float32)], axis=1)
    assert check_dimensions(dead).status == "warn" and check_dimensions(dead).values["dead"] == 10
    twice = np.concatenate([normal, -2 * normal], axis=1)
    assert check_dimensions(twice).values["repeated"] == 50
    assert check_dimensions(np.ones((9, 3), np.float32)).status == "fail"
