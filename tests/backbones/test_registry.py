"""Every built-in card says what is true of its backbone, and those whose weights are at hand have learnt to see.

Cards are checked against their architecture on torch's meta device, which knows shapes but holds no numbers. Only the
cards in `TRIED` are tried with their real weights: those that a package of the index carries.
"""

import contextlib
import functools
import json
import runpy
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config

from bob.backbones.checkpoint import locate, read_tensors
from bob.backbones.sources import open_backbone, resolve_backbones, weights_status
from bob.catalogue import load_backbone_cards

CARDS = load_backbone_cards()
PRETRAINED = [card for card in CARDS.values() if card.has_random_twin]
TRIED = [card for card in PRETRAINED if (card.weights.file or "").startswith("package:")]
FROM_TIMM = [card for card in PRETRAINED if card.weights.source == "timm"]
PALACE, DAISY = 698, 985  # classes of ImageNet-1k
SURVEY = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "survey_timm.py"))

# The backbones of Battle of the Backbones (arXiv 2310.19909) that timm has, and what came after.
WANTED = [
    *[f"resnet50.{tag}" for tag in ("a1_in1k", "tv_in1k", "tv2_in1k")],
    *[f"resnet101.{tag}" for tag in ("a1h_in1k", "tv_in1k")],
    *["resnet18.tv_in1k", "resnet18.a1_in1k", "efficientnet_b0.ra_in1k", "regnetx_004.pycls_in1k"],
    *[f"resnet{kind}_clip.openai" for kind in ("50", "101", "50x64")],
    *[f"vit_base_patch16_clip_224.{tag}" for tag in ("openai", "laion2b")],
    *[f"vit_large_patch14_clip_224.{tag}" for tag in ("openai", "laion2b")],
    "convnext_base.clip_laion2b",
    *[f"convnext_{size}.fb_in1k" for size in ("tiny", "small", "base")],
    *[f"convnext_{size}.fb_in22k" for size in ("tiny", "small", "base", "xlarge")],
    *[f"convnext_{size}.fb_in22k_ft_in1k" for size in ("tiny", "small", "base", "xlarge")],
    *[f"swinv2_{size}_window{window}_256.ms_in1k" for size in ("tiny", "small", "base") for window in (8, 16)],
    *[f"swinv2_{size}_window12_192.ms_in22k" for size in ("base", "large")],
    *[f"swinv2_{size}_window12to16_192to256.ms_in22k_ft_in1k" for size in ("base", "large")],
    *[f"swinv2_{size}_window12to24_192to384.ms_in22k_ft_in1k" for size in ("base", "large")],
    *[f"vit_{size}_patch16_224.augreg_in1k" for size in ("small", "base")],
    *[f"vit_{size}_patch16_224.augreg_in21k" for size in ("small", "base", "large")],
    *[f"vit_{size}_patch16_224.augreg_in21k_ft_in1k" for size in ("small", "base", "large")],
    *[f"deit_{size}_patch16_224.fb_in1k" for size in ("small", "base")],
    "deit_base_patch16_384.fb_in1k",
    *[f"vit_{size}_patch{patch}_224.dino" for size in ("small", "base") for patch in (8, 16)],
    *[f"vit_{size}_patch16_224.mae" for size in ("base", "large")],
    "samvit_base_patch16.sa1b",
    *[f"vit_{size}_patch14_dinov2.lvd142m" for size in ("small", "base", "large", "giant")],
    *[f"vit_{size}_patch14_reg4_dinov2.lvd142m" for size in ("small", "base", "large", "giant")],
    *[f"vit_{size}_patch16_dinov3.lvd1689m" for size in ("small", "base", "large")],
    *[f"vit_base_patch16_siglip_224.{tag}" for tag in ("webli", "v2_webli")],
    "eva02_base_patch14_224.mim_in22k",
    "aimv2_large_patch14_224.apple_pt",
    *[f"vit_huge_patch14_gap_224.{tag}" for tag in ("in1k_ijepa", "in22k_ijepa")],
]


