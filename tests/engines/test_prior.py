"""Priors are the densities that they say they are, SWAG's are those of its formulas, and files keep them."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributions import LowRankMultivariateNormal, Normal

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.data.base import Dataset, ImageSet, Split
from bob.engines import fine_tune
from bob.engines.prior import FLOOR, Gaussian, Prior, isotropic_prior, load_prior
from bob.engines.swag import SWAG_RECIPE, SwagCollector, learn_prior
from bob.errors import UserError
from bob.features.extract import Extraction

CPU = torch.device("cpu")


def backbone_of(model, name="mine") -> Backbone:
    card = BackboneCard(name=name, weights=Weights(source="custom", model="net.py:make"))
    return Backbone(card, model, Preprocess(size=(32, 32)), {})


def small(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return net.to(dtype)


def flat(named) -> torch.Tensor:
    return torch.cat([values.detach().flatten() for _, values in named])


def gaussian_of(model, rank=3, size=1.0, spread=0.1) -> Gaussian:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape, like):
        return torch.randn(*shape, dtype=like.dtype, generator=generator)

    named = dict(model.named_parameters())
    return Gaussian(
        mean={name: values.detach() + 0.1 * draw(*values.shape, like=values) for name, values in named.items()},
        variance={name: spread * draw(*values.shape, like=values).exp() for name, values in named.items()},
        factor={name: size * draw(rank, *values.shape, like=values) for name, values in named.items()} if rank else {},
    )


def distribution_of(gaussian) -> LowRankMultivariateNormal:
    factor = torch.cat([values.flatten(1) for values in gaussian.factor.values()], dim=1).double().T
    return LowRankMultivariateNormal(
        flat(gaussian.mean.items()).double(), factor, flat(gaussian.variance.items()).double()
    )


# The density


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_penalty_and_gradient_are_torchs(rank, size) -> None:
    model = small()
    gaussian = gaussian_of(model, rank, size)
    expected = distribution_of(gaussian)
    prior = Prior(gaussian, n_images=7)
    point = flat(model.named_parameters()).requires_grad_()
    (expected.log_prob(expected.mean) - expected.log_prob(point)).div(7).backward()
    penalty = prior.penalty(model.named_parameters())
    penalty.backward()
    value = (expected.log_prob(expected.mean) - expected.log_prob(point)) / 7
    torch.testing.assert_close(penalty.detach(), value.detach(), rtol=1e-7, atol=1e-10)
    gradient = torch.cat([values.grad.flatten() for values in model.parameters()])
    torch.testing.assert_close(gradient, point.grad, rtol=1e-6, atol=1e-9)


def test_diagonal_alone() -> None:
    model = small()
    gaussian = gaussian_of(model, rank=0)
    scale = flat(gaussian.variance.items()).sqrt()
    expected = Normal(flat(gaussian.mean.items()), scale)
    distance = (expected.log_prob(expected.mean) - expected.log_prob(flat(model.named_parameters()))).sum()
    torch.testing.assert_close(Prior(gaussian, 3).penalty(model.named_parameters()).detach(), distance / 3)


def test_float32_keeps_its_digits_where_the_low_rank_part_is_everything() -> None:
    """Weights far along a direction that the prior allows: Woodbury's difference would lose all digits here."""
    model = small(torch.float32)
    gaussian = gaussian_of(model, rank=2, size=1.0, spread=1e-8)
    weights = torch.tensor([3.0, -2.0])
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.copy_(gaussian.mean[name] + torch.einsum("k,k...->...", weights, gaussian.factor[name]))
    penalty = Prior(gaussian, 1).penalty(model.named_parameters())
    assert penalty.item() == pytest.approx(6.5, rel=1e-2)


def test_deviations_that_depend_on_one_another() -> None:
    model = small()
    gaussian = gaussian_of(model, rank=1)
    doubled = {name: torch.cat([values, -values]) for name, values in gaussian.factor.items()}
    gaussian = replace(gaussian, factor=doubled)
    expected = distribution_of(gaussian)
    value = expected.log_prob(expected.mean) - expected.log_prob(flat(model.named_parameters()))
    torch.testing.assert_close(Prior(gaussian, 1).penalty(model.named_parameters()).detach(), value)


def test_scale_and_floor_are_those_of_the_covariance() -> None:
    gaussian = gaussian_of(small())
    before, after = distribution_of(gaussian), distribution_of(gaussian.rescaled(100.0, floor=0.5))
    size = len(before.mean)
    torch.testing.assert_close(
        after.covariance_matrix, 100 * before.covariance_matrix + 0.5 * torch.eye(size, dtype=torch.float64)
    )


def test_l2sp_is_half_the_squared_distance() -> None:
    model = small()
    prior = isotropic_prior(backbone_of(model), 0.3, n_images=11)
    assert prior.penalty(model.named_parameters()).item() == 0.0
    start = flat(model.named_parameters())
    with torch.no_grad():
        for values in model.parameters():
            values.add_(torch.randn_like(values))
    distance = (flat(model.named_parameters()) - start).square().sum()
    torch.testing.assert_close(prior.penalty(model.named_parameters()).detach(), 0.15 * distance)


