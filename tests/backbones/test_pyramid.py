"""From any backbone and images of any size to maps of strides 4, 8, 16 and 32."""

import copy
import math
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from torch import nn

from bob.backbones.levels import Levels, _resampled
from bob.backbones.pyramid import Maps, Pyramid
from bob.backbones.sources import open_backbone
from bob.backbones.timm import wrap

SMALL = {"size": 64}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
SWIN = {"embed_dim": 12, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 3, 4], "window_size": 4, "img_size": 64}
SIZES = [(64, 96), (97, 131)]
# Name -> timm model, its options, and the channels of the pyramid.
TIMM = {
    "test_resnet": ("test_resnet", {}, [32, 48, 192, 96]),
    "mobilenetv3": ("mobilenetv3_small_100", {}, [16, 24, 48, 576]),
    "efficientnet": ("test_efficientnet", {}, [24, 32, 48, 64]),
    "lite": ("tf_efficientnet_lite0", {}, [24, 40, 112, 320]),
    "resnet18": ("resnet18", {}, [64, 128, 256, 512]),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1]}, [40, 80, 160, 320]),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, [12, 24, 48, 96]),
    "swinv2": ("swinv2_tiny_window8_256", SWIN, [12, 24, 48, 96]),
    "vit": ("vit_tiny_patch16_224", VIT, [6, 12, 24, 24]),
    "vit8": ("vit_small_patch8_224", VIT, [12, 24, 24, 24]),
    "vit32": ("vit_small_patch32_224", VIT, [3, 6, 12, 24]),
    "deit": ("deit_tiny_distilled_patch16_224", VIT, [6, 12, 24, 24]),
    "dinov2": ("vit_small_patch14_reg4_dinov2", VIT, [6, 12, 24, 24]),
    "eva": ("eva02_tiny_patch14_224", VIT, [6, 12, 24, 24]),
    "beit": ("beit_base_patch16_224", VIT, [6, 12, 24, 24]),
    "cait": ("cait_xxs24_224", VIT, [6, 12, 24, 24]),
}
USER_CODE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, strides):
            super().__init__()
            wide = [3, *range(6, 6 + 2 * len(strides), 2)]
            steps = [b // a for a, b in zip([1, *strides], strides)]
            self.stages = nn.Sequential(*[
                nn.Sequential(nn.Conv2d(a, b, s, s), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1))
                for a, b, s in zip(wide, wide[1:], steps)
            ])

        def forward(self, images):
            return self.stages(images)

    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Conv2d(3, 24, 16, 16)
            self.pos_table = nn.Parameter(torch.randn(1, 16, 24))
            self.blocks = nn.Sequential(*[nn.TransformerEncoderLayer(24, 2, 48, batch_first=True) for _ in range(2)])

        def forward(self, images):
            tokens = self.proj(images).flatten(2).transpose(1, 2)
            return self.blocks(tokens + self.pos_table).mean(1)

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 6, 4, 4))
            self.mix = nn.Linear(16, 16)

        def forward(self, images):
            return self.mix(self.stages(images).flatten(2)).mean(2)

    def hierarchy(strides): return Net([int(s) for s in strides.split()])
    def vit(): return ViT()
    def dense(): return Dense()
    """


@pytest.fixture
def opened(make_card, write, tmp_path):
    """A function from a name to a new backbone, its input size 64 px (56 px for patches of 14)."""

    def open_(name, **options):
        if name in TIMM:
            model, settings, _ = TIMM[name]
            size = {"size": 56} if "14" in model else SMALL
            if "depths" in settings:  # a card's options hold no lists
                net = timm.create_model(model, num_classes=0, **settings)
                return wrap(make_card(model=model, preprocess=size), net)
            return open_backbone(make_card(model=model, pretrained=False, options=settings, preprocess=size))
        if name.startswith("tiny-"):
            open_clip.add_model_config(Path(__file__).parent / "open_clip_models")
            layer = {"layer": "image_embedding"}
            return open_backbone(make_card("open_clip", SMALL, layer, model=name, pretrained=False))
        if name.startswith("tv:"):
            model = f"{name[3:]}/IMAGENET1K_V1"
            return open_backbone(make_card("torchvision", SMALL, model=model, pretrained=False))
        file = write("user.py", USER_CODE)
        return open_backbone(make_card("custom", SMALL, model=f"{file}:{name}", options=options))

    return open_


def images(height, width, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def tensors(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def shapes(pyramid, size, count=2):
    return [
        (count, c, math.ceil(size[0] / s), math.ceil(size[1] / s))
        for c, s in zip(pyramid.channels, pyramid.strides, strict=True)
    ]


NAMES = [*TIMM, "tiny-vit", "tiny-resnet", "tiny-convnext", "tv:mobilenet_v3_small", "vit"]


@pytest.mark.parametrize("name", NAMES)
def test_any_size_end_to_end(name, opened) -> None:
    backbone = opened(name)
    weights = backbone.card.weights.model_copy(update={"pretrained": True})
    backbone.card = backbone.card.model_copy(update={"weights": weights})
    pyramid = Pyramid(backbone)
    assert pyramid.strides == [4, 8, 16, 32]
    assert name not in TIMM or pyramid.channels == TIMM[name][2]
    pyramid.train()
    statistics = {key: value for key, value in tensors(pyramid).items() if "running_" in key or "num_batches" in key}
    for size in SIZES:
        found = pyramid(images(*size))
        assert [tuple(map_.shape) for map_ in found] == shapes(pyramid, size)
    sum((map_ * torch.randn_like(map_)).sum() for map_ in found).backward()
    learning = [parameter for parameter in pyramid.backbone.parameters() if parameter.requires_grad]
    assert len(learning) > 5
    assert all(parameter.grad is not None for parameter in pyramid.parameters() if parameter.requires_grad)
    assert all(torch.equal(value, pyramid.state_dict()[key]) for key, value in statistics.items())


@pytest.mark.parametrize("name", NAMES)
def test_at_the_checkpoints_own_size_maps_are_its_own(name, opened) -> None:
    backbone = opened(name)
    before, keys = tensors(backbone), [sorted(map(str, vars(part))) for part in backbone.modules()]
    maps = Maps(backbone)
    again = Maps(backbone)
    own = images(*backbone.preprocess.size)
    with torch.no_grad():
        for found in (maps(own), again(own)):
            expected = backbone.feature_maps(own)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert maps.strides == backbone.strides
        assert maps.channels == [map_.shape[1] for map_ in expected]
        other = maps(images(97, 131))
        assert all(torch.equal(a, b) for a, b in zip(other, again(images(97, 131)), strict=True))
    after = tensors(backbone)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    # HookedBackbone and transformers learn their plan when first asked.
    assert keys[1:] == [sorted(map(str, vars(part))) for part in backbone.modules()][1:]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in backbone.modules())


@pytest.mark.parametrize("name", ["test_resnet", "swinv2", "beit", "vit"])
def test_frozen_backbones_stay_the_same_bits(name, opened) -> None:
    pyramid = Pyramid(opened(name), 16, frozen=True)
    before = tensors(pyramid.backbone)
    assert list(pyramid.learnt()) == ["own"]
    optimizer = torch.optim.SGD(pyramid.own.parameters(), 0.1)
    for _ in range(2):
        pyramid.train()
        sum(map_.square().mean() for map_ in pyramid(images(64, 96))).backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in pyramid.backbone.parameters())
    assert all(parameter.grad is not None for parameter in pyramid.own.parameters())
    assert not any(part.training for part in pyramid.backbone.modules())
    assert all(torch.equal(tensor, pyramid.backbone.state_dict()[key]) for key, tensor in before.items())


def test_weights_without_a_part_in_the_maps_take_no_gradient(opened) -> None:
    backbone = opened("tiny-vit")
    pyramid = Pyramid(backbone)
    learning = {name for name, parameter in pyramid.backbone.named_parameters() if parameter.requires_grad}
    assert "model.positional_embedding" in learning
    assert not any("ln_post" in name or name.startswith("dual.t") for name in learning)
    assert list(pyramid.learnt()) == ["backbone", "own"]


def test_of_a_cnn_nothing_is_new(opened) -> None:
    backbone = opened("test_resnet")
    own = images(64, 96)
    with torch.no_grad():
        expected = backbone.feature_maps(own)[1:]
        pyramid = Pyramid(backbone)
        assert not list(pyramid.own.parameters())
        assert not pyramid.plain
        assert all(torch.equal(a, b) for a, b in zip(pyramid(own), expected, strict=True))


def test_of_a_vit_it_is_the_simple_feature_pyramid(opened) -> None:
    """Structure and order as in ViTDet, written out."""
    backbone = opened("vit")
    pyramid = Pyramid(backbone, 8, norm=False)
    assert pyramid.plain
    assert pyramid.channels == [8, 8, 8, 8]
    kinds = {key: [type(layer).__name__ for layer in maker] for key, maker in pyramid.own.makers.items()}
    assert kinds == {
        "4": ["ConvTranspose2d", "LayerNorm2d", "GELU", "ConvTranspose2d"],
        "8": ["ConvTranspose2d"],
    }
    with torch.no_grad():
        last = backbone.feature_maps(images(64, 64))[0]
        first, norm, act, second = pyramid.own.makers["4"]
        made = [second(act(norm(first(last)))), pyramid.own.makers["8"][0](last), last, nn.MaxPool2d(2)(last)]
        expected = [
            norm3(conv3(norm1(conv1(map_))))
            for map_, (conv1, norm1, conv3, norm3) in zip(made, pyramid.own.outputs.values(), strict=True)
        ]
        for ours, theirs in zip(pyramid(images(64, 64)), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_maps_of_patch_14_stay_in_place() -> None:
    """A map that says where its patches' centres are says so after the change of stride."""
    size = (224, 150)
    rows, columns = (torch.arange(math.ceil(edge / 14)) * 14.0 + 7 for edge in size)
    there = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    found = _resampled(there, 14, 16, size)[0]
    assert found.shape == (2, 14, 10)
    centres = [torch.arange(n) * 16.0 + 8 for n in (14, 10)]
    expected = torch.stack(torch.meshgrid(*centres, indexing="ij"))
    torch.testing.assert_close(found[:, :13, :9], expected[:, :13, :9])
    assert torch.equal(_resampled(there, 14, 14, size), there)


