"""open_clip's models behind the one interface: the features, text, sizes and errors of the library itself."""

import copy
import json
import time
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file

from bob.backbones import text_tower
from bob.backbones.open_clip import card_for, weights_status
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.cards import Weights
from bob.catalogue import load_backbone_cards

CARDS = [card for card in load_backbone_cards().values() if card.weights.source == "open_clip"]
TOWERS = ["tiny-vit", "tiny-resnet", "tiny-convnext", "tiny-sigmoid", "tiny-coca"]
EMBEDDING = {"layer": "image_embedding"}
TAG = {
    "hf_hub": "bob/tiny-vit/",
    "url": "",
    "quick_gelu": True,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "bilinear",
    "resize_mode": "squash",
}

open_clip.add_model_config(Path(__file__).parent / "open_clip_models")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name -> safetensors file of a model of that architecture, initialised with seed 7; the logit scale is 5."""
    folder = tmp_path_factory.mktemp("open_clip")
    for name in TOWERS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = open_clip.create_model(name)
        model.logit_scale.data.fill_(5.0).log_()
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in TOWERS}


@pytest.fixture
def tagged(monkeypatch):
    """tiny-vit has a published checkpoint `mine`, trained with QuickGELU, and one `plain`."""
    tags = {"mine": TAG, "plain": {**TAG, "quick_gelu": False}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", tags)


@pytest.fixture
def cache(files, tmp_path, monkeypatch):
    """The hub's cache after a download of `mine`, on a machine without a network."""
    snapshot = in_cache(tmp_path, "bob/tiny-vit")
    (snapshot / "open_clip_model.safetensors").write_bytes(files["tiny-vit"].read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def in_cache(cache, repository):
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return snapshot


def opened(make_card, name, file=None, size=None, feature=EMBEDDING, **weights):
    preprocess = {"size": size} if size else None
    source = {"file": str(file)} if file else {"pretrained": False}
    return open_backbone(make_card("open_clip", preprocess, feature, model=name, **source, **weights))


def reference(name, file, **options):
    return open_clip.create_model(name, pretrained=str(file), **options).eval()


def some_images(backbone, count=3):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (count, 3, *backbone.preprocess.size), generator=generator, dtype=torch.uint8)
    return backbone.preprocess.normalize(raw)


@pytest.mark.parametrize("name", TOWERS)
def test_embedding_and_text_are_those_of_open_clip(name, files, make_card):
    backbone, expected = opened(make_card, name, files[name]), reference(name, files[name])
    images, texts = some_images(backbone), ["a red square", "two dogs on a beach"]
    tokens = open_clip.get_tokenizer(name)(texts)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.embed(images), expected.encode_image(images, normalize=False))
        torch.testing.assert_close(backbone.encode_text(texts), expected.encode_text(tokens, normalize=False))
    assert backbone.logit_scale == pytest.approx(5.0)
    assert backbone.logit_bias == (-10.0 if name == "tiny-sigmoid" else 0.0)


@pytest.mark.parametrize("name", TOWERS)
def test_only_the_image_tower_is_counted_and_hashed(name, files, make_card):
    backbone, expected = opened(make_card, name, files[name]), reference(name, files[name])
    assert backbone.parameter_count() == sum(p.numel() for p in expected.visual.parameters())
    image, text = backbone.identity(), backbone.text_identity()
    assert json.loads(json.dumps(text)) == text
    with torch.no_grad():
        backbone.dual.logit_scale.add_(0.1)
    assert backbone.identity() == image and backbone.text_identity()["logit_scale"] > text["logit_scale"]
    assert backbone.text_identity()["text_sha256"] != text["text_sha256"]
    with torch.no_grad():
        backbone.dual.logit_scale.sub_(0.1)
        next(backbone.model.parameters()).add_(1)
    assert backbone.identity() != image
    again = opened(make_card, name, files[name])
    assert again.text_identity() == text and again.identity() == image
    assert opened(make_card, name).text_identity() != text


