"""Cards of publishers' checkpoints: their files load key for key and give what the publishers' own networks give."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from bob.backbones import timm as timm_source
from bob.backbones.checkpoint import load_checkpoint, read_tensors, weights_status
from bob.backbones.download import cached, is_url
from bob.backbones.keys import fit
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.cards import Feature
from bob.catalogue import load_backbone_cards

CARDS = {
    name: card
    for name, card in load_backbone_cards().items()
    if card.weights.source == "checkpoint" and is_url(card.weights.file)
}
# The tests are no package, so a module beside this one is loaded by its path.
_spec = importlib.util.spec_from_file_location("bob_test_publishers", Path(__file__).with_name("publishers.py"))
publishers = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(publishers)


@pytest.fixture(params=list(CARDS))
def card(request):
    return CARDS[request.param]


@pytest.fixture
def publish(tmp_path):
    """A function that saves a small file as the card's publisher does: (its network, the card for the file)."""

    def publish(card, **options):
        torch.manual_seed(3)
        published = getattr(publishers, card.name)(small=True)
        path = tmp_path / "weights.pth"
        torch.save(published.content, path)
        weights = {"file": str(path), "options": {**card.weights.options, **published.smaller, **options}}
        size = (64, 64) if "resnet" in card.weights.model else card.preprocess.size
        return published.model, card.model_copy(
            update={
                "weights": card.weights.model_copy(update=weights),
                "preprocess": card.preprocess.model_copy(update={"size": size}),
                # A smaller network's is narrower, but a descriptor has a width of its own.
                "feature": card.feature if card.feature.layer == "descriptor" else Feature(),
            }
        )

    return publish


def outputs(model, backbone):
    images = torch.randn(2, 3, *backbone.preprocess.size)
    with torch.inference_mode():
        return model(images), backbone.embed(images)


def test_output_is_the_publishers(card, publish):
    model, small = publish(card)
    theirs, ours = outputs(model, open_backbone(small))
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_full_size_fits(card, tmp_path):
    path = tmp_path / "weights.pth"
    with torch.device("meta"):
        torch.save(getattr(publishers, card.name)(small=False).content, path)
        model = timm_source.create(card, pretrained=False)
        tensors = fit(read_tensors(path, card.weights.nest), model, card, path)
    assert tensors.keys() == model.state_dict().keys()
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters


def test_card_says_everything(card):
    assert None not in card.preprocess.model_dump().values()
    assert card.licence != "unknown" and card.facts and card.feature.width and card.paradigm in ("ssl", "depth")
    assert card.weights.file.startswith("https://")
    assert all(r.metric in ("linear_top1", "knn_top1", "finetune_top1") and r.value > 50 for r in card.references)


def test_without_a_network_one_line_says_what_to_do(card, monkeypatch, tmp_path, refused):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert weights_status(card.weights) == f"not here; downloaded from {card.weights.file} when first used"
    with refused(card.weights.file, cached(card.weights.file)):
        load_checkpoint(card)


@pytest.mark.parametrize("name", ["moco_v3_vit_small_patch16_224", "vicregl_convnext_xlarge"])
def test_random_twin_opens(name):
    with torch.device("meta"):
        twin = open_backbone(resolve_backbone(f"{name}.random", CARDS))
    assert twin.parameter_count() == CARDS[name].parameters


def test_moco_with_six_heads_is_another_network(publish):
    model, card = publish(CARDS["moco_v3_vit_small_patch16_224"], num_heads=6)
    theirs, ours = outputs(model, open_backbone(card))
    assert (ours - theirs).abs().max() > 1e-2


def test_vicregl_averaged_before_the_norm_is_another_network(publish):
    """As timm's ConvNeXt has it: the keys fit, the output does not."""
    model, card = publish(CARDS["vicregl_convnext_xlarge"], head_norm_first=False)
    rename = {**card.weights.rename, "^norm\\.": "head.norm."}
    card = card.model_copy(update={"weights": card.weights.model_copy(update={"rename": rename})})
    theirs, ours = outputs(model, open_backbone(card))
    assert (ours - theirs).abs().max() > 1e-2


def test_sscds_average_is_not_its_descriptor(publish):
    model, card = publish(CARDS["sscd_resnet50"])
    backbone = open_backbone(card)
    theirs, ours = outputs(model, backbone)
    assert ours.shape == (2, 512)
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(2))
    backbone.model.global_pool.p = 1.0
    assert (outputs(model, backbone)[1] - theirs).abs().max() > 1e-2


def test_only_a_resnet_gets_a_descriptor(make_card, refused):
    feature = {"layer": "descriptor", "width": 8}
    with refused("timm's test_vit does not take feature.layer = 'descriptor'", "Correct feature.layer"):
        open_backbone(make_card(model="test_vit", pretrained=False, feature=feature))


def test_midas_in_windows_of_eight_is_another_network(publish):
    model, card = publish(CARDS["midas_swin2_tiny"], window_size=8)
    theirs, ours = outputs(model, open_backbone(card))
    assert (ours - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["moco_v3_vit_small_patch16_224", "moco_v3_vit_base_patch16_224"])
def test_mocos_positions_are_sines_and_cosines_and_fixed(name, publish):
    _, card = publish(CARDS[name])
    parameters = dict(open_backbone(card).model.named_parameters())
    positions = parameters.pop("pos_embed")
    torch.testing.assert_close(positions.detach(), publishers.sine_cosine(positions.shape[-1]))
    assert not positions.requires_grad and all(parameter.requires_grad for parameter in parameters.values())


def test_vicregls_layer_scale_stays_at_one(publish):
    _, card = publish(CARDS["vicregl_convnext_xlarge"])
    for name, parameter in open_backbone(card).model.named_parameters():
        assert parameter.requires_grad != name.endswith("gamma")
        if name.endswith("gamma"):
            assert torch.equal(parameter, torch.ones_like(parameter))


def test_another_file_of_the_publisher_is_refused(publish, refused):
    _, card = publish(CARDS["swav_resnet50"])
    backbone_only = {
        name: tensor
        for name, tensor in torch.load(card.weights.file).items()
        if "head" not in name and "proto" not in name
    }
    torch.save(backbone_only, card.weights.file)
    with refused("weights.drop", "matches none"):
        open_backbone(card)


def test_facebooks_own_convnext_needs_no_mapping(tmp_path, make_card):
    """`timm:NAME@FILE` takes the layouts that timm itself converts."""
    published = publishers.convnext((1, 1, 2, 1), (16, 32, 64, 128))
    torch.save(published.content, tmp_path / "fb.pth")
    card = resolve_backbone(f"timm:convnext_tiny@{tmp_path / 'fb.pth'}", {})
    weights = card.weights.model_copy(update={"options": published.smaller})
    theirs, ours = outputs(published.model, open_backbone(card.model_copy(update={"weights": weights})))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
