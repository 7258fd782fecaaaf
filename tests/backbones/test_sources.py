"""Names on the command line and the cards they mean."""

import pytest

from bob.backbones.custom import is_custom
from bob.backbones.sources import open_backbone, resolve_backbone, resolve_backbones, weights_status
from bob.catalogue import load_backbone_cards

CARDS = load_backbone_cards()


def names(*specs, cards=CARDS):
    return [card.name for card in resolve_backbones(specs, cards)]


def test_plain_names_in_order_without_repeats():
    assert names("pixels", "constant", "pixels") == ["pixels", "constant"]
    assert resolve_backbone("pixels", CARDS) is CARDS["pixels"]


def test_globs_match_no_random_twin():
    assert names("*") == list(CARDS)
    assert names("efficientnet_lite?") == ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
    assert names("efficientnet_lite[01]", "*lite0") == ["efficientnet_lite0", "efficientnet_lite1"]


def test_globs_that_say_random_match_twins():
    twins = [f"{name}.random" for name, card in CARDS.items() if card.has_random_twin]
    assert names("*.random") == twins and len(twins) > 100
    assert names("*lite?.random") == [name for name in twins if "lite" in name]
    assert names("pixels", "mobilenet*.random") == ["pixels", "mobilenetv2_trunk.random"]


def test_a_users_card_may_end_in_random():
    cards = {**CARDS, "net.random": CARDS["pixels"].model_copy(update={"name": "net.random"})}
    assert "net.random" in names("*.random", cards=cards)
    assert "net.random" in names("*", cards=cards)
    assert resolve_backbone("net.random", cards).weights.source == "pixels"


def test_glob_without_match(refused):
    with refused("'resnext*'", "`bob list backbones`"):
        names("resnext*")


def test_timm_names_with_and_without_prefix():
    for spec in ("resnet18", "timm:resnet18"):
        card = resolve_backbone(spec, CARDS)
        assert card.name == "resnet18" and card.weights.source == "timm" and card.weights.pretrained
    assert resolve_backbone("resnet18.fb_ssl_yfcc100m_ft_in1k", CARDS).architecture == "resnet18"


def test_two_checkpoints_never_share_a_name():
    """timm has an `efficientnet_lite0` of its own."""
    assert names("efficientnet_lite0", "timm:efficientnet_lite0", "timm:efficientnet_lite0.random") == [
        "efficientnet_lite0",
        "timm:efficientnet_lite0",
        "timm:efficientnet_lite0.random",
    ]


def test_timm_architecture_with_weights_from_a_file():
    card = resolve_backbone("timm:resnet18@dir with space/w[1].pth", CARDS)
    assert card.name == "resnet18@dir with space/w[1].pth"
    assert (card.weights.source, card.weights.model) == ("checkpoint", "resnet18")
    assert card.weights.file == "dir with space/w[1].pth"
    assert resolve_backbone("timm:resnet18@w.pth.random", CARDS).weights.pretrained is False


def test_random_twin_of_a_card():
    card, twin = CARDS["efficientnet_lite0"], resolve_backbone("efficientnet_lite0.random", CARDS)
    assert twin.name == "efficientnet_lite0.random" and twin.paradigm == "baseline"
    assert twin.weights.model == card.weights.model and not twin.weights.pretrained
    assert (twin.preprocess, twin.feature, twin.parameters) == (card.preprocess, card.feature, card.parameters)
    assert twin.pretraining_images == 0 and not twin.references and not twin.has_random_twin
    assert resolve_backbone("resnet18.random", CARDS).name == "resnet18.random"


def test_twin_has_the_overrides_of_its_card(make_card):
    card = make_card("checkpoint", model="test_resnet", file="w.pth", preprocess={"size": 32})
    assert open_backbone(card.random_twin()).preprocess.size == (32, 32)


@pytest.mark.parametrize("name", ["pixels", "constant", "my.py:make"])
def test_what_has_no_random_twin(name, refused):
    with refused(f"'{name}'", "no architecture to initialise"):
        resolve_backbone(f"{name}.random", CARDS)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("efficientnet_lite_0", "efficientnet_lite0"),
        ("Pixel", "pixels"),
        ("resnet18.a1_in2k", "resnet18.a1_in1k"),
        ("mobilenetv2_trunc.random", "mobilenetv2_trunk"),
        ("qqqqqqqq", "`bob list backbones`"),
        ("", "`bob list backbones`"),
        ("my_model.py", "`my_model.py:make`"),
        ("my_model.py:", "`bob list backbones`"),
    ],
)
def test_unknown_name(spec, hint, refused):
    with refused(spec.removesuffix(".random"), hint):
        resolve_backbone(spec, CARDS)


def test_unknown_timm_name(refused):
    with refused("timm has no model 'resnet1888'", "Did you mean: resnet18"):
        resolve_backbone("timm:resnet1888", CARDS)
    with refused("timm has no model 'resnet1888'"):
        resolve_backbone("timm:resnet1888@w.pth", CARDS)


@pytest.mark.parametrize(
    ("spec", "custom"),
    [
        ("my.py:make", True),
        ("/a b/my-model.py:make", True),
        ("C:\\nets\\my.py:make", True),
        ("package.nets:make", True),
        ("timm:resnet18.a1_in1k", False),
        ("my.py", False),
        ("my.py:", False),
        (":make", False),
        ("my.py:make()", False),
        ("folder/net:make", False),
    ],
)
def test_form_of_a_custom_backbone(spec, custom):
    assert is_custom(spec) is custom


def test_weights_status():
    assert weights_status(CARDS["pixels"]) == "none needed"
    assert weights_status(CARDS["efficientnet_lite0"].random_twin()) == "none needed"
    assert weights_status(CARDS["efficientnet_lite0"]).startswith("here, /")
