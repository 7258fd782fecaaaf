"""The encoder of a diffusion model gives what the whole UNet computes at its middle, from an image and one text."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from bob.backbones.sources import open_backbone, weights_status
from bob.cards import Feature
from bob.catalogue import load_backbone_cards

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

_spec = importlib.util.spec_from_file_location("bob_test_tiny_hub", Path(__file__).with_name("tiny_hub.py"))
tiny_hub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_hub)
build, save = tiny_hub.build_pipeline, tiny_hub.save_pipeline

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def parts():
    return build()


@pytest.fixture(scope="module")
def cached(hub, parts):
    """The files that huggingface_hub leaves after downloading the tiny pipeline."""
    repository = hub / "models--me--painter"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    save(repository / "snapshots" / COMMIT, parts)
    return repository / "snapshots" / COMMIT


def painter(make_card, model="me/painter", preprocess=None, feature=None, **weights):
    feature = {"layer": "mid_block", **(feature or {})}
    return make_card("diffusers", model=model, preprocess=preprocess, feature=feature, **weights)


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def embed(backbone, images):
    with torch.inference_mode():
        return backbone.embed(images)


def reference(parts, images, ids, timestep):
    """The middle of the whole UNet, through the library's own forward passes."""
    vae, unet, text = parts
    seen = []
    hook = unet.mid_block.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    with torch.inference_mode():
        latents = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
        context = text(torch.tensor([ids])).last_hidden_state.expand(len(images), -1, -1)
        unet(latents, timestep, encoder_hidden_states=context)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("options", "ids", "timestep"),
    [
        ({}, [1, 2, 2, 2, 2, 2, 2], 0),
        ({"timestep": 250, "prompt": "a photo of a cat"}, [1, 3, 4, 5, 3, 6, 2], 250),
    ],
)
def test_the_feature_is_the_middle_of_the_whole_unet(options, ids, timestep, cached, parts, make_card, images):
    backbone = open_backbone(painter(make_card, options=options))
    middle = reference(parts, images, ids, timestep)
    torch.testing.assert_close(embed(backbone, images), middle.mean((2, 3)), rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.feature_maps(images)[-1], middle, rtol=1e-4, atol=1e-5)


