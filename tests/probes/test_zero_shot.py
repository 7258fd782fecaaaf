"""Zero-shot classification is open_clip's own, to the fifth digit, and works on a model that has learnt something."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from bob.backbones.sources import open_backbone, resolve_backbone
from bob.cards import BackboneCard, Feature, PreprocessOverride, Weights
from bob.errors import UserError
from bob.probes.prompts import DEFAULT_TEMPLATES, fill, imagenet_class_names, templates
from bob.probes.zero_shot import zero_shot_logits, zero_shot_weights

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (235, 235, 235)}
SHAPES = ("square", "disc", "cross")
CLASSES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
TRAINING_TEMPLATES = ("a {}", "a photo of a {}.", "this is a {}")

open_clip.add_model_config(Path(__file__).parents[1] / "backbones" / "open_clip_models")


def draw(label, rng):
    """A shape of a class somewhere on dark noise: uint8 (3, 32, 32)."""
    colour, shape = CLASSES[label].split()
    image = rng.integers(0, 60, (32, 32, 3))
    y, x = np.mgrid[:32, :32] - rng.integers(10, 22, 2)[:, None, None]
    radius = rng.integers(6, 10)
    inside = {
        "square": (abs(y) < 0.85 * radius) & (abs(x) < 0.85 * radius),
        "disc": y**2 + x**2 < radius**2,
        "cross": (np.minimum(abs(y), abs(x)) < 2) & (np.maximum(abs(y), abs(x)) < radius),
    }[shape]
    image[inside] = np.array(COLOURS[colour]) + rng.integers(-20, 20, 3)
    return torch.from_numpy(np.clip(image, 0, 255).astype(np.uint8)).permute(2, 0, 1)


def draw_set(each, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), each)
    return torch.stack([draw(label, rng) for label in labels]), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny CLIP, trained for seconds on drawings and captions: name of its architecture and its state dict file."""
    folder = tmp_path_factory.mktemp("trained")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "tiny-trained.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("tiny-trained")
        train(model, open_clip.get_tokenizer("tiny-trained"))
    save_file(model.state_dict(), folder / "tiny-trained.safetensors")
    return folder / "tiny-trained.safetensors"


def train(model, tokenizer, steps=100, groups=4):
    """Contrast groups of one image of each class, so that no two captions of a group mean the same."""
    each, told, classes = 40, len(TRAINING_TEMPLATES), torch.arange(len(CLASSES)).repeat(groups)
    images = draw_set(each, seed=1)[0].float().div(255).sub(0.5).div(0.25)
    captions = tokenizer([template.format(name) for name in CLASSES for template in TRAINING_TEMPLATES])
    optimizer, loss = torch.optim.AdamW(model.train().parameters(), lr=3e-3), open_clip.ClipLoss()
    for _ in range(steps):
        chosen = classes * each + torch.randint(0, each, classes.shape)
        texts = captions[classes * told + torch.randint(0, told, classes.shape)]
        pictured, written, scale = model(images[chosen], texts)
        pairs = zip(pictured.chunk(groups), written.chunk(groups), strict=True)
        optimizer.zero_grad()
        torch.stack([loss(image, text, scale) for image, text in pairs]).mean().backward()
        optimizer.step()
        model.logit_scale.data.clamp_(max=np.log(100))


def opened(name, file=None, size=None):
    weights = Weights(source="open_clip", model=name, file=file and str(file), pretrained=file is not None)
    normal = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    preprocess = PreprocessOverride(size=size, **normal)
    feature = Feature(layer="image_embedding")
    return open_backbone(BackboneCard(name="mine", weights=weights, preprocess=preprocess, feature=feature))


def stored_features(backbone, images):
    with torch.inference_mode():
        return backbone.embed(backbone.preprocess.normalize(images)).numpy()


def logits_of_open_clip(name, model, images, classes, prompts):
    """Class weights (C, D) and logits by the recipe of open_clip's documentation, and the bias of its `get_logits`."""
    tokenizer = open_clip.get_tokenizer(name)
    weights = open_clip.build_zero_shot_classifier(model, tokenizer, classes, prompts)
    with torch.inference_mode():
        logits = model.logit_scale.exp() * normalize(model.encode_image(images), dim=-1) @ weights
    return weights.T, logits if model.logit_bias is None else logits + model.logit_bias.detach()