def test_the_penalty_is_not_rounded_by_mixed_precision() -> None:
    model = small(torch.float32)
    prior = Prior(gaussian_of(model), 5)
    expected = prior.penalty(model.named_parameters()).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert prior.penalty(model.named_parameters()).item() == expected


def test_a_descent_ends_at_the_mean() -> None:
    model = small()
    prior = Prior(gaussian_of(model), 1)
    exact = {"history_size": 108, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, max_eval=5000, **exact)

    def closure():
        optimizer.zero_grad()
        penalty = prior.penalty(model.named_parameters())
        penalty.backward()
        return penalty

    optimizer.step(closure)
    for name, values in model.named_parameters():
        torch.testing.assert_close(values.detach(), prior.gaussian.mean[name], rtol=1e-4, atol=1e-4)


def test_parameters_that_are_not_the_priors() -> None:
    model = small()
    prior = Prior(gaussian_of(model), 1)
    with pytest.raises(ValueError, match=r"they differ in .*'2\.weight'"):
        prior.penalty(list(model.named_parameters())[:4])
    model[2].requires_grad_(False)
    with pytest.raises(ValueError, match="they differ in"):
        prior.penalty(model.named_parameters())
    with pytest.raises(ValueError, match=r"Expected every variance to be positive, but that of 0\.weight"):
        Prior(replace(prior.gaussian, variance={"0.weight": torch.zeros(2)}), 1)
    with pytest.raises(ValueError, match="`n_images` to be positive"):
        Prior(prior.gaussian, 0)


# SWAG


@pytest.mark.parametrize("rank", [2, 4, 20])
def test_swag_is_that_of_its_formulas(rank) -> None:
    model = small(torch.float32)
    model[1].bias.requires_grad_(False)
    collector = SwagCollector(model, rank)
    trained = [(name, values) for name, values in model.named_parameters() if values.requires_grad]
    iterates = []
    for _ in range(7):
        with torch.no_grad():
            for _, values in trained:
                values.add_(1e-3 * torch.randn_like(values))
        collector.update()
        iterates.append(flat(trained).double().numpy())
    learnt = collector.prior(source="test")
    weights = np.array(iterates)
    means = weights.cumsum(axis=0) / np.arange(1, 8)[:, None]
    deviations = (weights - means)[-rank:]
    assert "1.bias" not in learnt.mean
    np.testing.assert_allclose(flat(learnt.mean.items()), means[-1], rtol=1e-5, atol=1e-8)
    # E[w^2] - E[w]^2 is the population variance.
    np.testing.assert_allclose(flat(learnt.variance.items()), weights.var(axis=0) / 2, rtol=2e-3)
    factor = torch.cat([values.flatten(1) for values in learnt.factor.values()], dim=1).double().numpy()
    expected = deviations.T @ deviations / (2 * (len(deviations) - 1))
    np.testing.assert_allclose(factor.T @ factor, expected, rtol=1e-3, atol=1e-10)
    assert learnt.facts == {"prior": "swag", "iterates": 7, "rank": min(rank, 7), "source": "test"}


def test_swag_needs_two_iterates() -> None:
    collector = SwagCollector(small(), 3)
    collector.update()
    with pytest.raises(ValueError, match="at least 2 collected iterates, but got 1"):
        collector.prior()
    with pytest.raises(ValueError, match="`rank` to be 2 or more"):
        SwagCollector(small(), 1)


# Files