def test_maps_are_those_of_the_down_blocks(cached, parts, make_card, images):
    backbone = open_backbone(painter(make_card))
    assert backbone.strides == [8, 16, 32, 64]
    _, unet, _ = parts
    seen = []
    hooks = [
        block.attentions[-1].register_forward_hook(lambda *arguments: seen.append(arguments[-1][0]))
        for block in unet.down_blocks[:3]
    ]
    reference(parts, images, [1, 2, 2, 2, 2, 2, 2], 0)
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        blocks, maps = backbone.layers(images), backbone.feature_maps(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 8, 8), (16, 4, 4), (32, 2, 2), (32, 1, 1)]
    assert len(blocks) == 5 and torch.equal(blocks[4].map, maps[3])
    for block, expected in zip(blocks, seen, strict=False):
        torch.testing.assert_close(block.map, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(block.pooled, expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        assert torch.equal(backbone.layers(images, [-1])[0].map, maps[3])


def test_nothing_is_drawn_at_random(cached, make_card, images):
    backbone = open_backbone(painter(make_card))
    assert torch.equal(embed(backbone, images), embed(backbone, images))
    again = open_backbone(painter(make_card))
    assert again.identity() == backbone.identity() and torch.equal(embed(again, images), embed(backbone, images))


def test_identity_tells_texts_and_timesteps_apart(cached, make_card):
    options = ({}, {"prompt": "cat"}, {"timestep": 1})
    found = [open_backbone(painter(make_card, options=chosen)) for chosen in options]
    assert len({backbone.weights_sha256() for backbone in found}) == 3
    assert found[0].code == {"diffusers": diffusers.__version__, "revision": COMMIT}


def test_the_input_lies_between_minus_one_and_one(cached, make_card):
    backbone = open_backbone(painter(make_card))
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert backbone.preprocess.normalize(ends)[0, 0, 0].tolist() == [-1, 1]
    assert backbone.preprocess.size == (64, 64)


def test_only_the_encoder_is_kept(cached, parts, make_card):
    backbone = open_backbone(painter(make_card))
    vae, unet, _ = parts
    kept = [vae.encoder, vae.quant_conv, unet.conv_in, unet.time_embedding, unet.down_blocks, unet.mid_block]
    assert backbone.parameter_count() == sum(p.numel() for part in kept for p in part.parameters())


def test_a_folder_with_torch_files(tmp_path, hub, parts, cached, make_card, images):
    save(tmp_path, parts, safe=False)
    backbone = open_backbone(painter(make_card, model=str(tmp_path)))
    torch.testing.assert_close(embed(backbone, images), embed(open_backbone(painter(make_card)), images))


def test_names_of_older_files_are_known(tmp_path, hub, cached, parts, make_card):
    """Stable Diffusion v1-4 was saved when diffusers called the VAE's projections otherwise."""
    from safetensors.torch import load_file, save_file

    save(tmp_path, parts)
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(new, old)
        tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
    found = open_backbone(painter(make_card, model=str(tmp_path)))
    assert found.weights_sha256() == open_backbone(painter(make_card)).weights_sha256()


def test_files_that_lack_something_are_refused(tmp_path, hub, parts, make_card, refused):
    from safetensors.torch import load_file, save_file

    save(tmp_path, parts)
    card = painter(make_card, model=str(tmp_path))
    for part, file in (("vae", None), ("unet", None), ("text_encoder", "model")):
        path = tmp_path / part / f"{file or 'diffusion_pytorch_model'}.safetensors"
        whole = load_file(path)
        key = next(key for key in whole if "down_blocks" in key or "layers" in key)
        save_file({k: t for k, t in whole.items() if k != key}, path, metadata={"format": "pt"})
        with refused(part, "lacks '"):
            open_backbone(card)
        save_file({**whole, key: torch.zeros(3)}, path, metadata={"format": "pt"})
        with refused(part):
            open_backbone(card)
        path.write_bytes(b"broken")
        with refused(part, "cannot be read"):
            open_backbone(card)
        path.unlink()
        with refused(f"no {part}/"):
            open_backbone(card)
        save_file(whole, path, metadata={"format": "pt"})
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    with refused("tokenizer"):
        open_backbone(card)
    (tmp_path / "unet" / "config.json").unlink()
    with refused("no unet/config.json"):
        open_backbone(card)


def test_wrong_cards_are_refused(cached, make_card, refused):
    for options, words in (
        ({"timesteps": 1}, ["'timesteps'", "timestep?"]),
        ({"timestep": -1}, ["-1"]),
        ({"timestep": "late"}, ["'late'"]),
        ({"architecture": "stable_diffusion_v2"}, ["stable_diffusion_v2", "stable_diffusion_v1?"]),
        ({"architecture": "stable_diffusion_v1"}, ["block_out_channels", "(8, 8, 16, 16)", "(128, 256, 512, 512)"]),
    ):
        with refused(*words):
            open_backbone(painter(make_card, options=options))
    with refused("mid_block", "pre_logits"):
        open_backbone(painter(make_card, feature={"layer": "pre_logits"}))
    with refused("mid_block", "token"):
        open_backbone(painter(make_card, feature={"pooling": "token"}))


def test_a_unet_that_needs_more_is_refused(tmp_path, hub, parts, make_card, refused):
    save(tmp_path, parts)
    path = tmp_path / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "class_embed_type": "timestep"}))
    with refused("class_embed_type"):
        open_backbone(painter(make_card, model=str(tmp_path)))


def test_without_network_and_cache(hub, make_card, refused):
    card = painter(make_card, model="nobody/painter")
    with refused("nobody/painter", "`hf download nobody/painter`", str(hub)):
        open_backbone(card)
    assert weights_status(card).startswith("not here")


def test_weights_status(cached, make_card):
    assert str(cached) in weights_status(painter(make_card))


def test_a_twin_of_a_cached_pipeline(cached, make_card, images):
    card = painter(make_card).random_twin()
    first, again = open_backbone(card), open_backbone(card)
    assert torch.equal(embed(first, images), embed(again, images))
    original = open_backbone(painter(make_card))
    assert first.parameter_count() == original.parameter_count()
    assert first.preprocess == original.preprocess and first.weights_sha256() != original.weights_sha256()
    assert first.model.context.shape == original.model.context.shape == (1, 7, 24)


@pytest.fixture(scope="module")
def stable_diffusion():
    return load_backbone_cards()["stable_diffusion_v1_4"]


def test_the_card_of_stable_diffusion_builds_without_a_file(hub, stable_diffusion):
    with torch.device("meta"):
        backbone = open_backbone(stable_diffusion.random_twin())
    assert backbone.parameter_count() == stable_diffusion.parameters
    assert backbone.width() == stable_diffusion.feature.width == 1280
    assert backbone.strides == [8, 16, 32, 64] and backbone.preprocess.size == (256, 256)
    assert backbone.model.context.shape == (1, 77, 768)
    maps = backbone.feature_maps(torch.zeros(1, 3, 256, 256, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [(320, 32, 32), (640, 16, 16), (1280, 8, 8), (1280, 4, 4)]


def test_the_card_of_stable_diffusion_says_where_the_feature_lies(stable_diffusion):
    assert stable_diffusion.feature == Feature(layer="mid_block", width=1280)
    assert stable_diffusion.weights.options["timestep"] == 0
