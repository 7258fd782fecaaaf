"""A backbone made for one size takes another as its library would, and is afterwards what it was."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.input_size import _mask, _stretched, resized
from bob.backbones.preprocess import Preprocess
from bob.backbones.timm import TimmBackbone

VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 64}
SWIN = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4), "img_size": 64, "window_size": 4}


def shaken(model, seed=3):
    """In eval mode, every parameter random: position tables often begin as zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def wrapped(make_card, model, kind=TimmBackbone, edge=64):
    return kind(make_card(model="test_vit"), model, Preprocess(size=(edge, edge)), code={})


def images(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def state(model):
    """All that a module and its parts hold."""
    return [{key: dict(v) if isinstance(v, dict) else v for key, v in vars(m).items()} for m in model.modules()]


def same(before, after):
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(
            old[key] is new[key] or old[key] == new[key] for key in old if key not in ("_buffers", "_parameters")
        )
        for store in ("_buffers", "_parameters"):
            assert all(old[store][key] is new[store][key] for key in old[store] | new[store])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", VIT),
        ("deit_tiny_distilled_patch16_224", VIT),
        ("vit_small_patch14_dinov2", {**VIT, "img_size": 56}),
        ("vit_small_patch14_reg4_dinov2", {**VIT, "img_size": 56}),
        ("vit_small_patch16_dinov3", VIT),
        ("eva02_tiny_patch14_224", {**VIT, "img_size": 56}),
        ("vit_base_patch16_siglip_224", VIT),
    ],
)
def test_positions_are_resampled_as_timm_does(name, options, make_card) -> None:
    model = shaken(timm.create_model(name, num_classes=0, **options))
    dynamic = timm.create_model(name, num_classes=0, dynamic_img_size=True, **options).eval()
    dynamic.load_state_dict(model.state_dict())
    edge = options["img_size"]
    size = (edge * 2, edge * 3)
    backbone, before = wrapped(make_card, model, edge=edge), state(model)
    with torch.no_grad():
        expected = dynamic.forward_intermediates(images(*size), indices=1, intermediates_only=True)[0]
        with resized(backbone, size):
            found = backbone.feature_maps(images(*size))[0]
            feature = backbone.embed(images(*size))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(feature, dynamic(images(*size)), rtol=0, atol=0)
    same(before, state(model))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_swin_keeps_its_windows(name, make_card) -> None:
    model = shaken(timm.create_model(name, num_classes=0, **SWIN))
    reference = timm.create_model(name, num_classes=0, **SWIN).eval()
    reference.load_state_dict(model.state_dict())
    reference.set_input_size((128, 192), window_size=[(4, 4), (4, 4), (4, 4), (2, 2)])
    backbone, before = wrapped(make_card, model), state(model)
    with torch.no_grad(), resized(backbone, (128, 192)):
        found = backbone.feature_maps(images(128, 192))
    same(before, state(model))
    expected = reference.forward_intermediates(images(128, 192), intermediates_only=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(8, 12), (7, 10), (3, 5), (5, 3), (4, 9)])