def test_text_identity_has_the_context_length(make_card):
    short = opened(make_card, "tiny-vit", options={"force_context_length": 8})
    assert short.text_identity()["tokenizer"] == {"class": "SimpleTokenizer", "context_length": 8}
    assert short.encode_text(["a photo of a cat, a dog, a bird, a mouse and a horse"]).shape == (1, 48)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("size", [64, 96, 128, (64, 96)])
def test_strides_are_right_at_every_size(name, size, make_card, refused):
    if name == "tiny-resnet" and isinstance(size, tuple):
        with refused("tiny-resnet", "(64, 96)"):
            opened(make_card, name, size=size)
        return
    backbone = opened(make_card, name, size=size)
    height, width = backbone.preprocess.size
    assert (height, width) == (size if isinstance(size, tuple) else (size, size))
    with torch.inference_mode():
        maps, layers = backbone.feature_maps(some_images(backbone)), backbone.layers(some_images(backbone))
    assert backbone.strides == ([4, 8, 16, 32] if name in ("tiny-resnet", "tiny-convnext") else [16])
    assert [tuple(m.shape[2:]) for m in maps] == [(height // s, width // s) for s in backbone.strides]
    assert torch.equal(maps[-1], layers[-1].map)
    assert all(layer.pooled.shape == layer.map.shape[:2] for layer in layers)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-sigmoid", "tiny-convnext"])
def test_pretrained_weights_at_another_size_are_those_of_open_clip(name, files, make_card):
    backbone, expected = (
        opened(make_card, name, files[name], size=96),
        reference(name, files[name], force_image_size=96),
    )
    images = some_images(backbone)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.embed(images), expected.encode_image(images))


def test_a_size_that_the_weights_do_not_take_is_refused(files, make_card, refused):
    with refused("tiny-resnet", "preprocess.size = (96, 96)"):
        opened(make_card, "tiny-resnet", files["tiny-resnet"], size=96)


def test_layers_can_be_chosen(make_card, refused):
    for name, count in (("tiny-vit", 2), ("tiny-resnet", 5), ("tiny-convnext", 4)):
        backbone = opened(make_card, name, size=64)
        images = some_images(backbone)
        with torch.inference_mode():
            every, last = backbone.layers(images), backbone.layers(images, [count - 1])
        assert len(every) == count and torch.equal(every[-1].map, last[0].map)
        with refused("mine", f"no block {count}"):
            backbone.layers(images, [count])


def test_a_vit_pools_its_blocks_by_class_token(make_card):
    backbone = opened(make_card, "tiny-vit")
    images = some_images(backbone)
    with torch.inference_mode():
        token = backbone.layers(images)[-1].pooled
        expected = backbone.model.ln_post(token) @ backbone.model.proj
        torch.testing.assert_close(backbone.embed(images), expected)


def test_pre_logits_are_what_the_projection_gets(files, make_card, refused):
    pre = {"layer": "pre_logits"}
    for name, width in (("tiny-vit", 64), ("tiny-convnext", 64)):
        before, after = opened(make_card, name, files[name], feature=pre), opened(make_card, name, files[name])
        project = after.model.head.proj if name == "tiny-convnext" else lambda x, m=after.model: x @ m.proj
        images = some_images(before)
        with torch.inference_mode():
            assert before.embed(images).shape == (3, width) == (3, before.width())
            torch.testing.assert_close(project(before.embed(images)), after.embed(images))
        assert before.parameter_count() == after.parameter_count() - width * 48
        assert before.identity() != after.identity()
        with refused("pre_logits", "image_embedding"):
            before.encode_text(["a cat"])
    for name in ("tiny-resnet", "tiny-sigmoid"):
        with refused(name, "pre_logits", "projection", "image_embedding"):
            opened(make_card, name, feature=pre)
    with refused("pooling"):
        opened(make_card, "tiny-vit", feature={**EMBEDDING, "pooling": "avg"})


def test_prompts_are_encoded_in_batches(make_card, monkeypatch):
    backbone = opened(make_card, "tiny-vit")
    prompts = [f"a photo of {n} cats" for n in range(5)]
    with torch.inference_mode():
        whole = backbone.encode_text(prompts)
        monkeypatch.setattr(text_tower, "_PROMPTS_AT_ONCE", 2)
        torch.testing.assert_close(backbone.encode_text(prompts), whole)
    for wrong in ("a cat", []):
        with pytest.raises(ValueError, match="list of one or more strings"):
            backbone.encode_text(wrong)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_is_that_of_open_clip(mode, interpolation, tagged, make_card, photos, monkeypatch):
    tag = {**TAG, "resize_mode": mode, "interpolation": interpolation}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"mine": tag})
    preprocess = opened(make_card, "tiny-vit/mine").preprocess
    assert preprocess.size == (64, 64) and preprocess.mean == TAG["mean"] and preprocess.std == TAG["std"]
    fields = {key: tag[key] for key in ("mean", "std", "resize_mode", "interpolation")}
    theirs = image_transform_v2(PreprocessCfg(size=64, **fields), is_train=False)
    for photo in photos.values():
        ours = preprocess.normalize(preprocess.crop(torch.from_numpy(photo).permute(2, 0, 1))[None])[0]
        difference = (ours - theirs(Image.fromarray(photo))).abs()
        assert difference.max() < 0.03 and difference.mean() < 0.003  # a level is 0.01