def ids(card):
    return card.name


def architectures(cards):
    """Parameters of a test that builds an architecture; the large ones take their time even without numbers."""
    slow = pytest.mark.slow
    return [pytest.param(c, id=c.name, marks=slow if (c.parameters or 0) > 250_000_000 else ()) for c in cards]


def opened(card):
    """The card's architecture on the meta device; cards that share one share what is built."""
    twin = card.random_twin()
    bare = twin.weights.model.partition(".")[0] if twin.weights.source == "timm" else twin.weights.model
    own = str(timm.get_pretrained_cfg(card.weights.model).input_size) if twin.weights.source == "timm" else ""
    key = [twin.weights.model_dump(exclude={"model"}), bare, own, twin.feature.model_dump(), str(twin.preprocess)]
    return _opened(json.dumps(key), twin.name)


@functools.cache
def _opened(key, name):
    (twin,) = resolve_backbones([name], CARDS)
    # Others than timm compute with numbers while they build.
    quick = SURVEY["without_initialisation"]() if twin.weights.source == "timm" else contextlib.nullcontext()
    with torch.device("meta"), quick:
        backbone = open_backbone(twin)
    images = torch.zeros(1, 3, *backbone.preprocess.size, device="meta")
    with torch.inference_mode():
        return backbone, backbone.embed(images).shape[1], [m.shape for m in backbone.feature_maps(images)]


def embed(backbone, image):
    """(3, H, W) uint8 -> (D,)."""
    with torch.inference_mode():
        return backbone.embed(backbone.preprocess.normalize(backbone.preprocess.crop(image)[None]))[0]


# Every card, of every source.


def test_the_wanted_cards_are_there():
    assert not set(WANTED) - set(CARDS)
    assert not [name for name in WANTED if name != CARDS[name].weights.model]


@pytest.mark.parametrize("card", PRETRAINED, ids=ids)
def test_card_says_where_it_comes_from(card):
    for said in (card.description, card.method, card.architecture, card.pretraining_data, card.licence):
        assert said and said.lower() not in ("unknown", "todo")
    assert card.paradigm not in ("unknown", "baseline")
    assert card.facts and all(fact.startswith("https://") for fact in card.facts)
    assert card.pretraining_images is None or card.pretraining_images >= 1_000_000
    assert all(reference.source and 0 < reference.value <= 100 for reference in card.references)


@pytest.mark.parametrize("card", architectures(PRETRAINED))
def test_card_is_true_of_its_architecture(card):
    backbone, width, _ = opened(card)
    assert backbone.parameter_count() == card.parameters
    assert width == card.feature.width
    assert width != 1000, "1000 is the width of ImageNet's logits"


@pytest.mark.parametrize("card", architectures(PRETRAINED))
def test_feature_maps_have_their_strides(card):
    backbone, _, maps = opened(card)
    height, width = backbone.preprocess.size
    assert backbone.strides == sorted(set(backbone.strides))
    for stride, shape in zip(backbone.strides, maps, strict=True):
        assert height // stride <= shape[2] <= -(-height // stride)
        assert width // stride <= shape[3] <= -(-width // stride)


# Cards of timm.


@pytest.mark.parametrize("card", architectures(FROM_TIMM))
def test_preprocessing_is_timms(card):
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(card.weights.model).to_dict())
    with torch.device("meta"), SURVEY["without_initialisation"]():
        ours = open_backbone(card.random_twin()).preprocess
    assert (3, *ours.size) == config["input_size"] and ours.crop_fraction == config["crop_pct"]
    assert (ours.crop_mode, ours.interpolation) == (config["crop_mode"], config["interpolation"])
    assert (ours.mean, ours.std) == (config["mean"], config["std"])


@pytest.mark.parametrize("card", FROM_TIMM, ids=ids)
def test_licence_is_timms(card):
    assert card.licence == timm.get_pretrained_cfg(card.weights.model).license