@pytest.mark.parametrize("shifts", [False, True])
def test_only_neighbours_see_each_other(grid, shifts) -> None:
    """By hand: two places of a window do if both are of the map, and as far apart in the map as in the window."""
    window = 4
    shift = [window // 2 if shifts and edge > window else 0 for edge in grid]
    mask = _mask(grid, (window, window), shift, torch.zeros(1))
    rows, columns = (-(-edge // window) for edge in grid)
    if mask is None:
        mask = torch.zeros(rows * columns, window**2, window**2)
    assert mask.shape == (rows * columns, window**2, window**2)

    def where(index, place):
        spot = [index // columns * window + place // window, index % columns * window + place % window]
        if any(s >= edge for s, edge in zip(spot, grid, strict=True)):
            return None
        return [(s + by) % edge for s, by, edge in zip(spot, shift, grid, strict=True)]

    for index in range(rows * columns):
        for a in range(window**2):
            for b in range(window**2):
                first, second = where(index, a), where(index, b)
                if first is None and second is None:
                    continue
                inside = (a // window - b // window, a % window - b % window)
                seen = (
                    first is not None and second is not None and (first[0] - second[0], first[1] - second[1]) == inside
                )
                assert (mask[index, a, b] == 0) == seen


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_a_map_smaller_than_its_window_ignores_the_padding(name, make_card) -> None:
    """A map of 1 x 1 in a window of 2 x 2: its only patch attends to itself alone, so that attention is its value."""
    model = shaken(timm.create_model(name, num_classes=0, **SWIN))
    block = model.layers[3].blocks[0]
    patch = images(1, 1)[:1, :1].expand(1, 96, 1, 1).permute(0, 2, 3, 1) * torch.linspace(-1, 1, 96)
    backbone = wrapped(make_card, model)
    with torch.no_grad(), resized(backbone, (32, 32)):
        found = block(patch)
        inside = block.norm1(patch) if name.startswith("swin_") else patch
        _, _, value = block.attn.qkv(inside).chunk(3, dim=-1)
        if name.startswith("swin_"):
            kept = patch + block.attn.proj(value)
            expected = kept + block.mlp(block.norm2(kept))
        else:
            value = nn.functional.linear(inside, block.attn.qkv.weight).chunk(3, dim=-1)[2] + block.attn.v_bias
            kept = patch + block.norm1(block.attn.proj(value))
            expected = kept + block.norm2(block.mlp(kept))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_relative_distances_are_stretched_as_in_beit() -> None:
    generator = torch.Generator().manual_seed(0)
    for own, new in [((4, 4), (8, 12)), ((14, 14), (50, 76)), ((4, 6), (7, 9))]:
        inner = (2 * own[0] - 1) * (2 * own[1] - 1)
        table = torch.randn(inner + 3, 2, generator=generator)
        count = (2 * new[0] - 1) * (2 * new[1] - 1) + 3
        theirs = resize_rel_pos_bias_table(table, new, (count, 2), own)
        rows, columns = (_stretched(2 * a - 1, 2 * b - 1) for a, b in zip(own, new, strict=True))
        ours = rows @ table[:inner].T.reshape(2, 2 * own[0] - 1, -1) @ columns.T
        torch.testing.assert_close(ours.flatten(1).T, theirs[:-3], rtol=1e-3, atol=1e-3)
    assert torch.equal(_stretched(7, 7), torch.eye(7))
    assert torch.equal(_stretched(7, 3), torch.eye(7)[2:5])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beit_base_patch16_224", VIT),
        ("beit_base_patch16_224", {**VIT, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
        ("vit_relpos_small_patch16_224", VIT),
        ("vit_relpos_small_patch16_rpn_224", VIT),
        ("vit_relpos_small_patch16_224", {**VIT, "rel_pos_type": "bias"}),
    ],
)
def test_relative_positions_span_the_new_grid(name, options, make_card) -> None:
    model = shaken(timm.create_model(name, num_classes=0, **options))
    reference = timm.create_model(name, num_classes=0, **options).eval()
    reference.load_state_dict(model.state_dict())
    reference.set_input_size((96, 128))
    backbone, before = wrapped(make_card, model), state(model)
    with resized(backbone, (96, 128)):
        found = backbone.feature_maps(images(96, 128))[0]
    same(before, state(model))
    expected = reference.forward_intermediates(images(96, 128), indices=1, intermediates_only=True)[0]
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    found.sum().backward()
    tables = [p for name, p in model.named_parameters() if "relative_position_bias_table" in name]
    assert all(table.grad is not None and table.grad.any() for table in tables)


class Positions(nn.Module):
    """A user's ViT stem: patches of 16 px and a table that fits 64 px only."""

    def __init__(self, shape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 24, 16, 16)
        self.pos = nn.Parameter(torch.ones(shape))

    def forward(self, images):
        maps = self.proj(images)
        if self.pos.ndim == 4:
            return maps + (self.pos if self.pos.shape[1] == 24 else self.pos.permute(0, 3, 1, 2))
        table = self.pos if self.pos.ndim == 3 else self.pos[None]
        return (maps.flatten(2) + table[:, 1:].transpose(1, 2)).unflatten(2, maps.shape[2:])


class Read(Backbone):
    """The output is the map."""

    strides = (16,)

    def feature_maps(self, images):
        return [self.model(images)]


@pytest.mark.parametrize("shape", [(1, 24, 4, 4), (1, 4, 4, 24), (1, 17, 24), (17, 24)])
def test_tables_of_anyone_are_resampled(shape, make_card) -> None:
    model = Positions(shape)
    backbone = wrapped(make_card, model, Read)
    with pytest.raises(RuntimeError), resized(backbone, (96, 160)):
        backbone.feature_maps(images(96, 160))
    with resized(backbone, (96, 160), tables=True):
        found = backbone.feature_maps(images(96, 160))[0]
    torch.testing.assert_close(found, model.proj(images(96, 160)) + 1)
    found.sum().backward()
    assert model.pos.grad.sum() == pytest.approx(2 * 24 * 6 * 10, rel=1e-4)


def test_torchvision_vit_takes_another_size(make_card) -> None:
    from torchvision.models import VisionTransformer

    from bob.backbones.hooks import HookedBackbone

    def build(size):
        return VisionTransformer(size, 16, 2, 2, 24, 48, num_classes=5).eval()

    model, reference = build(64), build(96)
    with torch.no_grad():
        model.encoder.pos_embedding[:, 1:] = 0.3
        values = {**model.state_dict(), "encoder.pos_embedding": torch.full((1, 37, 24), 0.3)}
        values["encoder.pos_embedding"][:, 0] = model.encoder.pos_embedding[:, 0]
        reference.load_state_dict(values)
        backbone = wrapped(make_card, model, HookedBackbone)
        before = state(model)
        with resized(backbone, (96, 96), tables=True):
            found = backbone.embed(images(96, 96))
        same(before, state(model))
        torch.testing.assert_close(found, reference(images(96, 96)))


@pytest.mark.parametrize("kind", ["vit", "data2vec-vision"])
def test_transformers_resample_by_themselves(kind, make_card, tmp_path) -> None:
    pytest.importorskip("transformers")
    from bob.backbones.sources import open_backbone

    spec = importlib.util.spec_from_file_location("bob_tiny_hub", Path(__file__).with_name("tiny_hub.py"))
    tiny_hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_hub)
    net = tiny_hub.build(kind)
    backbone = open_backbone(make_card("transformers", model=str(tiny_hub.save(net, tmp_path / kind))))
    with torch.no_grad(), resized(backbone, (96, 128)):
        found = backbone.feature_maps(images(96, 128))[0]
        own = net(pixel_values=images(96, 128), interpolate_pos_encoding=True, output_hidden_states=True)
    torch.testing.assert_close(found.flatten(2), own.hidden_states[-1][:, 1:].transpose(1, 2))


def test_an_error_inside_leaves_the_model_as_it_was(make_card) -> None:
    model = timm.create_model("beit_base_patch16_224", num_classes=0, **VIT)
    backbone, before = wrapped(make_card, model), state(model)
    with pytest.raises(RuntimeError), resized(backbone, (96, 96)):
        raise RuntimeError
    same(before, state(model))