def test_quick_gelu_follows_the_tag(tagged, files, make_card):
    """On an architecture with GELU, open_clip itself would only warn."""
    quick, plain = (opened(make_card, f"tiny-vit/{tag}", files["tiny-vit"]) for tag in ("mine", "plain"))
    images = some_images(quick)
    for backbone, forced in ((quick, True), (plain, False)):
        expected = reference("tiny-vit", files["tiny-vit"], force_quick_gelu=forced)
        with torch.inference_mode():
            torch.testing.assert_close(backbone.embed(images), expected.encode_image(images))
            text = expected.encode_text(open_clip.get_tokenizer("tiny-vit")(["a cat"]))
            torch.testing.assert_close(backbone.encode_text(["a cat"]), text)
    assert not torch.allclose(quick.embed(images), plain.embed(images))
    assert quick.identity() != plain.identity()


@pytest.mark.parametrize(
    ("model", "quick"),
    [("ViT-B-16/openai", True), ("ViT-B-16-quickgelu/openai", True), ("ViT-B-16/laion2b_s34b_b88k", False)],
)
def test_activation_of_published_models(model, quick):
    with torch.device("meta"):
        backbone = open_backbone(card_for(model).random_twin())
    activations = [m for m in backbone.dual.modules() if isinstance(m, QuickGELU | torch.nn.GELU)]
    assert len(activations) == 24
    assert all(isinstance(m, QuickGELU) == quick for m in activations)


def test_weights_come_from_the_cache_without_a_network(tagged, cache, files, make_card):
    card = make_card("open_clip", feature=EMBEDDING, model="tiny-vit/mine")
    began = time.monotonic()
    backbone = open_backbone(card)
    assert time.monotonic() - began < 5
    same = opened(make_card, "tiny-vit/mine", files["tiny-vit"])
    assert torch.equal(backbone.embed(some_images(same)), same.embed(some_images(same)))
    assert backbone.identity() == same.identity() and backbone.text_identity() == same.text_identity()
    assert weights_status(card.weights).startswith(f"here, {cache}")


