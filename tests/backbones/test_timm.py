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


# Pooled layers: the class token where that is the model's own feature, else the mean of the map.


@pytest.mark.parametrize(
    "name", ["test_vit", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"]
)
def test_pooled_layer_is_the_class_token(name, random):
    backbone = random(name, preprocess={"size": 56 if "14" in name else 64})
    images = torch.randn(2, 3, *backbone.preprocess.size)
    with torch.inference_mode():
        last, tokens = backbone.layers(images)[-1], backbone.model.forward_features(images)
        torch.testing.assert_close(backbone.model.norm(last.pooled), tokens[:, 0])
        prefix = backbone.model.num_prefix_tokens
        torch.testing.assert_close(backbone.model.norm(last.map.flatten(2).transpose(1, 2)), tokens[:, prefix:])
    assert last.pooled.shape == last.map.shape[:2]


@pytest.mark.parametrize(
    "name",
    [
        "test_vit2",  # register tokens, mean
        "vit_tiny_patch16_dinov3_qkvb",  # class and register tokens, mean
        "vit_base_patch16_siglip_224",  # attention pooling
        "vit_small_patch16_36x1_224",
        "test_convnext",
        "hiera_tiny_224",
        "swinv2_tiny_window8_256",
        "cait_xxs24_224",  # its class token joins late
    ],
)
def test_pooled_layer_is_the_mean_of_the_map(name, make_card):
    own_class_token = name == "vit_small_patch16_36x1_224"
    feature = {"pooling": "avg"} if own_class_token else None
    with torch.device("meta"):
        backbone = open_backbone(make_card(model=name, pretrained=False, feature=feature))
        layers = backbone.layers(torch.zeros(2, 3, *backbone.preprocess.size))
    assert all(layer.pooled.shape == layer.map.shape[:2] for layer in layers)
    assert len(layers) == len(backbone.model.feature_info)
    assert not backbone._hands_out_class_tokens()


@pytest.mark.parametrize(("pooling", "pool"), [("avg", torch.Tensor.mean), ("max", torch.Tensor.amax)])
def test_pooled_layer_follows_the_card(pooling, pool, random):
    backbone = random("test_vit", preprocess={"size": 64}, feature={"pooling": pooling})
    with torch.inference_mode():
        layers = backbone.layers(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(layer.pooled, pool(layer.map, (2, 3))) for layer in layers)


def test_pooled_layers_by_index_are_class_tokens_too(random):
    backbone = random("test_vit", preprocess={"size": 64})
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        every, (last,) = backbone.layers(images), backbone.layers(images, [-1])
    assert torch.equal(last.pooled, every[-1].pooled) and torch.equal(last.map, every[-1].map)


@pytest.mark.parametrize("index", [5, -6])
def test_block_that_is_not_there(index, random, images, refused):
    with refused("'mine'", f"no block {index}", "from 0 to 4"):
        random("test_resnet").layers(images, [0, index])


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "densenet121", "legacy_xception"])
def test_maps_without_forward_intermediates(name, make_card, monkeypatch):
    """Older timm lacks the method for many CNNs; hooks on the same module read the same maps."""
    backbone = open_backbone(make_card(model=name, pretrained=False))
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected, layers = backbone.feature_maps(images), backbone.layers(images, [-1])
        monkeypatch.delattr(type(backbone.model), "forward_intermediates")
        found, hooked = backbone.feature_maps(images), backbone.layers(images, [-1])
    for ours, theirs in zip([*found, hooked[0].pooled], [*expected, layers[0].pooled], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.model.modules())


def test_vit_without_forward_intermediates_has_no_maps(random, refused, monkeypatch):
    backbone = random("test_vit", preprocess={"size": 64})
    monkeypatch.delattr(type(backbone.model), "forward_intermediates")
    with refused("'mine'", "no feature maps", "forward_intermediates"):
        backbone.feature_maps(torch.zeros(1, 3, 64, 64))


def test_a_block_without_module_is_no_stride(make_card):
    """TResNet declares stride 2 for a stem that has stride 4."""
    with torch.device("meta"):
        backbone = open_backbone(make_card(model="tresnet_m", pretrained=False))
        maps = backbone.feature_maps(torch.zeros(1, 3, 224, 224))
    assert backbone.strides == [4, 8, 16, 32]
    assert [m.shape[2] for m in maps] == [56, 28, 14, 7]


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


