"""Backbones from timm: its maps and strides, its pooling and sizes, and what happens without its weights."""

import errno
import time

import pytest
import timm
import torch

from bob.backbones.sources import open_backbone, weights_status
from bob.backbones.timm import is_timm_name, timm_names

CNNS = ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050"]


@pytest.fixture
def random(make_card):
    """A function that opens a model at random initialisation."""

    def open_(model, preprocess=None, feature=None, **weights):
        return open_backbone(
            make_card(model=model, pretrained=False, preprocess=preprocess, feature=feature, **weights)
        )

    return open_


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


# Maps.


@pytest.mark.parametrize("name", CNNS)
def test_strides_of_a_cnn(name, random, images):
    backbone = random(name)
    with torch.inference_mode():
        maps = backbone.feature_maps(images)
    assert backbone.strides == sorted(set(backbone.strides)) and backbone.strides[-1] == 32
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 96 // s) for s in backbone.strides]


def test_stride_of_a_plain_vit_is_its_patch(random):
    backbone = random("test_vit", preprocess={"size": (64, 96)})
    with torch.inference_mode():
        (only,) = backbone.feature_maps(torch.randn(2, 3, 64, 96))
    assert backbone.strides == [16]
    assert only.shape == (2, 64, 4, 6)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_last_block_of_a_cnn_is_its_feature(name, random, images):
    backbone = random(name)
    with torch.inference_mode():
        last = backbone.layers(images)[-1]
        features = backbone.model.forward_features(images)
        torch.testing.assert_close(last.map, features)
        torch.testing.assert_close(backbone.feature_maps(images)[-1], features)
    torch.testing.assert_close(last.pooled, features.mean((2, 3)))


def test_last_block_of_a_vit_is_its_feature_before_the_norm(random):
    backbone = random("test_vit", preprocess={"size": 64})
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        last = backbone.layers(images)[-1]
        tokens = backbone.model.norm(last.map.flatten(2).transpose(1, 2))
        torch.testing.assert_close(tokens, backbone.model.forward_features(images)[:, 1:])


def test_layers_by_index(random, images):
    backbone = random("test_resnet")
    with torch.inference_mode():
        every, some = backbone.layers(images), backbone.layers(images, [1, 3])
    assert len(every) == 5 and len(some) == 2
    assert torch.equal(some[0].map, every[1].map) and torch.equal(some[1].pooled, every[3].pooled)


def test_model_without_maps_says_so(random, refused):
    backbone = random("test_resnet")
    backbone.model = torch.nn.Flatten()
    for ask in (lambda: backbone.strides, lambda: backbone.layers(None), lambda: backbone.feature_maps(None)):
        with refused("'mine'", "timm model has"):
            ask()


# Pooling and size.


def test_pooling_keeps_the_trained_norm(random):
    """`global_pool` of `create_model` would put an untrained norm behind the pooling."""
    default = random("test_vit", preprocess={"size": 64})
    average = random("test_vit", preprocess={"size": 64}, feature={"pooling": "avg"})
    assert default.weights_sha256() == average.weights_sha256()
    assert default.identity() != average.identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = default.model.forward_features(images)[:, 1:]
        torch.testing.assert_close(average.embed(images), tokens.mean(1))


def test_max_pooling_of_a_cnn(random, images):
    backbone = random("test_resnet", feature={"pooling": "max"})
    with torch.inference_mode():
        expected = backbone.model.forward_features(images).amax((2, 3))
        torch.testing.assert_close(backbone.embed(images), expected)


@pytest.mark.parametrize(("model", "pooling"), [("test_resnet", "token"), ("test_vit", "map"), ("levit_128", "max")])
def test_pooling_that_the_model_lacks(model, pooling, random, refused):
    with refused(model, f"feature.pooling = '{pooling}'"):
        random(model, feature={"pooling": pooling})