def assert_same_as_open_clip(name, backbone, images, classes, prompts):
    weights = zero_shot_weights(backbone, classes, prompts)
    logits = zero_shot_logits(stored_features(backbone, images), weights, backbone.logit_scale, backbone.logit_bias)
    normal = backbone.preprocess.normalize(images)
    expected_weights, expected = logits_of_open_clip(name, backbone.dual, normal, classes, prompts)
    assert weights.shape == (len(classes), backbone.width()) and logits.shape == (len(images), len(classes))
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-5)
    return logits


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet", "tiny-convnext", "tiny-sigmoid"])
@pytest.mark.parametrize("kind", ["default", "simple_imagenet", "openai_imagenet"])
def test_logits_of_random_weights_are_those_of_open_clip(name, kind):
    backbone = opened(name, size=64)
    images = torch.randint(0, 256, (5, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    classes = imagenet_class_names()[: 3 if kind == "openai_imagenet" else 19]
    assert_same_as_open_clip(name, backbone, images, classes, templates(kind))
    assert (backbone.logit_bias == -10) == (name == "tiny-sigmoid")


def test_a_model_that_has_learnt_is_right_about_new_images(trained):
    images, labels = draw_set(10, seed=2)
    backbone = opened("tiny-trained", trained)
    logits = assert_same_as_open_clip("tiny-trained", backbone, images, CLASSES, DEFAULT_TEMPLATES)
    assert (logits.argmax(axis=1) == labels).mean() > 0.5  # chance is 1 in 12
    twin = opened("tiny-trained")
    guessed = zero_shot_logits(stored_features(twin, images), zero_shot_weights(twin, CLASSES))
    assert (guessed.argmax(axis=1) == labels).mean() < 0.25


def test_a_checkpoint_gives_the_same_by_file_and_by_cache(trained, tmp_path, monkeypatch):
    tag = {**open_clip.get_pretrained_cfg("ViT-B-16", "laion2b_s34b_b88k"), "hf_hub": "bob/tiny-trained/"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-trained", {"mine": tag})
    snapshot = tmp_path / "models--bob--tiny-trained" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--bob--tiny-trained" / "refs").mkdir()
    (tmp_path / "models--bob--tiny-trained" / "refs" / "main").write_text("0" * 40)
    (snapshot / "open_clip_model.safetensors").write_bytes(trained.read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    specs = (f"open_clip:tiny-trained@{trained}", "open_clip:tiny-trained/mine")
    by_file, by_cache = (open_backbone(resolve_backbone(spec, {})) for spec in specs)
    images, _ = draw_set(1, seed=3)
    np.testing.assert_array_equal(stored_features(by_file, images), stored_features(by_cache, images))
    assert torch.equal(zero_shot_weights(by_file, CLASSES), zero_shot_weights(by_cache, CLASSES))
    assert by_file.weights_sha256() == by_cache.weights_sha256()
    assert by_file.text_identity()["text_sha256"] == by_cache.text_identity()["text_sha256"]


class Letters:
    """A text tower whose embedding of a prompt counts its letters a, b and c."""

    def encode_text(self, prompts):
        return torch.tensor([[float(prompt.count(letter)) for letter in "abc"] for prompt in prompts])


def test_a_case_worked_by_hand():
    """Class `a`: prompts aa and ab -> (1, 0, 0) and (1, 1, 0) / sqrt 2; class `c`: ca and cb."""
    weights = zero_shot_weights(Letters(), ["a", "c"], ["{}a", "{}b"])
    half = 0.5**0.5
    mean = torch.tensor([[1 + half, half, 0.0], [half, half, 2 * half]])
    torch.testing.assert_close(weights, mean / mean.norm(dim=1, keepdim=True))
    logits = zero_shot_logits(np.array([[0.0, 0.0, 7.0]]), weights, logit_scale=10.0, logit_bias=-1.0)
    np.testing.assert_allclose(logits, [[-1.0, 10 * (2 / 3) ** 0.5 - 1.0]], rtol=1e-6, atol=1e-6)


def test_weights_are_plain_tensors_and_classes_are_grouped():
    names = [f"{'a' * n}b" for n in range(40)]
    weights = zero_shot_weights(Letters(), names)
    assert not weights.is_inference() and not weights.requires_grad
    assert torch.equal(weights, torch.cat([zero_shot_weights(Letters(), [name]) for name in names]))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_features_need_no_normalising(dtype):
    weights = zero_shot_weights(Letters(), ["a", "b"])
    features = np.array([[1.0, 2.0, 0.5], [0.25, 0.0, 4.0]], dtype)
    logits = zero_shot_logits(features, weights, 3.0)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(zero_shot_logits(features * 4, weights, 3.0), logits)


def test_what_cannot_be_classified_is_refused():
    weights = zero_shot_weights(Letters(), ["a", "b"])
    with pytest.raises(ValueError, match="shape"):
        zero_shot_logits(np.ones((2, 4)), weights)
    with pytest.raises(ValueError, match="finite"):
        zero_shot_logits(np.full((2, 3), np.nan), weights)
    for classes, prompts in (([], ["{}"]), (["a"], []), ("a", ["{}"]), (["a"], "{}")):
        with pytest.raises(ValueError, match="list of one or more"):
            zero_shot_weights(Letters(), classes, prompts)


def test_templates_are_those_of_open_clip():
    assert templates() == DEFAULT_TEMPLATES and len(templates("openai_imagenet")) == 80
    assert [fill(template, "cat") for template in templates("simple_imagenet")] == [
        template("cat") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES
    ]
    assert len(imagenet_class_names()) == 1000 and imagenet_class_names()[0] == "tench"
    with pytest.raises(UserError, match="openai_imagenet"):
        templates("openai_imagenets")


@pytest.mark.parametrize("template", ["a photo", "a {name}", "a {1}", "a {"])
def test_a_template_without_a_place_is_refused(template):
    with pytest.raises(UserError, match="no place for the class name"):
        fill(template, "cat")


def test_a_name_may_hold_braces():
    assert fill("a {}.", "{cat}") == "a {cat}."
