"""Every built-in checkpoint is the one on its card, and has learnt to see."""

import pytest
import torch

from bob.backbones.checkpoint import locate, read_tensors
from bob.backbones.sources import open_backbone, resolve_backbones, weights_status
from bob.catalogue import load_backbone_cards

CARDS = load_backbone_cards()
PRETRAINED = [card for card in CARDS.values() if card.has_random_twin]
PALACE, DAISY = 698, 985  # classes of ImageNet-1k


@pytest.fixture(scope="module", params=PRETRAINED, ids=lambda card: card.name)
def card(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(card):
    return open_backbone(card)


def embed(backbone, image):
    """(3, H, W) uint8 -> (D,)."""
    with torch.inference_mode():
        return backbone.embed(backbone.preprocess.normalize(backbone.preprocess.crop(image)[None]))[0]


@pytest.fixture(scope="module")
def images(photos):
    return {name: torch.from_numpy(photo).permute(2, 0, 1) for name, photo in photos.items()}


def test_there_are_pretrained_cards():
    assert len(PRETRAINED) >= 4


def test_card_tells_the_truth(card, backbone):
    assert backbone.parameter_count() == card.parameters
    assert backbone.width() == card.feature.width
    assert card.weights.sha256 and card.weights.install and card.facts and card.licence != "unknown"
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