@pytest.mark.parametrize("size", [pytest.param((256, 256), marks=pytest.mark.slow), (224, 448)])
@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_base_patch16_siglip_224",
        "beit_base_patch16_224",
        "eva02_tiny_patch14_224",
        "vit_tiny_patch16_dinov3_qkvb",
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "convnext_atto",
        "resnet50_clip",
        "hiera_tiny_224",
        "maxvit_pico_rw_256",
        "coat_lite_tiny",
        "levit_128s",
        "pvt_v2_b0",
        "mobilenetv3_small_050",
        "samvit_base_patch16_224",
    ],
)
def test_strides_at_another_size(name, size, make_card):
    # Both edges are multiples of 32; patches of 14 need multiples of 14.
    size = (252, 252) if "patch14" in name and size[0] == 256 else size
    with torch.device("meta"):
        backbone = open_backbone(make_card(model=name, pretrained=False, preprocess={"size": size}))
        maps = backbone.feature_maps(torch.zeros(1, 3, *size))
        pooled = backbone.embed(torch.zeros(1, 3, *size))
    assert backbone.preprocess.size == size and pooled.ndim == 2
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-size[0] // s), -(-size[1] // s)) for s in backbone.strides]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convit_tiny", (224, 448)),  # square only
        ("efficientformer_l1", (256, 256)),  # 224 only
        ("crossvit_tiny_240", (272, 272)),
    ],
)
def test_size_that_no_resampling_gives(name, size, make_card, refused):
    with torch.device("meta"), refused(f"timm's {name}", f"preprocess.size = {size}", "Correct preprocess.size"):
        open_backbone(make_card(model=name, pretrained=False, preprocess={"size": size}))


def test_size_that_the_model_cannot_take(random, refused):
    with refused("maxvit_tiny_tf_224", "preprocess.size = (100, 100)", "divisible"):
        random("maxvit_tiny_tf_224", preprocess={"size": 100})


# Options of the architecture.


def test_options_reach_the_architecture(random):
    backbone = random("test_vit", preprocess={"size": 64}, options={"num_heads": 4, "reg_tokens": 2})
    assert backbone.model.blocks[0].attn.num_heads == 4 and backbone.model.num_prefix_tokens == 3
    assert backbone.identity()["options"] == {"num_heads": 4, "reg_tokens": 2}


@pytest.mark.parametrize("options", [{"num_headz": 2}, {"num_heads": 5}, {"patch_size": "wide"}])
def test_options_that_the_architecture_lacks(options, random, refused):
    with refused("timm's test_vit", f"weights.options = {options}", "Correct weights.options"):
        random("test_vit", options=options)


def test_option_and_size_are_both_named(random, refused):
    with refused("weights.options = {'num_heads': 5} and preprocess.size = (64, 64)"):
        random("vit_tiny_patch16_224", options={"num_heads": 5}, preprocess={"size": 64})


@pytest.mark.parametrize(
    ("option", "remedy"),
    [("img_size", "preprocess.size"), ("num_classes", "no classifier"), ("pretrained", "weights.pretrained")],
)
def test_options_that_belong_elsewhere(option, remedy, random, refused):
    with refused("'mine'", f"'{option}' has no place in weights.options", remedy):
        random("test_vit", options={option: 1})


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

    monkeypatch.setattr("bob.backbones.timm_hub.HfHubHTTPError", Answer)
    monkeypatch.setattr("bob.backbones.timm_hub.get_hf_file_metadata", lambda *_, **__: (_ for _ in ()).throw(Answer()))
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


def test_weights_that_lie_at_a_plain_url(make_card, hub):
    """timm's I-JEPA has no repository of its own on the hub."""
    card = make_card(model="vit_huge_patch14_gap_224.in1k_ijepa")
    url = timm.get_pretrained_cfg(card.weights.model).url
    assert weights_status(card) == f"not here; downloaded from {url} when first used"
    path = hub / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    path.touch()
    assert weights_status(card) == f"here, {path}"
    path.unlink()
