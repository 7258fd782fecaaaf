"""Backbones from torchvision: the classifier's input, the weights' own preprocessing, and files in torch's cache."""

import hashlib
import math
import time
import urllib.error
import urllib.request

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights

from bob.backbones import torchvision as source
from bob.backbones.sources import open_backbone, resolve_backbone, weights_status
from bob.cards import Weights

NAMES = torchvision.models.list_models(module=torchvision.models)
ENTRIES = [entry for name in NAMES for entry in get_model_weights(name)]
# One of every family, and the smallest size that it takes.
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 64,
    "vit_b_32": 64,
}
SLOW = pytest.mark.slow


@pytest.fixture
def random(make_card):
    """A function that opens a model at random initialisation."""

    def open_(model, preprocess=None, feature=None, **weights):
        card = make_card("torchvision", preprocess, feature, model=model, pretrained=False, **weights)
        return open_backbone(card)

    return open_


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function that puts a state dict into torch.hub's cache as the file of an entry, and returns its checksum."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def put(entry, state):
        path = tmp_path / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(state, bytes):
            path.write_bytes(state)
        else:
            torch.save(state, path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return put


def weights_of(name):
    return get_model_weights(name).DEFAULT


def untouched(name, seed=0, **arguments):
    """torchvision's own model with its classifier, built from a seed as bob does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_model(name, **arguments).eval()


def pictures(size):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


# The feature.


def own_arguments(name, size):
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "transform_input": True, "init_weights": True}
    return {"image_size": size} if name.startswith("vit") else {}


def classifier(model):
    """The layer with 1000 outputs."""
    sizes = {module: getattr(module, "out_features", getattr(module, "out_channels", 0)) for module in model.modules()}
    return [module for module, size in sizes.items() if size == 1000][-1]


@pytest.mark.parametrize("name", FAMILIES)
def test_feature_is_what_the_classifier_saw(name, random):
    size = FAMILIES[name]
    backbone = random(name, {"size": size})
    model, seen = untouched(name, **own_arguments(name, size)), []
    classifier(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(pictures(size))
        features = backbone.embed(pictures(size))
    expected = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
    torch.testing.assert_close(features, expected)
    assert features.std() > 0


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAMILIES else SLOW) for n in NAMES])
def test_every_classifier_of_torchvision(name, make_card):
    """Without memory for the weights: the width is the classifier's, and nothing but the classifier is gone."""
    card = resolve_backbone(f"torchvision:{name}.random", {})
    with torch.device("meta"):
        backbone = open_backbone(card)
        whole = source._build(card, backbone.preprocess.size)
    removed = classifier(whole)
    assert backbone.width() == getattr(removed, "in_features", getattr(removed, "in_channels", None))
    lost = sum(parameter.numel() for parameter in removed.parameters())
    assert backbone.parameter_count() == sum(p.numel() for p in whole.parameters()) - lost
    assert not any(parameter.device.type != "meta" for parameter in backbone.parameters())
    assert sum(p.numel() for p in whole.parameters()) == _published_parameters(name)


def _published_parameters(name):
    auxiliary = 3_326_696 if name == "inception_v3" else 0  # of the auxiliary classifier, which is gone
    return weights_of(name).meta["num_params"] - auxiliary


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_other_pooling_is_refused(pooling, random, refused):
    with refused("'mine'", f"feature.pooling is '{pooling}'"):
        random("resnet18", feature={"pooling": pooling})


# Names.


def test_default_weights_are_spelt_out(random):
    card = resolve_backbone("torchvision:resnet50", {})
    assert card.weights.model == "resnet50/IMAGENET1K_V2"
    assert card.name == "torchvision:resnet50/IMAGENET1K_V2"
    assert resolve_backbone(card.name, {}) == card
    assert resolve_backbone("torchvision:resnet50/DEFAULT", {}) == card
    assert random("mobilenet_v3_small").card.weights.model == "mobilenet_v3_small/IMAGENET1K_V1"


def test_weights_by_name():
    card = resolve_backbone("torchvision:resnet50/IMAGENET1K_V1", {})
    assert card.weights == Weights(source="torchvision", model="resnet50/IMAGENET1K_V1")
    assert card.architecture == "resnet50"


@pytest.mark.parametrize(
    ("spec", "texts"),
    [
        ("resnet5", ["has no model 'resnet5'", "Did you mean: resnet50"]),
        ("zzz", ["has no model 'zzz'"]),
        ("resnet50/V2", ["no weights 'V2'", "It has: IMAGENET1K_V1, IMAGENET1K_V2."]),
        ("fasterrcnn_resnet50_fpn", ["'fasterrcnn_resnet50_fpn' is no image classification model"]),
        ("fcn_resnet50", ["is no image classification model"]),
        ("r3d_18", ["is no image classification model"]),
        ("quantized_resnet50", ["is no image classification model"]),
        ("vgg16/IMAGENET1K_FEATURES", ["no weights between its maps and its classifier", "vgg16/IMAGENET1K_V1"]),
    ],
)
def test_names_that_are_none(spec, texts, refused):
    with refused(*texts):
        resolve_backbone(f"torchvision:{spec}", {})


# Preprocessing.


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_resized_as_the_preset_says(entry):
    preset, preprocess = entry.transforms(), source._preprocess(entry)
    assert [min(preprocess._resized(*shape)) for shape in ((427, 640), (640, 427), (99, 99))] == preset.resize_size * 3
    assert preprocess.size == (preset.crop_size[0],) * 2
    assert preprocess.crop_fraction == pytest.approx(preset.crop_size[0] / preset.resize_size[0], abs=1e-9)


@pytest.mark.parametrize("resized", range(224, 700))
def test_crop_fraction_gives_every_size_back(resized):
    assert math.floor(224 / source._crop_fraction(224, resized)) == resized


@pytest.mark.parametrize("photo", ["china", "flower"])
@pytest.mark.parametrize(
    "entry",
    [weights_of("resnet50"), weights_of("efficientnet_b1"), weights_of("efficientnet_v2_l"), weights_of("swin_v2_t")],
    ids=str,
)
def test_images_are_those_of_the_preset(entry, photo, photos):
    image = torch.from_numpy(photos[photo]).permute(2, 0, 1)
    preprocess = source._preprocess(entry)
    ours = preprocess.normalize(preprocess.crop(image)[None])[0]
    theirs = entry.transforms()(Image.fromarray(photos[photo]))
    levels = (ours - theirs).abs() * torch.tensor(preprocess.std)[:, None, None] * 255
    assert levels.max() < 2.01 and levels.mean() < 0.02  # of 255: torch and Pillow round at other places


def test_card_overrides_the_preset(random):
    preprocess = random("resnet18", {"crop_fraction": 1.0, "interpolation": "bicubic"}).preprocess
    assert (preprocess.size, preprocess.crop_fraction, preprocess.interpolation) == ((224, 224), 1.0, "bicubic")


# Size and options.


def test_size_of_a_vit_is_built_in(random):
    assert random("vit_b_32", {"size": 96}).model.encoder.pos_embedding.shape == (1, 10, 768)


def test_size_of_a_maxvit_is_built_in(make_card):
    with torch.device("meta"):
        backbone = open_backbone(make_card("torchvision", {"size": 448}, model="maxvit_t", pretrained=False))
    assert (
        backbone.width() == 512
        and [m.shape[2] for m in backbone.feature_maps(torch.empty(1, 3, 448, 448, device="meta"))][-1] == 14
    )


@pytest.mark.parametrize(
    ("model", "size"), [("vit_b_32", (64, 96)), ("vit_b_32", (70, 70)), ("maxvit_t", (230, 230)), ("alexnet", (16, 16))]
)
def test_size_that_a_model_cannot_take(model, size, random, refused):
    with refused(model, "preprocess.size", size):
        random(model, {"size": size})


def test_options_go_to_the_builder(random):
    model = random("mobilenet_v3_small", {"size": 64}, options={"reduced_tail": True}).model
    assert model.classifier[0].out_features == 512


@pytest.mark.parametrize("key", ["num_classes", "weights", "image_size"])
def test_options_that_the_card_says_elsewhere(key, random, refused):
    with refused("'mine'", f"'{key}' has no place in weights.options"):
        random("resnet18", options={key: 7})


def test_unknown_options(random, refused):
    with refused("resnet18", "does not take weights.options", "'depth'", "Correct weights.options"):
        random("resnet18", options={"depth": 7})


# Files.


def open_cached(make_card, name, sha256, size=64):
    return open_backbone(make_card("torchvision", {"size": size}, model=name, sha256=sha256))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5", "regnet_x_400mf", "squeezenet1_1"])
def test_cached_file_is_loaded(name, cache, make_card):
    model = untouched(name, seed=7)
    sha256 = cache(weights_of(name), model.state_dict())
    backbone = open_cached(make_card, name, sha256)
    loaded = backbone.model.state_dict()
    assert loaded and all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in loaded.items())


