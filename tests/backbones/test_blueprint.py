"""The shape of a backbone is known without its weights."""

import pytest

from bob.backbones.blueprint import blueprint
from bob.cards import Feature
from bob.catalogue import load_backbone_cards

CARDS = load_backbone_cards()


def test_shape_of_a_giant_costs_no_memory():
    shape = blueprint(CARDS["vit_giant_patch14_dinov2.lvd142m"])
    assert (shape.width, shape.parameters) == (1536, CARDS["vit_giant_patch14_dinov2.lvd142m"].parameters)
    assert (shape.strides, shape.channels) == ((14,), (1536,))
    assert shape.preprocess.size == (518, 518)


def test_options_count():
    card = CARDS["moco_v3_vit_small_patch16_224"]
    weights = card.weights.model_copy(update={"options": {"embed_dim": 768}})
    wide = card.model_copy(update={"weights": weights, "feature": Feature()})
    assert blueprint(card).width == 384 and blueprint(wide).width == 768


@pytest.mark.parametrize(("name", "width"), [("pixels", 3072), ("constant", 1)])
def test_baselines_have_no_maps(name, width):
    shape = blueprint(CARDS[name])
    assert (shape.width, shape.parameters, shape.strides, shape.channels) == (width, 0, (), ())


def test_users_code_is_not_run(make_card, write, refused):
    path = write("mine.py", "raise SystemExit('ran')")
    with refused("is known when its code is run", "bob check"):
        blueprint(make_card("custom", model=f"{path}:make"))


def test_an_architecture_that_lies_on_the_hub(make_card, hub, refused):
    with refused("nobody/nothing"):
        blueprint(make_card("transformers", model="nobody/nothing"))
