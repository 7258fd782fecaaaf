"""Preprocessing on uint8 tensors gives what timm's own transform gives on Pillow images."""

import math

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from bob.backbones.preprocess import Preprocess
from bob.cards import PreprocessOverride

# Bicubic and bilinear, center and squash, crop 0.875 to 1.15, the means of ImageNet, Inception and CLIP.
CHECKPOINTS = [
    "resnet18.tv_in1k",
    "resnet50.a1_in1k",
    "tf_efficientnet_lite0.in1k",
    "tf_efficientnetv2_b3.in21k_ft_in1k",
    "dm_nfnet_f0.dm_in1k",
    "vit_base_patch16_clip_224.openai",
    "vit_small_patch14_dinov2.lvd142m",
    "volo_d4_448.sail_in1k",
]
MODES = [
    {"input_size": size, "crop_mode": mode, "crop_pct": crop, "interpolation": interpolation}
    for size in [(3, 64, 64), (3, 96, 48), (3, 45, 77)]
    for mode in ["center", "squash", "border"]
    for crop, interpolation in [(0.875, "bicubic"), (1.0, "bilinear"), (0.9, "nearest")]
]
# (width, height): as it is, odd, tall, square, enlarged, one edge of the target's, very long.
SIZES = [(640, 427), (301, 199), (131, 333), (256, 256), (33, 57), (224, 500), (600, 23)]


def difference(ours: Preprocess, config, image):
    """Difference from timm in grey levels, 0 to 255, per channel and pixel."""
    theirs = create_transform(**config, is_training=False)(image)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    cropped = ours.crop(tensor)
    assert cropped.dtype == torch.uint8
    got = ours.normalize(cropped[None])[0]
    assert got.dtype == torch.float32
    assert got.shape == theirs.shape == (3, *ours.size)
    return ((got - theirs).abs() * 255 * torch.tensor(ours.std).view(3, 1, 1)).flatten()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_equals_timm_for_real_checkpoints(name, photos):
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    ours = Preprocess.from_timm(timm.get_pretrained_cfg(name).to_dict())
    for size in SIZES[:5]:
        differs = difference(ours, config, Image.fromarray(photos["china"]).resize(size))
        assert differs.mean() < 0.25, size
        assert differs.max() < 6.01, size


@pytest.mark.parametrize("fields", MODES, ids=lambda f: "-".join(str(v).replace("(3, ", "(") for v in f.values()))
@pytest.mark.parametrize("photo", ["china", "flower"])
def test_equals_timm_for_every_mode(fields, photo, photos):
    config = resolve_data_config(pretrained_cfg=fields)
    ours = Preprocess.from_timm(fields)
    for size in SIZES:
        differs = difference(ours, config, Image.fromarray(photos[photo]).resize(size))
        if ours.interpolation == "nearest":
            # Where a centre falls halfway between two pixels, rounding takes whole rows from one or the other.
            assert (differs > 2).float().mean() < 0.1, size
        else:
            assert differs.mean() < 0.25, size
            assert differs.max() < 6.01, size


def test_pixels_that_an_edge_of_one_pixel_leaves():
    image = torch.full((3, 1, 300), 9, dtype=torch.uint8)
    for mode in ("center", "squash", "border"):
        assert Preprocess(size=(8, 8), crop_mode=mode).crop(image).shape == (3, 8, 8)


def test_border_is_the_mean():
    ours = Preprocess(size=(8, 8), crop_fraction=1.0, crop_mode="border")
    cropped = ours.crop(torch.zeros(3, 4, 8, dtype=torch.uint8))
    assert cropped[:, 0, 0].tolist() == [round(255 * mean) for mean in ours.mean]
    assert cropped[:, 4, 4].tolist() == [0, 0, 0]


def test_normalize_against_torchvision():
    from torchvision.transforms.v2 import functional as F

    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    ours = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    torch.testing.assert_close(ours.normalize(images), F.normalize(images / 255, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    channels_last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.normalize(channels_last), ours.normalize(images), rtol=0, atol=0)


def test_normalize_leaves_its_input():
    for dtype in (torch.uint8, torch.float32):
        images = torch.randint(0, 256, (1, 3, 4, 4)).to(dtype).to(memory_format=torch.channels_last)
        before = images.clone()
        Preprocess().normalize(images)
        assert torch.equal(images, before)


def test_timm_defaults_fill_what_a_config_leaves_out():
    assert Preprocess.from_timm({"input_size": (3, 224, 224)}) == Preprocess()


def test_overrides_replace_field_by_field():
    base = Preprocess()
    assert base.overridden(PreprocessOverride()) == base
    assert base.overridden(PreprocessOverride(size=96)).size == (96, 96)
    assert base.overridden(PreprocessOverride(size=(96, 48))).size == (96, 48)
    every = PreprocessOverride(
        size=8, crop_fraction=0.5, crop_mode="border", interpolation="nearest", mean=(0, 0, 0), std=(1, 1, 1)
    )
    assert base.overridden(every) == Preprocess((8, 8), 0.5, "border", "nearest", (0, 0, 0), (1, 1, 1))


def test_as_dict_is_json_and_tells_every_field():
    import json

    plain = Preprocess(size=(8, 9)).as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["size"] == [8, 9] and set(plain) == set(Preprocess.__dataclass_fields__)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 224),
        ("size", (224,)),
        ("size", (0, 8)),
        ("size", (8.0, 8.0)),
        ("crop_fraction", 0),
        ("crop_fraction", math.nan),
        ("crop_mode", "centre"),
        ("interpolation", "lanczos"),
        ("mean", (0.5,)),
        ("mean", 0.5),
        ("std", (1, 1, 0)),
    ],
)
def test_a_wrong_field_is_named(field, value, refused):
    with refused(f"preprocess.{field}", repr(value)):
        Preprocess(**{field: value})


def test_a_timm_config_that_is_not_understood_is_refused(refused):
    with refused("preprocess.interpolation", "lanczos", "bicubic"):
        Preprocess.from_timm({"interpolation": "lanczos"})
