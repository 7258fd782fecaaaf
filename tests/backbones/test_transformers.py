"""transformers models give the library's own features, and what a checkpoint lacks is never filled in."""

import importlib.util
import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bob.backbones.sources import open_backbone, resolve_backbone, weights_status
from bob.cards import PreprocessOverride

transformers = pytest.importorskip("transformers")
pytest.importorskip("diffusers")

_spec = importlib.util.spec_from_file_location("bob_test_tiny_hub", Path(__file__).with_name("tiny_hub.py"))
tiny_hub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_hub)
CONFIGS, SQUASH = tiny_hub.CONFIGS, tiny_hub.SQUASH
build, save, save_tokenizer = tiny_hub.build, tiny_hub.save, tiny_hub.save_tokenizer

HIERARCHICAL = {
    "convnext", "convnextv2", "dinov3_convnext", "resnet", "regnet", "mobilenet_v2", "swin", "swinv2", "hiera",
}  # fmt: skip
STRIDES = {kind: [4, 8, 16, 32] if kind in HIERARCHICAL else [16] for kind in CONFIGS}
STRIDES["efficientnet"] = [2, 4, 8, 16, 32]
HALF = PreprocessOverride(
    size=(64, 64), crop_fraction=1, crop_mode="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3
)


def edit(folder, change):
    """Change the tensors of a saved checkpoint."""
    file = folder / "model.safetensors"
    tensors = change(dict(load_file(file)))
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def opened(tmp_path, make_card):
    """A function from a model type to the backbone of its tiny model, and that model."""

    def open_(kind, pooling="default", preprocess=None, **changes):
        net = build(kind, **changes)
        folder = save(net, tmp_path / kind)
        feature = {"pooling": pooling}
        card = make_card("transformers", model=str(folder), feature=feature, preprocess=preprocess)
        return open_backbone(card), net

    return open_


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 64, generator=generator)


def own(net, images, **arguments):
    with torch.inference_mode():
        return net(pixel_values=images, **arguments)