def test_densenets_old_names(cache, make_card):
    model = untouched("densenet121", seed=7)
    state = {_with_dots(key): tensor for key, tensor in model.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    backbone = open_cached(make_card, "densenet121", cache(weights_of("densenet121"), state))
    layer = backbone.model.features.denseblock4.denselayer16
    assert torch.equal(layer.conv2.weight, model.features.denseblock4.denselayer16.conv2.weight)


def _with_dots(key):
    for part in ("norm", "conv"):
        for number in "12":
            key = key.replace(f".{part}{number}.", f".{part}.{number}.") if "denselayer" in key else key
    return key


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name, cache, make_card):
    model = untouched(name, seed=7, aux_logits=True, transform_input=True, init_weights=False)
    backbone = open_cached(make_card, name, cache(weights_of(name), model.state_dict()), 96)
    model.fc = nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(backbone.embed(pictures(96)), model(pictures(96)))


def test_positions_of_a_vit_are_resampled(cache, make_card):
    from torchvision.models.vision_transformer import interpolate_embeddings

    model = untouched("vit_b_32", seed=7)
    sha256 = cache(weights_of("vit_b_32"), model.state_dict())
    backbone = open_cached(make_card, "vit_b_32", sha256, 96)
    expected = interpolate_embeddings(96, 32, model.state_dict())["encoder.pos_embedding"]
    assert expected.shape == (1, 10, 768)
    assert torch.equal(backbone.model.encoder.pos_embedding, expected)