def test_a_file_gives_the_same_features_by_every_name(tagged, files, make_card, tmp_path):
    torch.save({"state_dict": reference("tiny-vit", files["tiny-vit"]).state_dict()}, tmp_path / "epoch 1.pt")
    by_file = [resolve_backbone(f"open_clip:tiny-vit@{f}", {}) for f in (files["tiny-vit"], tmp_path / "epoch 1.pt")]
    first, second = (open_backbone(card) for card in by_file)
    assert first.card.name == f"open_clip:tiny-vit@{files['tiny-vit']}"
    assert first.identity() == second.identity()
    expected = reference("tiny-vit", files["tiny-vit"])
    images = some_images(first)
    torch.testing.assert_close(first.embed(images), expected.encode_image(images))
    assert weights_status(by_file[0].weights) == f"here, {files['tiny-vit']}"
    with_tag = open_backbone(resolve_backbone(f"open_clip:tiny-vit/mine@{files['tiny-vit']}", {}))
    assert with_tag.preprocess.crop_mode == "squash" and first.preprocess.crop_mode == "center"
    twin = open_backbone(by_file[0].random_twin())
    assert twin.weights_sha256() != first.weights_sha256()


def test_a_file_that_does_not_fit_is_refused(files, make_card, tmp_path, refused, write):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "half.safetensors").write_bytes(files["tiny-vit"].read_bytes()[:5000])
    for name in ("evil.pt", "half.safetensors", "nothing.pt"):
        with refused(name):
            opened(make_card, "tiny-vit", tmp_path / name)
    with refused("tiny-vit.safetensors", "does not fit open_clip's tiny-resnet"):
        opened(make_card, "tiny-resnet", files["tiny-vit"])


def test_names_that_open_clip_does_not_know(refused, make_card, tagged):
    with refused("no architecture 'ViT-B-61'", "Did you mean", "ViT-B-16"):
        card_for("ViT-B-61/openai")
    with refused("no weights 'opnai'", "Did you mean: openai?", "laion2b_s34b_b88k", "datacomp_xl_s13b_b90k"):
        card_for("ViT-B-16/opnai")
    with refused("'ViT-B-16' names an architecture", "open_clip:ViT-B-16/openai", "laion2b_s34b_b88k"):
        card_for("ViT-B-16")
    with refused("tiny-resnet", "publishes none", "@FILE"):
        card_for("tiny-resnet")
    with refused("no architecture", "ViT-B-16"):
        open_backbone(make_card("open_clip", model="ViT-B16/openai"))
    with refused("no option 'force_quickgelu'", "force_quick_gelu"):
        opened(make_card, "tiny-vit", options={"force_quickgelu": True})