@pytest.fixture
def swag_file(tmp_path):
    gaussian = gaussian_of(small(torch.float32))
    gaussian = replace(gaussian, buffers={"1.running_mean": torch.ones(4)}, facts={"prior": "swag", "seed": 3})
    gaussian.save(tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors", gaussian


def test_a_file_keeps_everything(swag_file) -> None:
    path, gaussian = swag_file
    loaded = Gaussian.load(path)
    for part in ("mean", "variance", "factor", "buffers"):
        there, here = getattr(loaded, part), getattr(gaussian, part)
        assert there.keys() == here.keys()
        assert all(torch.equal(there[name], here[name]) for name in here)
    assert loaded.facts == gaussian.facts
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_a_user_asks_for(swag_file) -> None:
    path, gaussian = swag_file
    model = small(torch.float32)
    for spec, scale in ((f"{path}", 1.0), (f"{path}:1e3", 1000.0)):
        prior = load_prior(spec, backbone_of(model), 5)
        expected = Prior(gaussian.rescaled(scale, FLOOR), 5)
        assert prior.penalty(model.named_parameters()).item() == expected.penalty(model.named_parameters()).item()
        assert prior.facts == {"prior": "swag", "seed": 3, "scale": scale, "floor": FLOOR}
    assert load_prior("l2sp:0.1", backbone_of(model), 5).facts == {"prior": "l2sp", "strength": 0.1}


def test_training_starts_at_the_mean(swag_file) -> None:
    path, gaussian = swag_file
    backbone = backbone_of(small(torch.float32, seed=9))
    prior = load_prior(str(path), backbone, 5)
    assert prior.penalty(backbone.model.named_parameters()).item() > 0
    prior.start(backbone.model)
    assert prior.penalty(backbone.model.named_parameters()).item() == 0
    assert torch.equal(backbone.model[1].running_mean, torch.ones(4))
    assert torch.equal(backbone.model[0].weight, gaussian.mean["0.weight"])


@pytest.mark.parametrize(
    "spec", ["l2", "l2sp", "l2sp:", "l2sp:-1", "l2sp:inf", "l2sp:nan", "prior.pth", "{}:x", "{}:0"]
)
def test_what_is_no_prior(spec, swag_file) -> None:
    with pytest.raises(UserError, match=r"l2sp:STRENGTH or FILE\.safetensors") as caught:
        load_prior(spec.format(swag_file[0]), backbone_of(small()), 5)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_prior(tmp_path) -> None:
    backbone = backbone_of(small())
    with pytest.raises(UserError, match="There is no prior at"):
        load_prior(str(tmp_path / "none.safetensors"), backbone, 5)
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="Cannot read the prior"):
        load_prior(str(tmp_path / "broken.safetensors"), backbone, 5)
    save_file({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="is no prior of this version of bob"):
        load_prior(str(tmp_path / "weights.safetensors"), backbone, 5)


def test_a_prior_of_another_architecture(swag_file) -> None:
    wider = small(torch.float32)
    wider[2] = nn.Conv2d(4, 6, 1)
    others = {
        r"its '2\.weight' is 5x4x1x1, and that of the backbone is 6x4x1x1": wider,
        r"its '2\.\w+' is [5x41]+, and that of the backbone is not there": small(torch.float32)[:2],
        r"its '5\.weight' is not there": small(torch.float32).append(nn.Linear(5, 2)),
    }
    for difference, other in others.items():
        with pytest.raises(UserError, match=difference) as caught:
            load_prior(str(swag_file[0]), backbone_of(other, "wide"), 5)
        assert "another architecture than backbone 'wide'" in str(caught.value)
        assert "\n" not in str(caught.value)


# At the source


class Colours(ImageSet):
    """Noise with a tint for each class."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count) % 2
        self.names = [f"colour/{i}" for i in range(count)]

    def read(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(100, (3, 36, 36), dtype=torch.uint8, generator=generator)
        image[index % 2] += 100
        return image

    def fingerprint(self) -> str:
        return "colours"


@pytest.fixture
def colours():
    return Dataset("colours", ("red", "green"), {"train": Split(Colours(24), np.arange(24))})


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return backbone_of(timm.create_model("test_resnet", num_classes=0))


def test_fine_tuning_stays_near_the_prior(colours, resnet, tmp_path) -> None:
    pytest.importorskip("accelerate")
    recipe = replace(SWAG_RECIPE, epochs=3, batch_size=8, min_lr=SWAG_RECIPE.lr, weight_decay=0.0)
    start = flat(resnet.model.named_parameters())
    distances = []
    for prior in (None, "l2sp:1", "l2sp:20"):
        trained = fine_tune.train(
            resnet, colours, replace(recipe, prior=prior), how=Extraction(CPU, workers=0), folder=tmp_path, seed=0
        )
        distances.append((flat(trained.network.backbone.model.named_parameters()) - start).norm().item())
    assert distances[0] > distances[1] > distances[2] > 0
    assert distances[2] < distances[0] / 2


def test_a_prior_learnt_at_a_source_task(colours, resnet, tmp_path) -> None:
    pytest.importorskip("accelerate")
    dataset, backbone = colours, resnet
    before = copy.deepcopy(backbone.state_dict())
    state = torch.get_rng_state()
    recipe = replace(SWAG_RECIPE, epochs=5, batch_size=8)
    learn = {"how": Extraction(CPU, workers=0), "rank": 3, "burn_in": 1}
    learnt = learn_prior(backbone, dataset, recipe, **learn)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], values) for name, values in backbone.state_dict().items())
    assert learnt.facts["iterates"] == 4
    assert learnt.facts["backbone"]["weights_sha256"] == backbone.weights_sha256()
    assert any(not torch.equal(values, before[f"model.{name}"]) for name, values in learnt.mean.items())
    again = learn_prior(backbone, dataset, recipe, **learn)
    assert all(torch.equal(again.factor[name], values) for name, values in learnt.factor.items())
    learnt.save(tmp_path / "colours.safetensors")
    prior = load_prior(f"{tmp_path / 'colours.safetensors'}:10", backbone, 24)
    assert prior.penalty(backbone.model.named_parameters()).item() > 0
    prior.start(backbone.model)
    assert prior.penalty(backbone.model.named_parameters()).item() == 0
    assert int(backbone.model.conv1[1].num_batches_tracked) == 3
    features = backbone.eval().embed(torch.randn(4, 3, 32, 32))
    assert features.isfinite().all()
    with pytest.raises(UserError, match=r"leaves 1 epochs .* at least 6 epochs"):
        learn_prior(backbone, dataset, recipe, **{**learn, "burn_in": 4})