def embed(backbone, images):
    with torch.inference_mode():
        return backbone.embed(images)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_features_are_the_librarys(kind, opened, images):
    backbone, net = opened(kind)
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    if kind in ("clip", "siglip"):
        with torch.inference_mode():
            expected = net.get_image_features(pixel_values=images).pooler_output
    elif kind == "vit_mae":
        net.config.mask_ratio = 0.0
        expected = own(net, images, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state[:, 0]
    else:
        output = own(net, images)
        expected = output.get("pooler_output")
        if expected is None:
            state = output.last_hidden_state
            mean = state.mean((2, 3)) if state.ndim == 4 else state.mean(1)
            expected = mean if kind in ("ijepa", "sam_vision_model") else state[:, 0]
    if kind == "data2vec-vision":
        expected = own(net, images).last_hidden_state[:, 1:].mean(1) if net.config.use_mean_pooling else expected
    close(embed(backbone, images), expected.flatten(1))


@pytest.mark.parametrize("kind", CONFIGS)
def test_maps_and_strides(kind, opened, images):
    backbone, _ = opened(kind)
    with torch.inference_mode():
        maps, blocks = backbone.feature_maps(images), backbone.layers(images)
        last = backbone.layers(images, [-1])[0]
    assert backbone.strides == STRIDES[kind]
    assert [(m.shape[2], m.shape[3]) for m in maps] == [(64 // s, 64 // s) for s in STRIDES[kind]]
    assert all(block.pooled.shape == block.map.shape[:2] for block in blocks)
    assert torch.equal(last.map, blocks[-1].map)
    depth = {"mobilenet_v2": 16, "efficientnet": 10}.get(kind, 4 if STRIDES[kind] != [16] else 2)
    assert len(blocks) == depth


def test_tokens_lie_where_their_patches_are(opened, images):
    backbone, net = opened("dinov2_with_registers")
    state = own(net, images, output_hidden_states=True).hidden_states[1]
    with torch.inference_mode():
        block = backbone.layers(images, [0])[0]
    close(block.map[:, :, 1, 2], state[:, 5 + 4 * 1 + 2])
    close(block.pooled, state[:, 0])


def test_swin_maps_are_those_before_merging(opened, images):
    for kind in ("swin", "swinv2"):
        backbone, net = opened(kind)
        with torch.inference_mode():
            maps = backbone.feature_maps(images)
        assert [m.shape[1] for m in maps] == [8, 16, 32, 64]
        close(maps[-1], own(net, images, output_hidden_states=True).reshaped_hidden_states[-1])


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers", "vit_mae", "beit"])
def test_the_card_chooses_the_pooling(kind, opened, images):
    expected = {}
    for pooling in ("avg", "token"):
        backbone, net = opened(kind, pooling)
        arguments = {"noise": torch.arange(16.0).expand(2, -1)} if kind == "vit_mae" else {}
        net.config.mask_ratio = 0.0
        state = own(net, images, **arguments).last_hidden_state
        expected[pooling] = state[:, 0] if pooling == "token" else state[:, -16:].mean(1)
        close(embed(backbone, images), expected[pooling])
    assert not torch.allclose(*expected.values())


def test_a_pooling_that_the_model_lacks_is_refused(opened, images, refused):
    for kind in ("ijepa", "sam_vision_model"):
        with refused("class token", kind):
            opened(kind, "token")
    with refused("'max'", "default, avg or token"):
        opened("vit", "max")
    with refused("feature.pooling"):
        opened("clip", "avg")


def test_mae_sees_every_patch_in_order(opened, images):
    backbone, net = opened("vit_mae")
    features = embed(backbone, images)
    assert all(torch.equal(features, embed(backbone, images)) for _ in range(3))
    vit = build("vit", layer_norm_eps=net.config.layer_norm_eps)
    vit.load_state_dict(net.state_dict(), strict=False)
    close(features, own(vit, images).last_hidden_state[:, 0])
    changed = images.clone()
    for row in range(4):
        for column in range(4):
            changed[:, :, 16 * row, 16 * column] += 1
            assert not torch.equal(embed(backbone, changed), features)
            changed[:, :, 16 * row, 16 * column] -= 1


def test_a_pooler_without_weights_is_never_read(tmp_path, make_card, images):
    """A classifier's checkpoint has no pooler; the library would draw one at random."""
    net = build("vit", model=transformers.ViTForImageClassification)
    card = make_card("transformers", model=str(save(net, tmp_path / "m")))
    backbone = open_backbone(card)
    close(embed(backbone, images), own(net.vit, images).last_hidden_state[:, 0])
    assert not any("pooler" in name for name, _ in backbone.named_parameters())
    assert backbone.identity() == open_backbone(card).identity()


def test_a_mean_pooler_without_weights(opened, tmp_path, make_card, images):
    net = build("beit", use_mean_pooling=True)
    folder = save(net, tmp_path / "m")
    edit(folder, lambda tensors: {k: t for k, t in tensors.items() if not k.startswith("pooler.")})
    backbone = open_backbone(make_card("transformers", model=str(folder)))
    close(embed(backbone, images), own(net, images).last_hidden_state[:, 1:].mean(1))
    net = build("convnextv2")
    folder = save(net, tmp_path / "n")
    edit(folder, lambda tensors: {k: t for k, t in tensors.items() if not k.startswith("layernorm.")})
    backbone = open_backbone(make_card("transformers", model=str(folder)))
    close(embed(backbone, images), own(net, images).last_hidden_state.mean((2, 3)))


@pytest.mark.parametrize("kind", ["vit", "clip", "convnext", "dinov2"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(kind, tmp_path, make_card, refused):
    folder = save(build(kind), tmp_path / "m")
    keys = [key for key in load_file(folder / "model.safetensors") if "pooler" not in key and key[:9] != "layernorm"]
    for key in (keys[0], keys[len(keys) // 2], keys[-1]):
        whole = load_file(folder / "model.safetensors")
        edit(folder, lambda tensors, key=key: {k: t for k, t in tensors.items() if k != key})
        with refused("lacks '", str(folder)):
            open_backbone(make_card("transformers", model=str(folder)))
        edit(folder, lambda _, whole=whole: whole)


def test_a_tensor_of_another_shape_is_refused(tmp_path, make_card, refused):
    folder = save(build("vit"), tmp_path / "m")
    edit(folder, lambda tensors: {**tensors, "embeddings.cls_token": torch.zeros(1, 1, 8)})
    with refused("cls_token", "(1, 1, 8)", "(1, 1, 32)"):
        open_backbone(make_card("transformers", model=str(folder)))


def test_half_precision_files_become_float32(tmp_path, make_card, images):
    folder = save(build("dinov3_vit").half(), tmp_path / "m")
    backbone = open_backbone(make_card("transformers", model=str(folder)))
    floats = [t for t in [*backbone.parameters(), *backbone.buffers()] if t.is_floating_point()]
    assert {t.dtype for t in floats} == {torch.float32}
    close(embed(backbone, images), own(transformers.AutoModel.from_pretrained(folder).float().eval(), images)[1])


def test_torch_files_of_tensors_alone_are_read(tmp_path, make_card, images, refused):
    net = build("vit_msn")
    folder = save(net, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    card = make_card("transformers", model=str(folder))
    with refused("no model.safetensors"):
        open_backbone(card)
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    close(embed(open_backbone(card), images), own(net, images).last_hidden_state[:, 0])
    torch.save({"x": Unsafe()}, folder / "pytorch_model.bin")
    with refused("cannot be read"):
        open_backbone(card)
    (folder / "model.safetensors").write_bytes(b"broken")
    with refused("cannot be read"):
        open_backbone(card)


class Unsafe:
    def __reduce__(self):
        return print, ("run",)


def test_code_of_a_repository_is_never_run(tmp_path, make_card, refused):
    folder = save(build("vit"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with refused("config.json", "code of its own"):
        open_backbone(make_card("transformers", model=str(folder)))
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov3_vit", "vit_mae", "convnext", "swin", "clip", "beit"])
def test_other_sizes_are_taken(kind, opened):
    backbone, _ = opened(kind, preprocess={"size": (96, 64)})
    images = torch.randn(1, 3, 96, 64)
    assert embed(backbone, images).isfinite().all()
    with torch.inference_mode():
        maps = backbone.feature_maps(images)
    assert [(m.shape[2], m.shape[3]) for m in maps] == [(96 // s, 64 // s) for s in backbone.strides]


def test_a_size_that_the_model_does_not_take_is_refused(opened, refused):
    with refused("96 x 96", "preprocess.size"):
        opened("sam_vision_model", preprocess={"size": 96})


@pytest.mark.parametrize(
    "processor",
    [
        SQUASH,
        {"image_processor_type": "ViTImageProcessor", "size": 64, "resample": 3, "image_mean": [0.4, 0.5, 0.6]},
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 64},
            "crop_size": {"height": 64, "width": 64},
        },
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 73},
            "crop_size": {"height": 64, "width": 64},
            "do_center_crop": True,
        },
        {"image_processor_type": "BeitImageProcessor", "size": 73, "crop_size": 64, "do_center_crop": True},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}, "crop_pct": 0.875},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 0.875},
        {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}, "do_normalize": False},
        {**SQUASH, "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
        {**SQUASH, "do_rescale": False, "image_mean": [123, 116, 103], "image_std": [58, 57, 57]},
        {"image_processor_type": "EfficientNetImageProcessor", "size": 64, "rescale_offset": True},
        {"image_processor_type": "EfficientNetImageProcessor", "size": 64, "include_top": False},
    ],
)
def test_preprocessing_is_the_processors(processor, tmp_path, make_card, photos):
    size = 384 if 384 in dict(processor["size"] if isinstance(processor["size"], dict) else {}).values() else 64
    folder = save(build("resnet" if size == 384 else "vit"), tmp_path / "m", processor)
    backbone = open_backbone(make_card("transformers", model=str(folder)))
    real = transformers.AutoImageProcessor.from_pretrained(folder)
    assert backbone.preprocess.size == (size, size)
    for photo in (photo[:320] for photo in photos.values()):  # even margins: see `from_processor`
        theirs = real(images=photo, return_tensors="pt")["pixel_values"][0]
        ours = backbone.preprocess.normalize(backbone.preprocess.crop(torch.from_numpy(photo).permute(2, 0, 1))[None])[
            0
        ]
        levels = (ours - theirs).abs() * torch.tensor(backbone.preprocess.std)[:, None, None] * 255
        assert levels.mean() < 0.3 and levels.max() < 3


@pytest.mark.parametrize(
    ("processor", "what"),
    [
        ({**SQUASH, "resample": 1}, "resample = 1"),
        ({**SQUASH, "do_resize": False}, "do_resize"),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 64}, "do_center_crop": False},
            "crop",
        ),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 64},
                "crop_size": {"height": 80, "width": 80},
            },
            "a crop of (80, 80)",
        ),
        ({"image_processor_type": "SamImageProcessor"}, "do_pad"),
        ({"image_processor_type": "LevitImageProcessor"}, "LevitImageProcessor"),
        ({"image_processor_type": "MobileViTImageProcessor"}, "do_flip_channel_order"),
    ],
)
def test_preprocessing_that_bob_lacks_is_refused(processor, what, tmp_path, make_card, refused):
    folder = save(build("vit"), tmp_path / "m", processor)
    with refused(str(folder), what, "[preprocess]"):
        open_backbone(make_card("transformers", model=str(folder)))
    whole = open_backbone(make_card("transformers", model=str(folder), preprocess=HALF.model_dump()))
    assert whole.preprocess.mean == (0.5, 0.5, 0.5)


