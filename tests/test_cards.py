"""What a card may say of its weights, and the twin that is derived from it."""

import pytest
from pydantic import ValidationError

from bob.cards import BackboneCard, Feature, Weights


@pytest.mark.parametrize("key", ["drop", "rename"])
def test_patterns_are_regular_expressions(key):
    wrong = {"(": ""} if key == "rename" else ("(",)
    with pytest.raises(ValidationError, match="no regular expression"):
        Weights(source="checkpoint", model="m", file="f", **{key: wrong})


@pytest.mark.parametrize(
    ("source", "key", "value"),
    [
        ("timm", "revision", "main"),
        ("timm", "rename", {"a": "b"}),
        ("torchvision", "file", "w.pth"),
        ("transformers", "sha256", "0" * 64),
        ("pixels", "options", {"size": 8}),
    ],
)
def test_what_a_source_does_not_read_is_refused(source, key, value):
    with pytest.raises(ValidationError, match=f"'{source}' does not read '{key}'"):
        Weights(source=source, model="m", **{key: value})


def test_a_descriptor_needs_a_width():
    with pytest.raises(ValidationError, match="needs 'width'"):
        Feature(layer="descriptor")


def test_renaming_keeps_its_order():
    rename = {"z": "1", "a": "2", "m": "3"}
    card = BackboneCard(name="x", weights=Weights(source="checkpoint", model="m", file="f", rename=rename))
    assert list(BackboneCard.model_validate_json(card.model_dump_json()).weights.rename) == ["z", "a", "m"]


@pytest.mark.parametrize("source", ["timm", "open_clip", "torchvision", "transformers", "diffusers"])
def test_a_twin_is_built_by_the_same_source(source):
    revision = "r" if source in ("open_clip", "transformers", "diffusers") else ""
    weights = Weights(source=source, model="m", revision=revision, options={"num_heads": 12}, install="pip install w")
    twin = BackboneCard(name="x", weights=weights).random_twin()
    assert twin.name == "x.random" and twin.weights.source == source
    assert twin.weights.options == {"num_heads": 12} and twin.weights.revision == revision
    assert not twin.weights.pretrained and not twin.weights.install and not twin.has_random_twin


def test_the_twin_of_a_checkpoint_is_its_architecture():
    weights = Weights(
        source="checkpoint",
        model="m",
        file="f",
        sha256="0" * 64,
        rename={"a": "b"},
        drop=("c",),
        options={"depth": 2},
        fixed=("pos_embed",),
    )
    twin = BackboneCard(name="x", weights=weights).random_twin().weights
    assert twin == Weights(source="timm", model="m", pretrained=False, options={"depth": 2})