def test_card_for_a_published_model():
    card = resolve_backbone("open_clip:ViT-B-16/openai", {})
    assert (card.name, card.paradigm, card.feature.layer) == ("open_clip:ViT-B-16/openai", "vlm", "image_embedding")
    assert card.weights == Weights(source="open_clip", model="ViT-B-16/openai")
    twin = resolve_backbone("open_clip:ViT-B-16/openai.random", {})
    assert twin.weights.model == "ViT-B-16/openai" and not twin.weights.pretrained


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_is_one_line_and_quick(hub, offline, refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    card = card_for("ViT-B-16/openai")
    began = time.monotonic()
    with refused("hf download timm/vit_base_patch16_clip_224.openai", "open_clip:ViT-B-16/openai@FILE", "$HF_HOME"):
        open_backbone(card)
    with refused("hf download jienengchen/ViTamin-S pytorch_model.bin"):
        open_backbone(card_for("ViTamin-S/datacomp1b"))
    with refused("roberta-base", "text tower"):
        open_backbone(card_for("roberta-ViT-B-32/laion2b_s12b_b32k").random_twin())
    assert time.monotonic() - began < 10
    assert (
        weights_status(card.weights)
        == "not here; downloaded from timm/vit_base_patch16_clip_224.openai when first used"
    )


def test_a_missing_tokenizer_costs_only_the_text(hub, refused):
    with torch.device("meta"):
        backbone = open_backbone(card_for("ViT-B-16-SigLIP/webli").random_twin())
    assert backbone.width() == 768
    with refused("tokenizer of open_clip's ViT-B-16-SigLIP", "hf download timm/ViT-B-16-SigLIP"):
        backbone.encode_text(["a cat"])


def test_a_hub_tokenizer_comes_from_the_cache(cache, make_card, tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = json.loads((Path(__file__).parent / "open_clip_models" / "tiny-sigmoid.json").read_text())
    config["text_cfg"] |= {"hf_tokenizer_name": "bob/words", "tokenizer_kwargs": {"clean": "canonicalize"}}
    (tmp_path / "tiny-words.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-words.json")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "cat": 3, "dog": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(in_cache(cache, "bob/words"))

    backbone = opened(make_card, "tiny-words", size=64)
    before = backbone.text_identity()
    assert json.loads(json.dumps(before)) == before
    assert backbone.tokenizer(["A cat!"]).tolist() == [[2, 3] + [0] * 14]
    assert backbone.encode_text(["a cat", "a dog"]).shape == (2, 64)
    assert backbone.text_identity() == before and len(before["tokenizer"]["sha256"]) == 64


def test_opening_leaves_logging_alone(make_card, capfd):
    import logging

    handlers, disabled = list(logging.root.handlers), logging.root.manager.disable
    opened(make_card, "tiny-vit")
    assert logging.root.handlers == handlers and logging.root.manager.disable == disabled
    assert capfd.readouterr().err == ""


def test_a_copy_is_whole(make_card):
    backbone = opened(make_card, "tiny-convnext", size=64)
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    images = some_images(other)
    assert other.feature_maps(images)[0].abs().sum() > 0 and other.identity() != backbone.identity()


@pytest.fixture(scope="module", params=CARDS, ids=lambda card: card.name)
def published(request):
    """A card, and its twin without memory for its weights."""
    with torch.device("meta"):
        return request.param, open_backbone(request.param.random_twin())


def test_there_are_cards():
    assert len(CARDS) >= 11


def test_card_tells_the_truth(published):
    card, backbone = published
    assert backbone.parameter_count() == card.parameters
    assert backbone.width() == card.feature.width
    assert card.feature.layer == "image_embedding" and "space shared with text" in card.description
    assert card.paradigm == "vlm" and card.licence != "unknown" and card.pretraining_data
    architecture, tag = card.weights.model.split("/")
    repository = open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"].rstrip("/")
    assert f"https://huggingface.co/{repository}" in card.facts


def test_card_has_open_clips_preprocessing(published):
    card, backbone = published
    config = open_clip.get_pretrained_cfg(*card.weights.model.split("/"))
    size = open_clip.get_model_config(card.weights.model.split("/")[0])["vision_cfg"]["image_size"]
    assert backbone.preprocess.size == (size, size) and backbone.preprocess.crop_fraction == 1.0
    assert (backbone.preprocess.mean, backbone.preprocess.std) == (config["mean"], config["std"])
    assert backbone.preprocess.interpolation == config["interpolation"]
    assert backbone.preprocess.crop_mode == {"shortest": "center", "squash": "squash"}[config["resize_mode"]]


def test_maps_of_every_card(published):
    card, backbone = published
    height, width = backbone.preprocess.size
    with torch.inference_mode():
        maps = backbone.feature_maps(torch.zeros(1, 3, height, width, device="meta"))
    assert [tuple(m.shape[2:]) for m in maps] == [(height // s, width // s) for s in backbone.strides]
    channels = [m.shape[1] for m in maps]
    stem = {"clip_resnet50x64.openai": 512, "clip_convnext_base_w.laion2b_s13b_b82k": 128}.get(card.name, 256)
    if len(maps) == 4:
        assert backbone.strides == [4, 8, 16, 32] and channels == [stem, 2 * stem, 4 * stem, 8 * stem]
    else:
        patch = 14 if "patch14" in card.name else 16
        assert backbone.strides == [patch] and channels == [1024 if "large" in card.name else 768]