def test_no_preprocessing_is_refused(tmp_path, make_card, refused):
    folder = save(build("vit"), tmp_path / "m", processor=None)
    with refused(str(folder), "preprocessor_config.json", "[preprocess]"):
        open_backbone(make_card("transformers", model=str(folder)))
    assert open_backbone(make_card("transformers", model=str(folder), preprocess=HALF.model_dump())).width() == 32


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_dual_encoders_compare_images_with_text(kind, tmp_path, make_card, images):
    net = build(kind)
    folder = save(net, tmp_path / "m")
    save_tokenizer(folder)
    backbone = open_backbone(make_card("transformers", model=str(folder)))
    padded = {"padding": "max_length"} if kind == "siglip" else {"padding": True}
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        ["a photo of a cat", "dog"], max_length=8, truncation=True, return_tensors="pt", **padded
    )
    mask = {} if kind == "siglip" else {"attention_mask": tokens["attention_mask"]}
    with torch.inference_mode():
        theirs = net(pixel_values=images, input_ids=tokens["input_ids"], **mask)
        text = backbone.encode_text(["a photo of a cat", "dog"])
        image = backbone.embed(images)
    normalised = [torch.nn.functional.normalize(t, dim=-1) for t in (image, text)]
    logits = backbone.logit_scale * normalised[0] @ normalised[1].T + backbone.logit_bias
    torch.testing.assert_close(logits, theirs.logits_per_image, rtol=1e-3, atol=1e-3)
    assert (backbone.logit_bias != 0) == (kind == "siglip")
    assert backbone.card.feature.layer == "image_embedding"
    long = backbone.encode_text(["a cat " * 50])
    assert long.shape == (1, text.shape[1])
    many = backbone.encode_text(["dog"] * 300)
    assert many.shape == (300, text.shape[1])
    for prompts in ([], "cat"):
        with pytest.raises(ValueError, match="one or more strings"):
            backbone.encode_text(prompts)