@pytest.mark.parametrize(
    ("strides", "makers", "channels"),
    [
        ([8, 16], ["4"], [3, 6, 8, 8]),
        ([4, 32], ["16"], [6, 6, 4, 8]),
        ([16, 64], ["4", "8", "32"], [1, 3, 6, 4]),
        ([2], [], [6, 6, 6, 6]),
        ([7, 14, 28], ["4"], [3, 6, 8, 10]),
        ([4, 8, 16, 32, 64], [], [6, 8, 10, 12]),
    ],
)
def test_what_is_missing_is_made(strides, makers, channels) -> None:
    native = [6 + 2 * index for index in range(len(strides))]
    levels = Levels(strides, native, None, norm=False)
    assert list(levels.makers) == makers
    assert levels.channels == channels
    size = (97, 131)
    given = [torch.randn(1, c, *(math.ceil(e / s) for e in size)) for c, s in zip(native, strides, strict=True)]
    found = levels(given, size)
    assert [tuple(m.shape[1:]) for m in found] == [
        (c, *(math.ceil(e / s) for e in size)) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_user_code_with_other_strides(opened) -> None:
    pyramid = Pyramid(opened("hierarchy", strides="8 16"))
    assert pyramid.maps.strides == [8, 16]
    assert [tuple(map_.shape) for map_ in pyramid(images(97, 131))] == shapes(pyramid, (97, 131))


def test_what_fits_one_size_only_says_so(opened, refused, make_card) -> None:
    backbone = open_backbone(make_card(model="mixer_s32_224", pretrained=False, preprocess=SMALL))
    with refused("'mine' was made for 64 x 64 px and does not take images of any size"):
        Pyramid(backbone)
    with refused("does not take images of 96 x 64 px"):
        Maps(backbone, (96, 64))
    maps = Maps(backbone, (64, 64))
    assert torch.equal(maps(images(64, 64))[0], backbone.feature_maps(images(64, 64))[0])
    with pytest.raises(ValueError, match="64 x 64 px"):
        maps(images(64, 96))
    with refused("64 x 64 px"):
        Maps(opened("dense"))


def test_without_maps_or_gradients(opened, refused) -> None:
    from bob.catalogue import load_backbone_cards

    with refused("has no feature maps"):
        Pyramid(open_backbone(load_backbone_cards()["pixels"]))
    with refused("cannot be trained", "none of its parameters"):
        Pyramid(opened("test_resnet").requires_grad_(False))


def test_a_copy_is_one_of_its_own(opened) -> None:
    pyramid = Pyramid(opened("swinv2"))
    twin = copy.deepcopy(pyramid)
    assert twin.maps.backbone is twin.backbone is not pyramid.backbone
    with torch.no_grad():
        for parameter in twin.backbone.parameters():
            parameter.zero_()
        assert all(map_.any() for map_ in pyramid(images(64, 96)))


def test_half_precision_under_autocast(opened) -> None:
    for name in ("swinv2", "beit", "eva", "test_resnet"):
        pyramid = Pyramid(opened(name), 8)
        with torch.autocast("cpu", torch.bfloat16):
            found = pyramid(images(97, 131))
        assert all(map_.isfinite().all() for map_ in found)


@pytest.mark.parametrize("pretrained", [True, False])
def test_statistics_of_a_random_initialisation_are_learnt(opened, pretrained) -> None:
    backbone = opened("tv:mobilenet_v3_small")
    weights = backbone.card.weights.model_copy(update={"pretrained": pretrained})
    backbone.card = backbone.card.model_copy(update={"weights": weights})
    pyramid = Pyramid(backbone).train()
    before = {key: value.clone() for key, value in tensors(pyramid).items() if "running_" in key}
    pyramid(images(64, 96))
    moved = [key for key, value in before.items() if not torch.equal(value, pyramid.state_dict()[key])]
    assert bool(moved) is not pretrained