@pytest.mark.parametrize("card", architectures(FROM_TIMM))
def test_channels_are_timms(card):
    backbone, width, maps = opened(card)
    channels = {block["reduction"]: block["num_chs"] for block in backbone.model.feature_info}
    assert [shape[1] for shape in maps] == list(channels.values())
    assert width in (backbone.model.num_features, backbone.model.head_hidden_size)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18.tv_in1k",
        "regnetx_004.pycls_in1k",
        "efficientnet_b0.ra_in1k",
        "convnext_tiny.dinov3_lvd1689m",
        "swinv2_tiny_window8_256.ms_in1k",
        "vit_small_patch16_224.dino",
        "vit_small_patch16_dinov3.lvd1689m",
        "eva02_small_patch14_224.mim_in22k",
    ],
)
def test_feature_is_the_input_of_the_classifier(name):
    backbone = open_backbone(CARDS[name].random_twin())
    images = torch.randn(1, 3, *backbone.preprocess.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = backbone.model.forward_head(backbone.model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.embed(images), expected)
    assert CARDS[name].feature.layer == "pre_logits"


# Cards tried with their real weights.


@pytest.fixture(scope="module", params=TRIED, ids=ids)
def card(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(card):
    return open_backbone(card)


@pytest.fixture(scope="module")
def images(photos):
    return {name: torch.from_numpy(photo).permute(2, 0, 1) for name, photo in photos.items()}


def test_some_cards_are_tried():
    assert len(TRIED) >= 4


def test_card_tells_the_truth(card, backbone):
    assert backbone.parameter_count() == card.parameters
    assert backbone.width() == card.feature.width
    assert card.weights.sha256 and card.weights.install
    assert weights_status(card) == f"here, {locate(card)}"


def test_features_are_the_same_every_time(card, backbone, images):
    assert torch.equal(embed(backbone, images["china"]), embed(open_backbone(card), images["china"]))


def test_every_tensor_of_the_trunk_comes_from_the_file(card, backbone):
    stored = list(read_tensors(locate(card)).values())
    for ours, theirs in zip(backbone.model.state_dict().values(), stored, strict=False):
        assert torch.equal(ours, theirs)


def test_views_of_one_photograph_are_closer_than_two_photographs(card, backbone, images):
    def cosine(a, b):
        return torch.cosine_similarity(a, b, dim=0)

    left, right, other = (
        embed(backbone, view) for view in (images["china"][:, :, :480], images["china"][:, :, 160:], images["flower"])
    )
    assert cosine(left, right) > cosine(left, other) + 0.3
    twin = open_backbone(card.random_twin())
    left, right, other = (
        embed(twin, view) for view in (images["china"][:, :, :480], images["china"][:, :, 160:], images["flower"])
    )
    assert cosine(left, right) < cosine(left, other) + 0.3


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_classifier_in_the_file_recognises_a_palace(name, images):
    """The published classifier, put on the features of `embed`: right only if every layer below it is."""
    card = CARDS[name]
    *_, weight, bias = read_tensors(locate(card)).values()
    assert weight.shape == (1000, 1280)
    backbone = open_backbone(card)
    probabilities = (weight @ embed(backbone, images["china"]) + bias).softmax(0)
    assert probabilities.argmax() == PALACE
    assert probabilities[PALACE] > 0.25
    if name == "efficientnet_lite0":  # the larger two take its heart for a honeycomb
        assert (weight @ embed(backbone, images["flower"]) + bias).argmax() == DAISY


def test_every_random_twin_opens(card):
    (twin,) = resolve_backbones([f"{card.name}.random"], CARDS)
    backbone = open_backbone(twin)
    assert backbone.parameter_count() == card.parameters
    assert backbone.width() == card.feature.width
    assert backbone.preprocess == open_backbone(card).preprocess
    assert backbone.weights_sha256() != open_backbone(card).weights_sha256()