def test_text_identity_covers_the_text_tower_and_the_tokenizer(tmp_path, make_card):
    folder = save(build("clip"), tmp_path / "m")
    save_tokenizer(folder)
    card = make_card("transformers", model=str(folder))
    first = open_backbone(card)
    edit(folder, lambda tensors: {**tensors, "text_projection.weight": tensors["text_projection.weight"] + 1})
    second = open_backbone(card)
    before = second.text_identity()
    assert second.identity() == first.identity() and before != first.text_identity()
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert open_backbone(card).text_identity()["tokenizer"] != before["tokenizer"]


def test_only_the_image_tower_counts(opened, tmp_path, make_card):
    backbone, net = opened("clip")
    expected = [*net.vision_model.parameters(), *net.visual_projection.parameters()]
    assert backbone.parameter_count() == sum(p.numel() for p in expected)


def test_a_dual_encoder_without_tokenizer(opened, refused):
    backbone, _ = opened("clip")
    with refused("tokenizer"):
        backbone.encode_text(["a cat"])


def test_the_image_part_of_a_larger_model(tmp_path, make_card, images):
    config = transformers.SamConfig(
        vision_config={**CONFIGS["sam_vision_model"]},
        prompt_encoder_config={"hidden_size": 24, "image_size": 64, "patch_size": 16},
        mask_decoder_config={"hidden_size": 24, "num_attention_heads": 2, "mlp_dim": 8, "num_hidden_layers": 1},
    )
    net = transformers.SamModel(config).eval()
    folder = save(net, tmp_path / "m")
    backbone = open_backbone(make_card("transformers", model=str(folder)))
    with torch.inference_mode():
        close(embed(backbone, images), net.get_image_embeddings(images).mean((2, 3)))


