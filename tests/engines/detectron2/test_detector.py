"""The detector's parts, beside detectron2's own and the other engine's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone import FPN, SimpleFeaturePyramid
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from bob.engines.detection.network import Detector as TorchvisionDetector
from bob.engines.detectron2.detector import PyramidBackbone, make_detector, make_pyramid


class Last(Backbone):
    """A ViT's last map after its norm, as detectron2's simple feature pyramid wants it."""

    def __init__(self, pyramid) -> None:
        super().__init__()
        self.maps, self.norm = pyramid.maps, pyramid.own.norms["16"]

    def forward(self, images):
        return {"last": self.norm(self.maps(images)[-1])}

    def output_shape(self):
        return {"last": ShapeSpec(channels=self.maps.channels[-1], stride=self.maps.strides[-1])}


def test_a_plain_vit_gets_the_layers_of_simple_feature_pyramid(open_tiny, recipe) -> None:
    pyramid = make_pyramid(open_tiny("vit_tiny_patch16_224"), replace(recipe, fpn_width=16), frozen=True)
    own = PyramidBackbone(pyramid, "p", LastLevelMaxPool())
    norm = {"norm": "LN", "top_block": LastLevelMaxPool()}
    theirs = SimpleFeaturePyramid(Last(pyramid), "last", 16, (4.0, 2.0, 1.0, 0.5), **norm)
    assert own.output_shape() == theirs.output_shape()
    mine = [p for level in _by_level(pyramid.own) for p in level]
    wanted = [p for level in (2, 3, 4, 5) for p in getattr(theirs, f"simfp_{level}").parameters()]
    assert [p.shape for p in mine] == [p.shape for p in wanted]
    with torch.no_grad():
        for a, b in zip(mine, wanted, strict=True):
            b.copy_(a)
        images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        for (name, a), (other, b) in zip(own(images).items(), theirs(images).items(), strict=True):
            assert name == other and torch.allclose(a, b, atol=1e-5)


def _by_level(levels):
    for stride in ("4", "8", "16", "32"):
        made = levels.makers[stride].parameters() if stride in levels.makers else ()
        yield [*made, *levels.outputs[stride].parameters()]


def test_others_get_its_feature_pyramid_network(open_tiny, recipe) -> None:
    detector = _make(open_tiny("mobilenetv3_small_050"), recipe)
    assert isinstance(detector.backbone, FPN)
    shapes = detector.backbone.output_shape()
    assert [shapes[f"p{level}"].stride for level in (2, 3, 4, 5, 6)] == [4, 8, 16, 32, 64]
    assert {shape.channels for shape in shapes.values()} == {recipe.fpn_width}


def _make(backbone, recipe, masks: bool = True):
    return make_detector(make_pyramid(backbone, recipe, frozen=False), 3, masks, recipe, backbone.preprocess)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("masks", [True, False])
def test_it_is_as_large_as_the_other_engines(open_tiny, recipe, name, masks) -> None:
    def count(network) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    theirs = TorchvisionDetector(open_tiny(name), 3, recipe, masks)
    assert count(_make(open_tiny(name), recipe, masks)) == count(theirs)


def test_images_are_normalised_as_the_checkpoint_wants_and_padded_with_the_mean(open_tiny, recipe) -> None:
    backbone = open_tiny("mobilenetv3_small_050")
    detector = _make(backbone, recipe)  # trains on crops of 96 x 96
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = detector.train().preprocess_image([{"image": image}])
    assert seen.tensor.shape == (1, 3, 96, 96) and seen.image_sizes == [(40, 50)]
    expected = backbone.preprocess.normalize(image[None])[0]
    assert torch.allclose(seen.tensor[0, :, :40, :50], expected, atol=1e-5)
    assert seen.tensor[0, :, 40:].abs().max() == 0 == seen.tensor[0, :, :, 50:].abs().max()
    assert detector.eval().preprocess_image([{"image": image}]).tensor.shape == (1, 3, 64, 64)