def test_size_of_a_model_made_for_one_size(random):
    assert timm.get_pretrained_cfg("vit_tiny_patch16_224").fixed_input_size
    assert random("vit_tiny_patch16_224", preprocess={"size": (64, 96)}).width() == 192


def test_size_that_the_model_cannot_take(random, refused):
    with refused("maxvit_tiny_tf_224", "preprocess.size = (100, 100)", "divisible"):
        random("maxvit_tiny_tf_224", preprocess={"size": 100})


# Random initialisation.


def test_seed_decides_the_random_weights(random):
    shas = [random("test_resnet", seed=seed).weights_sha256() for seed in (0, 0, 1)]
    assert shas[0] == shas[1] != shas[2]


def test_seed_is_torchs_own(random):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model("test_resnet", num_classes=0)
    backbone = random("test_resnet", seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), backbone.model.parameters(), strict=True))


# Names and weights.


def test_names(refused, random):
    assert is_timm_name("test_resnet") and is_timm_name("test_resnet.r160_in1k")
    assert not is_timm_name("test_resnet.none") and not is_timm_name("") and not is_timm_name("none")
    assert {"resnet50", "resnet50.a1_in1k"} <= set(timm_names())
    with refused("no model 'resnett50'", "Did you mean: resnet50"):
        random("resnett50")


def test_weights_in_the_cache_are_loaded(checkpoints, monkeypatch, make_card, hub):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(checkpoints / "hub"))
    state = torch.load(checkpoints / "plain.pth", weights_only=True)
    started = time.monotonic()
    backbone = open_backbone(make_card(model="test_resnet"))
    assert time.monotonic() - started < 10
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.model.state_dict().items())
    assert weights_status(make_card(model="test_resnet")).startswith("here, ")


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("test_resnet", "`hf download timm/test_resnet.r160_in1k`"),
        ("resnet18.a1_in1k", "`hf download timm/resnet18.a1_in1k`"),
    ],
)
def test_unreachable_hub_is_said_at_once(model, how, hub, make_card, refused):
    started = time.monotonic()
    with refused(f"'{model}'", "not in the cache", how, f"--backbone timm:{model}@FILE", "$HF_HOME"):
        open_backbone(make_card(model=model))
    assert time.monotonic() - started < 10
    assert weights_status(make_card(model=model)).startswith("not here; downloaded from timm/")


def test_offline_mode_is_said_at_once(hub, make_card, refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused("'test_resnet'", "`hf download timm/test_resnet.r160_in1k`"):
        open_backbone(make_card(model="test_resnet"))


def test_hub_that_answers_is_asked_for_the_weights(hub, make_card, refused, monkeypatch):
    """A repository may lack config.json and have the weights; a refusal of the download itself is told."""

    class Answer(Exception):
        pass

    def refuse(*args, **kwargs):
        raise PermissionError("401: the repository is gated")

    monkeypatch.setattr("bob.backbones.timm.HfHubHTTPError", Answer)
    monkeypatch.setattr("bob.backbones.timm.get_hf_file_metadata", lambda *_, **__: (_ for _ in ()).throw(Answer()))
    monkeypatch.setattr("timm.create_model", refuse)
    with refused("'test_resnet'", "401: the repository is gated"):
        open_backbone(make_card(model="test_resnet"))


def test_model_without_published_weights(make_card, refused):
    with refused("'botnet50ts_256'", "timm publishes none", "botnet50ts_256.random"):
        open_backbone(make_card(model="botnet50ts_256"))
    assert weights_status(make_card(model="botnet50ts_256")) == "timm publishes none"


def test_full_disk_and_bugs_are_not_taken_for_a_lack_of_network(make_card, monkeypatch, hub, checkpoints):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(checkpoints / "hub"))
    for problem in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("shape mismatch")):
        monkeypatch.setattr("timm.create_model", lambda *_, problem=problem, **__: (_ for _ in ()).throw(problem))
        with pytest.raises(type(problem), match=r"space|mismatch"):
            open_backbone(make_card(model="test_resnet"))
