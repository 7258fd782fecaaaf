"""What a card may say of its weights, and the twin that is derived from it."""

import pytest
from pydantic import ValidationError

from bob.cards import BackboneCard, Feature, Weights
from bob.task_cards import DataSpec, TaskCard


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


# Task cards


@pytest.mark.parametrize(
    ("source", "key", "value", "problem"),
    [
        ("folder:x", "options", {"partition": 1}, "does not read 'options', 'torchvision:' does"),
        ("torchvision:DTD", "revision", "main", "does not read 'revision', 'hf:' does"),
        ("wilds:fmow", "label_column", "y", "does not read 'label_column', 'hf:' does"),
        ("shapes", "val_fraction", 0.1, "has splits of its own and does not read 'val_fraction'"),
        ("shapes_multilabel", "splits", {"train": "train"}, "has splits of its own"),
        ("folder:x", "subset_sha256", "0" * 64, "'subset_sha256' is the checksum of 'subset', which is missing"),
        ("folder:x", "splits", {"test": "test"}, "'splits' needs 'train'"),
        ("folder:x", "splits", {"train": "train", "val": "test", "test": "test"}, "uses the source's 'test' twice"),
        ("folder:x", "splits", {"train": "train + val", "val": "val"}, "uses the source's 'val' twice"),
        ("folder:x", "splits", {"train": "train+"}, "names no split of the source"),
        ("folder:x", "splits", {"trian": "train"}, "Input should be 'train', 'val' or 'test'"),
        ("folder:x", "train_count", 0, "greater than 0"),
        ("folder:x", "expect", {"train": -1}, "greater than 0"),
    ],
)
def test_data_that_a_card_cannot_ask_for(source, key, value, problem):
    with pytest.raises(ValidationError, match=problem):
        DataSpec(source=source, **{key: value})


def task(**keys):
    return TaskCard(**{"name": "t", "adapter": "classification", "data": {"source": "folder:x", "classes": 2}, **keys})


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("prompts", ["a photo"], "the prompt 'a photo' has no {} where"),
        ("prompts", [], "the array is empty"),
        ("prompts", "clip", "no prompts 'clip', only default, simple_imagenet, openai_imagenet"),
        ("class_names", "cifar", "no class names 'cifar', only imagenet"),
        ("class_names", ["cat", "cat"], "'cat' is the name of two classes"),
        ("class_names", ["a", "b", "c"], "3 names for 2 classes"),
    ],
)
def test_words_for_zero_shot_that_are_wrong(key, value, problem):
    with pytest.raises(ValidationError, match=problem):
        task(**{key: value})


def test_a_full_task_card_goes_through_json_and_back():
    data = {
        **{"source": "torchvision:DTD", "options": {"partition": 2}, "splits": {"train": "train+val", "test": "test"}},
        **{"expect": {"test": 1880}, "classes": 2, "layout": "dtd/", "subset": "list.txt", "train_count": 30},
    }
    card = task(adapter="multilabel", data=data, prompts=["a {}."], class_names=["x", "y"])
    assert TaskCard.model_validate_json(card.model_dump_json()) == card
    assert card.prompts == ("a {}.",) and card.class_names == ("x", "y")
    assert task(class_names="imagenet", prompts="openai_imagenet").class_names == "imagenet"


def test_what_a_task_card_does_not_say_is_its_adapters_own():
    several, one = task(adapter="multilabel"), task()
    assert (several.metrics, several.primary) == (("mean_auroc", "map"), "mean_auroc")
    assert one.metrics[0] == one.primary == "top1"
    assert task(adapter="multilabel", metrics=["map"], primary="map").metrics == ("map",)