def test_what_is_no_image_encoder_is_refused(tmp_path, make_card, refused):
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    folder = save(transformers.BertModel(config), tmp_path / "m")
    with refused(str(folder), "image encoder"):
        open_backbone(make_card("transformers", model=str(folder)))


OFFLINE = {"model_type": "vit_msn", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def twin(make_card, **options):
    return make_card(
        "transformers",
        model="nobody/nothing",
        pretrained=False,
        options={**OFFLINE, "intermediate_size": 48, "image_size": 64, **options},
        preprocess=HALF.model_dump(),
    )


def test_a_declared_architecture_needs_no_network(hub, make_card, images):
    backbone = open_backbone(twin(make_card))
    features = embed(backbone, images)
    assert features.shape == (2, 32) and torch.equal(features, embed(open_backbone(twin(make_card)), images))
    assert backbone.code["revision"] == ""


def test_a_declared_architecture_on_meta(hub, make_card):
    for options in ({}, {"model_type": "vit", "hidden_size": 64}, {"model_type": "vit_mae"}):
        with torch.device("meta"):
            backbone = open_backbone(twin(make_card, **options))
        assert backbone.device.type == "meta" and backbone.width() == options.get("hidden_size", 32)
        assert backbone.strides == [16]


def test_a_random_pooler_is_left_out_of_the_twin(hub, make_card):
    backbone = open_backbone(twin(make_card, model_type="vit"))
    assert not any("pooler" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize(("kind", "width"), [("sam2_hiera_det_model", 768), ("sam2_vision_model", 768)])
def test_maps_with_channels_last(hub, make_card, kind, width):
    card = make_card(
        "transformers",
        model="nobody/nothing",
        pretrained=False,
        options={"model_type": kind},
        preprocess={**HALF.model_dump(), "size": 224},
    )
    with torch.device("meta"):
        backbone = open_backbone(card)
        assert backbone.width() == width and backbone.strides == [4, 8, 16, 32]


def test_what_has_no_maps_or_no_text_of_its_own(hub, make_card, refused):
    def declared(kind):
        size = {**HALF.model_dump(), "size": 224}
        options = {"model_type": kind}
        card = make_card("transformers", model="nobody/x", pretrained=False, options=options, preprocess=size)
        with torch.device("meta"):
            return open_backbone(card)

    with refused("levit", "map"):
        _ = declared("levit").strides
    with refused("Blip2Model", "logit scale"):
        declared("blip-2")
    with refused("is a timm model", "`timm:x`"):
        declared("timm_wrapper")


def test_parts_are_declared_with_a_dot(hub, make_card):
    card = make_card(
        "transformers",
        model="nobody/nothing",
        pretrained=False,
        options={"model_type": "clip", "projection_dim": 20, "vision_config.num_hidden_layers": 1},
        preprocess={**HALF.model_dump(), "size": 224},
    )
    with torch.device("meta"):
        backbone = open_backbone(card)
    assert backbone.width() == 20 and len(backbone.dual.vision_model.encoder.layers) == 1


def test_wrong_declarations_are_refused(hub, make_card, refused):
    with refused("model type 'vit_msm'", "vit_msn"):
        open_backbone(twin(make_card, model_type="vit_msm"))
    with refused("'hiden_size'", "hidden_size"):
        open_backbone(twin(make_card, hiden_size=8))
    with refused("options"):
        open_backbone(twin(make_card, hidden_size="big"))


def test_a_checkpoint_that_is_not_as_declared_is_refused(tmp_path, make_card, refused):
    folder = save(build("vit_msn"), tmp_path / "m")
    right = {**OFFLINE, "image_size": 64}
    assert open_backbone(make_card("transformers", model=str(folder), options=right)).width() == 32
    for wrong in ({"num_hidden_layers": 3}, {"model_type": "vit"}):
        option = next(iter(wrong))
        with refused(option, repr(wrong[option]), repr(right[option])):
            open_backbone(make_card("transformers", model=str(folder), options={**right, **wrong}))
    with refused("'hiden_size'", "hidden_size"):
        open_backbone(make_card("transformers", model=str(folder), options={"hiden_size": 32}))


def in_cache(hub, name, net, commit="a" * 40, processor=SQUASH):
    """The files that huggingface_hub leaves after downloading a model."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    return save(net, folder, processor)


def test_the_cache_is_read_without_a_network(hub, make_card, images):
    old, new = build("vit_msn", seed=1), build("vit_msn", seed=2)
    in_cache(hub, "me/net", old, "1" * 40)
    in_cache(hub, "me/net", new, "2" * 40)
    card = resolve_backbone("hf:me/net", {})
    assert card.name == "hf:me/net" and card.weights.model == "me/net"
    newest = open_backbone(card)
    close(embed(newest, images), own(new, images).last_hidden_state[:, 0])
    assert newest.code["revision"] == "2" * 40
    pinned = open_backbone(resolve_backbone(f"hf:me/net@{'1' * 40}", {}))
    close(embed(pinned, images), own(old, images).last_hidden_state[:, 0])
    assert pinned.identity()["code"] == {"transformers": transformers.__version__, "revision": "1" * 40}
    assert weights_status(card).startswith("here, ") and "2222" in weights_status(card)
    twin = open_backbone(resolve_backbone("hf:me/net.random", {}))
    assert twin.preprocess == newest.preprocess and twin.weights_sha256() != newest.weights_sha256()


def test_without_network_and_cache(hub, make_card, refused):
    card = make_card("transformers", model="nobody/nothing")
    began = time.monotonic()
    with refused("nobody/nothing", "`hf download nobody/nothing`", str(hub), "ConnectError"):
        open_backbone(card)
    assert time.monotonic() - began < 15
    assert weights_status(card).startswith("not here; downloaded from nobody/nothing")
    with refused("--revision v1"):
        open_backbone(make_card("transformers", model="nobody/nothing", revision="v1"))


def test_offline_mode(hub, make_card, refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused("nobody/nothing", "offline"):
        open_backbone(make_card("transformers", model="nobody/nothing"))


def test_a_cache_that_holds_only_a_part(hub, make_card, refused):
    folder = in_cache(hub, "me/half", build("vit_msn"), "3" * 40)
    (folder / "model.safetensors").unlink()
    with refused("me/half", "model.safetensors", "hf download me/half"):
        open_backbone(make_card("transformers", model="me/half"))


def test_wrong_names_are_refused(hub, tmp_path, make_card, refused):
    with refused("a/b/c/d", "OWNER/NAME"):
        open_backbone(make_card("transformers", model="a/b/c/d"))
    assert "no repository" in weights_status(make_card("transformers", model="a/b/c/d"))
    with refused("no config.json"):
        (tmp_path / "model.safetensors").touch()
        open_backbone(make_card("transformers", model=str(tmp_path)))
    with refused("revision"):
        open_backbone(make_card("transformers", model=str(tmp_path), revision="main"))


def test_a_folder_is_opened_by_its_path(tmp_path, images):
    net = build("convnext")
    folder = save(net, tmp_path / "my net")
    card = resolve_backbone(f"hf:{folder}", {})
    assert card.name == f"hf:{folder}" and weights_status(card) == f"here, {folder}"
    close(embed(open_backbone(card), images), own(net, images).pooler_output)


def test_the_library_says_nothing(tmp_path, make_card, capfd):
    net = build("vit", model=transformers.ViTForImageClassification)
    folder = save(net, tmp_path / "m")
    capfd.readouterr()
    open_backbone(make_card("transformers", model=str(folder)))
    assert capfd.readouterr() == ("", "")
