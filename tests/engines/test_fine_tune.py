"""Fine-tuning learns, leaves the backbone alone, stops and goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from bob.data.base import Split
from bob.engines.augment import epoch_batches
from bob.engines.loop import Diverged
from bob.engines.recipe import Limits
from bob.errors import UserError


def top1(trained, split: Split) -> float:
    return float((trained.predict(split).argmax(1) == split.labels).mean())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_it_learns_and_leaves_the_backbone_as_it_was(open_tiny, train, recipe, colours, name) -> None:
    backbone = open_tiny(name)
    before = backbone.weights_sha256()
    trained = train(backbone, replace(recipe, epochs=12, lr=3e-3))
    assert trained.finished and trained.steps == 36
    assert backbone.weights_sha256() == before != trained.network.backbone.weights_sha256()
    assert trained.train_loss < 0.5 and top1(trained, colours.splits["val"]) > 0.6  # by chance 0.33
    probabilities = trained.predict(colours.splits["val"])
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_one_update_is_that_of_plain_torch(open_tiny, train, recipe, colours) -> None:
    backbone, plain = open_tiny("test_vit"), {"momentum": 0.0, "weight_decay": 0.0, "layer_decay": None}
    once = replace(recipe, optimizer="momentum", lr=0.1, epochs=1, warmup_epochs=0, batch_size=48, **plain)
    trained = train(backbone, once)
    start = train(backbone, replace(once, lr=1e-30))
    split = colours.splits["train"]
    batches = epoch_batches(split, backbone.preprocess, None, seed=0, epoch=0, batch_size=48, workers=0)
    images, labels = next(iter(batches))
    network = start.network.train()
    F.cross_entropy(network(backbone.preprocess.normalize(images)), labels).backward()
    for (name, expected), found in zip(network.named_parameters(), trained.network.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found, expected - 0.1 * expected.grad, msg=name, rtol=1e-4, atol=1e-6)


def test_accumulated_parts_give_the_whole_batch(open_tiny, train, recipe) -> None:
    backbone = open_tiny("test_vit")
    whole = train(backbone, recipe).network.head.weight
    parts = train(backbone, replace(recipe, micro_batch=4)).network.head.weight
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_frozen_means_frozen(open_tiny, train, recipe, colours, same) -> None:
    for name in ("test_resnet", "test_efficientnet"):
        backbone = open_tiny(name)
        head = replace(recipe, trainable="head", head="batchnorm_linear", optimizer="lars", lr=0.5, weight_decay=0.0)
        trained = train(backbone, head)
        assert same(backbone.model, trained.network.backbone.model)  # BatchNorm's statistics included
        norm, linear = trained.network.head
        assert norm.running_mean.abs().max() > 0 and linear.bias.abs().max() > 0


def test_frozen_checkpoints_hold_the_head_alone(open_tiny, train, recipe, tmp_path) -> None:
    train(open_tiny(), replace(recipe, trainable="head"))
    (path,) = tmp_path.glob("runs/*/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    assert set(state["trainer"]["network"]) == {"head.weight", "head.bias"}


def test_ema_is_the_average_that_predicts(open_tiny, train, recipe) -> None:
    backbone = open_tiny("test_vit")
    steps = [
        train(backbone, replace(recipe, name=f"after {n}"), limits=Limits(max_steps=n)).network.head.weight
        for n in range(1, 7)
    ]
    start = train(backbone, replace(recipe, lr=1e-30, warmup_lr=0.0, min_lr=0.0)).network.head.weight
    averaged = train(backbone, replace(recipe, ema_decay=0.7)).network.head.weight
    expected = start.detach()
    for weight in steps:
        expected = 0.7 * expected + 0.3 * weight.detach()
    torch.testing.assert_close(averaged.detach(), expected)


def test_a_loss_that_is_no_number_names_rate_and_step(open_tiny, train, recipe) -> None:
    with pytest.raises(Diverged, match=r"The loss is (nan|inf) at step \d+ of recipe 'tiny' with lr 1e\+20"):
        train(open_tiny("test_vit"), replace(recipe, lr=1e20, warmup_lr=1e20, optimizer="sgd", epochs=9))


def test_memory_that_runs_out_halves_the_pass_not_the_batch(open_tiny, train, recipe) -> None:
    backbone = open_tiny("test_vit")
    roomy = train(backbone, recipe)

    class Tight(type(backbone)):
        def embed(self, images):
            if self.training and len(images) > 5:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
            return super().embed(images)

    backbone.__class__ = Tight
    tight = train(backbone, replace(recipe, name="tight"))
    assert tight.steps == roomy.steps and tight.batch_size == 16
    assert tight.notes == ("Memory held 4 images in one forward pass of training, of 16.",)
    torch.testing.assert_close(tight.network.head.weight, roomy.network.head.weight, rtol=1e-4, atol=1e-6)


def test_one_image_that_does_not_fit_is_said(open_tiny, train, recipe) -> None:
    backbone = open_tiny("test_vit")

    class Full(type(backbone)):
        def embed(self, images):
            if self.training:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().embed(images)

    backbone.__class__ = Full
    with pytest.raises(UserError, match="even with one image at a time"):
        train(backbone, recipe)


def test_float16_on_a_cpu_is_refused(open_tiny, train, recipe, on_cpu) -> None:
    with pytest.raises(UserError, match="does not train in float16"):
        train(open_tiny(), recipe, how=replace(on_cpu, precision="float16"))


def test_bfloat16_trains_in_mixed_precision(open_tiny, train, recipe, on_cpu) -> None:
    backbone, dtypes = open_tiny("test_vit"), []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: dtypes.append((type(module), module.training, output.dtype))
    )
    try:
        trained = train(backbone, recipe, how=replace(on_cpu, precision="bfloat16"))
    finally:
        hook.remove()
    assert {dtype for kind, training, dtype in dtypes if kind is nn.Linear and training} == {torch.bfloat16}
    assert {parameter.dtype for parameter in trained.network.parameters()} == {torch.float32}
    train(backbone, recipe)  # and in float32 again


def test_test_labels_are_out_of_reach(open_tiny, train, recipe) -> None:
    with pytest.raises(ValueError, match="Expected `splits`"):
        train(open_tiny(), recipe, splits=("train", "test"))


def test_several_labels_for_an_image(open_tiny, train, recipe, colours) -> None:
    images = colours.splits["train"].images
    images.labels = np.stack([images.labels == 0, images.labels != 1, images.labels == 2], 1).astype(np.int64)
    images.labels[::5, 2] = -1  # unknown
    trained = train(open_tiny("test_vit"), replace(recipe, loss="bce", epochs=15, lr=3e-3))
    probabilities = trained.predict(colours.splits["val"])
    label = colours.splits["val"].labels
    assert (((probabilities[:, 0] > 0.5) == (label == 0)).mean()) > 0.8
    assert not np.allclose(probabilities.sum(1), 1, atol=0.1)


def test_the_callers_random_numbers_stay(open_tiny, train, recipe) -> None:
    backbone = open_tiny()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(backbone, recipe)
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_path_is_set_in_the_copy(open_tiny, train, recipe) -> None:
    backbone = open_tiny("test_vit")
    trained = train(backbone, replace(recipe, drop_path=0.3), limits=Limits(max_steps=1))
    rates = [module.drop_prob for module in trained.network.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.3)
    assert not [module for module in backbone.modules() if isinstance(module, DropPath)]


def test_what_cannot_drop_paths_is_noted(open_tiny, train, recipe) -> None:
    from bob.cards import BackboneCard, Weights

    card = BackboneCard(name="flat", weights=Weights(source="custom", model="x:y"))
    backbone = type(open_tiny()).__mro__[1](
        card, nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), open_tiny().preprocess, {}
    )
    trained = train(backbone, replace(recipe, drop_path=0.1, layer_decay=None), limits=Limits(max_steps=1))
    assert "no residual branches" in trained.notes[0]


def test_a_strong_prior_keeps_the_backbone_where_it_was(open_tiny, train, recipe) -> None:
    backbone = open_tiny("test_vit")
    flat = nn.utils.parameters_to_vector
    start = flat(backbone.model.parameters()).detach()

    def moved(**changes) -> float:
        trained = train(backbone, replace(recipe, weight_decay=0.0, **changes))
        return float(
            (torch.cat([p.detach().flatten() for p in trained.network.backbone.model.parameters()]) - start).norm()
        )

    assert moved(prior="l2sp:100") < 0.7 * moved()
