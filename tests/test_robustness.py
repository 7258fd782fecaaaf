"""Robust accuracy against cases with a known answer, and a real backbone under attack."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from bob.errors import UserError
from bob.probes.knn import KNeighbors
from bob.probes.logistic import LogisticRegression
from bob.probes.ridge import RidgeClassifier
from bob.robustness import classifier, robust_accuracy

pytest.importorskip("art")
SHAPE = (3, 6, 6)


def linear_model(classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), classes))


def grey_images(count: int = 60, seed: int = 0) -> torch.Tensor:
    """Far enough from black and white that no ball of these tests is cut off there."""
    return 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def worst_margin(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, radius: float, dual: float):
    """(N,) smallest of the margins over the other classes that a linear model keeps in a ball: exact, by duality."""
    weight, logits = model[1].weight.detach(), model(images).detach()
    margin = logits.gather(1, labels[:, None]) - logits
    margin -= radius * (weight[labels][:, None] - weight[None]).norm(p=dual, dim=2)
    margin[torch.arange(len(labels)), labels] = torch.inf
    return margin.min(dim=1).values.numpy()


@pytest.mark.parametrize(("norm", "eps", "radius", "dual"), [("linf", 3.0, 3 / 255, 1), ("l2", 0.1, 0.1, 2)])
def test_pgd_on_two_linear_classes_is_the_closed_form(norm, eps, radius, dual):
    model, images = linear_model(), grey_images()
    labels = model(images).argmax(dim=1)
    expected = worst_margin(model, images, labels, radius, dual)
    assert np.abs(expected).min() > 1e-4  # no image is a matter of rounding
    result = robust_accuracy(model, images, labels, "pgd", eps, norm)
    np.testing.assert_array_equal(result.correct, expected > 0)
    assert 0 < result.robust < result.clean == 1


@pytest.mark.parametrize(("norm", "eps", "radius", "dual"), [("linf", 6.0, 6 / 255, 1), ("l2", 0.25, 0.25, 2)])
def test_autoattack_on_linear_classes_is_the_closed_form(norm, eps, radius, dual):
    model, images = linear_model(5), grey_images()
    labels = model(images).argmax(dim=1)
    result = robust_accuracy(model, images, labels, "autoattack", eps, norm, steps=10)
    np.testing.assert_array_equal(result.correct, worst_margin(model, images, labels, radius, dual) > 0)
    assert 0 < result.robust < 1


def test_wrong_images_stay_wrong():
    model, images = linear_model(), grey_images()
    wrong = 1 - model(images).argmax(dim=1)
    result = robust_accuracy(model, images, wrong, eps=1)
    assert (result.n, result.clean, result.robust) == (60, 0, 0)


def test_no_change_allowed_leaves_the_clean_accuracy():
    model, images = linear_model(3), grey_images()
    labels = torch.arange(60) % 3
    result = robust_accuracy(model, images, labels, eps=0)
    assert result.robust == result.clean == pytest.approx(float((model(images).argmax(1) == labels).float().mean()))
    np.testing.assert_array_equal(result.correct, result.correct_clean)


@pytest.fixture(scope="module")
def real_net():
    """A small convolutional net trained on drawn shapes, images of it and labels."""
    from bob.data.shapes import load_shapes

    split = load_shapes().splits["train"]
    images = torch.stack([split.images.read(i) for i in range(0, 800, 3)]).float() / 255
    images, labels = nn.functional.avg_pool2d(images, 3), torch.from_numpy(split.labels[::3])
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 49, 10))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net, images[:24], labels[:24]


def test_a_real_net_falls_as_the_ball_grows(real_net):
    scores = [robust_accuracy(*real_net, eps=eps, steps=10).robust for eps in (0, 0.25, 1, 4, 16)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.7
    assert scores[-1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 1.5), ("l2", 0.4)])
def test_autoattack_is_no_weaker_than_pgd(real_net, norm, eps):
    pgd = robust_accuracy(*real_net, "pgd", eps, norm, steps=20)
    ensemble = robust_accuracy(*real_net, "autoattack", eps, norm, steps=10)
    assert ensemble.robust <= pgd.robust < pgd.clean
    assert ("Square of 500 queries" in ensemble.attack) == (norm == "linf")
    assert "adversarial-robustness-toolbox 1." in ensemble.attack


def test_a_seed_gives_the_same_and_leaves_global_generators_and_model_alone(real_net):
    net = real_net[0]
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    first, second = (robust_accuracy(*real_net, eps=0.5, steps=3, batch_size=16, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.correct, second.correct)
    assert first.attack == second.attack
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.fixture(scope="module")
def probed():
    """A real backbone with random weights, uint8 crops of shapes, their labels and features."""
    from bob.backbones.sources import open_backbone, resolve_backbone
    from bob.catalogue import load_backbone_cards
    from bob.data.shapes import load_shapes

    card = resolve_backbone("timm:test_vit", load_backbone_cards())
    card = card.model_copy(update={"weights": card.weights.model_copy(update={"pretrained": False})})
    backbone, split = open_backbone(card), load_shapes().splits["train"]
    crops = torch.stack([backbone.preprocess.crop(split.images.read(i)) for i in range(0, 800, 9)])
    with torch.no_grad():
        features = backbone.embed(backbone.preprocess.normalize(crops)).numpy()
    return backbone, crops, split.labels[::9], features


@pytest.mark.parametrize("probe", [LogisticRegression(l2=1e-2), RidgeClassifier(l2=1e-2)])
def test_classifier_gives_the_probes_probabilities(probed, probe):
    backbone, crops, labels, features = probed
    probe.fit(features, labels, 10)
    joined = classifier(backbone, probe)
    with torch.no_grad():
        probabilities = joined(crops.float() / 255).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, probe.predict_proba(features), atol=2e-4)


def test_a_probed_backbone_falls(probed):
    backbone, crops, labels, features = probed
    joined = classifier(backbone, LogisticRegression(l2=1e-3).fit(features, labels, 10))
    result = robust_accuracy(joined, crops[:16].float() / 255, labels[:16], eps=8, steps=10)
    assert result.robust < result.clean


def test_what_cannot_be_attacked_is_refused(probed):
    backbone, _, labels, features = probed
    with pytest.raises(UserError, match=r"KNeighbors has no gradient.*linear"):
        classifier(backbone, KNeighbors().fit(features, labels, 10))
    with pytest.raises(ValueError, match="to be fitted"):
        classifier(backbone, LogisticRegression())

    class Deaf(nn.Module):
        def forward(self, images):
            with torch.no_grad():
                return images.mean(dim=(2, 3))

    with pytest.raises(UserError, match="No gradient"):
        robust_accuracy(Deaf(), grey_images(), torch.zeros(60, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "fgsm"}, "`attack`"),
        ({"norm": "l1"}, "`norm`"),
        ({"eps": -1}, "`eps`"),
        ({"eps": float("nan")}, "`eps`"),
        ({"steps": 0}, "`steps`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"images": grey_images() * 255}, r"in \[0, 1\]"),
        ({"images": grey_images() * torch.nan}, r"in \[0, 1\]"),
        ({"images": (grey_images() * 255).byte()}, "floating"),
        ({"labels": torch.zeros(59, dtype=torch.long)}, "60 integers"),
        ({"labels": torch.full((60,), 2)}, r"\[0, 2\)"),
    ],
)
def test_settings_are_checked(change, message):
    given = {"model": linear_model(), "images": grey_images(), "labels": torch.zeros(60, dtype=torch.long), **change}
    with pytest.raises(ValueError, match=message):
        robust_accuracy(**given)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "art", None)
    with pytest.raises(UserError, match="pip install"):
        robust_accuracy(linear_model(), grey_images(), torch.zeros(60, dtype=torch.long))