def test_another_file_of_that_name(cache, make_card, refused):
    entry = weights_of("mobilenet_v3_small")
    found = cache(entry, untouched("mobilenet_v3_small").state_dict())
    with refused("mobilenet_v3_small-047dcff4.pth", found[:12], "047dcff4", entry.url):
        open_cached(make_card, "mobilenet_v3_small", None)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (b"not a file of torch", "Cannot read the checkpoint"),
        ({"features.0.0.weight": torch.zeros(1)}, "does not fit torchvision's mobilenet_v3_small/IMAGENET1K_V1"),
        ({"step": 3}, "to hold a state dict"),
    ],
    ids=["damaged", "other tensors", "no tensors"],
)
def test_file_of_something_else(state, text, cache, make_card, refused):
    sha256 = cache(weights_of("mobilenet_v3_small"), state)
    with refused("mobilenet_v3_small-047dcff4.pth", text):
        open_cached(make_card, "mobilenet_v3_small", sha256)


def test_file_that_would_run_code(cache, make_card, refused):
    sha256 = cache(weights_of("mobilenet_v3_small"), untouched("mobilenet_v3_small"))
    with refused("it would run code"):
        open_cached(make_card, "mobilenet_v3_small", sha256)


def test_status_of_the_weights(cache):
    card, entry = resolve_backbone("torchvision:mobilenet_v3_small", {}), weights_of("mobilenet_v3_small")
    assert weights_status(card) == f"not here; downloaded from {entry.url} when first used"
    cache(entry, b"anything")
    assert weights_status(card).startswith("here, ") and "mobilenet_v3_small-047dcff4.pth" in weights_status(card)
    assert weights_status(card.random_twin()) == "none needed"


# Downloads.


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise urllib.error.URLError("[Errno -2] Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    return tmp_path / "hub" / "checkpoints"


def test_without_a_network(no_network, make_card, refused):
    started = time.monotonic()
    url = weights_of("mobilenet_v3_small").url
    with refused(url, "Name or service not known", f"curl -LO {url}", no_network / "mobilenet_v3_small-047dcff4.pth"):
        open_cached(make_card, "mobilenet_v3_small", None)
    assert time.monotonic() - started < 10
    assert not list(no_network.iterdir())


def test_offline_does_not_try(monkeypatch, tmp_path, make_card, refused):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: pytest.fail("tried"))
    with refused("HF_HUB_OFFLINE is set", "put the file here"):
        open_cached(make_card, "mobilenet_v3_small", None)


@pytest.fixture
def server(no_network, monkeypatch, tmp_path):
    """A function that has every download give one state dict, and returns its checksum."""

    def serve(state):
        path = tmp_path / "served.pth"
        torch.save(state, path)
        monkeypatch.setattr("torch.hub.urlopen", lambda _: urllib.request.urlopen(path.as_uri()))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return serve


def test_download_into_torchs_cache(server, no_network, make_card, monkeypatch):
    sha256 = server(untouched("mobilenet_v3_small", seed=7).state_dict())
    first = open_cached(make_card, "mobilenet_v3_small", sha256)
    assert [path.name for path in no_network.iterdir()] == ["mobilenet_v3_small-047dcff4.pth"]
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: pytest.fail("downloaded again"))
    assert open_cached(make_card, "mobilenet_v3_small", sha256).identity() == first.identity()


def test_download_of_another_file(server, no_network, make_card, refused):
    server(untouched("mobilenet_v3_small", seed=7).state_dict())
    with refused("invalid hash value", "put the file here"):
        open_cached(make_card, "mobilenet_v3_small", None)
    assert not list(no_network.iterdir())
